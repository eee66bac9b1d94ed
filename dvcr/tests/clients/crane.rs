//! crane, and with it every program that uses go-containerregistry.

use std::fs;

use crate::{
    image::{Image, assert_layout},
    site::Site,
    support::{
        layer::{gzip, tar},
        random::Random,
    },
};

fn crane(site: &Site, arguments: &[&str]) -> String {
    site.ok("crane", arguments)
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn an_index_is_pushed_copied_and_pulled() {
    let site = Site::new();
    let random = &mut Random::new();
    let index = Image::index(vec![
        Image::new(random, "amd64"),
        Image::new(random, "arm64"),
    ]);
    // A layout with one index in it is that index for crane.
    index.write_layout(&site.path("in"), "v1");
    let (first, second) = (
        site.reference("crane/first:v1"),
        site.reference("crane/second:v2"),
    );
    crane(&site, &["push", "--index", &site.file("in"), &first]);
    // The pushed thing is the layout's own index, which refers to ours.
    let pushed = site.manifest("crane/first", "v1");
    let inner = pushed.json()["manifests"][0]["digest"].clone();
    assert_eq!(inner, index.digest());
    index.assert_stored(&site, "crane/first", index.digest());
    assert_eq!(crane(&site, &["digest", &first]).trim(), pushed.digest);

    crane(&site, &["copy", &first, &second]);
    assert_eq!(site.manifest("crane/second", "v2"), pushed);
    index.assert_stored(&site, "crane/second", index.digest());
    let by_digest = site.reference(&format!("crane/second@{}", index.digest()));
    crane(
        &site,
        &["pull", "--format=oci", &by_digest, &site.file("out")],
    );
    assert_layout(&site.path("out"), &index.content);
    crane(&site, &["validate", "--remote", &by_digest]);
}

#[test]
fn an_image_passes_cranes_validation() {
    let site = Site::new();
    let image = Image::new(&mut Random::new(), "amd64");
    image.write_layout(&site.path("in"), "v1");
    let reference = site.reference("valid:v1");
    crane(&site, &["push", &site.file("in"), &reference]);
    image.assert_stored(&site, "valid", "v1");
    // Fetches every layer and checks digests, lengths and diff ids.
    crane(&site, &["validate", "--remote", &reference]);
    let manifest = crane(&site, &["manifest", &reference]);
    assert_eq!(manifest.as_bytes(), image.content[image.digest()]);
    crane(
        &site,
        &["pull", "--format=oci", &reference, &site.file("out")],
    );
    assert_layout(&site.path("out"), &image.content);
}

#[test]
fn lists_follow_tagging_and_deleting() {
    let site = Site::new();
    let random = &mut Random::new();
    for name in ["one", "two"] {
        Image::new(random, "amd64").write_layout(&site.path(name), "x");
    }
    let (b, a) = (site.reference("b:v1"), site.reference("a:v1"));
    crane(&site, &["push", &site.file("one"), &b]);
    crane(&site, &["push", &site.file("two"), &a]);
    crane(&site, &["tag", &b, "v3"]);
    crane(&site, &["tag", &b, "v2"]);
    assert_eq!(
        lines(&crane(&site, &["catalog", site.registry()])),
        ["a", "b"]
    );
    let repository = site.reference("b");
    assert_eq!(
        lines(&crane(&site, &["ls", &repository])),
        ["v1", "v2", "v3"]
    );

    // A deleted tag leaves the others and the manifest; a deleted manifest takes its tags along.
    crane(&site, &["delete", &site.reference("b:v2")]);
    assert_eq!(lines(&crane(&site, &["ls", &repository])), ["v1", "v3"]);
    let digest = crane(&site, &["digest", &b]);
    crane(
        &site,
        &["delete", &site.reference(&format!("b@{}", digest.trim()))],
    );
    let log = site.fails("crane", &["digest", &b]);
    assert!(log.contains("MANIFEST_UNKNOWN"), "{log}");
    site.fails("crane", &["digest", &site.reference("b:v3")]);
    crane(&site, &["digest", &a]);
}

/// A new version of an image that adds one layer: the others are not sent again.
#[test]
fn an_appended_layer_is_found_in_the_pulled_file_system() {
    let site = Site::new();
    let random = &mut Random::new();
    Image::new(random, "amd64").write_layout(&site.path("in"), "x");
    let (old, new) = (site.reference("app:old"), site.reference("app:new"));
    crane(&site, &["push", &site.file("in"), &old]);
    let added = random.bytes(200_000);
    let layer = site.write("layer.tar.gz", &gzip(&tar(&[("added", &added)])));
    crane(
        &site,
        &[
            "append",
            "--base",
            &old,
            "--new_layer",
            &layer,
            "--new_tag",
            &new,
        ],
    );
    let (old_layers, new_layers) = (
        site.manifest("app", "old").layers(),
        site.manifest("app", "new").layers(),
    );
    assert_eq!(new_layers[..old_layers.len()], old_layers);
    crane(&site, &["validate", "--remote", &new]);
    crane(&site, &["export", &new, &site.file("flat.tar")]);
    let flat = fs::read(site.path("flat.tar")).unwrap();
    assert!(flat.windows(added.len()).any(|window| window == added));
}
