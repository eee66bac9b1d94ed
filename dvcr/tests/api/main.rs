//! The management API of the real program, driven by a client that a generator made of the committed document, and from the
//! command line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

use std::{fs, path::Path, process::Command, time::Duration};

use support::{
    http::{Client, Request},
    process::{find, run, tool},
    random::Random,
    server::{Server, program},
    stored::Stored,
};

/// Whatever is run ends within this time.
const LIMIT: Duration = Duration::from_secs(120);

/// The document that clients are generated from.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/dvcr.json");

/// What the generated client is to do.
const DRIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/drive.py");

/// Without hooks, which only format.
const GENERATOR_SETTINGS: &str = "post_hooks: []\npackage_name_override: dvcr_api\n";

/// Nothing keeps what was deleted, but what is uploaded stays for an hour.
const SETTINGS: [(&str, &str); 2] = [("DVCR_GC_GRACE", "1h"), ("DVCR_LEASE", "1h")];

fn succeed(command: Command) -> String {
    let finished = run(command, LIMIT);
    assert!(finished.success, "{}", finished.log);
    String::from_utf8(finished.stdout).unwrap()
}

fn dvcr(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env("DVCR_SERVER", server.url());
    command
}

fn push(server: &Server, repositories: &[&str]) -> Stored {
    let client = Client::new(&server.url());
    let (mut stored, random) = (Stored::default(), &mut Random::new());
    for repository in repositories {
        assert!(stored.push(&client, repository, 1 << 20, random).is_ok());
    }
    stored
}

#[test]
fn a_generated_client_uses_every_sort_of_endpoint() {
    let server = Server::start(&SETTINGS);
    push(&server, &["vi/a", "vi/b", "vi/c/d"]);
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("settings.yaml");
    fs::write(&settings, GENERATOR_SETTINGS).unwrap();
    let generator = find("openapi-python-client")
        .expect("openapi-python-client is not installed: run tools/install.sh clients");
    let mut generate = tool("openapi-python-client");
    generate
        .args(["generate", "--meta", "none", "--fail-on-warning", "--path"])
        .arg(DOCUMENT)
        .arg("--config")
        .arg(&settings)
        .arg("--output-path")
        .arg(directory.path().join("dvcr_api"));
    succeed(generate);

    // The interpreter beside the generator has what generated clients import.
    let python = fs::canonicalize(generator).unwrap();
    let python = python.parent().unwrap().join("python");
    let mut drive = Command::new(python);
    drive
        .arg(DRIVE)
        .arg(server.url())
        .env("PYTHONPATH", directory.path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let told = succeed(drive);
    assert!(told.trim_end().ends_with("done"), "{told}");
}

#[test]
fn a_server_tells_the_document_that_is_committed() {
    let server = Server::start(&[]);
    let client = Client::new(&server.url());
    let answer = client
        .send(&Request::new("GET", "/api/v1/openapi.json"))
        .unwrap();
    assert_eq!(answer.status, 200);
    let committed = fs::read(Path::new(DOCUMENT)).unwrap();
    assert!(answer.body == committed);
    assert!(succeed(dvcr(&server, &["openapi"])).as_bytes() == committed);
}

#[test]
fn garbage_is_collected_from_the_command_line() {
    let server = Server::start(&SETTINGS);
    push(&server, &["vi/a"]);
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&succeed(dvcr(&server, arguments))).unwrap()
    };
    succeed(dvcr(&server, &["rm", "vi/a:*", "--yes"]));
    let run = json(&["gc", "run", "--wait", "--json"]);
    assert_eq!(run["state"], "done");
    assert_eq!(run["reviewed"]["removed"], 0, "grace: {run}");
    // What was pushed a moment ago is under its lease, whatever the grace.
    let run = json(&["gc", "run", "--grace", "0s", "--wait", "--json"]);
    assert_eq!(
        (&run["state"], &run["grace_seconds"]),
        (&"done".into(), &0.into())
    );
    assert_eq!(run["reviewed"]["removed"], 0, "lease: {run}");
    let told = succeed(dvcr(&server, &["gc", "run", "--wait"]));
    assert!(told.starts_with("done: removed 0 blobs"), "{told}");
    let told = succeed(dvcr(&server, &["gc", "run"]));
    assert!(told.contains("gc status"), "{told}");
    let status = succeed(dvcr(&server, &["gc", "status"]));
    assert!(
        status.contains("grace") && status.contains("3600 s"),
        "{status}"
    );
    let history = json(&["gc", "history", "--json"]);
    let states = history
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["trigger"]);
    assert!(states.clone().count() >= 3 && states.clone().all(|trigger| trigger == "request"));
    assert!(succeed(dvcr(&server, &["gc", "history"])).contains("done"));
    assert!(succeed(dvcr(&server, &["gc", "plan"])).contains("frees"));
}

#[test]
fn uploads_are_listed_and_ended_from_the_command_line() {
    let server = Server::start(&[]);
    let client = Client::new(&server.url());
    let start = Request::new("POST", "/v2/vi/a/blobs/uploads/");
    let location = client.send(&start).unwrap();
    let location = location.get("Location").unwrap().to_owned();
    let id = location.rsplit('/').next().unwrap();
    let part = Request::new("PATCH", location.clone()).octets(&[7; 100_000]);
    assert_eq!(client.send(&part).unwrap().status, 202);
    let list = succeed(dvcr(&server, &["uploads"]));
    assert!(
        list.contains(id) && list.contains("vi/a") && list.contains("97.7 KiB"),
        "{list}"
    );
    let told = succeed(dvcr(&server, &["uploads", "--cancel", id]));
    assert!(told.contains(id), "{told}");
    assert_eq!(succeed(dvcr(&server, &["uploads", "--json"])).trim(), "[]");
    assert_eq!(
        client
            .send(&Request::new("GET", location.clone()))
            .unwrap()
            .status,
        404
    );
    let again = run(dvcr(&server, &["uploads", "--cancel", id]), LIMIT);
    assert!(!again.success && again.log.contains("404"), "{}", again.log);
}
