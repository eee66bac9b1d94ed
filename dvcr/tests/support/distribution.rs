//! CNCF Distribution as a process: the registry that most people migrate from, and a second opinion on what clients send.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    process::{Process, tool_with},
    tls::Tls,
};

/// It is ready within a second; on a machine busy with other tests, some more.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Which one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    /// Debian's docker-registry 2.8.2.
    V2,
    /// Distribution 3.1.1.
    V3,
}

/// A running registry, killed when dropped; its directory goes with it.
pub(crate) struct Distribution {
    process: Process,
    scheme: &'static str,
    address: String,
    directory: tempfile::TempDir,
}

impl Distribution {
    /// Starts a registry on a free port. `more` is added to its configuration (YAML).
    pub(crate) fn start(version: Version, more: &str) -> Self {
        Self::launch(version, more, None)
    }

    /// The same, with HTTPS.
    pub(crate) fn start_tls(version: Version, more: &str, tls: &Tls) -> Self {
        Self::launch(version, more, Some(tls))
    }

    fn launch(version: Version, more: &str, tls: Option<&Tls>) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("dvcr-peer-")
            .tempdir()
            .expect("a temporary directory");
        let data = directory.path().join("data");
        let configuration = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {data}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"127.0.0.1:0\", secret: test}}\n\
             {more}",
            data = data.display()
        );
        fs::write(&configuration, text).expect("write a configuration");
        let program = match version {
            Version::V2 => "docker-registry",
            Version::V3 => "registry",
        };
        let mut command = tool_with(program, [Path::new("serve"), &configuration]);
        command.env("OTEL_TRACES_EXPORTER", "none");
        if let Some(tls) = tls {
            command
                .env("REGISTRY_HTTP_TLS_CERTIFICATE", tls.certificate())
                .env("REGISTRY_HTTP_TLS_KEY", tls.key());
        }
        let mut process = Process::start(command);
        let address = process.wait_for(START_LIMIT, |process| {
            let log = process.log();
            let at = log.find("listening on ")? + "listening on ".len();
            let rest = &log[at..];
            let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
            Some(rest[..end].to_owned())
        });
        Self {
            process,
            scheme: if tls.is_some() { "https" } else { "http" },
            address,
            directory,
        }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Its storage root.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The file of a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
        let below = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.data().join(below)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
