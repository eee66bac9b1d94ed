//! How registries are named and reached.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use dvcr_client::{Client, Credentials, DockerConfig, Reference, Repository, Retry, Transport};
use tokio::runtime::Handle;

/// Longest file of credentials that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How to reach the registry.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryArgs {
    /// User of the registry. Without one: what `docker login` or `podman login` has noted
    #[arg(long, value_name = "NAME", env = "DVCR_USER")]
    pub(crate) user: Option<String>,

    /// Password or token of that user; better in the environment than on the command line
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "DVCR_PASSWORD",
        hide_env_values = true
    )]
    pub(crate) password: Option<String>,

    /// File of credentials, as docker writes it
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub(crate) authfile: Option<PathBuf>,

    /// Certificate authority of the registry, beside those of the system: a PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,

    /// Take any certificate of the registry, and plain HTTP if it has none. On loopback HTTP needs no flag
    #[arg(long)]
    pub(crate) insecure: bool,
}

impl RegistryArgs {
    /// The repository of a reference. Connects only to find out whether an insecure registry speaks HTTP.
    pub(crate) fn repository(
        &self,
        runtime: &Handle,
        reference: &Reference,
    ) -> anyhow::Result<Repository> {
        let credentials = self.credentials(reference)?;
        let mut transport = Transport {
            ca_pems: read_pems(&self.ca)?,
            insecure: self.insecure,
            ..Transport::default()
        };
        let client = Client::new(reference.host(), credentials.clone(), &transport)?;
        let plain = self.insecure && speaks_http(runtime, reference, &transport);
        if !plain {
            return Ok(client.repository(reference.repository()));
        }
        transport.plain_http = vec![reference.host().to_string()];
        let client = Client::new(reference.host(), credentials, &transport)?;
        Ok(client.repository(reference.repository()))
    }

    fn credentials(&self, reference: &Reference) -> anyhow::Result<Credentials> {
        if let Some(user) = &self.user {
            let password = self.password.clone().unwrap_or_default();
            return Ok(Credentials::basic(user.as_str(), password));
        }
        let Some(path) = self.authfile.clone().or_else(default_authfile) else {
            return Ok(Credentials::Anonymous);
        };
        let config = DockerConfig::parse(&read(&path)?);
        let config = config.with_context(|| path.display().to_string())?;
        Ok(config.credentials(reference.host(), Some(reference.repository()))?)
    }
}

/// Whether TLS fails where a connection does not. Without credentials: they are for TLS.
fn speaks_http(runtime: &Handle, reference: &Reference, transport: &Transport) -> bool {
    let once = Transport {
        retry: Retry::never(),
        ..transport.clone()
    };
    let asked = Client::new(reference.host(), Credentials::Anonymous, &once)
        .map(|client| runtime.block_on(client.ping()));
    matches!(asked, Ok(Err(dvcr_client::Error::Connection { .. })))
}

/// Where `podman login` and `docker login` note credentials.
fn default_authfile() -> Option<PathBuf> {
    let dir = |name: &str| env::var_os(name).map(PathBuf::from);
    let candidates = [
        dir("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        dir("DOCKER_CONFIG").map(|dir| dir.join("config.json")),
        dir("HOME").map(|dir| dir.join(".docker/config.json")),
    ];
    candidates.into_iter().flatten().find(|path| path.exists())
}

/// Certificates: files, or directories of them as Kubernetes mounts them.
pub(crate) fn read_pems(paths: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut pems = vec![];
    for path in paths {
        if !path.is_dir() {
            pems.push(read(path)?);
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        for entry in entries {
            let file = entry?.path();
            let text = file.is_file().then(|| read(&file)).transpose()?;
            pems.extend(text.filter(|text| has_certificate(text)));
        }
    }
    Ok(pems)
}

fn has_certificate(text: &[u8]) -> bool {
    let begin = b"-----BEGIN CERTIFICATE";
    text.windows(begin.len()).any(|part| part == begin)
}

/// A small file, whole.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = || path.display().to_string();
    let len = fs::metadata(path).with_context(shown)?.len();
    if len > CONFIG_BYTES_MAX {
        bail!("{} is too long", path.display());
    }
    fs::read(path).with_context(shown)
}
