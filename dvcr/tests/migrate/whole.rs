//! Everything comes over.

use serde_json::json;

use crate::{
    compare::{Reader, assert_same, assert_same_manifest},
    fill::fill,
    migration::{migrate, migrate_to},
    site::Site,
    support::{
        digest::Algorithm,
        distribution::{Distribution, Version},
        http::{Body, Client, Request},
        random::Random,
        server::Server,
    },
};

fn from_directory(version: Version) {
    let (site, peer) = (Site::new(), Distribution::start(version, ""));
    let filled = fill(&site, peer.address());
    let data = peer.data();
    let data = data.to_str().unwrap();
    let (source, target) = (
        Reader::new(&peer.url()),
        Reader::new(&format!("http://{}", site.registry())),
    );

    let planned = migrate(&site, &["distribution", data, "--dry-run"]);
    assert!(planned.complete, "{}", planned.log);
    assert!(target.tags().is_empty());

    let done = migrate(&site, &["distribution", data]);
    assert!(done.complete, "{}", done.log);
    assert_same(&source, &target);
    for (repository, digest) in [
        ("vi/ns/moved", &filled.untagged),
        ("artifacts/disk", &filled.artifact),
        ("artifacts/disk", &filled.sbom),
        ("artifacts/disk", &filled.signature),
    ] {
        assert_same_manifest(&source, &target, repository, digest);
    }
    // Distribution has no referrers API; here it works for what clients had put under tags.
    let referrers = |of: &str| target.referrers("artifacts/disk", of);
    assert_eq!(referrers(&filled.artifact), [filled.sbom.clone()].into());
    assert_eq!(referrers(&filled.sbom), [filled.signature.clone()].into());

    for name in ["repositories", "tags", "manifests", "blobs", "source_bytes"] {
        assert_eq!(done.report[name], planned.report[name], "{name}");
    }
    // Each blob is sent once, although an index is in two repositories.
    assert_eq!(done.figure("bytes_sent"), done.figure("source_bytes"));
    assert_eq!(done.figure("bytes_read"), done.figure("source_bytes"));
    assert_eq!(done.figure("blobs_sent"), done.figure("blobs"));
    assert!(done.figure("blobs_mounted") > 0);
    assert_eq!(done.figure("tags_verified"), done.figure("tags"));
    assert!(
        done.report["server"]["saved_bytes"].as_u64() > Some(0),
        "{}",
        done.report
    );

    // The second time there is nothing to do but what has changed.
    let again = migrate(&site, &["distribution", data]);
    assert!(again.complete, "{}", again.log);
    assert_eq!(again.figure("manifests_sent"), 0);
    assert_eq!(again.figure("bytes_read"), 0);
    let moved = format!("{}/vi/ns/moved", peer.address());
    site.ok(
        "crane",
        &[
            "tag",
            "--insecure",
            &format!("{moved}@{}", filled.untagged),
            "now",
        ],
    );
    let delta = migrate(&site, &["distribution", data]);
    assert!(delta.complete, "{}", delta.log);
    assert_eq!(
        (delta.figure("tags_set"), delta.figure("bytes_sent")),
        (1, 0)
    );
    assert_same(&source, &target);
}

#[test]
fn a_directory_of_distribution_3_comes_over() {
    from_directory(Version::V3);
}

#[test]
fn a_directory_of_docker_registry_2_comes_over() {
    from_directory(Version::V2);
}

#[test]
fn a_running_distribution_comes_over() {
    let (site, peer) = (Site::new(), Distribution::start(Version::V3, ""));
    let filled = fill(&site, peer.address());
    let target = Reader::new(&format!("http://{}", site.registry()));
    let source = Reader::new(&peer.url());

    // A part of it first.
    let part = migrate(
        &site,
        &[
            "registry",
            &peer.url(),
            "--repository",
            "vi/**",
            "--parallel=1",
        ],
    );
    assert!(part.complete, "{}", part.log);
    assert_eq!(part.figure("repositories"), 2);
    assert!(
        target
            .tags()
            .keys()
            .all(|(name, _)| name.starts_with("vi/"))
    );

    let done = migrate(&site, &["registry", &peer.url()]);
    assert!(done.complete, "{}", done.log);
    assert_same(&source, &target);
    let referrers = |of: &str| target.referrers("artifacts/disk", of);
    assert_eq!(referrers(&filled.artifact), [filled.sbom.clone()].into());
    assert_eq!(referrers(&filled.sbom), [filled.signature.clone()].into());
    // From outside nothing leads to it.
    let untagged = format!("/v2/vi/ns/moved/manifests/{}", filled.untagged);
    assert!(source.has(&untagged) && !target.has(&untagged));
}

/// Distribution takes no SHA-512, and has no referrers API: for these the source is a server of our own.
#[test]
fn sha512_and_the_referrers_api_come_over() {
    let (site, peer) = (Site::new(), Server::start(&[]));
    let random = &mut Random::new();
    let client = Client::new(&peer.url());
    let put = |target: String, media_type: &str, bytes: &[u8]| {
        let request = Request::new("PUT", target)
            .header("Content-Type", media_type)
            .body(Body::Sized(bytes.to_vec()));
        let response = client.send(&request).unwrap();
        assert_eq!(response.status, 201, "{}", client.transcript());
    };
    let blob = |bytes: &[u8]| {
        let digest = Algorithm::Sha512.digest(bytes);
        let request = Request::new("POST", "/v2/strong/disk/blobs/uploads/")
            .query("digest", &digest)
            .octets(bytes);
        assert_eq!(client.send(&request).unwrap().status, 201);
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": bytes.len()})
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let (config, layer) = (blob(b"{}"), blob(&random.bytes(3 << 20)));
    let manifest = |subject: Option<&serde_json::Value>| {
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "artifactType": "application/vnd.kubevirt.disk",
            "config": config, "layers": [layer],
        });
        if let Some(subject) = subject {
            manifest["subject"] = subject.clone();
        }
        let bytes = manifest.to_string().into_bytes();
        let digest = Algorithm::Sha512.digest(&bytes);
        put(
            format!("/v2/strong/disk/manifests/{digest}"),
            media_type,
            &bytes,
        );
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let image = manifest(None);
    let signature = manifest(Some(&image));
    let digest = |descriptor: &serde_json::Value| descriptor["digest"].as_str().unwrap().to_owned();
    let tagged = Request::new(
        "GET",
        format!("/v2/strong/disk/manifests/{}", digest(&image)),
    );
    let bytes = client.send(&tagged).unwrap().body;
    let by_digest = format!("/v2/strong/disk/manifests/{}?tag=v1&tag=v2", digest(&image));
    put(by_digest, media_type, &bytes);

    let target = format!("http://{}", site.registry());
    let done = migrate_to(&site, &target, &["registry", &peer.url()]);
    assert!(done.complete, "{}", done.log);
    let (source, target) = (Reader::new(&peer.url()), Reader::new(&target));
    assert_same(&source, &target);
    for descriptor in [&image, &signature] {
        assert_same_manifest(&source, &target, "strong/disk", &digest(descriptor));
    }
    assert_eq!(
        target.referrers("strong/disk", &digest(&image)),
        [digest(&signature)].into()
    );
}
