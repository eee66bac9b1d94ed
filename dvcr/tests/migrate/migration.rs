//! Running the program under test.

use std::{process::Command, time::Duration};

use serde_json::Value;

use crate::{
    site::Site,
    support::{
        process::{Finished, run},
        server::program,
    },
};

/// A migration of some megabytes takes a second; on a machine busy with other tests, some more.
const LIMIT: Duration = Duration::from_secs(120);

/// `dvcr migrate ... --server URL --json`, ready to run; it keeps its state in the site's directory.
pub(crate) fn command(site: &Site, server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .env("XDG_STATE_HOME", site.path("state"))
        .env_remove("REGISTRY_AUTH_FILE")
        .arg("migrate")
        .args(arguments)
        .args(["--server", server, "--json"]);
    command
}

/// What a migration reported, and whether its exit code was 0.
pub(crate) struct Migrated {
    pub(crate) report: Value,
    pub(crate) complete: bool,
    /// What it said besides.
    pub(crate) log: String,
}

impl Migrated {
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let figure = self.report[name].as_u64();
        figure.unwrap_or_else(|| panic!("no {name} in {}", self.report))
    }
}

/// Migrates into the site's server.
pub(crate) fn migrate(site: &Site, arguments: &[&str]) -> Migrated {
    migrate_to(site, &format!("http://{}", site.registry()), arguments)
}

/// Runs a migration to a server, which may fail before there is a report.
pub(crate) fn run_to(site: &Site, server: &str, arguments: &[&str]) -> Finished {
    run(command(site, server, arguments), LIMIT)
}

/// Migrates to a server.
pub(crate) fn migrate_to(site: &Site, server: &str, arguments: &[&str]) -> Migrated {
    let finished = run_to(site, server, arguments);
    let report = serde_json::from_slice(&finished.stdout)
        .unwrap_or_else(|error| panic!("no report ({error}):\n{}", finished.log));
    Migrated {
        report,
        complete: finished.success,
        log: finished.log,
    }
}
