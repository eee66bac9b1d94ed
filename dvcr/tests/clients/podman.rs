//! podman: build, push, pull, with storage of its own.

use std::path::PathBuf;

use crate::{
    site::{Site, same_file},
    support::random::Random,
};

fn podman(site: &Site, arguments: &[&str]) -> String {
    let (root, runroot, tmpdir) = (site.file("root"), site.file("run"), site.file("tmp"));
    // vfs works on every file system and needs no mounts; nothing is run, so no cgroups are needed.
    let mut all = vec![
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
        "--root",
        &root,
        "--runroot",
        &runroot,
        "--tmpdir",
        &tmpdir,
    ];
    all.extend_from_slice(arguments);
    site.ok("podman", &all)
}

/// Builds an image with a disk; its id.
fn build(site: &Site, reference: &str) -> String {
    let random = &mut Random::new();
    site.write("context/disk.img", &random.bytes(3 << 20));
    site.write("context/note", random.word().as_bytes());
    site.write(
        "context/Containerfile",
        b"FROM scratch\nCOPY disk.img /disk/disk.img\nCOPY note /note\n",
    );
    podman(
        site,
        &[
            "build",
            "--isolation=chroot",
            "--tag",
            reference,
            &site.file("context"),
        ],
    );
    id(site, reference)
}

fn id(site: &Site, reference: &str) -> String {
    podman(site, &["image", "inspect", "--format={{.Id}}", reference])
        .trim()
        .to_owned()
}

/// Pushes and returns the digest that podman says it pushed.
fn push(site: &Site, options: &[&str], image: &str, reference: &str) -> String {
    let (file, target) = (site.file("digest"), format!("docker://{reference}"));
    let mut arguments = vec!["push", "--tls-verify=false", "--digestfile", &file];
    arguments.extend_from_slice(options);
    arguments.extend_from_slice(&[image, &target]);
    podman(site, &arguments);
    std::fs::read_to_string(&file).unwrap()
}

/// Forgets all images, pulls one, and compares its id and its files.
fn pull_and_compare(site: &Site, reference: &str, id_pushed: &str) {
    podman(site, &["rmi", "--all", "--force"]);
    podman(site, &["pull", "--tls-verify=false", reference]);
    assert_eq!(id(site, reference), id_pushed);
    let mounted = PathBuf::from(podman(site, &["image", "mount", reference]).trim());
    same_file(
        &mounted.join("disk/disk.img"),
        &site.path("context/disk.img"),
    );
    same_file(&mounted.join("note"), &site.path("context/note"));
    podman(site, &["image", "unmount", reference]);
}

#[test]
fn a_built_image_is_pushed_and_pulled() {
    let site = Site::new();
    let reference = site.reference("podman/built:v1");
    let built = build(&site, &reference);
    let digest = push(&site, &[], &reference, &reference);
    let manifest = site.manifest("podman/built", "v1");
    assert_eq!(manifest.digest, digest);
    assert_eq!(manifest.config(), format!("sha256:{built}"));
    pull_and_compare(&site, &reference, &built);
    // By digest, after the tag has moved on.
    let by_digest = site.reference(&format!("podman/built@{digest}"));
    pull_and_compare(&site, &by_digest, &built);
}

/// Pushes an image with layers compressed anew. Frames of zstd take another way through the store than other bytes.
fn push_compressed(compression: &str) {
    let site = Site::new();
    let (local, reference) = ("localhost/built:v1", site.reference("podman/zstd:v1"));
    let built = build(&site, local);
    let format = format!("--compression-format={compression}");
    let digest = push(&site, &["--format=oci", &format], local, &reference);
    let manifest = site.manifest("podman/zstd", "v1");
    assert_eq!(manifest.digest, digest);
    for layer in manifest.json()["layers"].as_array().unwrap() {
        let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
        assert_eq!(layer["mediaType"], media_type);
        let chunked = layer["annotations"].get("io.containers.zstd-chunked.manifest-position");
        assert_eq!(chunked.is_some(), compression == "zstd:chunked");
    }
    pull_and_compare(&site, &reference, &built);
}

#[test]
fn zstd_layers_are_pushed_and_pulled() {
    push_compressed("zstd");
}

#[test]
fn zstd_chunked_layers_are_pushed_and_pulled() {
    push_compressed("zstd:chunked");
}
