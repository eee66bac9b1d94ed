//! The docker engine: build, push, pull.

use std::process::Command;

use crate::{
    site::{Engine, MANIFEST_DOCKER, Site, same_file, succeed},
    support::random::Random,
};

/// Starts an engine of its own that leaves the machine's network alone. Registries on loopback are spoken to in plain HTTP.
fn start(site: &Site) -> Engine {
    let mut command = site.command("dockerd", &["--storage-driver=vfs", "--bridge=none"]);
    for (option, name) in [
        ("--data-root", "root"),
        ("--exec-root", "exec"),
        ("--pidfile", "pid"),
    ] {
        command.arg(option).arg(site.path(name));
    }
    command.args(["--host", &host(site)]);
    command.args([
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ]);
    site.engine(command, || docker_command(site, &["version"]))
}

fn host(site: &Site) -> String {
    format!("unix://{}", site.file("sock"))
}

fn docker_command(site: &Site, arguments: &[&str]) -> Command {
    let mut command = site.command("docker", arguments);
    // The engine's own builder; BuildKit would be another program.
    command
        .env("DOCKER_HOST", host(site))
        .env("DOCKER_BUILDKIT", "0");
    command
}

fn docker(site: &Site, arguments: &[&str]) -> String {
    succeed(docker_command(site, arguments))
}

fn inspect(site: &Site, reference: &str, format: &str) -> String {
    docker(site, &["image", "inspect", "--format", format, reference])
        .trim()
        .to_owned()
}

#[test]
fn a_built_image_is_pushed_removed_and_pulled() {
    let site = Site::new();
    let _engine = start(&site);
    let random = &mut Random::new();
    site.write("context/disk.img", &random.bytes(3 << 20));
    site.write("context/note", random.word().as_bytes());
    site.write(
        "context/Dockerfile",
        b"FROM scratch\nCOPY disk.img /disk/disk.img\nCOPY note /note\nCMD [\"/note\"]\n",
    );
    let (first, second) = (
        site.reference("docker/first:v1"),
        site.reference("docker/second:v2"),
    );
    docker(
        &site,
        &[
            "build",
            "--quiet",
            "--network=none",
            "--tag",
            &first,
            &site.file("context"),
        ],
    );
    let id = inspect(&site, &first, "{{.Id}}");

    let said = docker(&site, &["push", &first]);
    let manifest = site.manifest("docker/first", "v1");
    assert_eq!(manifest.media_type, MANIFEST_DOCKER);
    assert_eq!(manifest.config(), id);
    assert!(said.contains(&manifest.digest), "{said}");
    // Into another repository nothing is sent again.
    docker(&site, &["tag", &first, &second]);
    let said = docker(&site, &["push", &second]);
    assert!(said.contains("Mounted from docker/first"), "{said}");
    assert_eq!(site.manifest("docker/second", "v2"), manifest);

    let by_digest = site.reference(&format!("docker/first@{}", manifest.digest));
    docker(&site, &["rmi", &first, &second]);
    for reference in [&first, &second, &by_digest] {
        assert_eq!(
            docker(&site, &["images", "--quiet"]),
            "",
            "no image is left"
        );
        docker(&site, &["pull", reference]);
        assert_eq!(inspect(&site, reference, "{{.Id}}"), id);
        let digests = inspect(&site, reference, "{{json .RepoDigests}}");
        assert!(digests.contains(&manifest.digest), "{digests}");
        let container = docker(&site, &["create", reference]).trim().to_owned();
        for (inside, name) in [("disk/disk.img", "disk.img"), ("note", "note")] {
            let out = site.file("out");
            docker(&site, &["cp", &format!("{container}:/{inside}"), &out]);
            same_file(&site.path("out"), &site.path("context").join(name));
        }
        docker(&site, &["rm", &container]);
        docker(&site, &["rmi", reference]);
    }
}

/// A tag that moved is noticed, and pulling all tags brings every image.
#[test]
fn a_tag_that_moved_brings_the_new_image() {
    let site = Site::new();
    let _engine = start(&site);
    let random = &mut Random::new();
    site.write("context/Dockerfile", b"FROM scratch\nCOPY note /note\n");
    let (stable, latest) = (
        site.reference("moving:stable"),
        site.reference("moving:latest"),
    );
    let mut ids = Vec::new();
    for tags in [&[&stable, &latest][..], &[&latest][..]] {
        site.write("context/note", random.word().as_bytes());
        docker(
            &site,
            &[
                "build",
                "--quiet",
                "--network=none",
                "--tag",
                tags[0],
                &site.file("context"),
            ],
        );
        ids.push(inspect(&site, tags[0], "{{.Id}}"));
        for tag in tags {
            docker(&site, &["tag", tags[0], tag]);
            docker(&site, &["push", tag]);
        }
    }
    docker(&site, &["rmi", &stable, &latest]);
    docker(&site, &["pull", "--all-tags", &site.reference("moving")]);
    assert_eq!(inspect(&site, &stable, "{{.Id}}"), ids[0]);
    assert_eq!(inspect(&site, &latest, "{{.Id}}"), ids[1]);
    assert_ne!(ids[0], ids[1]);
}
