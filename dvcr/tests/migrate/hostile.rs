//! Sources that lie, break the rules or never end, and choices that choose nothing.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use dvcr_core::oci::Digest;
use serde_json::json;

use crate::{
    migration::{migrate, run_to},
    reply::{Received, Reply, Server},
    site::{MANIFEST_OCI, Site},
    support::{process::run, server::program},
};

const LIMIT: Duration = Duration::from_secs(60);

/// What a registry of one image answers; every tag of it is that image.
fn one_image(request: &Received) -> Reply {
    let config = b"{}";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_OCI,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::sha256(config),
            "size": config.len(),
        },
        "layers": [],
    })
    .to_string();
    let path = request.target.split('?').next().unwrap();
    match path {
        "/v2/" => Reply::new(200).body("{}"),
        "/v2/_catalog" => Reply::new(200).body(r#"{"repositories": ["good/one"]}"#),
        "/v2/good/one/tags/list" => Reply::new(200).body(r#"{"tags": ["v1"]}"#),
        _ if path.starts_with("/v2/good/one/manifests/") => {
            let digest = Digest::sha256(manifest.as_bytes());
            Reply::new(200)
                .with("Content-Type", MANIFEST_OCI)
                .with("Docker-Content-Digest", digest.to_string())
                .body(manifest)
        }
        _ if path.starts_with("/v2/good/one/blobs/") => Reply::new(200).body(config),
        _ => Reply::new(404).body("{}"),
    }
}

#[test]
fn a_source_that_is_not_there_is_told_once_and_within_seconds() {
    let (site, begun) = (Site::new(), Instant::now());
    let server = format!("http://{}", site.registry());
    let refused = run_to(&site, &server, &["registry", "http://127.0.0.1:1"]);
    assert!(!refused.success);
    assert!(begun.elapsed() < LIMIT / 4, "{:?}", begun.elapsed());
    let log = &refused.log;
    assert!(
        log.contains("read the source: GET http://127.0.0.1:1/v2/: no server answers"),
        "{log}"
    );
    assert_eq!(log.matches("efused").count(), 1, "{log}");
    let refused = run_to(&site, "http://127.0.0.1:1", &["registry", &server]);
    assert_eq!(refused.log.matches("efused").count(), 1, "{}", refused.log);
}

#[test]
fn a_name_with_control_characters_reaches_no_terminal() {
    let names = json!({"repositories": [
        "good/one",
        "\u{1b}]0;owned\u{7}\u{1b}[31mevil\u{1b}[0m\nnot brought over: forged",
        format!("long{}", "/x".repeat(100_000)),
    ]});
    let (site, source) = (
        Site::new(),
        Server::start(move |request, _| match &*request.target {
            target if target.starts_with("/v2/_catalog") => Reply::new(200).body(names.to_string()),
            "/v2/good/one/tags/list?n=1000" => {
                Reply::new(200).body(json!({"tags": ["v1", "\u{1b}[2J\nforged"]}).to_string())
            }
            _ => one_image(request),
        }),
    );
    let server = format!("http://{}", site.registry());
    let mut command = Command::new(program());
    command
        .args(["migrate", "registry", &source.url(), "--server", &server])
        .env("XDG_STATE_HOME", site.path("state"));
    let done = run(command, LIMIT);
    assert!(!done.success);
    assert!(!done.log.contains(['\u{1b}', '\u{7}']), "{:?}", done.log);
    assert!(
        !done
            .log
            .lines()
            .any(|line| line.contains("forged") && !line.contains('[')),
        "{:?}",
        done.log
    );
    assert!(done.log.contains("[31mevil"), "{}", done.log);
    assert!(done.log.contains("repository long/x"), "{}", done.log);
    assert!(done.log.len() < 5_000, "{}", done.log.len());
}

#[test]
fn a_malformed_tag_costs_that_tag_alone() {
    let (site, source) = (
        Site::new(),
        Server::start(|request, _| match &*request.target {
            "/v2/good/one/tags/list?n=1000" => {
                Reply::new(200).body(r#"{"tags": ["v1", "bad tag!", "v2"]}"#)
            }
            _ => one_image(request),
        }),
    );
    let done = migrate(&site, &["registry", &source.url()]);
    assert!(!done.complete, "{}", done.log);
    assert_eq!(done.figure("tags_verified"), 2, "{}", done.report);
    assert_eq!(done.figure("failed"), 1, "{}", done.report);
    let failure = &done.report["failures"][0];
    assert_eq!(failure["repository"], "good/one");
    assert_eq!(failure["item"], "tag bad tag!");
}

#[test]
fn a_glob_that_fits_no_repository_is_a_failure() {
    let (site, source) = (Site::new(), Server::start(|request, _| one_image(request)));
    let url = source.url();
    let chosen = |globs: &[&str]| {
        let globs = globs.iter().flat_map(|glob| ["--repository", glob]);
        let arguments: Vec<&str> = ["registry", &url].into_iter().chain(globs).collect();
        migrate(&site, &arguments)
    };
    let mistyped = chosen(&["good/*", "old.example/good/**"]);
    assert!(!mistyped.complete, "{}", mistyped.log);
    let failures = &mistyped.report["failures"];
    assert_eq!(failures[0]["repository"], "old.example/good/**");
    assert_eq!(mistyped.figure("failed"), 1, "{failures}");
    assert!(failures[0]["reason"].as_str().unwrap().contains("host"));
    assert_eq!(mistyped.figure("tags_verified"), 1, "the rest comes over");
    let right = chosen(&["good/*"]);
    assert!(right.complete, "{}", right.log);
}
