//! What the importer lays out, read by everybody else.

use std::fs;

use crate::{
    importer::{ok, text},
    registry::{push, write_disk},
    site::Site,
    volume::same_disk,
};

/// `zstd -d | tar x` reads a layer as skopeo stores it; the file in it is the disk.
#[test]
fn a_layer_is_a_plain_archive() {
    let site = Site::new();
    let raw = site.path("raw");
    write_disk(&raw, 21, 24 << 20);
    push(&site, &raw, "vi/disk:1");
    let (from, to) = (
        format!("docker://{}", site.reference("vi/disk:1")),
        format!("dir:{}", site.file("copy")),
    );
    let options = ["--insecure-policy", "copy", "--src-tls-verify=false"];
    site.ok("skopeo", &[&options[..], &[&from, &to]].concat());
    let layer = site.manifest("vi/disk", "1").layers().remove(0);
    let hex = layer.strip_prefix("sha256:").unwrap();
    site.ok(
        "sh",
        &[
            "-c",
            &format!("zstd -dc copy/{hex} | tar -x --no-same-owner"),
        ],
    );
    same_disk("qcow2", &site.path("disk/disk.qcow2"), &raw);

    // What skopeo wrote is an image as well.
    site.ok(
        "skopeo",
        &[
            &options[..],
            &[&from, &format!("oci:{}:v1", site.file("oci"))],
        ]
        .concat(),
    );
    let out = site.path("out");
    ok(&[
        "populate",
        &format!("oci:{}:v1", site.file("oci")),
        text(&out),
    ]);
    same_disk("raw", &out, &raw);
    ok(&["populate", &format!("oci:{}", site.file("oci")), text(&out)]);
    same_disk("raw", &out, &raw);
}

/// podman, containerd and docker unpack the layer: the file is there, byte for byte.
#[test]
fn engines_unpack_the_layer() {
    let site = Site::new();
    let raw = site.path("raw");
    write_disk(&raw, 22, 24 << 20);
    push(&site, &raw, "vi/disk:1");
    let reference = site.reference("vi/disk:1");
    let file = site.path("disk.qcow2");

    let (root, run) = (site.file("podman"), site.file("run"));
    let podman = [
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
        "--root",
        &root,
        "--runroot",
        &run,
    ];
    site.ok(
        "podman",
        &[&podman[..], &["pull", "--tls-verify=false", &reference]].concat(),
    );
    let mounted = site.ok(
        "podman",
        &[&podman[..], &["image", "mount", &reference]].concat(),
    );
    fs::copy(format!("{}/disk/disk.qcow2", mounted.trim()), &file).unwrap();
    site.ok(
        "podman",
        &[&podman[..], &["image", "unmount", &reference]].concat(),
    );
    same_disk("qcow2", &file, &raw);

    let containerd = crate::engine::Containerd::start(&site);
    let unpacked = containerd.unpack(&site, &reference);
    same_disk("qcow2", &unpacked.join("disk/disk.qcow2"), &raw);
}

/// Docker engines before version 23 know no zstd: for them layers are pushed plain, and their disks are read like any other.
#[test]
fn docker_unpacks_a_plain_layer() {
    let site = Site::new();
    let raw = site.path("raw");
    write_disk(&raw, 23, 24 << 20);
    let reference = site.reference("vi/plain:1");
    let work = site.file("work");
    let options = ["--layer-compression=none", "--work-dir", &work];
    ok(&[&["import", text(&raw), &reference], &options[..]].concat());
    let docker = crate::engine::Docker::start(&site);
    docker.ok(&site, &["pull", &reference]);
    let container = docker.ok(&site, &["create", &reference, "none"]);
    let file = site.file("disk.qcow2");
    docker.ok(
        &site,
        &[
            "cp",
            &format!("{}:/disk/disk.qcow2", container.trim()),
            &file,
        ],
    );
    same_disk("qcow2", &site.path("disk.qcow2"), &raw);
    let out = site.path("out");
    ok(&["populate", &reference, text(&out)]);
    same_disk("raw", &out, &raw);
}
