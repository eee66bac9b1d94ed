//! Every knob of the server, with unit, default and bounds.
//!
//! Three layers, later ones over earlier ones: a TOML file (`--config` or `DVCR_CONFIG`), environment variables, flags.
//! Each key has a variable: `DVCR_` and the key in upper case with `_` for the dot, such as `DVCR_LIMITS_CONNECTIONS`.
//! Unknown keys are errors. Unknown variables are not, because Kubernetes sets some like `DVCR_SERVICE_HOST` by itself when
//! a service is called dvcr; no key may ever collide with those (`*_SERVICE_*`, `*_PORT*`).
//!
//! Settings are plain values. Whoever is configured takes the values it needs; nothing else reads this.

mod units;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use dvcr_core::oci::MANIFEST_BYTES_MAX;
use serde::{Deserialize, Serialize};

pub use self::units::{Bytes, Time};
use crate::registry::{immutable::ImmutableRule, policy::SparseRule, retention::RetentionRule};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address and port to listen on. Default `127.0.0.1:5000`. Anything but loopback needs access control, or
    /// `allow_anonymous`.
    pub listen: SocketAddr,
    /// Directory for everything that is stored; created if absent. Default `./dvcr-data`. One server at a time uses it.
    pub data: PathBuf,
    /// Who may do what without logging in.
    pub allow_anonymous: AllowAnonymous,
    /// Memory for decoded chunks, so that an image which many nodes pull is decoded once. Default 256 MiB; 0 to 1 TiB.
    pub cache_bytes: Bytes,
    /// Memory for pages of the metadata database. Default 64 MiB; 4 MiB to 1 TiB. Reads beyond it go to the kernel's cache.
    pub meta_cache_bytes: Bytes,
    /// Memory that one upload may take for bytes on their way to disk. Default 16 MiB; 4 MiB to 1 GiB. Less makes a single
    /// push slower, because fewer chunks are compressed at once.
    pub upload_memory_bytes: Bytes,
    /// Memory that all uploads may take together. Default 64 MiB; at least `upload_memory_bytes`, at most 64 GiB. Uploads
    /// beyond it wait, and their clients with them.
    pub all_uploads_memory_bytes: Bytes,
    /// Room on the device that uploads never take; they get 507 before. Default 256 MiB; 0 to 1 TiB. Without it a full disk
    /// could not be emptied: deleting and collecting garbage write metadata first, and a repack needs room for a whole pack
    /// (256 MiB) before it frees any.
    pub reserve_bytes: Bytes,
    /// How long an upload session lives without a request. Default 24 h; 1 min to 30 days.
    pub upload_expiry: Time,
    /// How long a blob that no manifest refers to is protected after it was pushed, mounted or asked about. Default 1 h; 1 s to
    /// 30 days. Half of it must outlast the slowest push of one image, from its first blob to its manifest: pushes that take
    /// longer fail. Less than a minute is for tests, and the log says so.
    pub lease: Time,
    /// How long requests may go on after SIGTERM before they are cut. Default 30 s; 0 to 1 h. Keep it below the pod's
    /// `terminationGracePeriodSeconds`.
    pub drain: Time,
    /// Which manifests may refer to content that their repository does not hold; the first rule that matches decides.
    /// Default: none may. `DVCR_SPARSE` and `--sparse` set one rule for all repositories.
    pub sparse: Vec<SparseRule>,
    /// Which tags may not be moved to another manifest, nor be deleted unless a rule says so; the strictest rule that fits decides.
    /// Default: none.
    pub immutable: Vec<ImmutableRule>,
    /// Which tags and untagged manifests go by themselves; the first rule that fits a repository decides. Default: none do.
    pub retention: Vec<RetentionRule>,
    /// Garbage collection.
    pub gc: GcSettings,
    /// Snapshots of the metadata beside the packs.
    pub checkpoint: CheckpointSettings,
    /// Verification of what is stored.
    pub scrub: ScrubSettings,
    /// Certificate and key, for HTTPS.
    pub tls: TlsSettings,
    /// Bounds on clients.
    pub limits: LimitSettings,
    /// Log lines.
    pub log: LogSettings,
}

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

/// When the metadata that packs do not have is written beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Time between two checkpoints; what is newer than the last one is lost with the metadata. One is taken at shutdown, too.
    /// Default 1 h; 1 min to 7 days.
    pub interval: Time,
    /// Checkpoints that are kept. Default 4; 1 to 1,000.
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

/// What a client that did not log in may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowAnonymous {
    /// Everything, but from this machine only: the server refuses to listen on other addresses than loopback.
    #[default]
    LoopbackOnly,
    /// Everything, from anywhere that reaches the address.
    EveryoneMayReadAndWrite,
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

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5_000)),
            data: PathBuf::from("./dvcr-data"),
            allow_anonymous: AllowAnonymous::default(),
            cache_bytes: Bytes::mib(256),
            meta_cache_bytes: Bytes::mib(64),
            upload_memory_bytes: Bytes::mib(16),
            all_uploads_memory_bytes: Bytes::mib(64),
            reserve_bytes: Bytes::mib(256),
            upload_expiry: Time::hours(24),
            lease: Time::hours(1),
            drain: Time::seconds(30),
            sparse: Vec::new(),
            immutable: Vec::new(),
            retention: Vec::new(),
            gc: GcSettings::default(),
            checkpoint: CheckpointSettings::default(),
            scrub: ScrubSettings::default(),
            tls: TlsSettings::default(),
            limits: LimitSettings::default(),
            log: LogSettings::default(),
        }
    }
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

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            filter: "info".to_owned(),
        }
    }
}

/// Every key that a variable or `--set` can name, in the order of the file.
pub const KEYS: [&str; 36] = [
    "listen",
    "data",
    "allow_anonymous",
    "cache_bytes",
    "meta_cache_bytes",
    "upload_memory_bytes",
    "all_uploads_memory_bytes",
    "reserve_bytes",
    "upload_expiry",
    "lease",
    "drain",
    "sparse",
    "immutable",
    "retention",
    "gc.interval",
    "gc.grace",
    "gc.unused_percent",
    "gc.removed_percent",
    "checkpoint.interval",
    "checkpoint.keep",
    "scrub.bytes_per_hour",
    "tls.certificate",
    "tls.key",
    "limits.connections",
    "limits.requests",
    "limits.uri_bytes",
    "limits.header_bytes",
    "limits.manifest_bytes",
    "limits.blob_bytes",
    "limits.header_time",
    "limits.body_stall",
    "limits.answer_stall",
    "limits.idle",
    "limits.chunk_min_bytes",
    "log.format",
    "log.filter",
];

/// Longest settings file. A thousand sparse rules take 60 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there are no usable settings. The text says where, and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("read settings file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is too long to be one.
    #[error("settings file {} is longer than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// The file is not TOML, or has an unknown key or a value of the wrong kind.
    #[error("settings file {}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        message: String,
    },
    /// A variable or flag cannot be used.
    #[error("{source_name}: {message}")]
    Override {
        /// The variable or flag.
        source_name: String,
        /// What is wrong with it.
        message: String,
    },
    /// Values that cannot work, each in one line.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// A list as it would stand in the file.
fn list(text: &str) -> Option<toml::Value> {
    let mut table: toml::Table = toml::from_str(&format!("list = {text}")).ok()?;
    let list = table.remove("list")?;
    // Text with line ends could say more than one thing.
    (table.is_empty() && list.is_array()).then_some(list)
}

/// The variable of a key.
pub fn variable(key: &str) -> String {
    format!("DVCR_{}", key.replace('.', "_").to_uppercase())
}

/// Reads all layers and checks them. `flags` are keys and values, later ones over earlier ones.
pub fn load(
    file: Option<&Path>,
    environment: impl Fn(&str) -> Option<String>,
    flags: &[(String, String)],
) -> Result<Settings, SettingsError> {
    let mut settings = file.map_or_else(|| Ok(Settings::default()), read)?;
    for key in KEYS {
        let name = variable(key);
        if let Some(text) = environment(&name) {
            settings = settings.with(key, &text, &name)?;
        }
    }
    for (key, text) in flags {
        settings = settings.with(key, text, &format!("flag for {key}"))?;
    }
    settings.check()?;
    Ok(settings)
}

fn read(path: &Path) -> Result<Settings, SettingsError> {
    use std::io::Read as _;
    let failed = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let len = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if len as u64 > FILE_BYTES_MAX {
        return Err(SettingsError::TooLong(path.to_owned()));
    }
    toml::from_str(&text).map_err(|error| SettingsError::File {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

impl Settings {
    /// The settings with one value replaced. `source_name` is for the error.
    fn with(&self, key: &str, text: &str, source_name: &str) -> Result<Self, SettingsError> {
        let failed = |message: String| SettingsError::Override {
            source_name: source_name.to_owned(),
            message,
        };
        if !KEYS.contains(&key) {
            return Err(failed(format!(
                "unknown setting {key:?}; known are {}",
                KEYS.join(", ")
            )));
        }
        if key == "sparse" {
            // A list of rules does not fit into a variable: one rule for all.
            let mut settings = self.clone();
            settings.sparse = vec![SparseRule {
                repository: "**".to_owned(),
                sparse: text.parse().map_err(failed)?,
            }];
            return Ok(settings);
        }
        let mut table = toml::Table::try_from(self).map_err(|error| failed(error.to_string()))?;
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let section = if section.is_empty() {
            &mut table
        } else {
            table
                .entry(section)
                .or_insert_with(|| toml::Table::new().into())
                .as_table_mut()
                .expect("the settings' dotted keys are of sections")
        };
        let value =
            match section.get(name) {
                Some(toml::Value::Array(_)) => list(text)
                    .ok_or_else(|| failed(format!("{text:?} is no TOML list of rules")))?,
                Some(toml::Value::Integer(_)) => text
                    .trim()
                    .parse::<i64>()
                    .map(toml::Value::Integer)
                    .map_err(|_| failed(format!("{text:?} is no whole number")))?,
                _ => toml::Value::String(text.to_owned()),
            };
        section.insert(name.to_owned(), value);
        table
            .try_into()
            .map_err(|error: toml::de::Error| failed(error.message().to_owned()))
    }

    /// The settings as a file that says the same.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Certificate and key, if HTTPS is on.
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        let TlsSettings { certificate, key } = &self.tls;
        Some((certificate.as_deref()?, key.as_deref()?))
    }

    /// Checks bounds and what must go together. All that is wrong is reported at once.
    pub fn check(&self) -> Result<(), SettingsError> {
        let Self {
            listen,
            data,
            allow_anonymous,
            cache_bytes,
            meta_cache_bytes,
            upload_memory_bytes,
            all_uploads_memory_bytes,
            reserve_bytes,
            upload_expiry,
            lease,
            drain,
            sparse,
            immutable,
            retention,
            gc,
            checkpoint,
            scrub,
            tls,
            limits,
            log,
        } = self;
        let GcSettings {
            interval,
            grace,
            unused_percent,
            removed_percent,
        } = gc;
        let LimitSettings {
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
        } = limits;
        let mut faults = Faults::default();

        if !listen.ip().is_loopback() && *allow_anonymous == AllowAnonymous::LoopbackOnly {
            faults.0.push(format!(
                "refusing to listen on {listen}: everyone who reaches that address could read, overwrite and delete every image, \
                 because nothing asks who they are. Listen on 127.0.0.1 or [::1] and put a proxy with access control in front; \
                 or, if that is what you want, say so with --allow-anonymous everyone-may-read-and-write \
                 (DVCR_ALLOW_ANONYMOUS, or allow_anonymous in the settings file)"
            ));
        }
        if data.as_os_str().is_empty() {
            faults.0.push("data must name a directory".to_owned());
        }

        let day = Time::hours(24);
        let month = Time::hours(30 * 24);
        let minute = Time::seconds(60);
        faults.bound("cache_bytes", *cache_bytes, Bytes(0), Bytes::tib(1));
        faults.bound(
            "meta_cache_bytes",
            *meta_cache_bytes,
            Bytes::mib(4),
            Bytes::tib(1),
        );
        faults.bound(
            "upload_memory_bytes",
            *upload_memory_bytes,
            Bytes::mib(4),
            Bytes::gib(1),
        );
        faults.bound(
            "all_uploads_memory_bytes",
            *all_uploads_memory_bytes,
            *upload_memory_bytes,
            Bytes::gib(64),
        );
        faults.bound("reserve_bytes", *reserve_bytes, Bytes(0), Bytes::tib(1));
        faults.bound("upload_expiry", *upload_expiry, minute, month);
        let second = Time::seconds(1);
        faults.bound("lease", *lease, second, month);
        let week = Time::hours(7 * 24);
        faults.bound("gc.interval", *interval, Time::millis(10), week);
        faults.bound("gc.grace", *grace, Time::seconds(0), month);
        faults.bound("gc.unused_percent", *unused_percent, 1, 100);
        faults.bound("gc.removed_percent", *removed_percent, 1, 100);
        faults.bound(
            "checkpoint.interval",
            checkpoint.interval,
            minute,
            Time::hours(7 * 24),
        );
        faults.bound("checkpoint.keep", checkpoint.keep, 1, 1_000);
        faults.bound(
            "scrub.bytes_per_hour",
            scrub.bytes_per_hour,
            Bytes(0),
            Bytes::tib(1_024),
        );
        faults.bound("drain", *drain, Time::seconds(0), Time::hours(1));
        faults.bound("limits.connections", *connections, 1, 1_000_000);
        faults.bound("limits.requests", *requests, 1, 1_000_000);
        // hyper takes no longer target than 65,534 bytes, and closes the connection without an OCI answer.
        faults.bound(
            "limits.uri_bytes",
            *uri_bytes,
            Bytes::kib(4),
            Bytes::kib(60),
        );
        // The read buffer of 1 MiB bounds what hyper parses.
        faults.bound(
            "limits.header_bytes",
            *header_bytes,
            Bytes::kib(8),
            Bytes::kib(512),
        );
        faults.bound(
            "limits.manifest_bytes",
            *manifest_bytes,
            Bytes::mib(4),
            Bytes(MANIFEST_BYTES_MAX as u64),
        );
        faults.bound(
            "limits.blob_bytes",
            *blob_bytes,
            Bytes::mib(1),
            Bytes::tib(1_024),
        );
        faults.bound(
            "limits.header_time",
            *header_time,
            second,
            Time::seconds(600),
        );
        faults.bound("limits.body_stall", *body_stall, second, Time::hours(1));
        faults.bound("limits.answer_stall", *answer_stall, second, Time::hours(1));
        faults.bound("limits.idle", *idle, second, day);
        faults.bound(
            "limits.chunk_min_bytes",
            *chunk_min_bytes,
            Bytes(1),
            Bytes::gib(1),
        );

        for SparseRule { repository, .. } in sparse {
            if repository.is_empty() {
                faults
                    .0
                    .push("sparse.repository must be a glob such as ** or mirror/**".to_owned());
            }
        }
        for (no, rule) in immutable.iter().enumerate() {
            let fault = rule
                .fault()
                .map(|fault| format!("immutable[{no}]: {fault}"));
            faults.0.extend(fault);
        }
        for (no, rule) in retention.iter().enumerate() {
            let fault = rule.fault(lease.0);
            let fault = fault.map(|fault| format!("retention[{no}]: {fault}"));
            faults.0.extend(fault);
        }
        let TlsSettings { certificate, key } = tls;
        if certificate.is_some() != key.is_some() {
            faults
                .0
                .push("tls.certificate and tls.key go together: set both or neither".to_owned());
        }
        let LogSettings { format: _, filter } = log;
        if !crate::logging::is_filter(filter) {
            faults.0.push(format!(
                "log.filter {filter:?} is no filter: write for example info,dvcr::access=warn"
            ));
        }
        faults.end()
    }
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn bound<T: PartialOrd + fmt::Display>(&mut self, key: &str, found: T, min: T, max: T) {
        if found < min || found > max {
            self.0
                .push(format!("{key} is {found}, but must be {min} to {max}"));
        }
    }

    fn end(self) -> Result<(), SettingsError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(SettingsError::Invalid(self.0))
        }
    }
}

#[cfg(test)]
mod tests;
