//! regctl, and with it every program that uses regclient.

use std::fs;

use crate::{
    image::{Image, assert_layout},
    site::{Site, succeed},
    support::{digest::sha256, process::tool, random::Random},
};

/// A site whose regctl knows that the registry speaks plain HTTP.
fn site() -> Site {
    let site = Site::new();
    site.ok(
        "regctl",
        &["registry", "set", "--tls=disabled", site.registry()],
    );
    site
}

fn regctl(site: &Site, arguments: &[&str]) -> String {
    site.ok("regctl", arguments)
}

#[test]
fn an_image_is_copied_in_around_and_out() {
    let site = site();
    let random = &mut Random::new();
    let index = Image::index(vec![
        Image::new(random, "amd64"),
        Image::new(random, "arm64"),
    ]);
    index.write_layout(&site.path("in"), "v1");
    let (first, second) = (
        site.reference("reg/first:v1"),
        site.reference("reg/second:v1"),
    );
    regctl(
        &site,
        &[
            "image",
            "copy",
            &format!("ocidir://{}:v1", site.file("in")),
            &first,
        ],
    );
    index.assert_stored(&site, "reg/first", "v1");
    regctl(&site, &["image", "copy", &first, &second]);
    index.assert_stored(&site, "reg/second", "v1");
    assert_eq!(
        regctl(&site, &["image", "digest", &second]).trim(),
        index.digest()
    );
    regctl(
        &site,
        &[
            "image",
            "copy",
            &second,
            &format!("ocidir://{}:x", site.file("out")),
        ],
    );
    assert_layout(&site.path("out"), &index.content);
}

#[test]
fn tags_are_listed_and_deleted_one_by_one() {
    let site = site();
    Image::new(&mut Random::new(), "amd64").write_layout(&site.path("in"), "x");
    let source = format!("ocidir://{}:x", site.file("in"));
    for tag in ["v2", "v1", "v3"] {
        regctl(
            &site,
            &[
                "image",
                "copy",
                &source,
                &site.reference(&format!("tags:{tag}")),
            ],
        );
    }
    let repository = site.reference("tags");
    let tags = || regctl(&site, &["tag", "ls", &repository]);
    assert_eq!(tags().lines().collect::<Vec<_>>(), ["v1", "v2", "v3"]);
    regctl(&site, &["tag", "delete", &site.reference("tags:v2")]);
    assert_eq!(tags().lines().collect::<Vec<_>>(), ["v1", "v3"]);
    // The other tags of the same manifest still read.
    regctl(&site, &["image", "digest", &site.reference("tags:v1")]);
    assert_eq!(
        regctl(&site, &["repo", "ls", site.registry()]).trim(),
        "tags"
    );
}

#[test]
fn artifacts_and_referrers_come_back() {
    let site = site();
    let random = &mut Random::new();
    let bytes = random.bytes(700_000);
    let file = site.write("disk.raw", &bytes);
    let sbom = site.write("sbom.json", b"{}");
    let (artifact, copied) = (site.reference("art/disk:v1"), site.reference("art/copy:v1"));
    let kind = "--artifact-type=application/vnd.kubevirt.disk";
    regctl(
        &site,
        &[
            "artifact",
            "put",
            kind,
            "--file-title",
            "--strip-dirs",
            "--file",
            &file,
            &artifact,
        ],
    );
    fs::create_dir(site.path("out")).unwrap();
    let get = ["artifact", "get", "--output", &site.file("out"), &artifact];
    regctl(&site, &get);
    assert!(fs::read(site.path("out/disk.raw")).unwrap() == bytes);

    let kind = "--artifact-type=application/spdx+json";
    regctl(
        &site,
        &[
            "artifact",
            "put",
            kind,
            "--file",
            &sbom,
            "--subject",
            &artifact,
        ],
    );
    regctl(&site, &["image", "copy", "--referrers", &artifact, &copied]);
    for reference in [&artifact, &copied] {
        let list = regctl(
            &site,
            &[
                "artifact",
                "list",
                "--format={{json .Descriptors}}",
                reference,
            ],
        );
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
        assert_eq!(list[0]["artifactType"], "application/spdx+json");
        let fetched = regctl(
            &site,
            &[
                "artifact",
                "get",
                "--subject",
                reference,
                "--filter-artifact-type=application/spdx+json",
            ],
        );
        assert_eq!(fetched, "{}");
    }
}

#[test]
fn blobs_are_put_and_got_alone() {
    let site = site();
    let bytes = Random::new().bytes(2_300_000);
    let repository = site.reference("blobs");
    let file = site.write("blob", &bytes);
    // The blob comes from standard input.
    let mut put = site.command("sh", &["-c", "exec \"$0\" blob put \"$1\" < \"$2\""]);
    put.arg(tool("regctl").get_program())
        .args([&repository, &file]);
    let digest = succeed(put).trim().to_owned();
    assert_eq!(digest, sha256(&bytes));
    assert!(site.blob("blobs", &digest) == bytes);
    let got = site.bytes("regctl", &["blob", "get", &repository, &digest]);
    assert!(got == bytes, "{digest}");
}
