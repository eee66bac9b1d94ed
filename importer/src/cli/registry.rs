//! How registries are named and reached.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use dvcr_client::{Client, Credentials, DockerConfig, Reference, Repository, Retry, Transport};
use tokio::runtime::Handle;

/// Longest file of credentials that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How to reach the registry that an import goes to.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Destination")]
pub(crate) struct RegistryArgs {
    /// User of the registry. Without one: what `docker login` or `podman login` has noted
    #[arg(long, value_name = "NAME", env = "DVCR_USER")]
    pub(crate) user: Option<String>,

    /// Password or token of that user. Everybody on this machine sees command lines: better in the environment, or a file
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "DVCR_PASSWORD",
        hide_env_values = true
    )]
    pub(crate) password: Option<String>,

    /// File with that password
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub(crate) password_file: Option<PathBuf>,

    /// Credentials as `docker login` and `podman login` write them and Kubernetes mounts them [default: where these two, and
    /// REGISTRY_AUTH_FILE, have them]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,

    /// Certificates to trust beside those of the system: a PEM file, or a directory of them; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) ca: Vec<PathBuf>,

    /// Trust any certificate, and speak plain HTTP to a registry that has none. On loopback HTTP needs no permission
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
        let host = reference.host();
        if host.is_loopback() && !transport.ca_pems.is_empty() {
            // Whoever names a CA means HTTPS, on loopback, too.
            let url = format!("https://{host}");
            let client = Client::at(&url, credentials, &transport)?;
            return Ok(client.repository(reference.repository()));
        }
        if self.insecure && speaks_http(runtime, reference, &transport) {
            transport.plain_http = vec![host.to_string()];
        }
        let client = Client::new(host, credentials, &transport)?;
        Ok(client.repository(reference.repository()))
    }

    fn credentials(&self, reference: &Reference) -> anyhow::Result<Credentials> {
        if let Some(user) = &self.user {
            let password = read_password(&self.password, &self.password_file)?;
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

/// Without secrets.
impl fmt::Debug for RegistryArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryArgs")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A password, wherever it is; empty if there is none.
pub(crate) fn read_password(
    password: &Option<String>,
    file: &Option<PathBuf>,
) -> anyhow::Result<String> {
    let Some(path) = file else {
        return Ok(password.clone().unwrap_or_default());
    };
    let text = String::from_utf8(read(path)?);
    let text = text.map_err(|_| anyhow!("{} is no text", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether there is a server that answers TLS with something else. Without credentials: they are for TLS.
fn speaks_http(runtime: &Handle, reference: &Reference, transport: &Transport) -> bool {
    let once = Transport {
        retry: Retry::never(),
        ..transport.clone()
    };
    let asked = Client::new(reference.host(), Credentials::Anonymous, &once)
        .map(|client| runtime.block_on(client.ping()));
    use dvcr_client::Error::{Connection, NoTls};
    // Some close the connection without a word.
    matches!(asked, Ok(Err(NoTls { .. } | Connection { .. })))
}

/// Where `podman login` and `docker login` note credentials.
fn default_authfile() -> Option<PathBuf> {
    let named = env::var_os("REGISTRY_AUTH_FILE").filter(|path| !path.is_empty());
    if let Some(path) = named {
        return Some(path.into());
    }
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
