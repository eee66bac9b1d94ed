//! A server, and a place where one client keeps its files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    digest::sha256,
    http::{Client, Request, Response},
    process::{Process, run, tool},
    server::Server,
};

/// A client's command takes a second; on a machine busy with other tests, some more.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// Engines start and stop in a second or two.
const ENGINE_LIMIT: Duration = Duration::from_secs(60);

pub(crate) const MANIFEST_OCI: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX_OCI: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST_DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A server of its own and a directory for a client's files.
pub(crate) struct Site {
    server: Server,
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        // A short prefix: the paths of the engines' sockets may have 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("dvcr-c-")
            .tempdir()
            .expect("a temporary directory");
        fs::create_dir(directory.path().join("home")).expect("create a home directory");
        Self {
            server: Server::start(&[]),
            directory,
        }
    }

    /// `rest` in this registry, as clients write it.
    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.server.address())
    }

    /// `127.0.0.1:port`.
    pub(crate) fn registry(&self) -> &str {
        self.server.address()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path of a file, as an argument.
    pub(crate) fn file(&self, name: &str) -> String {
        let path = self.path(name);
        path.to_str().expect("temporary names are text").to_owned()
    }

    /// Writes a file, with its directories.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("files have a directory"))
            .and_then(|()| fs::write(&path, content))
            .unwrap_or_else(|error| panic!("write {name}: {error}"));
        self.file(name)
    }

    /// A client that sees no configuration of whoever runs the tests, in this directory.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = tool(program);
        for name in [
            "CONTAINERD_ADDRESS",
            "CONTAINERS_CONF",
            "CONTAINERS_REGISTRIES_CONF",
            "CONTAINERS_STORAGE_CONF",
            "DOCKER_CONFIG",
            "DOCKER_CONTEXT",
            "DOCKER_HOST",
            "REGCTL_CONFIG",
            "REGISTRY_AUTH_FILE",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_RUNTIME_DIR",
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
        ] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.path("home"))
            .current_dir(self.directory.path());
        command.args(arguments);
        command
    }

    /// Runs a client, which must succeed; its standard output.
    pub(crate) fn ok(&self, program: &str, arguments: &[&str]) -> String {
        succeed(self.command(program, arguments))
    }

    /// Runs a client, which must succeed; its standard output, which need not be text.
    pub(crate) fn bytes(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        output(self.command(program, arguments))
    }

    /// Runs a client, which must fail; all it said.
    pub(crate) fn fails(&self, program: &str, arguments: &[&str]) -> String {
        let finished = run(self.command(program, arguments), COMMAND_LIMIT);
        assert!(
            !finished.success,
            "{program} {arguments:?} should fail:\n{}",
            finished.log
        );
        finished.log
    }

    /// GET of a path that must be there.
    pub(crate) fn get(&self, path: &str) -> Response {
        let client = Client::new(&self.server.url());
        let response = client.send(&Request::new("GET", path));
        let response = response.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(response.status, 200, "GET {path}\n{}", client.transcript());
        response
    }

    /// The bytes of a blob in a repository, which are what its digest says.
    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Vec<u8> {
        let body = self.get(&format!("/v2/{repository}/blobs/{digest}")).body;
        assert_eq!(sha256(&body), digest, "a blob of {repository}");
        body
    }

    /// A manifest of a repository as it is stored: media type, digest, bytes. Its digest is what the header says.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Manifest {
        let response = self.get(&format!("/v2/{repository}/manifests/{reference}"));
        let digest = sha256(&response.body);
        assert_eq!(response.get("Docker-Content-Digest"), Some(&*digest));
        let media_type = response.get("Content-Type").unwrap_or("").to_owned();
        Manifest {
            media_type,
            digest,
            bytes: response.body,
        }
    }

    /// Starts a program that serves until it is stopped, and waits until `ready` succeeds.
    pub(crate) fn engine(&self, command: Command, ready: impl Fn() -> Command) -> Engine {
        let mut process = Process::start(command);
        process.wait_for(ENGINE_LIMIT, |_| {
            run(ready(), ENGINE_LIMIT).success.then_some(())
        });
        Engine { process }
    }
}

/// Runs a command, which must succeed; its standard output.
pub(crate) fn succeed(command: Command) -> String {
    let line = format!("{command:?}");
    String::from_utf8(output(command)).unwrap_or_else(|_| panic!("{line} printed no text"))
}

fn output(command: Command) -> Vec<u8> {
    let line = format!("{command:?}");
    let finished = run(command, COMMAND_LIMIT);
    assert!(finished.success, "{line} failed:\n{}", finished.log);
    finished.stdout
}

/// A manifest as the registry serves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

impl Manifest {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes).expect("a stored manifest is JSON")
    }

    /// Digest of the config.
    pub(crate) fn config(&self) -> String {
        digest_of(&self.json()["config"])
    }

    /// Digests of the layers.
    pub(crate) fn layers(&self) -> Vec<String> {
        let json = self.json();
        let layers = json["layers"].as_array().expect("a manifest has layers");
        layers.iter().map(digest_of).collect()
    }
}

fn digest_of(descriptor: &serde_json::Value) -> String {
    let digest = descriptor["digest"].as_str();
    digest.expect("a descriptor has a digest").to_owned()
}

/// An engine, asked to stop when dropped, so that it takes down its mounts, and killed if it does not.
pub(crate) struct Engine {
    process: Process,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.process.signal(rustix::process::Signal::TERM);
        let deadline = Instant::now() + ENGINE_LIMIT;
        while !self.process.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Panics unless both files have the same bytes.
pub(crate) fn same_file(found: &Path, expected: &Path) {
    let read = |path: &Path| {
        fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    };
    // No `assert_eq`: nobody wants to see megabytes of random bytes.
    assert!(
        read(found) == read(expected),
        "{} differs from {}",
        found.display(),
        expected.display()
    );
}
