//! How registries are named and reached.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use dvcr_client::{Client, Credentials, DockerConfig, Reference, Repository, Retry, Transport};
use dvcr_importer::source::location::is_like_an_image;
use reqwest::StatusCode;
use tokio::runtime::Handle;

/// Longest wait for an answer in plain HTTP: by then a server that speaks it has given one.
const PLAIN_TIME: Duration = Duration::from_secs(20);

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
        hide_env_values = true,
        requires = "user"
    )]
    pub(crate) password: Option<String>,

    /// File with that password
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "password",
        requires = "user"
    )]
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

/// A place for an image. Whoever leaves out the registry means their own far more often than docker.io.
pub(crate) fn parse_destination(text: &str) -> anyhow::Result<Reference> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    if !is_like_an_image(name) {
        bail!(
            "the destination names no registry: write HOST/{name}, or docker.io/{name} if Docker Hub is meant"
        );
    }
    Ok(text.parse()?)
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

/// Whether a server was seen to speak plain HTTP: it answers TLS with something else, or breaks off there and answers like a registry
/// without. One that is merely away says nothing of that kind, and is not given a password in clear when it is back. Asks without
/// credentials: they are for TLS.
fn speaks_http(runtime: &Handle, reference: &Reference, transport: &Transport) -> bool {
    use dvcr_client::Error::{Connection, NoTls};
    let host = reference.host();
    let client = |plain_http| {
        let once = Transport {
            retry: Retry::never(),
            plain_http,
            ..transport.clone()
        };
        Client::new(host, Credentials::Anonymous, &once)
    };
    let asked = client(vec![]).map(|client| runtime.block_on(client.ping()));
    match asked {
        Ok(Err(NoTls { .. })) => true,
        // Some close the connection without a word.
        Ok(Err(Connection { .. })) => client(vec![host.to_string()])
            .is_ok_and(|client| runtime.block_on(is_registry_in_clear(&client))),
        _ => false,
    }
}

/// Whether what answers plain HTTP is a registry. Servers of TLS do so, too, with a 400 or a redirect.
async fn is_registry_in_clear(client: &Client) -> bool {
    let Ok(url) = client.url().join("v2/") else {
        return false;
    };
    let asking = client.http().get(url).timeout(PLAIN_TIME).send();
    let answer = asking.await.map(|answer| answer.status());
    matches!(answer, Ok(StatusCode::OK | StatusCode::UNAUTHORIZED))
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
        let found = read_pem_dir(path)?;
        if found.is_empty() {
            bail!(
                "{} has no certificate: no file in it has a line BEGIN CERTIFICATE",
                path.display()
            );
        }
        pems.extend(found);
    }
    Ok(pems)
}

/// The files of a directory that hold certificates.
pub(crate) fn read_pem_dir(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut pems = vec![];
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    for entry in entries {
        let file = entry?.path();
        let text = file.is_file().then(|| read(&file)).transpose()?;
        pems.extend(text.filter(|text| has_certificate(text)));
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// The first byte of a TLS connection: the type of a record with a handshake (RFC 8446, 5.1).
    const HANDSHAKE: u8 = 0x16;

    /// A server that answers TLS and plain HTTP so, `None` by hanging up; its port.
    fn server(tls: Option<&'static str>, plain: Option<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let len = stream.read(&mut request).unwrap_or(0);
                let answer = match request[..len].first() {
                    Some(&HANDSHAKE) => tls,
                    _ => plain,
                };
                let request = String::from_utf8_lossy(&request[..len]).to_lowercase();
                assert!(!request.contains("authorization"), "{request}");
                if let Some(answer) = answer {
                    let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes());
                }
            }
        });
        port
    }

    #[test]
    fn a_registry_that_is_away_was_spoken_to_in_clear() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let challenge = "401 Unauthorized\r\nwww-authenticate: Basic realm=\"r\"";
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let away = closed.local_addr().unwrap().port();
        drop(closed);
        let bad = Some("400 Bad Request");
        let moved = Some("301 Moved Permanently\r\nlocation: https://0.0.0.0/v2/");
        for (what, port, expected) in [
            ("plain", server(bad, Some("200 OK")), true),
            ("plain, silent to TLS", server(None, Some("200 OK")), true),
            ("with a login", server(None, Some(challenge)), true),
            ("TLS that broke off", server(None, bad), false),
            ("TLS beside a redirect", server(None, moved), false),
            ("breaks off", server(None, None), false),
            ("busy", server(None, Some("503 Service Unavailable")), false),
            ("away", away, false),
        ] {
            // This machine under a name that is not known to be its own.
            let reference: Reference = format!("0.0.0.0:{port}/vi/a:1").parse().unwrap();
            let transport = Transport {
                insecure: true,
                ..Transport::default()
            };
            let found = speaks_http(runtime.handle(), &reference, &transport);
            assert_eq!(found, expected, "{what}");
        }
    }
}
