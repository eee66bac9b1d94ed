//! The use cases on real engines in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use dvcr_core::oci::{Algorithm, Digest, Reference};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::*;
use crate::{
    meta::record::ChunkRecord,
    testing::{WHO, World, about, body, config, disk, image, index, name, numbered, random, read},
};

/// What its bytes are.
async fn pull(world: &World, repository: &str, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
    read(&world.registry, repository, digest).await
}

#[tokio::test]
async fn blobs_of_every_length_read_back() {
    let world = World::new().await;
    for len in [
        0,
        1,
        4096,
        4097,
        16_384,
        65_536,
        1 << 20,
        (1 << 20) + 1,
        5_000_000,
    ] {
        let data = disk(len as u64, len);
        let digest = world.push_blob("a", &data).await;
        assert_eq!(pull(&world, "a", &digest).await.unwrap(), data, "{len}");
    }
}

#[tokio::test]
async fn ranges_read_back() {
    let world = World::new().await;
    let data = disk(3, 9_000_000);
    let digest = world.push_blob("a", &data).await;
    let reader = world
        .registry
        .blob_read(&WHO, &name("a"), &digest)
        .await
        .unwrap();
    for (from, to) in [
        (0, 1),
        (8_999_999, 9_000_000),
        (65_000, 66_000),
        (1_048_000, 3_200_000),
        (5, 5),
    ] {
        let frames: Vec<Bytes> = reader.body(from..to).try_collect().await.unwrap();
        assert_eq!(
            frames.concat(),
            data[from as usize..to as usize],
            "{from}..{to}"
        );
    }
}

#[tokio::test]
async fn the_same_content_is_stored_once() {
    let world = World::new().await;
    let data = disk(7, 8_000_000);
    world.push_blob("a", &data).await;
    let once = world
        .registry
        .store()
        .stats()
        .stored_bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    let mut longer = data.to_vec();
    longer.extend_from_slice(b"one more line");
    world.push_blob("b", &longer.into()).await;
    world.push_blob("c", &data).await;
    let all = world
        .registry
        .store()
        .stats()
        .stored_bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!(all - once < 200_000, "{} bytes more", all - once);
}

#[tokio::test]
async fn stored_frames_decode_to_the_blob_and_have_the_promised_length() {
    let world = World::new().await;
    let data = disk(9, 6_000_000);
    let digest = world.push_blob("a", &data).await;
    let reader = world
        .registry
        .blob_read(&WHO, &name("a"), &digest)
        .await
        .unwrap();
    let (len, stream) = reader
        .stored_stream()
        .await
        .unwrap()
        .expect("it compresses");
    let stored = stream.try_collect::<Vec<Bytes>>().await.unwrap().concat();
    assert_eq!(stored.len() as u64, len);
    assert_eq!(zstd::stream::decode_all(&stored[..]).unwrap(), data);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let data = disk(11, 3_000_000);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut world = World::new().await;
        let id = world
            .registry
            .upload_start(&WHO, &name("a"), None)
            .await
            .unwrap()
            .id;
        let mut offset = 0;
        for end in [100, 100, 5000, 900_000, 2_100_000] {
            let part = data.slice(offset..end);
            let status = world
                .registry
                .upload_append(&WHO, &name("a"), &id, None, body(&part))
                .await
                .unwrap();
            assert_eq!(status.offset, end as u64);
            world = world.restart().await;
            offset = end;
        }
        let stale = world
            .registry
            .upload_append(&WHO, &name("a"), &id, Some((0, 9)), body(&data.slice(..10)))
            .await;
        assert!(
            matches!(
                stale,
                Err(RegistryError::RangeMismatch {
                    expected: 2_100_000,
                    ..
                })
            ),
            "{stale:?}"
        );
        let digest = Digest::of(algorithm, &data);
        let rest = data.slice(offset..);
        world
            .registry
            .upload_finish(&WHO, &name("a"), &id, None, digest, body(&rest))
            .await
            .unwrap();
        let world = world.restart().await;
        assert_eq!(pull(&world, "a", &digest).await.unwrap(), data);
        let gone = world.registry.upload_status(&WHO, &name("a"), &id).await;
        assert!(matches!(gone, Err(RegistryError::UploadUnknown)));
    }
}

#[tokio::test]
async fn what_arrived_before_a_break_is_kept() {
    let world = World::new().await;
    let data = disk(13, 2_500_000);
    let id = world
        .registry
        .upload_start(&WHO, &name("a"), None)
        .await
        .unwrap()
        .id;
    let broken = body(&data.slice(..2_000_000))
        .chain(stream::iter([Err(BodyError::Broken("reset".into()))]));
    let result = world
        .registry
        .upload_append(&WHO, &name("a"), &id, None, broken.boxed())
        .await;
    assert!(matches!(result, Err(RegistryError::Body(_))), "{result:?}");
    let offset = world
        .registry
        .upload_status(&WHO, &name("a"), &id)
        .await
        .unwrap()
        .offset;
    assert_eq!(offset, 2_000_000);
    let digest = Digest::sha256(&data);
    world
        .registry
        .upload_finish(
            &WHO,
            &name("a"),
            &id,
            None,
            digest,
            body(&data.slice(2_000_000..)),
        )
        .await
        .unwrap();
    assert_eq!(pull(&world, "a", &digest).await.unwrap(), data);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    let wrong = Digest::sha256(b"something else");
    let result = world
        .registry
        .blob_push(&WHO, &name("a"), wrong, body(&disk(1, 100_000)))
        .await;
    assert!(
        matches!(result, Err(RegistryError::DigestMismatch { .. })),
        "{result:?}"
    );
    assert!(matches!(
        pull(&world, "a", &wrong).await,
        Err(RegistryError::BlobUnknown(_))
    ));
    // Content that the store has does not help who does not have it.
    let digest = world.push_blob("secret", &disk(2, 100_000)).await;
    let result = world
        .registry
        .blob_push(&WHO, &name("a"), digest, body(&disk(1, 100_000)))
        .await;
    assert!(
        matches!(result, Err(RegistryError::DigestMismatch { .. })),
        "{result:?}"
    );
    assert!(pull(&world, "a", &digest).await.is_err());
}

#[tokio::test]
async fn a_sparse_repository_may_lose_a_blob_before_its_manifest() {
    let rule = |repository: &str, sparse| SparseRule {
        repository: repository.parse().unwrap(),
        sparse,
    };
    let options = RegistryOptions {
        sparse: vec![
            rule("all", policy::Sparse::All),
            rule("index", policy::Sparse::Index),
        ],
        ..RegistryOptions::default()
    };
    let world = World::with(options).await;
    let registry = &world.registry;
    let (manifest, config) = (image(&[]), config());
    let tag = "v1".parse::<Reference>().unwrap();
    for (repository, sparse) in [("all", true), ("index", false), ("other", false)] {
        world.push_config(repository).await;
        let name = name(repository);
        registry
            .manifest_put(&WHO, &name, &tag, &[], None, manifest.clone())
            .await
            .unwrap();
        let deleted = registry.blob_delete(&WHO, &name, &config).await;
        assert_eq!(deleted.is_ok(), sparse, "{repository}: {deleted:?}");
        let pulled = pull(&world, repository, &config).await;
        assert_eq!(pulled.is_err(), sparse, "{repository}");
        assert!(registry.manifest_get(&WHO, &name, &tag).await.is_ok());
    }
    // The manifest still refers to it: pushed again, it is kept as before.
    world.push_config("all").await;
    assert_eq!(pull(&world, "all", &config).await.unwrap(), b"{}");
}

#[tokio::test]
async fn a_repository_that_lost_its_last_manifest_is_there_until_its_last_blob_goes() {
    let world = World::new().await;
    let registry = &world.registry;
    let (manifest, config) = (image(&[]), config());
    let (name, tag) = (name("a"), "v1".parse::<Reference>().unwrap());
    world.push_config("a").await;
    let put = registry
        .manifest_put(&WHO, &name, &tag, &[], None, manifest)
        .await
        .unwrap();
    registry
        .manifest_delete(&WHO, &name, &Reference::Digest(put.digest))
        .await
        .unwrap();
    let tags = registry.tags(&WHO, &name, None, 10).await.unwrap();
    assert!(tags.items.is_empty());
    registry.blob_delete(&WHO, &name, &config).await.unwrap();
    let tags = registry.tags(&WHO, &name, None, 10).await;
    assert!(
        matches!(tags, Err(RegistryError::NameUnknown(_))),
        "{tags:?}"
    );
}

#[tokio::test]
async fn manifests_need_what_they_refer_to_and_keep_it() {
    let world = World::new().await;
    let registry = &world.registry;
    let (manifest, config) = (image(&[]), config());
    let (repository, tag) = (name("a"), "v1".parse::<Reference>().unwrap());
    let put = || registry.manifest_put(&WHO, &repository, &tag, &[], None, manifest.clone());
    assert!(matches!(put().await, Err(RegistryError::ManifestBlobUnknown(d)) if d == config));
    world.push_config("a").await;
    let stored = put().await.unwrap();
    assert_eq!(
        registry
            .manifest_get(&WHO, &repository, &tag)
            .await
            .unwrap()
            .bytes,
        manifest
    );
    assert!(matches!(
        registry.blob_delete(&WHO, &repository, &config).await,
        Err(RegistryError::InUse(d)) if d == config
    ));
    assert_eq!(
        registry
            .tags(&WHO, &repository, None, 10)
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    registry
        .manifest_delete(&WHO, &repository, &Reference::Digest(stored.digest))
        .await
        .unwrap();
    assert!(
        registry
            .manifest_get(&WHO, &repository, &tag)
            .await
            .is_err()
    );
    registry
        .blob_delete(&WHO, &repository, &config)
        .await
        .unwrap();
    assert!(
        registry
            .repositories(&WHO, None, 10)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_mount_needs_a_repository_that_holds_the_blob() {
    let world = World::new().await;
    let data = disk(5, 50_000);
    let digest = world.push_blob("a", &data).await;
    let absent = Digest::sha256(b"absent");
    for from in [Some(name("a")), None] {
        assert!(
            world
                .registry
                .blob_mount(&WHO, &name("b"), &digest, from.as_ref())
                .await
                .unwrap()
        );
        assert!(
            !world
                .registry
                .blob_mount(&WHO, &name("b"), &absent, from.as_ref())
                .await
                .unwrap()
        );
    }
    assert!(
        !world
            .registry
            .blob_mount(&WHO, &name("c"), &digest, Some(&name("empty")))
            .await
            .unwrap()
    );
    assert_eq!(pull(&world, "b", &digest).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_the_same_content_side_by_side_store_it_once() {
    let world = Arc::new(World::new().await);
    let data = random(99, 10_000_000);
    let pushes = (0..4).map(|n| {
        let (world, data) = (Arc::clone(&world), data.clone());
        tokio::spawn(async move {
            // A different last byte makes it another blob of the same chunks.
            let mut data = data.to_vec();
            data.push(n);
            let data = Bytes::from(data);
            (world.push_blob("a", &data).await, data)
        })
    });
    let pushed: BTreeMap<_, _> = futures::future::try_join_all(pushes)
        .await
        .unwrap()
        .into_iter()
        .collect();
    for (digest, data) in &pushed {
        assert_eq!(pull(&world, "a", digest).await.unwrap(), *data);
    }
    let stored = world
        .registry
        .store()
        .stats()
        .stored_bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!(stored < 11_000_000, "{stored} bytes for 10 MB of chunks");
}

#[tokio::test]
async fn an_index_keeps_the_manifests_that_it_lists() {
    let world = World::new().await;
    let registry = &world.registry;
    let repository = name("a");
    world.push_config("a").await;
    let manifest = image(&[]);
    let child = Digest::sha256(&manifest);
    let put = async |bytes: Bytes| {
        let digest = Digest::sha256(&bytes);
        registry
            .manifest_put(&WHO, &repository, &digest.into(), &[], None, bytes)
            .await
            .unwrap();
        digest
    };
    let len = manifest.len();
    put(manifest).await;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{child}","size":{len}}}]}}"#
    );
    let index = put(Bytes::from(index)).await;
    let delete = async |digest: Digest| {
        registry
            .manifest_delete(&WHO, &repository, &digest.into())
            .await
    };
    assert!(matches!(delete(child).await, Err(RegistryError::InUse(d)) if d == child));
    delete(index).await.unwrap();
    delete(child).await.unwrap();
}

#[tokio::test]
async fn a_damaged_row_of_a_chunk_is_an_error_and_no_panic() {
    let world = World::new().await;
    // Long enough that the pack goes on for longer than any read, behind the chunk that is damaged.
    let digest = world.push_blob("a", &random(1, 8_000_000)).await;
    let rows = world.meta.scan(&key::chunks(), 1000).await.unwrap();
    let decoded = rows
        .iter()
        .map(|(key, row)| (key.clone(), ChunkRecord::decode(key, row).unwrap()));
    let (key, good) = decoded.min_by_key(|(_, row)| row.offset).unwrap();
    for damaged in [
        ChunkRecord {
            stored_len: 5_000_000,
            ..good
        },
        ChunkRecord {
            stored_len: u32::MAX,
            ..good
        },
        ChunkRecord {
            offset: u32::MAX,
            ..good
        },
        ChunkRecord {
            stored_len: good.stored_len - 1,
            ..good
        },
    ] {
        let txn = Txn {
            puts: vec![(key.clone(), damaged.encode())],
            ..Txn::default()
        };
        assert_eq!(world.meta.commit(txn).await.unwrap(), Commit::Done);
        assert!(pull(&world, "a", &digest).await.is_err(), "{damaged:?}");
    }
}

#[tokio::test]
async fn long_texts_of_clients_end_a_page_and_nothing_is_left_out() {
    // Several to a page, and each more than a page.
    for len in [1_500_000, 5_000_000] {
        check_long_texts(len).await;
    }
}

async fn check_long_texts(len: usize) {
    let world = World::new().await;
    world.push_config("a").await;
    let subject = Digest::sha256(b"it need not exist");
    let mut all = Vec::new();
    for at in 0..9 {
        let mut referrer: serde_json::Value = serde_json::from_slice(&about(subject, at)).unwrap();
        if at % 2 == 0 {
            referrer["artifactType"] = "x".repeat(len).into();
        }
        let referrer = referrer.to_string().into();
        all.push(world.put(&format!("a:t{at}"), &referrer).await);
    }
    // One only by the tag that clients use with registries that have no referrers API.
    let listed = world.put("a", &numbered(99)).await;
    let tag = format!("a:sha256-{}", subject.hex());
    let fallback = world.put(&tag, &index(&[listed])).await;
    let (registry, repository) = (&world.registry, name("a"));
    let manifests = [&all[..], &[listed, fallback]].concat();
    all.push(listed);
    all.sort_by_key(Digest::to_key);

    let (mut found, mut last, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = registry
            .referrers(&WHO, &repository, &subject, None, last.as_ref(), 1_000)
            .await
            .unwrap();
        let bytes: usize = page.items.iter().map(|d| d.to_string().len()).sum();
        assert!(page.items.len() == 1 || bytes <= PAGE_TEXT_BYTES_MAX);
        let digests = page.items.iter().map(|d| d["digest"].as_str().unwrap());
        found.extend(digests.map(|digest| digest.parse::<Digest>().unwrap()));
        last = found.last().copied();
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert_eq!(found, all);
    assert!(pages >= 3, "{pages}");

    let page = registry
        .tag_list(&WHO, &repository, None, 1_000)
        .await
        .unwrap();
    assert!(page.more && page.items.len() < manifests.len());
    let (mut found, mut last) = (BTreeSet::new(), None);
    loop {
        let page = registry
            .manifest_list(&WHO, &repository, last.as_ref(), 1_000)
            .await
            .unwrap();
        assert!(page.items.len() < manifests.len());
        last = page.items.last().map(|entry| entry.digest);
        found.extend(page.items.into_iter().map(|entry| entry.digest.to_key()));
        if !page.more {
            break;
        }
    }
    assert_eq!(found, manifests.iter().map(Digest::to_key).collect());
}
