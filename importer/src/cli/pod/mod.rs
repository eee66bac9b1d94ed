//! Running in a pod: the environment says what to do, the termination message how it went.
//!
//! Two contracts, told apart by whether there is a destination in a registry ([`deckhouse`]) or the volume that is mounted ([`cdi`]).

mod cdi;
mod deckhouse;
mod endpoint;
mod environment;
mod metrics;

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use self::environment::Environment;
use super::process::Process;

/// Where the kubelet reads the termination message, unless the pod says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Longest message that the kubelet takes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Longest text of an error in a message: 3,600 bytes if all of them are escaped.
const TEXT_CHARS_MAX: usize = 600;

/// Port where controllers ask for metrics.
const METRICS_PORT: u16 = 8443;

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
        if !asks(environment) {
            return None;
        }
        let wrong = |error: anyhow::Error| Self::Wrong(refusal(environment, &format!("{error:#}")));
        Some(if is_for_registry(environment) {
            deckhouse::Settings::parse(environment)
                .map_or_else(wrong, |settings| Self::Registry(Box::new(settings)))
        } else {
            cdi::Settings::parse(environment)
                .map_or_else(wrong, |settings| Self::Volume(Box::new(settings)))
        })
    }
}

/// What cannot be done, told in the way that the environment's controller reads.
fn refusal(environment: &Environment, text: &str) -> String {
    let text = shortened(&in_variables(text));
    match is_for_registry(environment) {
        true => serde_json::json!({ "error-message": text }).to_string(),
        false => text,
    }
}

/// Whether the environment is one of a pod.
pub(crate) fn is_asked() -> bool {
    asks(&Environment::of_process())
}

fn asks(environment: &Environment) -> bool {
    let asked = ["IMPORTER_SOURCE", "IMPORTER_ENDPOINT"];
    asked.iter().any(|name| environment.get(name).is_some())
}

fn is_for_registry(environment: &Environment) -> bool {
    environment.get("IMPORTER_DESTINATION_ENDPOINT").is_some()
}

/// Takes away `-v=N`, `-v N` and `--v=N` in front: both controllers give their pods the verbosity of klog, Go's logger, which is
/// nothing to us.
pub(crate) fn leave_out_verbosity(words: &mut Vec<OsString>) {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    loop {
        let text = |at: usize| words.get(at).and_then(|word| word.to_str());
        let Some(flag) = text(0) else { return };
        let value = flag.trim_start_matches('-').strip_prefix("v=");
        let taken = match flag {
            "-v" | "--v" if text(1).is_some_and(is_number) => 2,
            _ if flag.starts_with('-') && value.is_some_and(is_number) => 1,
            _ => return,
        };
        words.drain(..taken);
    }
}

/// The end of a pod whose arguments are wrong.
pub(crate) fn wrong_arguments(error: &clap::Error) -> ExitCode {
    failed(&refusal(&Environment::of_process(), &first_line(error)))
}

/// What clap has to say, without the advice on how to use a command that nobody typed.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// Flags that messages advise, and the variables that say the same in a pod.
const VARIABLES: [(&str, &str); 7] = [
    ("--source-user", "IMPORTER_ACCESS_KEY_ID"),
    ("--source-ca", "IMPORTER_CERT_DIR"),
    ("--source-insecure", "INSECURE_TLS"),
    ("--source-header", "IMPORTER_EXTRA_HEADER_<n>"),
    ("--work-dir", "DVCR_WORK_DIR"),
    ("--size", "IMPORTER_IMAGE_SIZE"),
    ("--platform", "IMPORTER_REGISTRY_IMAGE_ARCHITECTURE"),
];

/// A message in the words of who wrote a pod.
fn in_variables(text: &str) -> String {
    let replaced = |text: String, (flag, name): (&str, &str)| text.replace(flag, name);
    VARIABLES.into_iter().fold(text.to_owned(), replaced)
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
    let addresses = match environment.get("DVCR_METRICS_ADDRESS") {
        Some(address) => address.parse().map(|address| vec![address]),
        // The second where there is no IPv6.
        None => Ok(vec![
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, METRICS_PORT)),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, METRICS_PORT)),
        ]),
    };
    let owner = owner.to_owned();
    process.runtime().spawn(async move {
        let served = match addresses {
            Ok(addresses) => metrics::serve(&addresses, owner, gauge).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_of_klog_is_left_out() {
        for (words, rest) in [
            ("", ""),
            ("-v=3", ""),
            ("--v=10", ""),
            ("-v 1", ""),
            ("-v=1 -v=2 populate -v=3", "populate -v=3"),
            ("-v", "-v"),
            ("-v=x", "-v=x"),
            ("v=1", "v=1"),
            ("--version", "--version"),
            ("populate", "populate"),
        ] {
            let mut found: Vec<OsString> = words.split_whitespace().map(Into::into).collect();
            leave_out_verbosity(&mut found);
            let expected: Vec<_> = rest.split_whitespace().collect();
            assert_eq!(found, expected, "{words}");
        }
    }

    #[test]
    fn advice_names_variables() {
        let text = "name it with --source-ca, or a larger --size";
        let expected = "name it with IMPORTER_CERT_DIR, or a larger IMPORTER_IMAGE_SIZE";
        assert_eq!(in_variables(text), expected);
    }
}
