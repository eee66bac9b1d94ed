//! The program under test as a process on loopback.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    http::{Client, Request},
    process::Process,
};

/// A server that is not ready after this long has failed; a debug build on a busy machine needs a second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where a server listens that nobody needs to find again.
const FREE_PORT: &str = "127.0.0.1:0";

/// A running `dvcr serve`, killed when dropped.
pub(crate) struct Server {
    process: Process,
    scheme: &'static str,
    address: String,
    directory: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a server on a free port with an empty data directory of its own. `settings` are environment variables.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("dvcr-test-")
            .tempdir()
            .expect("a temporary directory");
        let mut server = Self::start_on(&directory.path().join("data"), settings);
        server.directory = Some(directory);
        server
    }

    /// Starts a server on a free port with this data directory, which stays.
    pub(crate) fn start_on(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_at(data, FREE_PORT, settings)
    }

    /// Starts a server at an address, with this data directory, which stays.
    pub(crate) fn start_at(data: &Path, address: &str, settings: &[(&str, &str)]) -> Self {
        let command = serve_at(data, address, settings);
        let mut process = Process::start(command);
        let address = process.wait_for(START_LIMIT, |process| {
            let log = process.log();
            let at = log.find("127.0.0.1:")?;
            let rest = &log[at..];
            let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
            // The address as it was asked for may be printed as well.
            Some(rest[..end].to_owned()).filter(|address| !address.ends_with(":0"))
        });
        // With TLS the address in the log has to do: the client of these tests speaks none.
        let tls = settings
            .iter()
            .any(|(name, _)| *name == "DVCR_TLS_CERTIFICATE");
        if !tls {
            let client = Client::new(&format!("http://{address}"));
            process.wait_for(START_LIMIT, |_| {
                client
                    .send(&Request::new("GET", "/readyz"))
                    .is_ok_and(|response| response.status == 200)
                    .then_some(())
            });
        }
        Self {
            process,
            scheme: if tls { "https" } else { "http" },
            address,
            directory: None,
        }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to send it signals.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// `dvcr serve` on a free port, ready to run. `settings` are environment variables.
pub(crate) fn serve(data: &Path, settings: &[(&str, &str)]) -> Command {
    serve_at(data, FREE_PORT, settings)
}

/// The same at an address.
fn serve_at(data: &Path, address: &str, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program());
    // Settings of whoever runs the tests must not reach the server.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DVCR_"))
    {
        command.env_remove(name);
    }
    command
        .args(["serve", "--listen", address, "--data"])
        .arg(data)
        .envs(settings.iter().copied());
    command
}

/// The program that cargo built for this test; where another package's tests run, the one that was built beside them.
pub(crate) fn program() -> PathBuf {
    if let Some(path) = option_env!("CARGO_BIN_EXE_dvcr") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("the path of this program");
    let path = test.ancestors().nth(2).map(|target| target.join("dvcr"));
    match path {
        Some(path) if path.is_file() => path,
        _ => panic!("there is no program dvcr beside this test: cargo build -p dvcr"),
    }
}
