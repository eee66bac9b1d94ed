//! The program under test.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dvcr_client::{
    BlobSource, BlobStream, BoxError, Client, Credentials, Platform, Pushed, RawManifest, Retry,
    Transport,
};
use dvcr_core::oci::{Algorithm, Reference, media_type};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{
    content::{Image, descriptor, pull, tag},
    relay::Relay,
    support::{random::Random, server::Server},
};

fn client(server: &Server) -> Client {
    Client::at(
        server.address(),
        Credentials::Anonymous,
        &Transport::default(),
    )
    .unwrap()
}

#[tokio::test]
async fn images_come_back_in_both_algorithms() {
    let server = Server::start(&[]);
    let random = &mut Random::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let name = format!("a/{algorithm}").parse().unwrap();
        let repository = client(&server).repository(&name);
        let image = Image::new(algorithm, random.bytes(5 << 20));
        let digest = image.manifest.digest().to_string();
        let error = repository
            .manifest(&digest.parse().unwrap())
            .await
            .unwrap_err();
        assert!(error.is_not_found() && !error.is_retryable(), "{error:?}");
        // More than go in one request, one of them twice.
        let mut tags: Vec<_> = (0..25).map(|n| tag(&format!("v{n}"))).collect();
        tags.push(tag("v0"));
        image.push(&repository, &tags).await.unwrap();
        image.assert_at(&repository, &digest).await;
        let mut listed = repository.tags().unwrap().all().await.unwrap();
        assert_eq!(listed.len(), 25);
        for listed in listed.drain(..) {
            let found = repository
                .manifest_digest(&tag(&listed).into())
                .await
                .unwrap();
            assert_eq!(found, Some(*image.manifest.digest()));
        }
        let again = repository
            .push_blob(&image.blobs[1], &image.layer, None)
            .await
            .unwrap();
        assert_eq!(again, Pushed::Existed);
        let other = client(&server).repository(&format!("b/{algorithm}").parse().unwrap());
        let mounted = other
            .push_blob(&image.blobs[1], &image.layer, Some(&name))
            .await
            .unwrap();
        assert_eq!(mounted, Pushed::Mounted);
        assert!(pull(&other, &image.blobs[1]).await.unwrap() == image.layer);
        assert!(repository.delete_manifest(&tag("v0").into()).await.unwrap());
        assert!(!repository.delete_manifest(&tag("v0").into()).await.unwrap());
    }
    let mut names = client(&server).catalog().unwrap().all().await.unwrap();
    names.sort_unstable();
    assert_eq!(names, ["a/sha256", "a/sha512", "b/sha256", "b/sha512"]);
}

#[tokio::test]
async fn parts_are_what_they_are_in_the_whole() {
    let server = Server::start(&[]);
    let repository = client(&server).repository(&"a".parse().unwrap());
    let image = Image::new(Algorithm::Sha256, Random::new().bytes(1 << 20));
    image.push(&repository, &[]).await.unwrap();
    let blob = &image.blobs[1];
    for range in [
        0..1,
        0..1 << 20,
        1000..300_000,
        (1 << 20) - 1..1 << 20,
        7..7,
    ] {
        let part = repository
            .blob_range(&blob.digest, range.clone())
            .await
            .unwrap();
        let part: Vec<bytes::Bytes> = part.into_stream().try_collect().await.unwrap();
        let range = range.start as usize..range.end as usize;
        assert!(part.concat() == image.layer[range.clone()], "{range:?}");
    }
    let beyond = repository
        .blob_range(&blob.digest, 1 << 20..(1 << 20) + 1)
        .await;
    assert!(!beyond.unwrap_err().is_retryable());
    let info = repository.blob_info(&blob.digest).await.unwrap().unwrap();
    assert_eq!(info.size, Some(1 << 20));
}

#[tokio::test]
async fn an_upload_goes_on_in_another_process() {
    let server = Server::start(&[]);
    let name = "a".parse().unwrap();
    let bytes = bytes::Bytes::from(Random::new().bytes(3 << 20));
    let blob = descriptor(Algorithm::Sha512, "a/b", &bytes);
    let first = client(&server).repository(&name);
    let mut upload = first.upload(Algorithm::Sha512).await.unwrap();
    upload.append(bytes.slice(..1 << 20)).await.unwrap();
    let location = upload.location().to_owned();
    drop(upload);

    let second = client(&server).repository(&name);
    let mut upload = second
        .resume_upload(&location, Algorithm::Sha512)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(upload.offset(), 1 << 20);
    let sent = upload.push(&bytes, blob.size).await.unwrap();
    assert_eq!(sent, 2 << 20);
    let wrong = descriptor(Algorithm::Sha512, "a/b", b"wrong");
    let error = upload.finish(&wrong.digest).await.unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    let gone = second
        .resume_upload(&location, Algorithm::Sha512)
        .await
        .unwrap();
    // What the server does with bytes that had the wrong digest is its business; what it has of them can be finished.
    if let Some(mut upload) = gone {
        upload.push(&bytes, blob.size).await.unwrap();
        upload.finish(&blob.digest).await.unwrap();
        assert!(pull(&second, &blob).await.unwrap() == bytes);
    }
    // A location from elsewhere is not followed.
    let elsewhere = second
        .resume_upload("http://127.0.0.1:1/v2/a/blobs/uploads/x", Algorithm::Sha256)
        .await
        .unwrap();
    assert!(elsewhere.is_none());
    // One byte and none look alike in the protocol.
    let mut upload = second.upload(Algorithm::Sha256).await.unwrap();
    assert_eq!(upload.status().await.unwrap(), 0);
    upload.push(&bytes, blob.size).await.unwrap();
    let blob = descriptor(Algorithm::Sha256, "a/b", &bytes);
    upload.finish(&blob.digest).await.unwrap();
    assert!(pull(&second, &blob).await.unwrap() == bytes);
}

/// A blob that comes slowly enough for somebody to kill the server on the way: a piece comes when it is asked for a permit.
struct Slow {
    bytes: Bytes,
    permits: Arc<Semaphore>,
}

impl BlobSource for Slow {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>> {
        let rest = self.bytes.slice(offset as usize..);
        let permits = Arc::clone(&self.permits);
        let stream = futures::stream::unfold(rest, move |mut rest| {
            let permits = Arc::clone(&permits);
            async move {
                if rest.is_empty() {
                    return None;
                }
                permits.acquire().await.unwrap().forget();
                let piece = rest.split_to(rest.len().min(1 << 20));
                Some((Ok(piece), rest))
            }
        });
        async move { Ok(stream.boxed()) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_outlives_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let first = Server::start_on(&data, &[]);
    let relay = Relay::to(first.address());
    let transport = Transport {
        retry: Retry {
            attempts: 1_000,
            pause: Duration::from_millis(20),
            pause_max: Duration::from_millis(100),
        },
        ..Transport::default()
    };
    let client = Client::at(relay.address(), Credentials::Anonymous, &transport).unwrap();
    let repository = client.repository(&"vd/big".parse().unwrap());
    let bytes = Bytes::from(Random::new().bytes(96 << 20));
    let blob = descriptor(Algorithm::Sha256, "a/b", &bytes);
    let permits = Arc::new(Semaphore::new(80));
    let source = Slow {
        bytes: bytes.clone(),
        permits: Arc::clone(&permits),
    };
    let pushing = tokio::spawn({
        let (repository, blob) = (repository.clone(), blob.clone());
        async move { repository.push_blob(&blob, &source, None).await }
    });
    let second = tokio::task::spawn_blocking(move || {
        let mut first = first;
        first.process().wait_for(Duration::from_secs(60), |_| {
            (permits.available_permits() == 0).then_some(())
        });
        // Killed, as by a power failure, with 80 of 96 MiB on their way.
        drop(first);
        let second = Server::start_on(&data, &[]);
        permits.add_permits(1_000);
        second
    });
    let second = second.await.unwrap();
    relay.lead_to(second.address());
    let pushed = pushing.await.unwrap().unwrap();
    let Pushed::Sent(sent) = pushed else {
        panic!("{pushed:?}");
    };
    assert!(sent >= blob.size);
    assert!(pull(&repository, &blob).await.unwrap() == bytes);
}

#[tokio::test]
async fn an_index_leads_to_the_platform_and_referrers_to_their_subject() {
    let server = Server::start(&[]);
    let repository = client(&server).repository(&"multi".parse().unwrap());
    let random = &mut Random::new();
    let mut entries = Vec::new();
    let mut images = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let image = Image::new(Algorithm::Sha256, random.bytes(1000));
        image.push(&repository, &[]).await.unwrap();
        let mut entry = json!(descriptor(
            Algorithm::Sha256,
            media_type::OCI_IMAGE,
            image.manifest.bytes()
        ));
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.push(entry);
        images.push(image);
    }
    let index =
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let index = RawManifest::new(
        Algorithm::Sha256,
        media_type::OCI_INDEX,
        index.to_string().into_bytes(),
    );
    repository
        .push_manifest(&index, &[tag("all")])
        .await
        .unwrap();
    let all: Reference = tag("all").into();
    for (architecture, image) in ["amd64", "arm64"].iter().zip(&images) {
        let platform: Platform = format!("linux/{architecture}").parse().unwrap();
        let (raw, manifest) = repository.image(&all, &platform).await.unwrap();
        assert_eq!(raw, image.manifest);
        assert_eq!(manifest.layers.len(), 1);
    }
    let platform: Platform = "linux/riscv64".parse().unwrap();
    let error = repository.image(&all, &platform).await.unwrap_err();
    assert!(error.to_string().contains("linux/arm64"), "{error}");

    let signature = Image::about(Algorithm::Sha256, random.bytes(10), Some(&index));
    signature.push(&repository, &[]).await.unwrap();
    let found = repository.referrers(index.digest(), None).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].digest, *signature.manifest.digest());
    for (kind, expected) in [("application/vnd.example", 1), ("application/other", 0)] {
        let found = repository
            .referrers(index.digest(), Some(kind))
            .await
            .unwrap();
        assert_eq!(found.len(), expected, "{kind}");
    }
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let server = Server::start(&[]);
    let repository = client(&server).repository(&"many".parse().unwrap());
    let image = Image::new(Algorithm::Sha256, b"x".to_vec());
    let tags: Vec<_> = (0..1_205).map(|n| tag(&format!("t{n:04}"))).collect();
    image.push(&repository, &tags).await.unwrap();
    let mut pages = repository.tags().unwrap();
    let mut lens = Vec::new();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        lens.push(page.len());
        found.extend(page.iter().map(|name| tag(name)));
    }
    assert_eq!(found, tags);
    assert_eq!(lens, [1_000, 205]);
    let nothing = client(&server).repository(&"nothing".parse().unwrap());
    assert!(nothing.tags().unwrap().all().await.unwrap().is_empty());
}
