//! Two registries, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{
    digest::Algorithm,
    http::{Client, Request, Response},
};

/// Reads a registry without any of the code under test.
pub(crate) struct Reader(Client);

impl Reader {
    pub(crate) fn new(url: &str) -> Self {
        Self(Client::new(url))
    }

    fn get(&self, path: &str) -> Response {
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
        let request = Request::new("GET", path).header("Accept", accept);
        let response = self.0.send(&request);
        response.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Whether there is such a thing.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.get(path).status == 200
    }

    fn found(&self, path: &str) -> Response {
        let response = self.get(path);
        assert_eq!(response.status, 200, "GET {path}: {}", response.text());
        response
    }

    fn list(&self, path: &str, field: &str) -> Vec<String> {
        let json = self.found(path).json().unwrap();
        let entries = json[field].as_array().cloned().unwrap_or_default();
        let text = |entry: Value| entry.as_str().expect("a text").to_owned();
        entries.into_iter().map(text).collect()
    }

    /// Digest of every tag of every repository.
    pub(crate) fn tags(&self) -> BTreeMap<(String, String), String> {
        let mut tags = BTreeMap::new();
        for repository in self.list("/v2/_catalog?n=1000", "repositories") {
            for tag in self.list(&format!("/v2/{repository}/tags/list"), "tags") {
                let manifest = self.found(&format!("/v2/{repository}/manifests/{tag}"));
                let told = manifest.get("Docker-Content-Digest").expect("a digest");
                assert_eq!(
                    algorithm(told).digest(&manifest.body),
                    told,
                    "{repository}:{tag}"
                );
                tags.insert((repository.clone(), tag), told.to_owned());
            }
        }
        tags
    }

    /// Digests in the answer of the referrers API.
    pub(crate) fn referrers(&self, repository: &str, digest: &str) -> BTreeSet<String> {
        let json = self.found(&format!("/v2/{repository}/referrers/{digest}"));
        let json = json.json().unwrap();
        let entries = json["manifests"].as_array().cloned().unwrap_or_default();
        entries.iter().map(digest_of).collect()
    }
}

fn algorithm(digest: &str) -> Algorithm {
    match digest.split_once(':') {
        Some(("sha512", _)) => Algorithm::Sha512,
        _ => Algorithm::Sha256,
    }
}

fn digest_of(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str();
    digest.expect("a descriptor has a digest").to_owned()
}

/// Panics unless both have the same tags, and all that these lead to in the same bytes.
pub(crate) fn assert_same(source: &Reader, target: &Reader) {
    let tags = source.tags();
    assert!(!tags.is_empty());
    assert_eq!(target.tags(), tags);
    for ((repository, _), digest) in tags {
        assert_same_manifest(source, target, &repository, &digest);
    }
}

/// Panics unless both have a manifest and all that it refers to in the same bytes.
pub(crate) fn assert_same_manifest(
    source: &Reader,
    target: &Reader,
    repository: &str,
    digest: &str,
) {
    let path = format!("/v2/{repository}/manifests/{digest}");
    let (expected, found) = (source.found(&path), target.found(&path));
    assert!(found.body == expected.body, "{path}");
    assert_eq!(
        found.get("Content-Type"),
        expected.get("Content-Type"),
        "{path}"
    );
    let json = found.json().unwrap();
    let list = |name: &str| json[name].as_array().cloned().unwrap_or_default();
    for child in list("manifests") {
        assert_same_manifest(source, target, repository, &digest_of(&child));
    }
    for child in list("layers").iter().chain(json.get("config")) {
        let digest = digest_of(child);
        let body = target
            .found(&format!("/v2/{repository}/blobs/{digest}"))
            .body;
        assert_eq!(algorithm(&digest).digest(&body), digest);
    }
}
