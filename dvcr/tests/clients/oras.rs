//! oras: artifacts, and artifacts that refer to others.

use std::fs;

use crate::{
    site::{Site, same_file},
    support::{digest::sha256, random::Random},
};

fn oras(site: &Site, arguments: &[&str]) -> String {
    site.ok("oras", arguments)
}

fn json(site: &Site, arguments: &[&str]) -> serde_json::Value {
    let text = oras(site, arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// Pushes a disk and a note as an artifact; its digest.
fn push(site: &Site, reference: &str) -> String {
    let random = &mut Random::new();
    site.write("disk.raw", &random.bytes(2 << 20));
    site.write("note.txt", random.word().as_bytes());
    let pushed = json(
        site,
        &[
            "push",
            "--plain-http",
            "--format=json",
            "--artifact-type=application/vnd.kubevirt.disk",
            reference,
            "disk.raw:application/vnd.kubevirt.disk.raw",
            "note.txt:text/plain",
        ],
    );
    pushed["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn an_artifact_comes_back_with_its_files() {
    let site = Site::new();
    let reference = site.reference("artifacts/disk:v1");
    let digest = push(&site, &reference);
    let manifest = site.manifest("artifacts/disk", "v1");
    assert_eq!(manifest.digest, digest);
    assert_eq!(
        manifest.json()["artifactType"],
        "application/vnd.kubevirt.disk"
    );
    assert_eq!(
        oras(&site, &["resolve", "--plain-http", &reference]).trim(),
        digest
    );
    let out = site.file("out");
    oras(
        &site,
        &["pull", "--plain-http", "--output", &out, &reference],
    );
    for name in ["disk.raw", "note.txt"] {
        same_file(&site.path("out").join(name), &site.path(name));
    }
    let fetched = oras(&site, &["manifest", "fetch", "--plain-http", &reference]);
    assert_eq!(fetched.as_bytes(), manifest.bytes);
    let tags = oras(
        &site,
        &[
            "repo",
            "tags",
            "--plain-http",
            &site.reference("artifacts/disk"),
        ],
    );
    assert_eq!(tags.trim(), "v1");
    let repositories = oras(&site, &["repo", "ls", "--plain-http", site.registry()]);
    assert_eq!(repositories.trim(), "artifacts/disk");
}

#[test]
fn referrers_are_discovered_and_follow_a_recursive_copy() {
    let site = Site::new();
    let (first, second) = (site.reference("first:v1"), site.reference("second:v1"));
    let digest = push(&site, &first);
    site.write("sbom.json", b"{\"packages\":[]}");
    let attach = |kind: &str, to: &str| {
        let kind = format!("--artifact-type={kind}");
        let arguments = [
            "attach",
            "--plain-http",
            "--format=json",
            &kind,
            to,
            "sbom.json:application/json",
        ];
        json(&site, &arguments)["digest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    };
    let sbom = attach("application/spdx+json", &first);
    let signature = attach("application/vnd.example.signature", &first);
    // A signature of the SBOM: a referrer of a referrer.
    let signed_sbom = site.reference(&format!("first@{sbom}"));
    let signature_of_sbom = attach("application/vnd.example.signature", &signed_sbom);

    oras(
        &site,
        &[
            "cp",
            "-r",
            "--from-plain-http",
            "--to-plain-http",
            &first,
            &second,
        ],
    );
    for (repository, reference) in [("first", &first), ("second", &second)] {
        let mut found = Vec::new();
        let tree = json(
            &site,
            &["discover", "--plain-http", "--format=json", reference],
        );
        assert_eq!(tree["digest"], digest.as_str());
        collect(&tree["referrers"], &mut found);
        let mut expected = vec![sbom.clone(), signature.clone(), signature_of_sbom.clone()];
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "referrers in {repository}");
        let filter = "--artifact-type=application/spdx+json";
        let one = json(
            &site,
            &[
                "discover",
                "--plain-http",
                "--format=json",
                filter,
                "--depth=1",
                reference,
            ],
        );
        assert_eq!(one["referrers"].as_array().map(Vec::len), Some(1), "{one}");
        assert_eq!(one["referrers"][0]["digest"], sbom.as_str());
    }
    let pulled = site.reference(&format!("second@{signature_of_sbom}"));
    oras(
        &site,
        &[
            "pull",
            "--plain-http",
            "--output",
            &site.file("out"),
            &pulled,
        ],
    );
    same_file(&site.path("out/sbom.json"), &site.path("sbom.json"));

    // A deleted referrer is no longer listed.
    let gone = site.reference(&format!("first@{signature}"));
    oras(
        &site,
        &["manifest", "delete", "--plain-http", "--force", &gone],
    );
    let tree = json(
        &site,
        &["discover", "--plain-http", "--format=json", &first],
    );
    let mut found = Vec::new();
    collect(&tree["referrers"], &mut found);
    assert_eq!(found, [sbom, signature_of_sbom]);
}

/// Digests of all referrers of a tree that `oras discover` printed.
fn collect(referrers: &serde_json::Value, found: &mut Vec<String>) {
    for referrer in referrers.as_array().into_iter().flatten() {
        found.push(referrer["digest"].as_str().expect("a digest").to_owned());
        collect(&referrer["referrers"], found);
    }
}

#[test]
fn blobs_are_pushed_and_fetched_alone() {
    let site = Site::new();
    let bytes = Random::new().bytes(1_500_000);
    let file = site.write("blob", &bytes);
    let repository = site.reference("blobs");
    let digest = sha256(&bytes);
    oras(&site, &["blob", "push", "--plain-http", &repository, &file]);
    assert!(site.blob("blobs", &digest) == bytes);
    let blob = format!("{repository}@{digest}");
    let out = site.file("out");
    oras(
        &site,
        &["blob", "fetch", "--plain-http", "--output", &out, &blob],
    );
    assert!(fs::read(&out).unwrap() == bytes);
    oras(&site, &["blob", "delete", "--plain-http", "--force", &blob]);
    site.fails(
        "oras",
        &["blob", "fetch", "--plain-http", "--output", &out, &blob],
    );
}
