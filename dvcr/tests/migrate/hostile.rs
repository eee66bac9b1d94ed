//! Sources that lie, break the rules or never end, and choices that choose nothing.

use dvcr_core::oci::Digest;
use serde_json::json;

use crate::{
    migration::migrate,
    reply::{Received, Reply, Server},
    site::{MANIFEST_OCI, Site},
};

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
