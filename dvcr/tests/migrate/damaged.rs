//! A source that is not what it should be.

use std::fs;

use crate::{
    compare::{Reader, assert_same},
    fill::{fill, layout},
    image::Image,
    migration::{Migrated, command, migrate},
    site::Site,
    support::{
        distribution::{Distribution, Version},
        process::run,
        random::Random,
    },
};

/// The layers of a tag, largest first.
fn layers(site: &Site, reference: &str) -> Vec<(u64, String)> {
    let text = site.ok("crane", &["manifest", "--insecure", reference]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layer = |layer: &serde_json::Value| {
        let digest = layer["digest"].as_str().unwrap().to_owned();
        (layer["size"].as_u64().unwrap(), digest)
    };
    let mut layers: Vec<_> = json["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(layer)
        .collect();
    layers.sort_unstable_by(|a, b| b.cmp(a));
    layers
}

fn assert_told(done: &Migrated, parts: &[&str]) {
    assert!(!done.complete, "{}", done.report);
    let failures = done.report["failures"].as_array().unwrap();
    let told = failures
        .iter()
        .any(|failure| parts.iter().all(|part| failure.to_string().contains(part)));
    assert!(told, "{parts:?} in {}", done.report);
}

#[test]
fn damaged_blobs_are_named_and_all_else_comes_over() {
    let (site, peer) = (Site::new(), Distribution::start(Version::V3, ""));
    fill(&site, peer.address());
    let data = peer.data();
    let data = data.to_str().unwrap();
    let target = Reader::new(&format!("http://{}", site.registry()));
    let source = Reader::new(&peer.url());
    let tags = source.tags();
    let reference = |rest: &str| format!("{}/{rest}", peer.address());

    // A bit flips in one layer's middle; another's end is gone.
    let flipped = layers(&site, &reference("vd/ns/disk:a-uid"))[0].1.clone();
    let flipped_file = peer.blob(&flipped);
    let original = fs::read(&flipped_file).unwrap();
    let mut bytes = original.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&flipped_file, &bytes).unwrap();
    let cut = layers(&site, &reference("artifacts/disk:v1"))[0].1.clone();
    let cut_file = peer.blob(&cut);
    let whole = fs::read(&cut_file).unwrap();
    fs::write(&cut_file, &whole[..whole.len() - 1]).unwrap();

    let done = migrate(&site, &["distribution", data]);
    assert_told(
        &done,
        &[&flipped, flipped_file.to_str().unwrap(), "damaged"],
    );
    assert_told(&done, &[&cut, cut_file.to_str().unwrap(), "damaged"]);
    assert_told(&done, &["vd/ns/disk", "tag a-uid"]);
    let expected = |name: &str| !matches!(name, "vd/ns/disk" | "artifacts/disk");
    let here = target.tags();
    for (tag, digest) in tags.iter().filter(|((name, _), _)| expected(name)) {
        assert_eq!(here.get(tag), Some(digest), "{tag:?}");
    }
    let tag = ("vd/ns/disk".to_owned(), "a-uid".to_owned());
    assert_eq!(here.get(&tag), None);

    // The same over HTTP: Distribution serves what it finds.
    let done = migrate(&site, &["registry", &peer.url()]);
    assert_told(&done, &[&flipped, "damaged"]);
    assert_eq!(target.tags(), here);

    // Nothing of the damaged blobs is in the way of the good ones.
    fs::write(&flipped_file, &original).unwrap();
    fs::write(&cut_file, &whole).unwrap();
    let done = migrate(&site, &["distribution", data]);
    assert!(done.complete, "{}", done.log);
    assert_same(&source, &target);
}

#[test]
fn damaged_manifests_and_tags_are_named() {
    let (site, peer) = (Site::new(), Distribution::start(Version::V3, ""));
    let random = &mut Random::new();
    let push = |name: &str, to: &str| {
        let from = layout(&site, name, &Image::new(random, "amd64"));
        let to = format!("docker://{}/{to}", peer.address());
        let arguments = [
            "--insecure-policy",
            "copy",
            "--dest-tls-verify=false",
            &from,
            &to,
        ];
        site.ok("skopeo", &arguments);
    };
    let mut push = push;
    push("good", "a/good:v1");
    push("bad", "a/bad:v1");
    push("torn", "a/torn:v1");
    push("gone", "a/gone:v1");
    let source = Reader::new(&peer.url());
    let tags = source.tags();
    let digest = |name: &str| &tags[&(name.to_owned(), "v1".to_owned())];
    let manifest = peer.blob(digest("a/bad"));
    fs::write(&manifest, "{}").unwrap();
    let below = peer.data().join("docker/registry/v2/repositories/a");
    fs::write(below.join("torn/_manifests/tags/v1/current/link"), "sha").unwrap();
    let hex = digest("a/gone").strip_prefix("sha256:").unwrap();
    let revision = format!("gone/_manifests/revisions/sha256/{hex}/link");
    fs::remove_file(below.join(revision)).unwrap();

    let data = peer.data();
    let done = migrate(&site, &["distribution", data.to_str().unwrap()]);
    assert_told(&done, &["a/bad", "manifest", manifest.to_str().unwrap()]);
    assert_told(&done, &["a/bad", "tag v1"]);
    assert_told(&done, &["a/torn", "tag v1", "holds no digest"]);
    assert_told(&done, &["a/gone", "tag v1", "deleted"]);
    let target = Reader::new(&format!("http://{}", site.registry()));
    let here: Vec<_> = target.tags().into_keys().collect();
    assert_eq!(here, [("a/good".to_owned(), "v1".to_owned())]);
}

#[test]
fn what_is_no_registry_is_refused() {
    let site = Site::new();
    let server = format!("http://{}", site.registry());
    let refused = |arguments: &[&str], expected: &str| {
        let finished = run(
            command(&site, &server, arguments),
            std::time::Duration::from_secs(60),
        );
        assert!(!finished.success, "{arguments:?}");
        assert!(finished.log.contains(expected), "{}", finished.log);
    };
    let empty = site.file("home");
    refused(&["distribution", &empty], "docker/registry/v2");
    refused(
        &["registry", "ftp://old.example"],
        "no address of a registry",
    );
    refused(&["registry", &format!("{server}/v2/")], "top of a host");
}
