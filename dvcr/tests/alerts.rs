//! The alert rules: Prometheus takes them, they fire when they should, and a running server exports every metric that they use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use support::{
    http::{Client, Request},
    process::{run, tool_with},
    server::Server,
};

const LIMIT: Duration = Duration::from_secs(60);

fn rules() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_when_they_should() {
    for (what, file) in [("check", "dvcr.rules.yaml"), ("test", "dvcr.test.yaml")] {
        let file = rules().join(file);
        let finished = run(
            tool_with("promtool", [what, "rules", file.to_str().unwrap()]),
            LIMIT,
        );
        assert!(finished.success, "{}", finished.log);
    }
}

#[test]
fn a_server_exports_every_metric_that_the_rules_use() {
    let text = fs::read_to_string(rules().join("dvcr.rules.yaml")).unwrap();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let used: BTreeSet<_> = words.filter(|word| word.starts_with("dvcr_")).collect();
    assert!(used.len() > 10, "{used:?}");
    let server = Server::start(&[]);
    let client = Client::new(&server.url());
    // What is counted by status and endpoint is there after the first request.
    client.send(&Request::new("GET", "/v2/")).unwrap();
    let metrics = client
        .send(&Request::new("GET", "/metrics"))
        .unwrap()
        .text();
    let exported: BTreeSet<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let missing: Vec<_> = used.difference(&exported).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {exported:?}");
}
