//! Every knob of the server, with unit, default and bounds.
//!
//! Three layers, later ones over earlier ones: a TOML file (`--config` or `DVCR_CONFIG`), environment variables, flags.
//! Each key has a variable: `DVCR_` and the key in upper case with `_` for the dot, such as `DVCR_LIMITS_CONNECTIONS`.
//! Unknown keys are errors. Unknown variables are not, because Kubernetes sets some like `DVCR_SERVICE_HOST` by itself when
//! a service is called dvcr; no key may ever collide with those (`*_SERVICE_*`, `*_PORT*`).
//!
//! Settings are plain values. Whoever is configured takes the values it needs; nothing else reads this.

mod error;
mod layers;
mod limits;
mod sections;
#[cfg(test)]
mod tests;
mod units;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Deserializer, Serialize, de};

use self::error::Faults;
pub(crate) use self::layers::read_toml;
pub use self::{
    error::SettingsError,
    layers::{KEYS, load, variable},
    limits::LimitSettings,
    sections::{
        CheckpointSettings, GcSettings, LogFormat, LogSettings, ScrubSettings, TlsSettings,
    },
    units::{Bytes, Time},
};
use crate::{
    http::origin::is_host_name,
    registry::{
        immutable::ImmutableRule,
        policy::SparseRule,
        retention::{RetentionRule, rule_faults},
    },
};

/// Longest time that something is kept for a client or an operator who does not come back.
const MONTH: Time = Time::hours(30 * 24);

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address and port to listen on. Default `127.0.0.1:5000`. Anything but loopback needs access control, or
    /// `allow_anonymous`.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Directory for everything that is stored; created if absent. Default `./dvcr-data`. One server at a time uses it.
    pub data: PathBuf,
    /// Who may do what without logging in.
    pub allow_anonymous: AllowAnonymous,
    /// Names by which clients know the server, without port, such as `registry.example`; requests for other names get 421. Default:
    /// none, which with `loopback-only` means addresses and `localhost`, and any name otherwise. So no web page that a browser on
    /// this machine opens can reach the registry through a name of its own. A proxy in front sends the name that its clients use.
    pub hosts: Vec<String>,
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

/// Reads an address. Names are not resolved, and the port has no default: what would be listened on should be plain to see.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        de::Error::custom(format!(
            "{text:?} is no IP address with a port: write for example 127.0.0.1:5000"
        ))
    })
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5_000)),
            data: PathBuf::from("./dvcr-data"),
            allow_anonymous: AllowAnonymous::default(),
            hosts: Vec::new(),
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

impl Settings {
    /// The settings as a file that says the same.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Checks bounds and what must go together. All that is wrong is reported at once.
    pub fn check(&self) -> Result<(), SettingsError> {
        let Self {
            listen,
            data,
            allow_anonymous,
            hosts,
            cache_bytes,
            meta_cache_bytes,
            upload_memory_bytes,
            all_uploads_memory_bytes,
            reserve_bytes,
            upload_expiry,
            lease,
            drain,
            sparse: _,
            immutable,
            retention,
            gc,
            checkpoint,
            scrub,
            tls,
            limits,
            log,
        } = self;
        let mut faults = Faults::default();

        if !listen.ip().is_loopback() && *allow_anonymous == AllowAnonymous::LoopbackOnly {
            faults.tell(format!(
                "refusing to listen on {listen}: everyone who reaches that address could read, overwrite and delete every image, \
                 because nothing asks who they are. Listen on 127.0.0.1 or [::1] and put a proxy with access control in front; \
                 or, if that is what you want, say so with --allow-anonymous everyone-may-read-and-write \
                 (DVCR_ALLOW_ANONYMOUS, or allow_anonymous in the settings file)"
            ));
        }
        for host in hosts.iter().filter(|host| !is_host_name(host)) {
            faults.tell(format!(
                "hosts: {host:?} is no name of a server: write for example registry.example, without scheme and port"
            ));
        }
        if data.as_os_str().is_empty() {
            faults.tell("data must name a directory");
        }

        faults.bound("cache_bytes", *cache_bytes, Bytes(0)..=Bytes::tib(1));
        faults.bound(
            "meta_cache_bytes",
            *meta_cache_bytes,
            Bytes::mib(4)..=Bytes::tib(1),
        );
        faults.bound(
            "upload_memory_bytes",
            *upload_memory_bytes,
            Bytes::mib(4)..=Bytes::gib(1),
        );
        faults.bound(
            "all_uploads_memory_bytes",
            *all_uploads_memory_bytes,
            *upload_memory_bytes..=Bytes::gib(64),
        );
        faults.bound("reserve_bytes", *reserve_bytes, Bytes(0)..=Bytes::tib(1));
        faults.bound("upload_expiry", *upload_expiry, Time::seconds(60)..=MONTH);
        faults.bound("lease", *lease, Time::seconds(1)..=MONTH);
        faults.bound("drain", *drain, Time::seconds(0)..=Time::hours(1));
        gc.check(&mut faults);
        checkpoint.check(&mut faults);
        scrub.check(&mut faults);
        tls.check(&mut faults);
        limits.check(&mut faults);
        log.check(&mut faults);

        faults.extend(rule_faults(retention, immutable, lease.0));
        faults.end()
    }
}
