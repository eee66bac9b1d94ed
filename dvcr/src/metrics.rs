//! What the server counts, for Prometheus. Names begin with `dvcr_`; counters end with `_total`.
//!
//! A [`Metrics`] is created once and shared; its fields are counters that any part increments directly. All of them may
//! be used concurrently.

use std::sync::atomic::AtomicU64;

use axum::http::Method;
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds of request durations in seconds: from a cached manifest to a disk over a slow line.
const REQUEST_SECONDS: [f64; 13] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0,
];

/// Upper bounds of fsync durations in seconds: from a drive with a protected cache to a disk that other work keeps busy.
const FSYNC_SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// Requests.
    pub http: HttpMetrics,
    /// Connections.
    pub connections: ConnectionMetrics,
    /// The chunk store.
    pub store: StoreMetrics,
    registry: std::sync::RwLock<Registry>,
}

/// Requests and their bodies.
#[derive(Debug)]
pub struct HttpMetrics {
    /// `dvcr_http_requests_total{endpoint, method, status}`: requests whose answer is complete or given up. Status 499 is
    /// a client that left before there was an answer.
    pub requests: Family<RequestLabels, Counter>,
    /// `dvcr_http_request_seconds{endpoint, method}`: from the request's header to its answer's last byte.
    pub seconds: RequestSeconds,
    /// `dvcr_http_requests_in_flight`: requests whose answer is not complete.
    pub in_flight: Gauge,
    /// `dvcr_http_received_bytes_total`: bytes of request bodies.
    pub received_bytes: Counter,
    /// `dvcr_http_sent_bytes_total`: bytes of answers' bodies.
    pub sent_bytes: Counter,
}

/// Durations by endpoint and method.
pub type RequestSeconds = Family<DurationLabels, Histogram, fn() -> Histogram>;

/// Connections and their end.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    /// `dvcr_connections`: open connections.
    pub open: Gauge,
    /// `dvcr_connections_accepted_total`.
    pub accepted: Counter,
    /// `dvcr_connections_refused_total`: closed at once, because as many as the setting allows were open for too long.
    pub refused: Counter,
    /// `dvcr_connections_stalled_total`: cut because the client read nothing for too long.
    pub stalled: Counter,
    /// `dvcr_tls_handshake_failures_total`.
    pub tls_failures: Counter,
    /// `dvcr_tls_reloads_total`: times that a changed certificate was taken.
    pub tls_reloads: Counter,
    /// `dvcr_tls_reload_failures_total`: times that a changed certificate could not be used; the old one stayed.
    pub tls_reload_failures: Counter,
}

/// The chunk store and its metadata. Incremented by the store.
#[derive(Debug)]
pub struct StoreMetrics {
    /// `dvcr_ingest_bytes_total`: logical bytes that were cut into chunks.
    pub ingest_bytes: Counter,
    /// `dvcr_ingest_chunks_total`: chunks that blobs were cut into, zero runs aside.
    pub ingest_chunks: Counter,
    /// `dvcr_dedup_hit_bytes_total`: logical bytes of chunks that were stored already.
    pub dedup_hit_bytes: Counter,
    /// `dvcr_dedup_hit_chunks_total`: chunks that were stored already.
    pub dedup_hit_chunks: Counter,
    /// `dvcr_zero_bytes_total`: logical bytes of zero runs, which take no space.
    pub zero_bytes: Counter,
    /// `dvcr_stored_new_bytes_total`: bytes that were appended to packs for new chunks, headers included.
    pub stored_new_bytes: Counter,
    /// `dvcr_logical_bytes`: sum of the lengths of all blobs, each counted once; refreshed when somebody asks for statistics.
    pub logical_bytes: Gauge,
    /// `dvcr_stored_bytes`: bytes that packs take on disk; refreshed likewise.
    pub stored_bytes: Gauge,
    /// `dvcr_cache_hits_total`: chunks that a read found decoded.
    pub cache_hits: Counter,
    /// `dvcr_cache_misses_total`: chunks that a read had to fetch and decode.
    pub cache_misses: Counter,
    /// `dvcr_cache_bytes`: bytes that the cache of decoded chunks holds.
    pub cache_bytes: Gauge,
    /// `dvcr_ingest_queue_depth`: chunks that wait for a worker.
    pub ingest_queue_depth: Gauge,
    /// `dvcr_ingest_memory_bytes`: memory that running uploads hold for bytes which are not yet stored.
    pub ingest_memory_bytes: Gauge,
    /// `dvcr_uploads_open`: upload sessions.
    pub uploads_open: Gauge,
    /// `dvcr_fsync_seconds`: how long making a pack durable took.
    pub fsync_seconds: Histogram,
    /// `dvcr_metadata_commits_total`: durable commits of the metadata; each may hold many transactions.
    pub metadata_commits: Counter,
    /// `dvcr_metadata_transactions_total`: transactions that were applied.
    pub metadata_transactions: Counter,
    /// `dvcr_metadata_conflicts_total`: transactions whose checks did not hold.
    pub metadata_conflicts: Counter,
    /// `dvcr_compression_level`: level at which new chunks are compressed now; lower when the workers fall behind.
    pub compression_level: Gauge,
    /// `dvcr_corrupt_chunks_total`: reads that found stored bytes damaged.
    pub corrupt_chunks: Counter<u64, AtomicU64>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            ingest_bytes: Counter::default(),
            ingest_chunks: Counter::default(),
            dedup_hit_bytes: Counter::default(),
            dedup_hit_chunks: Counter::default(),
            zero_bytes: Counter::default(),
            stored_new_bytes: Counter::default(),
            logical_bytes: Gauge::default(),
            stored_bytes: Gauge::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            cache_bytes: Gauge::default(),
            ingest_queue_depth: Gauge::default(),
            ingest_memory_bytes: Gauge::default(),
            uploads_open: Gauge::default(),
            fsync_seconds: Histogram::new(FSYNC_SECONDS),
            metadata_commits: Counter::default(),
            metadata_transactions: Counter::default(),
            metadata_conflicts: Counter::default(),
            compression_level: Gauge::default(),
            corrupt_chunks: Counter::default(),
        }
    }
}

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// What the path names: `blob`, `upload`, `manifest`...; `none` if nothing.
    pub endpoint: &'static str,
    /// Method; `other` if it is none that we know, for a label must not be a client's to invent.
    pub method: &'static str,
    /// Status code.
    pub status: u16,
}

/// Labels of a duration: one histogram for each status would be ten times as many series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    /// As in [`RequestLabels`].
    pub endpoint: &'static str,
    /// As in [`RequestLabels`].
    pub method: &'static str,
}

impl RequestLabels {
    /// Labels of a request.
    pub fn new(endpoint: &'static str, method: &Method, status: u16) -> Self {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method = known.into_iter().find(|known| method == known);
        Self {
            endpoint,
            method: method.unwrap_or("other"),
            status,
        }
    }

    /// Labels of its duration.
    pub fn without_status(&self) -> DurationLabels {
        DurationLabels {
            endpoint: self.endpoint,
            method: self.method,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let http = HttpMetrics {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            in_flight: Gauge::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
        };
        let connections = ConnectionMetrics::default();
        let store = StoreMetrics::default();
        let mut registry = Registry::with_prefix("dvcr");
        register_http(&mut registry, &http);
        register_connections(&mut registry, &connections);
        register_store(&mut registry, &store);
        Self {
            http,
            connections,
            store,
            registry: std::sync::RwLock::new(registry),
        }
    }

    /// Adds figures that somebody else counts, and that are read when somebody scrapes.
    pub fn add(&self, collector: Box<dyn Collector>) {
        self.registry
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .register_collector(collector);
    }

    /// The OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let registry = self
            .registry
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

fn register_http(registry: &mut Registry, metrics: &HttpMetrics) {
    let HttpMetrics {
        requests,
        seconds,
        in_flight,
        received_bytes,
        sent_bytes,
    } = metrics;
    registry.register(
        "http_requests",
        "Requests answered or given up",
        requests.clone(),
    );
    registry.register_with_unit(
        "http_request",
        "From a request's header to its answer's last byte",
        Unit::Seconds,
        seconds.clone(),
    );
    registry.register(
        "http_requests_in_flight",
        "Requests whose answer is not complete",
        in_flight.clone(),
    );
    bytes(
        registry,
        "http_received",
        "Bytes of request bodies",
        received_bytes,
    );
    bytes(
        registry,
        "http_sent",
        "Bytes of answers' bodies",
        sent_bytes,
    );
}

fn register_connections(registry: &mut Registry, metrics: &ConnectionMetrics) {
    let ConnectionMetrics {
        open,
        accepted,
        refused,
        stalled,
        tls_failures,
        tls_reloads,
        tls_reload_failures,
    } = metrics;
    registry.register("connections", "Open connections", open.clone());
    for (name, help, counter) in [
        ("connections_accepted", "Connections accepted", accepted),
        (
            "connections_refused",
            "Connections closed because too many were open",
            refused,
        ),
        (
            "connections_stalled",
            "Connections cut because the client read nothing",
            stalled,
        ),
        (
            "tls_handshake_failures",
            "TLS handshakes that failed",
            tls_failures,
        ),
        ("tls_reloads", "Changed certificates taken", tls_reloads),
        (
            "tls_reload_failures",
            "Changed certificates that could not be used",
            tls_reload_failures,
        ),
    ] {
        registry.register(name, help, counter.clone());
    }
}

fn register_store(registry: &mut Registry, metrics: &StoreMetrics) {
    let StoreMetrics {
        ingest_bytes,
        ingest_chunks,
        dedup_hit_bytes,
        dedup_hit_chunks,
        zero_bytes,
        stored_new_bytes,
        logical_bytes,
        stored_bytes,
        cache_hits,
        cache_misses,
        cache_bytes,
        ingest_queue_depth,
        ingest_memory_bytes,
        uploads_open,
        fsync_seconds,
        metadata_commits,
        metadata_transactions,
        metadata_conflicts,
        compression_level,
        corrupt_chunks,
    } = metrics;
    bytes(
        registry,
        "ingest",
        "Logical bytes cut into chunks",
        ingest_bytes,
    );
    bytes(
        registry,
        "dedup_hit",
        "Logical bytes of chunks stored already",
        dedup_hit_bytes,
    );
    bytes(registry, "zero", "Logical bytes of zero runs", zero_bytes);
    bytes(
        registry,
        "stored_new",
        "Bytes appended to packs for new chunks",
        stored_new_bytes,
    );
    for (name, help, counter) in [
        (
            "ingest_chunks",
            "Chunks that blobs were cut into",
            ingest_chunks,
        ),
        (
            "dedup_hit_chunks",
            "Chunks stored already",
            dedup_hit_chunks,
        ),
        ("cache_hits", "Chunks that a read found decoded", cache_hits),
        (
            "cache_misses",
            "Chunks that a read had to decode",
            cache_misses,
        ),
        (
            "metadata_commits",
            "Durable commits of the metadata",
            metadata_commits,
        ),
        (
            "metadata_transactions",
            "Metadata transactions applied",
            metadata_transactions,
        ),
        (
            "metadata_conflicts",
            "Metadata transactions whose checks did not hold",
            metadata_conflicts,
        ),
        (
            "corrupt_chunks",
            "Reads that found stored bytes damaged",
            corrupt_chunks,
        ),
    ] {
        registry.register(name, help, counter.clone());
    }
    for (name, help, gauge) in [
        ("logical", "Sum of the lengths of all blobs", logical_bytes),
        ("stored", "Bytes that packs take", stored_bytes),
        ("cache", "Bytes of decoded chunks in memory", cache_bytes),
        (
            "ingest_memory",
            "Memory that running uploads hold",
            ingest_memory_bytes,
        ),
    ] {
        registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
    }
    for (name, help, gauge) in [
        (
            "ingest_queue_depth",
            "Chunks that wait for a worker",
            ingest_queue_depth,
        ),
        ("uploads_open", "Upload sessions", uploads_open),
        (
            "compression_level",
            "Level at which new chunks are compressed",
            compression_level,
        ),
    ] {
        registry.register(name, help, gauge.clone());
    }
    registry.register_with_unit(
        "fsync",
        "How long making a pack durable took",
        Unit::Seconds,
        fsync_seconds.clone(),
    );
}

fn bytes(registry: &mut Registry, name: &str, help: &str, counter: &Counter) {
    registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let metrics = Metrics::new();
        let labels = RequestLabels::new("blob", &Method::GET, 206);
        metrics.http.requests.get_or_create(&labels).inc();
        metrics
            .http
            .seconds
            .get_or_create(&labels.without_status())
            .observe(0.002);
        metrics.http.received_bytes.inc_by(7);
        metrics.store.fsync_seconds.observe(0.1);
        let text = metrics.encode();
        for line in [
            "dvcr_http_requests_total{endpoint=\"blob\",method=\"GET\",status=\"206\"} 1",
            "dvcr_http_request_seconds_count{endpoint=\"blob\",method=\"GET\"} 1",
            "dvcr_http_received_bytes_total 7",
            "dvcr_http_requests_in_flight 0",
            "dvcr_connections 0",
            "dvcr_dedup_hit_bytes_total 0",
            "dvcr_dedup_hit_chunks_total 0",
            "dvcr_logical_bytes 0",
            "dvcr_stored_bytes 0",
            "dvcr_cache_bytes 0",
            "dvcr_fsync_seconds_count 1",
            "dvcr_metadata_commits_total 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_client_cannot_invent_labels() {
        let method = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(RequestLabels::new("none", &method, 405).method, "other");
    }
}
