//! Running in a pod: the environment says what to do, the termination message how it went.
//!
//! Two contracts, told apart by whether there is a destination in a registry ([`deckhouse`]) or the volume that is mounted ([`cdi`]).

mod cdi;
mod deckhouse;
mod endpoint;
mod environment;
mod metrics;

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use self::environment::Environment;
use super::process::Process;

/// Where the kubelet reads the termination message, unless the pod says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Longest message that the kubelet takes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Longest text of an error in a message: 3,600 bytes if all of them are escaped.
const TEXT_CHARS_MAX: usize = 600;

/// Where controllers ask for metrics.
const METRICS_ADDRESS: &str = "[::]:8443";

/// What a pod is there for.
pub(crate) enum Contract {
    /// Deckhouse's importer: a source into a registry.
    Registry(Box<deckhouse::Settings>),
    /// `cdi-importer`: a source onto the mounted volume.
    Volume(Box<cdi::Settings>),
    /// The environment contradicts itself.
    Wrong(String),
}

impl Contract {
    /// What the environment asks for; `None` if it asks for nothing.
    pub(crate) fn from_environment() -> Option<Self> {
        Self::parse(&Environment::of_process())
    }

    fn parse(environment: &Environment) -> Option<Self> {
        let asked = ["IMPORTER_SOURCE", "IMPORTER_ENDPOINT"];
        if !asked.iter().any(|name| environment.get(name).is_some()) {
            return None;
        }
        let wrong = |error: anyhow::Error| Self::Wrong(shortened(&format!("{error:#}")));
        let wrong_json = |error: anyhow::Error| {
            let text = shortened(&format!("{error:#}"));
            Self::Wrong(serde_json::json!({ "error-message": text }).to_string())
        };
        Some(
            if environment.get("IMPORTER_DESTINATION_ENDPOINT").is_some() {
                deckhouse::Settings::parse(environment)
                    .map_or_else(wrong_json, |settings| Self::Registry(Box::new(settings)))
            } else {
                cdi::Settings::parse(environment)
                    .map_or_else(wrong, |settings| Self::Volume(Box::new(settings)))
            },
        )
    }
}

/// Does what the contract says.
pub(crate) fn main(contract: Contract) -> ExitCode {
    let process = match Process::start() {
        Ok(process) => process,
        Err(error) => return failed(&format!("{error:#}")),
    };
    let code = match contract {
        Contract::Registry(settings) => settings.run(&process),
        Contract::Volume(settings) => (*settings).run(&process),
        Contract::Wrong(reason) => failed(&reason),
    };
    process.end();
    code
}

/// How far it is, in percent, and how many bytes were moved.
type Gauge = Arc<dyn Fn() -> (f64, u64) + Send + Sync>;

/// Lets controllers ask. That they cannot is no reason to fail.
fn serve_metrics(process: &Process, environment: &Environment, owner: &str, gauge: Gauge) {
    let address = environment.get("DVCR_METRICS_ADDRESS");
    let address = address.unwrap_or(METRICS_ADDRESS).parse::<SocketAddr>();
    let owner = owner.to_owned();
    process.runtime().spawn(async move {
        let served = match address {
            Ok(address) => metrics::serve(address, owner, gauge).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = served {
            eprintln!("dvcr-importer: no metrics: {error:#}");
        }
    });
}

/// A text that still fits into a message as a string of JSON. The kubelet cuts what is too long, and JSON that was cut is none.
fn shortened(text: &str) -> String {
    // The longest escape of a character is `\u001f`.
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// Leaves a message for who started the pod, and the log.
fn leave(message: &str) {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    eprintln!("dvcr-importer: {message}");
    let path = std::env::var_os("DVCR_TERMINATION_LOG").map(PathBuf::from);
    let path = path.unwrap_or_else(|| TERMINATION_LOG.into());
    if let Err(error) = fs::write(&path, &message[..end]) {
        // Where there is no kubelet there is no such file either.
        eprintln!("dvcr-importer: {}: {error}", path.display());
    }
}

/// The end of what went wrong before it began.
fn failed(reason: &str) -> ExitCode {
    leave(reason);
    ExitCode::from(1)
}
