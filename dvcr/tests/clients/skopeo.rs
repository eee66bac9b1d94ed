//! skopeo: copies between directories and the registry, and inside the registry.

use crate::{
    image::{Image, assert_layout, read_layout},
    site::Site,
    support::{digest::sha256, random::Random},
};

/// `--insecure-policy`: signatures are not what is tested, and the machine may have no policy file.
fn copy(site: &Site, from: &str, to: &str) {
    let arguments = [
        "--insecure-policy",
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ];
    site.ok("skopeo", &arguments);
}

fn docker(site: &Site, rest: &str) -> String {
    format!("docker://{}", site.reference(rest))
}

fn inspect(site: &Site, rest: &str) -> String {
    let image = docker(site, rest);
    site.ok(
        "skopeo",
        &["inspect", "--tls-verify=false", "--raw", &image],
    )
}

#[test]
fn an_oci_layout_comes_back_from_the_registry() {
    let site = Site::new();
    let image = Image::new(&mut Random::new(), "amd64");
    image.write_layout(&site.path("in"), "v1");
    let (source, target) = (site.file("in"), site.file("out"));
    copy(
        &site,
        &format!("oci:{source}:v1"),
        &docker(&site, "disks/debian:v1"),
    );
    image.assert_stored(&site, "disks/debian", "v1");
    assert_eq!(
        sha256(inspect(&site, "disks/debian:v1").as_bytes()),
        image.digest()
    );
    copy(
        &site,
        &docker(&site, "disks/debian:v1"),
        &format!("oci:{target}:v1"),
    );
    assert_layout(&site.path("out"), &image.content);
    // By digest as well.
    let by_digest = docker(&site, &format!("disks/debian@{}", image.digest()));
    copy(&site, &by_digest, &format!("oci:{}:x", site.file("again")));
    assert_layout(&site.path("again"), &image.content);
}

#[test]
fn an_index_of_two_platforms_is_copied_whole() {
    let site = Site::new();
    let random = &mut Random::new();
    let index = Image::index(vec![
        Image::new(random, "amd64"),
        Image::new(random, "arm64"),
    ]);
    index.write_layout(&site.path("in"), "both");
    let source = format!("oci:{}:both", site.file("in"));
    copy(&site, &source, &docker(&site, "multi:both"));
    index.assert_stored(&site, "multi", "both");
    // From one repository to another of the same registry: skopeo mounts, nothing is sent again.
    copy(
        &site,
        &docker(&site, "multi:both"),
        &docker(&site, "a/b/c/copy:both"),
    );
    index.assert_stored(&site, "a/b/c/copy", "both");
    copy(
        &site,
        &docker(&site, "a/b/c/copy:both"),
        &format!("oci:{}:x", site.file("out")),
    );
    assert_layout(&site.path("out"), &index.content);
}

#[test]
fn images_travel_between_two_registries() {
    let (site, other) = (Site::new(), Site::new());
    let image = Image::plain(&mut Random::new(), "amd64");
    image.write_layout(&site.path("in"), "v1");
    copy(
        &site,
        &format!("oci:{}:v1", site.file("in")),
        &docker(&site, "here:v1"),
    );
    copy(
        &site,
        &docker(&site, "here:v1"),
        &docker(&other, "there:v1"),
    );
    image.assert_stored(&other, "there", "v1");
}

#[test]
fn a_dir_copy_goes_both_ways() {
    let site = Site::new();
    let image = Image::new(&mut Random::new(), "amd64");
    image.write_layout(&site.path("in"), "v1");
    copy(
        &site,
        &format!("oci:{}:v1", site.file("in")),
        &docker(&site, "first:v1"),
    );
    let directory = format!("dir:{}", site.file("dir"));
    copy(&site, &docker(&site, "first:v1"), &directory);
    copy(&site, &directory, &docker(&site, "second:v1"));
    image.assert_stored(&site, "second", "v1");
}

/// Converting to schema 2 makes another manifest over the same layers.
#[test]
fn a_docker_schema_2_manifest_is_taken() {
    let site = Site::new();
    let image = Image::new(&mut Random::new(), "amd64");
    image.write_layout(&site.path("in"), "v1");
    let source = format!("oci:{}:v1", site.file("in"));
    let target = docker(&site, "schema2:v1");
    let arguments = [
        "--insecure-policy",
        "copy",
        "--format=v2s2",
        "--dest-tls-verify=false",
        &source,
        &target,
    ];
    site.ok("skopeo", &arguments);
    let manifest = site.manifest("schema2", "v1");
    assert_eq!(manifest.media_type, crate::site::MANIFEST_DOCKER);
    copy(&site, &target, &format!("dir:{}", site.file("out")));
    let out = std::fs::read(site.path("out/manifest.json")).unwrap();
    assert_eq!(sha256(&out), manifest.digest);
}

#[test]
fn tags_are_listed_and_deleted() {
    let site = Site::new();
    let image = Image::new(&mut Random::new(), "amd64");
    image.write_layout(&site.path("in"), "v1");
    let source = format!("oci:{}:v1", site.file("in"));
    for tag in ["v2", "v1", "latest"] {
        copy(&site, &source, &docker(&site, &format!("tags:{tag}")));
    }
    let repository = docker(&site, "tags");
    let list = site.ok("skopeo", &["list-tags", "--tls-verify=false", &repository]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["Tags"], serde_json::json!(["latest", "v1", "v2"]));
    // skopeo deletes the manifest by its digest, and with it every tag.
    let tagged = docker(&site, "tags:v1");
    site.ok("skopeo", &["delete", "--tls-verify=false", &tagged]);
    let log = site.fails("skopeo", &["inspect", "--tls-verify=false", &tagged]);
    assert!(log.contains("manifest unknown"), "{log}");
    // What was deleted can be pushed again.
    copy(&site, &source, &tagged);
    copy(&site, &tagged, &format!("oci:{}:x", site.file("out")));
    assert_eq!(read_layout(&site.path("out")), image.content);
}
