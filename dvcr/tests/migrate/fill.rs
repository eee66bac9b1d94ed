//! A registry as people have it: filled by their clients.

use crate::{image::Image, site::Site, support::random::Random};

/// Manifests that matter to some test.
pub(crate) struct Filled {
    /// An image whose tag was moved away: nothing but its digest leads to it.
    pub(crate) untagged: String,
    /// An artifact.
    pub(crate) artifact: String,
    /// What refers to the artifact, and what refers to that.
    pub(crate) sbom: String,
    pub(crate) signature: String,
}

/// Copies an image between a layout directory or registry and a registry.
fn copy(site: &Site, from: &str, to: &str, more: &[&str]) {
    let mut arguments = vec![
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ];
    arguments.extend(more);
    arguments.extend([from, to]);
    site.ok("skopeo", &arguments);
}

/// Writes an image as a layout directory; its name for skopeo.
pub(crate) fn layout(site: &Site, name: &str, image: &Image) -> String {
    image.write_layout(&site.path(name), "it");
    format!("oci:{}:it", site.file(name))
}

/// Pushes an index in two repositories and under three tags, a Docker schema 2 image, an image that loses its tag, an artifact with
/// a referrer that has one itself.
pub(crate) fn fill(site: &Site, registry: &str) -> Filled {
    let random = &mut Random::new();
    let docker = |rest: &str| format!("docker://{registry}/{rest}");
    let whole = ["--all", "--preserve-digests"];

    let index = Image::index(vec![
        Image::new(random, "amd64"),
        Image::new(random, "arm64"),
    ]);
    let index = layout(site, "index", &index);
    for to in ["vi/ns/debian:12", "vi/ns/debian:latest", "cvi/debian:12"] {
        copy(site, &index, &docker(to), &whole);
    }

    let plain = Image::plain(random, "amd64");
    let plain = layout(site, "plain", &plain);
    copy(
        site,
        &plain,
        &docker("vd/ns/disk:a-uid"),
        &["--format=v2s2"],
    );

    let (old, new) = (Image::new(random, "amd64"), Image::new(random, "amd64"));
    for (name, image) in [("old", &old), ("new", &new)] {
        let from = layout(site, name, image);
        copy(
            site,
            &from,
            &docker("vi/ns/moved:now"),
            &["--preserve-digests"],
        );
    }

    site.write("disk.raw", &random.bytes(2 << 20));
    site.write("sbom.json", b"{\"packages\":[]}");
    let oras = |arguments: &[&str]| -> String {
        let text = site.ok("oras", arguments);
        let json: serde_json::Value = serde_json::from_str(&text).expect("oras prints JSON");
        json["digest"].as_str().expect("a digest").to_owned()
    };
    let disk = format!("{registry}/artifacts/disk");
    let artifact = oras(&[
        "push",
        "--plain-http",
        "--format=json",
        "--artifact-type=application/vnd.kubevirt.disk",
        &format!("{disk}:v1"),
        "disk.raw:application/vnd.kubevirt.disk.raw",
    ]);
    let attach = |kind: &str, to: &str| {
        oras(&[
            "attach",
            "--plain-http",
            "--format=json",
            &format!("--artifact-type={kind}"),
            &format!("{disk}@{to}"),
            "sbom.json:application/json",
        ])
    };
    let sbom = attach("application/spdx+json", &artifact);
    let signature = attach("application/vnd.example.signature", &sbom);
    Filled {
        untagged: old.digest().to_owned(),
        artifact,
        sbom,
        signature,
    }
}
