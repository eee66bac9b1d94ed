//! Guests boot from what comes out of the registry.

use std::fs;

use crate::{
    engine::Docker,
    guest,
    importer::{ok, text},
    registry::push,
    site::Site,
    support::random::Random,
    volume::{LoopDevice, same_disk},
};

#[test]
fn a_guest_boots_from_a_file_and_from_a_device() {
    let site = Site::new();
    let token = Random::new().word();
    let disk = guest::write_disk(&site.path("."), &token);
    push(&site, &disk, "vi/guest:1");
    let reference = site.reference("vi/guest:1");

    let volume = site.path("volume");
    fs::create_dir(&volume).unwrap();
    ok(&["populate", &reference, text(&volume), "--size", "256Mi"]);
    guest::boot(&volume.join("disk.img"), "raw", &token);

    let device = LoopDevice::new(&site.path("."), 128 << 20, 0xAA);
    ok(&["populate", &reference, text(device.path())]);
    guest::boot(device.path(), "raw", &token);

    let qcow2 = site.path("disk.qcow2");
    ok(&["export", &reference, text(&qcow2), "--format", "qcow2"]);
    same_disk("qcow2", &qcow2, &disk);
}

/// `FROM scratch`, `ADD disk.qcow2 /disk/`: as KubeVirt's guide has it.
#[test]
fn a_guest_boots_from_a_container_disk_that_docker_built() {
    let site = Site::new();
    let token = Random::new().word();
    let disk = guest::write_disk(&site.path("."), &token);
    fs::create_dir(site.path("context")).unwrap();
    let qcow2 = site.file("context/disk.qcow2");
    site.ok(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            text(&disk),
            &qcow2,
        ],
    );
    site.write(
        "context/Dockerfile",
        b"FROM scratch\nADD --chown=107:107 disk.qcow2 /disk/\n",
    );
    let reference = site.reference("vi/built:1");
    let docker = Docker::start(&site);
    docker.build_and_push(&site, "context", &reference);

    let device = LoopDevice::new(&site.path("."), 128 << 20, 0xAA);
    ok(&[
        "populate",
        &reference,
        text(device.path()),
        "--work-dir",
        text(&site.path("home")),
    ]);
    guest::boot(device.path(), "raw", &token);
    assert_eq!(
        fs::read_dir(site.path("home"))
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .starts_with(".tmp")
            })
            .count(),
        0,
        "the temporary file is gone"
    );

    // Another layer on top, which moves the disk; docker pulls what the importer would have pushed.
    site.write(
        "context/Dockerfile",
        format!("FROM {reference}\nCOPY disk.qcow2 /disk/newer.qcow2\n").as_bytes(),
    );
    let moved = site.reference("vi/built:2");
    docker.build_and_push(&site, "context", &moved);
    let out = site.path("out.img");
    ok(&["populate", &moved, text(&out)]);
    same_disk("raw", &out, &disk);
}
