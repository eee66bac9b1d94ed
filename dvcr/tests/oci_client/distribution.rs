//! CNCF Distribution, with a login at the registry and at a token service.

use std::fs;

use dvcr_client::{Client, Credentials, DockerConfig, Host, Pushed, Transport};
use dvcr_core::oci::Algorithm;

use crate::{
    content::{Image, pull, tag},
    support::{
        distribution::{Distribution, Version},
        random::Random,
    },
    tokens::TokenService,
};

/// `me:secret`, hashed by bcrypt with its lowest cost.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

async fn push_and_pull(client: &Client) {
    let repository = client.repository(&"vi/ns/debian".parse().unwrap());
    let image = Image::new(Algorithm::Sha256, Random::new().bytes(5 << 20));
    image
        .push(&repository, &[tag("a"), tag("b"), tag("c")])
        .await
        .unwrap();
    for reference in ["a", "b", "c"] {
        image.assert_at(&repository, reference).await;
    }
    assert_eq!(repository.tags().unwrap().all().await.unwrap().len(), 3);
    let other = client.repository(&"cvi/debian".parse().unwrap());
    let mounted = other
        .push_blob(&image.blobs[1], &image.layer, Some(repository.name()))
        .await
        .unwrap();
    assert_eq!(mounted, Pushed::Mounted);
    assert!(pull(&other, &image.blobs[1]).await.unwrap() == image.layer);

    // No referrers API: what clients list under a tag counts.
    let referrers = repository
        .referrers(image.manifest.digest(), None)
        .await
        .unwrap();
    assert!(referrers.is_empty());
    let api = repository
        .referrers_api(image.manifest.digest(), None)
        .await
        .unwrap();
    assert!(api.is_none());

    // In pieces, the last of which another client sends.
    let bytes = bytes::Bytes::from(Random::new().bytes(3 << 20));
    let blob = crate::content::descriptor(Algorithm::Sha256, "a/b", &bytes);
    let mut upload = repository.upload(Algorithm::Sha256).await.unwrap();
    upload.append(bytes.slice(..1 << 20)).await.unwrap();
    upload.append(bytes.slice(1 << 20..2 << 20)).await.unwrap();
    let location = upload.location().to_owned();
    let mut upload = repository
        .resume_upload(&location, Algorithm::Sha256)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(upload.push(&bytes, blob.size).await.unwrap(), 1 << 20);
    upload.finish(&blob.digest).await.unwrap();
    assert!(pull(&repository, &blob).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_login_at_the_registry_works() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("htpasswd");
    fs::write(&file, HTPASSWD).unwrap();
    let more = format!(
        "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
        file.display()
    );
    for version in [Version::V2, Version::V3] {
        let peer = Distribution::start(version, &more);
        let host: Host = peer.address().parse().unwrap();
        let client = |credentials| Client::new(&host, credentials, &Transport::default()).unwrap();

        let document = serde_json::json!({"auths": {peer.address(): {"auth": "bWU6c2VjcmV0"}}});
        let config = DockerConfig::parse(document.to_string().as_bytes()).unwrap();
        let good = config.credentials(&host, None).unwrap();
        push_and_pull(&client(good)).await;

        for bad in [Credentials::Anonymous, Credentials::basic("me", "guess")] {
            let error = client(bad).ping().await.unwrap_err();
            assert!(error.is_denied() && !error.is_retryable(), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_login_at_a_token_service_works() {
    let service = TokenService::start();
    let peer = Distribution::start(Version::V3, &service.configuration(&service.url()));
    let host: Host = peer.address().parse().unwrap();
    let client = |credentials| Client::new(&host, credentials, &Transport::default()).unwrap();

    push_and_pull(&client(Credentials::basic("me", "secret"))).await;
    // One for each set of scopes, not one for each request.
    let asked = service.asked();
    assert!(asked.len() <= 6, "{asked:?}");
    assert!(asked.iter().all(|request| request.method == "GET"));

    push_and_pull(&client(Credentials::IdentityToken("refresh".into()))).await;
    assert!(
        service
            .asked()
            .iter()
            .any(|request| request.method == "POST")
    );

    for bad in [
        Credentials::Anonymous,
        Credentials::basic("me", "guess"),
        Credentials::Bearer("x".into()),
    ] {
        let error = client(bad).ping().await.unwrap_err();
        assert!(error.is_denied() && !error.is_retryable(), "{error:?}");
    }
}
