//! How registries are named and reached.

use std::{env, error::Error, fs, path::PathBuf};

use clap::Args;
use dvcr_client::{Client, Credentials, DockerConfig, Reference, Repository, Transport};
use tokio::runtime::Handle;

/// Longest file of credentials that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How to reach the registry.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Registry")]
pub(super) struct RegistryArgs {
    /// User of the registry. Without one: what `docker login` or `podman login` has noted
    #[arg(long, value_name = "NAME", env = "DVCR_USER")]
    pub(super) user: Option<String>,

    /// Password or token of that user; better in the environment than on the command line
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "DVCR_PASSWORD",
        hide_env_values = true
    )]
    pub(super) password: Option<String>,

    /// File of credentials, as docker writes it
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub(super) authfile: Option<PathBuf>,

    /// Certificate authority of the registry, beside those of the system: a PEM file
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Vec<PathBuf>,

    /// Take any certificate of the registry, and plain HTTP if it has none. On loopback HTTP needs no flag
    #[arg(long)]
    pub(super) insecure: bool,
}

/// Something wrong with what was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Wrong(pub(super) String);

impl RegistryArgs {
    /// The repository of a reference. Connects only to find out whether an insecure registry speaks HTTP.
    pub(super) fn repository(
        &self,
        runtime: &Handle,
        reference: &Reference,
    ) -> Result<Repository, Box<dyn Error>> {
        let credentials = self.credentials(reference)?;
        let mut transport = Transport {
            ca_pems: read_all(&self.ca)?,
            insecure: self.insecure,
            ..Transport::default()
        };
        let client = Client::new(reference.host(), credentials.clone(), &transport)?;
        if self.insecure
            && let Err(dvcr_client::Error::Connection { .. }) = runtime.block_on(client.ping())
        {
            transport.plain_http = vec![reference.host().to_string()];
            let client = Client::new(reference.host(), credentials, &transport)?;
            return Ok(client.repository(reference.repository()));
        }
        Ok(client.repository(reference.repository()))
    }

    fn credentials(&self, reference: &Reference) -> Result<Credentials, Box<dyn Error>> {
        if let Some(user) = &self.user {
            let password = self.password.clone().unwrap_or_default();
            return Ok(Credentials::basic(user.as_str(), password));
        }
        let path = match &self.authfile {
            Some(path) => path.clone(),
            None => match default_authfile() {
                Some(path) => path,
                None => return Ok(Credentials::Anonymous),
            },
        };
        let config = DockerConfig::parse(&read(&path)?)
            .map_err(|error| Wrong(format!("{}: {error}", path.display())))?;
        Ok(config.credentials(reference.host(), Some(reference.repository()))?)
    }
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

/// Small files, each whole.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Wrong> {
    paths.iter().map(read).collect()
}

/// A small file, whole.
pub(super) fn read(path: &PathBuf) -> Result<Vec<u8>, Wrong> {
    let failed = |error| Wrong(format!("{}: {error}", path.display()));
    let len = fs::metadata(path).map_err(failed)?.len();
    if len > CONFIG_BYTES_MAX {
        return Err(Wrong(format!("{} is too long", path.display())));
    }
    fs::read(path).map_err(failed)
}
