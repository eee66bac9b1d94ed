//! Tests that mount file systems run again in a mount namespace of their own: nothing is mounted on the machine, and what
//! they mounted goes away with them, however they end.

use std::{process::Command, time::Duration};

use super::process::run;

const MARK: &str = "DVCR_TEST_IN_NAMESPACE";
const LIMIT: Duration = Duration::from_secs(300);

/// How a namespace is to be had: by root, or by a user where the system lets them.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];

/// True where the test may mount. Elsewhere it is run there, by its name, and this returns false when it has succeeded.
pub(crate) fn entered(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let unshare = |way: &[&str], program: &str| {
        let mut command = Command::new("unshare");
        command
            .args(way)
            .args(["--propagation", "private", program]);
        command
    };
    let Some(way) = WAYS
        .into_iter()
        .find(|way| run(unshare(way, "true"), LIMIT).success)
    else {
        panic!(
            "this test mounts file systems: run it as root, or let users have namespaces \
             (unshare --map-root-user --mount true must work)"
        );
    };
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = unshare(way, program.to_str().expect("a path that is text"));
    command
        .args([test, "--exact", "--nocapture"])
        .env(MARK, "1");
    let finished = run(command, LIMIT);
    println!("{}", finished.log);
    assert!(
        finished.success,
        "{test} failed in its namespace, see above"
    );
    assert!(
        finished.log.contains("1 passed"),
        "{test} is not the name of a test"
    );
    false
}
