//! From a registry with every command.

use std::{fs, fs::File, io::Write as _, path::Path, process::Stdio, sync::Arc};

use dvcr_importer::{
    format::DiskImage,
    layout::{Content, write_layer},
    source::FileSource,
};
use serde_json::json;

use crate::{
    importer::{command, fails, json as importer_json, ok, text},
    site::Site,
    support::{digest::sha256, disk::Disk},
    volume::{LoopDevice, allocated, same_disk},
};

/// Writes a disk with random, repeated and compressible parts, and holes.
pub(crate) fn write_disk(path: &Path, seed: u64, len: u64) {
    let disk = Disk::new(seed, len);
    let mut file = File::create(path).unwrap();
    let mut piece = vec![0; 1 << 20];
    for at in (0..len).step_by(piece.len()) {
        disk.read(at, &mut piece);
        file.write_all(&piece).unwrap();
    }
    // Holes where there are zeros.
    let status = std::process::Command::new("fallocate")
        .args(["--dig-holes", text(path)])
        .status();
    assert!(status.unwrap().success());
}

/// Pushes a disk as the importer lays it out, by way of skopeo: nothing of the layout gets lost.
pub(crate) fn push(site: &Site, disk: &Path, name: &str) {
    let image = DiskImage::open(Arc::new(
        FileSource::new(File::open(disk).unwrap()).unwrap(),
    ))
    .unwrap();
    let dir = site.path("layout");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let add = |media_type: &str, bytes: Vec<u8>| {
        let digest = sha256(&bytes);
        fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), &bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let mut bytes = vec![];
    let layer = write_layer(&Content::disk(&image).unwrap(), 2, &mut bytes).unwrap();
    let mut descriptor = add("application/vnd.oci.image.layer.v1.tar+zstd", bytes);
    descriptor["annotations"] = json!(layer.annotations());
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Labels": {"source-image-format": "raw"}},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    });
    let config = add(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().into_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [descriptor],
    });
    let mut entry = add(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().into_bytes(),
    );
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "disk"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let (from, to) = (
        format!("oci:{}:disk", text(&dir)),
        format!("docker://{}", site.reference(name)),
    );
    let options = [
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
    ];
    site.ok("skopeo", &[&options[..], &[&from, &to]].concat());
    fs::remove_dir_all(dir).unwrap();
}

const LEN: u64 = 96 << 20;

#[test]
fn a_disk_goes_everywhere() {
    let site = Site::new();
    let raw = site.path("raw");
    write_disk(&raw, 7, LEN);
    push(&site, &raw, "vi/disk:1");
    let reference = site.reference("vi/disk:1");

    // A volume with a file system.
    let volume = site.path("volume");
    fs::create_dir(&volume).unwrap();
    let summary = importer_json(&["populate", &reference, text(&volume), "--size", "128Mi"]);
    let disk = volume.join("disk.img");
    assert_eq!(summary["virtual_size"], 128 << 20);
    assert_eq!(summary.get("spooled_bytes"), None);
    assert_eq!(fs::metadata(&disk).unwrap().len(), 128 << 20);
    assert!(allocated(&disk) <= allocated(&raw) + (1 << 20));
    same_disk("raw", &disk, &raw);
    assert_eq!(
        fs::read_dir(&volume).unwrap().count(),
        1,
        "nothing else is left there"
    );
    // Once more, over the first.
    ok(&["populate", &reference, text(&volume)]);
    assert_eq!(fs::metadata(&disk).unwrap().len(), LEN);
    same_disk("raw", &disk, &raw);

    // A file in QEMU's format.
    let qcow2 = site.path("disk.qcow2");
    ok(&[
        "populate",
        &format!("docker://{reference}"),
        text(&qcow2),
        "--format=qcow2",
        "--size=1Gi",
    ]);
    same_disk("qcow2", &qcow2, &raw);

    // A device that was used before, by digest.
    let digest = site.manifest("vi/disk", "1").digest;
    let by_digest = site.reference(&format!("vi/disk:1@{digest}"));
    let device = LoopDevice::new(&site.path("."), LEN + (4 << 20), 0xAA);
    let state = site.path("state");
    ok(&[
        "populate",
        &by_digest,
        text(device.path()),
        "--state",
        text(&state),
    ]);
    same_disk("raw", device.path(), &raw);
    assert!(!state.exists());
    let said = fails(&[
        "populate",
        &reference,
        text(device.path()),
        "--format=qcow2",
    ]);
    assert!(said.contains("raw disks only"), "{said}");
    let small = LoopDevice::new(&site.path("."), LEN - (1 << 20), 0xAA);
    let said = fails(&["populate", &reference, text(small.path())]);
    assert!(said.contains("a larger device"), "{said}");
    assert!(
        fs::read(small.file())
            .unwrap()
            .iter()
            .all(|byte| *byte == 0xAA)
    );

    // Standard output: a pipe, and a file, where holes stay.
    assert!(ok(&["export", &reference, "-"]) == fs::read(&raw).unwrap());
    let exported = site.path("exported");
    for format in ["raw", "qcow2"] {
        let output = File::create(&exported).unwrap();
        let mut command = command(&["export", &reference, "-", "--format", format]);
        let mut child = command.stdout(Stdio::from(output)).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        same_disk(format, &exported, &raw);
        assert!(allocated(&exported) <= allocated(&raw) + (1 << 20));
        fs::remove_file(&exported).unwrap();
        ok(&["export", &reference, text(&exported), "--format", format]);
        same_disk(format, &exported, &raw);
        let said = fails(&["export", &reference, text(&exported)]);
        assert!(said.contains("exists"), "{said}");
        fs::remove_file(&exported).unwrap();
    }
}

#[test]
fn what_is_not_there_is_said() {
    let site = Site::new();
    let out = site.path("out");
    let absent = site.reference("vi/absent:1");
    let said = fails(&["populate", &absent, text(&out)]);
    assert!(said.contains("vi/absent") && said.contains("404"), "{said}");
    assert!(!out.exists());
    let said = fails(&[
        "populate",
        "127.0.0.1:1/vi/disk:1",
        text(&out),
        "--platform=linux",
    ]);
    assert!(said.contains("linux/arm64"), "{said}");
    let said = fails(&["populate", "blank:", text(&out)]);
    assert!(said.contains("--size"), "{said}");
    let blank = site.path("blank");
    ok(&["populate", "blank:", text(&blank), "--size=10Mi"]);
    assert!(fs::read(&blank).unwrap() == vec![0; 10 << 20]);
}

/// Without any registry. `tests/matrix` has the ways onto volumes.
#[test]
fn an_image_in_a_file_is_exported() {
    let site = Site::new();
    let raw = site.path("raw");
    write_disk(&raw, 3, 24 << 20);
    site.ok(
        "sh",
        &["-c", "qemu-img convert -f raw -O qcow2 -c raw qcow2"],
    );
    assert!(ok(&["export", &site.file("qcow2"), "-"]) == fs::read(&raw).unwrap());
}

#[test]
fn archives_go_into_directories() {
    let site = Site::new();
    site.write("content/a/file", b"one");
    site.write("content/b", &vec![0; 1 << 20]);
    site.ok("sh", &["-c", "ln -s a/file content/link && ln content/b content/c && tar -C content -czf archive.tgz ."]);
    let volume = site.path("volume");
    fs::create_dir(&volume).unwrap();
    ok(&[
        "populate",
        "--archive",
        &site.file("archive.tgz"),
        text(&volume),
    ]);
    assert_eq!(fs::read(volume.join("link")).unwrap(), b"one");
    assert!(fs::read(volume.join("c")).unwrap() == vec![0; 1 << 20]);
    assert!(allocated(&volume.join("b")) <= 4096);
}

#[test]
fn inspections() {
    let site = Site::new();
    let (one, two) = (site.path("one"), site.path("two"));
    write_disk(&one, 5, 32 << 20);
    fs::copy(&one, &two).unwrap();
    // A partition table and a file system that tools made, and some bytes that differ.
    let script = "set -e; export PATH=$PATH:/usr/sbin:/sbin; printf 'label: gpt\\nstart=2048, size=40960, type=L, name=root\\nstart=43008, type=U\\n' | sfdisk -q two
        mkfs.ext4 -q -F -b 4096 -E offset=1048576 two 20480k";
    site.ok("sh", &["-c", script]);
    push(&site, &one, "vi/disk:1");
    push(&site, &two, "vi/disk:2");
    let (first, second) = (site.reference("vi/disk:1"), site.reference("vi/disk:2"));
    let found = importer_json(&["inspect", &second, "--compare", &first]);
    assert_eq!(found["format"], "qcow2");
    assert_eq!(found["virtual_size"], 32 << 20);
    assert_eq!(found["image"]["kind"], "indexed disk");
    assert_eq!(found["image"]["labels"]["source-image-format"], "raw");
    let table = &found["partition_table"];
    assert_eq!(table["kind"], "gpt");
    let root = &table["partitions"][0];
    assert_eq!(
        (&root["start"], &root["size"]),
        (&json!(1 << 20), &json!(20 << 20))
    );
    assert_eq!(
        (&root["type"], &root["filesystem"], &root["name"]),
        (&json!("Linux"), &json!("ext4"), &json!("root"))
    );
    assert_eq!(table["partitions"][1]["type"], "EFI system");
    let share = &found["shares"][&first];
    let (bytes, shared) = (
        share["bytes"].as_u64().unwrap(),
        share["shared_bytes"].as_u64().unwrap(),
    );
    assert!(shared > bytes / 8 && shared < bytes, "{share}");
    // A disk that is not stored yet: what it would share.
    let local = importer_json(&["inspect", text(&two), "--compare", &first]);
    assert_eq!(local["shares"][&first], *share);
    assert_eq!(local["format"], "raw");
    let text = String::from_utf8(ok(&["inspect", &second, "--compare", &first])).unwrap();
    for expected in [
        "virtual size",
        "32.0 MiB (33554432 bytes)",
        "ext4",
        "gpt",
        "% ) with".replace(' ', "").as_str(),
    ] {
        assert!(
            text.replace(' ', "").contains(&expected.replace(' ', "")),
            "{expected}: {text}"
        );
    }
}
