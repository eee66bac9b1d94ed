//! buildah: an image from nothing, pushed and taken as the base of another.

use std::path::PathBuf;

use crate::{
    site::{Site, same_file},
    support::random::Random,
};

fn buildah(site: &Site, arguments: &[&str]) -> String {
    let (root, runroot) = (site.file("root"), site.file("run"));
    let mut all = vec![
        "--storage-driver=vfs",
        "--root",
        &root,
        "--runroot",
        &runroot,
    ];
    all.extend_from_slice(arguments);
    site.ok("buildah", &all).trim().to_owned()
}

#[test]
fn an_image_from_scratch_is_pushed_and_built_upon() {
    let site = Site::new();
    let random = &mut Random::new();
    let disk = site.write("disk.img", &random.bytes(3 << 20));
    let note = site.write("note", random.word().as_bytes());
    let (base, built) = (
        site.reference("buildah/base:v1"),
        site.reference("buildah/built:v1"),
    );
    let digest_file = site.file("digest");

    let container = buildah(&site, &["from", "scratch"]);
    buildah(&site, &["copy", &container, &disk, "/disk/disk.img"]);
    buildah(&site, &["config", "--label=source=test", &container]);
    let id = buildah(&site, &["commit", "--rm", &container, "localhost/base"]);
    let push = |image: &str, reference: &str| {
        let target = format!("docker://{reference}");
        buildah(
            &site,
            &[
                "push",
                "--tls-verify=false",
                "--digestfile",
                &digest_file,
                image,
                &target,
            ],
        );
        std::fs::read_to_string(&digest_file).unwrap()
    };
    let digest = push("localhost/base", &base);
    let manifest = site.manifest("buildah/base", "v1");
    assert_eq!(manifest.digest, digest);
    assert_eq!(manifest.config(), format!("sha256:{id}"));

    // From the registry alone.
    buildah(&site, &["rmi", "--all", "--force"]);
    let container = buildah(&site, &["from", "--tls-verify=false", &base]);
    let mounted = PathBuf::from(buildah(&site, &["mount", &container]));
    same_file(&mounted.join("disk/disk.img"), &site.path("disk.img"));
    buildah(&site, &["umount", &container]);
    buildah(&site, &["copy", &container, &note, "/note"]);
    buildah(&site, &["commit", "--rm", &container, "localhost/built"]);
    push("localhost/built", &built);
    let layers = site.manifest("buildah/built", "v1").layers();
    assert_eq!(
        layers[0],
        manifest.layers()[0],
        "the base's layer is shared"
    );
    assert_eq!(layers.len(), 2);

    buildah(&site, &["rmi", "--all", "--force"]);
    let container = buildah(&site, &["from", "--tls-verify=false", &built]);
    let mounted = PathBuf::from(buildah(&site, &["mount", &container]));
    same_file(&mounted.join("disk/disk.img"), &site.path("disk.img"));
    same_file(&mounted.join("note"), &site.path("note"));
    buildah(&site, &["umount", &container]);
    buildah(&site, &["rm", &container]);
}
