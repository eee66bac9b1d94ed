//! The sections of the settings but `limits`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Bytes, Time, error::Faults};

/// Longest time between two runs of what runs again and again.
const INTERVAL_MAX: Time = Time::hours(7 * 24);

/// When and how hard garbage is collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcSettings {
    /// Time between two collections. Default 5 min; 10 ms to 7 days.
    pub interval: Time,
    /// How long what was deleted stays before its space is given back. Default 1 h; 0 to 30 days.
    pub grace: Time,
    /// Dead bytes that may stay in packs, in percent of the live ones. Default 10; 1 to 100. Half as many cost about twice
    /// the copying.
    pub unused_percent: usize,
    /// Most of all stored bytes that one collection removes by itself, in percent. Default 50; 1 to 100. Below 64 GiB in all it
    /// does not matter. A collection that would remove more does nothing and says so.
    pub removed_percent: usize,
}

impl Default for GcSettings {
    fn default() -> Self {
        Self {
            interval: Time::seconds(300),
            grace: Time::hours(1),
            unused_percent: 10,
            removed_percent: 50,
        }
    }
}

impl GcSettings {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Self {
            interval,
            grace,
            unused_percent,
            removed_percent,
        } = *self;
        faults.bound("gc.interval", interval, Time::millis(10)..=INTERVAL_MAX);
        faults.bound("gc.grace", grace, Time::seconds(0)..=super::MONTH);
        faults.bound("gc.unused_percent", unused_percent, 1..=100);
        faults.bound("gc.removed_percent", removed_percent, 1..=100);
    }
}

/// When the metadata that packs do not have is written beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Time between two checkpoints; what is newer than the last one is lost with the metadata. One is taken at shutdown, too.
    /// Default 1 h; 1 min to 7 days.
    pub interval: Time,
    /// Checkpoints that are kept, the newest; one that is more than a day old stays besides. Default 4; 1 to 1,000.
    pub keep: usize,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            interval: Time::hours(1),
            keep: 4,
        }
    }
}

impl CheckpointSettings {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Self { interval, keep } = *self;
        faults.bound(
            "checkpoint.interval",
            interval,
            Time::seconds(60)..=INTERVAL_MAX,
        );
        faults.bound("checkpoint.keep", keep, 1..=1_000);
    }
}

/// How fast stored bytes are verified in the background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubSettings {
    /// Bytes that are read and verified in an hour. Default 1,536 MiB, which is 1 TiB in a month; 0 to 1,024 TiB. 0 turns it off.
    pub bytes_per_hour: Bytes,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self {
            bytes_per_hour: Bytes::mib(1536),
        }
    }
}

impl ScrubSettings {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Self { bytes_per_hour } = *self;
        faults.bound(
            "scrub.bytes_per_hour",
            bytes_per_hour,
            Bytes(0)..=Bytes::tib(1_024),
        );
    }
}

/// Where the certificate is. Without both fields the server speaks plain HTTP. The files are read again when they change and
/// on SIGHUP, without dropping connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file with the certificate, then those of its issuers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Self { certificate, key } = self;
        if certificate.is_some() != key.is_some() {
            faults.tell("tls.certificate and tls.key go together: set both or neither");
        }
    }

    /// Certificate and key, if HTTPS is on.
    #[must_use]
    pub fn files(&self) -> Option<(&Path, &Path)> {
        Some((self.certificate.as_deref()?, self.key.as_deref()?))
    }
}

/// Log lines go to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Form of a line.
    pub format: LogFormat,
    /// What is logged, as `level` or `module=level` separated by commas. Default `info`; `info,dvcr::access=warn` silences the
    /// access log.
    pub filter: String,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            filter: "info".to_owned(),
        }
    }
}

impl LogSettings {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Self { format: _, filter } = self;
        if !crate::logging::is_filter(filter) {
            faults.tell(format!(
                "log.filter {filter:?} is no filter: write for example info,dvcr::access=warn"
            ));
        }
    }
}
