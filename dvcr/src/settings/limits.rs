//! Bounds on what one client, or all of them, may take.

use dvcr_core::oci::MANIFEST_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::{Bytes, Time, error::Faults};

/// Bounds on what one client, or all of them, may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Most open connections; more wait in the kernel's queue until one closes. Default 4,096; 1 to 1,000,000. Each takes about 20 KiB
    /// when idle.
    pub connections: usize,
    /// Most requests at once; more get 429. Default 1,024; 1 to 1,000,000.
    pub requests: usize,
    /// Longest path and query; longer ones get 414. Default 16 KiB; 4 to 60 KiB. 100 tags of one manifest fit.
    pub uri_bytes: Bytes,
    /// Longest header of a request; longer ones get 431. Default 64 KiB; 8 KiB to 512 KiB. Tokens of identity providers
    /// reach 16 KiB.
    pub header_bytes: Bytes,
    /// Longest manifest; longer ones get 413. Default and most 8 MiB; at least 4 MiB, which the specification asks for.
    pub manifest_bytes: Bytes,
    /// Longest body of one blob request; longer ones get 413. Default 16 TiB; 1 MiB to 1,024 TiB.
    pub blob_bytes: Bytes,
    /// Longest time that a TLS handshake, or the header of a request, may take. Default 20 s; 1 s to 10 min.
    pub header_time: Time,
    /// Longest silence of a client inside a request's body; then 408. Default 60 s; 1 s to 1 h.
    pub body_stall: Time,
    /// Longest time that a client may read nothing of its answer; then its connection is cut. Default 60 s; 1 s to 1 h.
    pub answer_stall: Time,
    /// How long a connection may wait for its next request. Default 2 min; 1 s to 1 day. Longer than that of a proxy in
    /// front, or the proxy meets closed connections.
    pub idle: Time,
    /// Shortest chunk that clients are asked to send, as `OCI-Chunk-Min-Length`; shorter ones are taken. Default 1 MiB; 1 B to
    /// 1 GiB. Each request of a chunked upload ends with an fsync, which longer chunks make rare.
    pub chunk_min_bytes: Bytes,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            connections: 4_096,
            requests: 1_024,
            uri_bytes: Bytes::kib(16),
            header_bytes: Bytes::kib(64),
            manifest_bytes: Bytes(MANIFEST_BYTES_MAX as u64),
            blob_bytes: Bytes::tib(16),
            header_time: Time::seconds(20),
            body_stall: Time::seconds(60),
            answer_stall: Time::seconds(60),
            idle: Time::seconds(120),
            chunk_min_bytes: Bytes::mib(1),
        }
    }
}

impl LimitSettings {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Self {
            connections,
            requests,
            uri_bytes,
            header_bytes,
            manifest_bytes,
            blob_bytes,
            header_time,
            body_stall,
            answer_stall,
            idle,
            chunk_min_bytes,
        } = *self;
        let (second, hour, day) = (Time::seconds(1), Time::hours(1), Time::hours(24));
        let manifest_bytes_max = Bytes(MANIFEST_BYTES_MAX as u64);
        faults.bound("limits.connections", connections, 1..=1_000_000);
        faults.bound("limits.requests", requests, 1..=1_000_000);
        // hyper takes no longer target than 65,534 bytes, and closes the connection without an OCI answer.
        faults.bound(
            "limits.uri_bytes",
            uri_bytes,
            Bytes::kib(4)..=Bytes::kib(60),
        );
        // The read buffer of 1 MiB bounds what hyper parses.
        faults.bound(
            "limits.header_bytes",
            header_bytes,
            Bytes::kib(8)..=Bytes::kib(512),
        );
        faults.bound(
            "limits.manifest_bytes",
            manifest_bytes,
            Bytes::mib(4)..=manifest_bytes_max,
        );
        faults.bound(
            "limits.blob_bytes",
            blob_bytes,
            Bytes::mib(1)..=Bytes::tib(1_024),
        );
        faults.bound(
            "limits.header_time",
            header_time,
            second..=Time::seconds(600),
        );
        faults.bound("limits.body_stall", body_stall, second..=hour);
        faults.bound("limits.answer_stall", answer_stall, second..=hour);
        faults.bound("limits.idle", idle, second..=day);
        faults.bound(
            "limits.chunk_min_bytes",
            chunk_min_bytes,
            Bytes(1)..=Bytes::gib(1),
        );
    }
}
