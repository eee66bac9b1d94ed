//! A registry of our own as a process on loopback, and what is in it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use dvcr_client::{Client, Credentials, Repository, Transport};
use dvcr_core::oci::{Digest, Manifest};
use tokio::runtime::Runtime;

/// A server that is not ready after this long has failed; a debug build on a busy machine needs a second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running `dvcr serve`, killed when dropped.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

/// Builds the registry, which is a program of another package, as this test was built.
fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build).clone()
}

fn build() -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let target = profile.parent().unwrap();
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "dvcr",
            "--bin",
            "dvcr",
        ])
        .arg("--target-dir")
        .arg(target)
        .status()
        .unwrap();
    assert!(status.success(), "dvcr cannot be built");
    target.join("debug/dvcr")
}

impl Registry {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let child = Command::new(program())
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(fs::File::options().append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + START_LIMIT;
        let address = loop {
            let log = fs::read_to_string(&log).unwrap();
            let found = log.match_indices("127.0.0.1:").find_map(|(at, _)| {
                let rest = &log[at..];
                let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
                Some(rest[..end].to_owned()).filter(|address| !address.ends_with(":0"))
            });
            if let Some(address) = found {
                break address;
            }
            assert!(
                Instant::now() < deadline,
                "the registry does not start: {log}"
            );
            thread::sleep(Duration::from_millis(20));
        };
        Self {
            child,
            address,
            runtime: Runtime::new().unwrap(),
            _dir: dir,
        }
    }

    fn repository(&self, name: &str) -> Repository {
        let url = format!("http://{}", self.address);
        let client = Client::at(&url, Credentials::Anonymous, &Transport::default()).unwrap();
        client.repository(&name.parse().unwrap())
    }

    /// The manifest under a tag, if there is one.
    pub(crate) fn manifest(&self, name: &str, tag: &str) -> Option<Manifest> {
        let reference = tag.parse().unwrap();
        let found = self
            .runtime
            .block_on(self.repository(name).manifest(&reference));
        match found {
            Ok(raw) => Some(raw.parse().unwrap()),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Writes a blob to a file.
    pub(crate) fn blob(&self, name: &str, digest: &Digest, path: &Path) {
        let bytes = self.runtime.block_on(async {
            let mut reader = self.repository(name).blob(digest, None).await.unwrap();
            let mut bytes = vec![];
            while let Some(chunk) = reader.chunk().await.unwrap() {
                bytes.extend_from_slice(&chunk);
            }
            bytes
        });
        fs::write(path, bytes).unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
