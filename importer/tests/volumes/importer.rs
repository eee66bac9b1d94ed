//! The program under test.

use std::{path::Path, process::Command, time::Duration};

use crate::support::process::{Finished, run};

/// No disk of these tests takes longer on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// `dvcr-importer` with arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvcr-importer"));
    for name in [
        "REGISTRY_AUTH_FILE",
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
    ] {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs it; how it ended.
pub(crate) fn finish(arguments: &[&str]) -> Finished {
    run(command(arguments), LIMIT)
}

/// Runs it; it must succeed. Its standard output.
pub(crate) fn ok(arguments: &[&str]) -> Vec<u8> {
    let finished = finish(arguments);
    assert!(finished.success, "{arguments:?}:\n{}", finished.log);
    finished.stdout
}

/// Runs it; it must fail. All that it said.
pub(crate) fn fails(arguments: &[&str]) -> String {
    let finished = finish(arguments);
    assert!(!finished.success, "{arguments:?} succeeded");
    finished.log
}

/// Runs it with `--json`.
pub(crate) fn json(arguments: &[&str]) -> serde_json::Value {
    let output = ok(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
