//! The use cases on real engines in memory.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use dvcr_core::oci::{Algorithm, Digest, Reference, RepositoryName};
use futures::{StreamExt, TryStreamExt, stream};

use super::*;
use crate::{
    backend::memory::MemoryBackend,
    clock::ManualClock,
    meta::{memory::MemoryMeta, record::ChunkRecord},
    store::{Store, StoreOptions},
};

const WHO: Principal = Principal::Anonymous;

struct Bench {
    meta: Arc<MemoryMeta>,
    packs: Arc<MemoryBackend>,
    registry: Registry,
}

impl Bench {
    async fn new() -> Self {
        Self::on(Arc::default(), Arc::default()).await
    }

    async fn on(meta: Arc<MemoryMeta>, packs: Arc<MemoryBackend>) -> Self {
        Self::with(meta, packs, RegistryOptions::default()).await
    }

    async fn with(
        meta: Arc<MemoryMeta>,
        packs: Arc<MemoryBackend>,
        options: RegistryOptions,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let store = Store::open(
            meta.clone(),
            packs.clone(),
            clock.clone(),
            StoreOptions::default(),
        )
        .await
        .unwrap();
        let registry = Registry::new(meta.clone(), store, clock, options);
        Self {
            meta,
            packs,
            registry,
        }
    }

    /// The same data, opened by another process.
    async fn restart(self) -> Self {
        Self::on(self.meta, self.packs).await
    }

    async fn push(&self, repository: &str, data: &Bytes) -> Digest {
        let digest = Digest::sha256(data);
        self.registry
            .blob_push(&WHO, &name(repository), digest, body(data))
            .await
            .unwrap();
        digest
    }

    async fn pull(&self, repository: &str, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let reader = self
            .registry
            .blob_read(&WHO, &name(repository), digest)
            .await?;
        let frames: Vec<Bytes> = reader.body(0..reader.info().len).try_collect().await?;
        Ok(frames.concat())
    }
}

pub(crate) fn name(s: &str) -> RepositoryName {
    s.parse().unwrap()
}

/// A body that arrives in frames of uneven length.
pub(crate) fn body(data: &Bytes) -> Body {
    let mut frames = Vec::new();
    let (mut rest, mut len) = (data.clone(), 1);
    while !rest.is_empty() {
        frames.push(Ok(rest.split_to(rest.len().min(len))));
        len = len * 7 % 300_007 + 1;
    }
    stream::iter(frames).boxed()
}

fn random(seed: u64, len: usize) -> Bytes {
    let mut x = seed | 1;
    let words = std::iter::repeat_with(move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.flatten().take(len).collect::<Vec<_>>().into()
}

/// Random bytes, text and zeros.
pub(crate) fn disk(seed: u64, len: usize) -> Bytes {
    let mut data = Vec::with_capacity(len);
    let mut n = seed;
    while data.len() < len {
        match n % 4 {
            0 => data.extend_from_slice(&random(n, 50_000)),
            1 => {
                let lines = (0..3000).map(|i| format!("line {i} of file {n}\n"));
                data.extend(lines.flat_map(String::into_bytes));
            }
            2 => data.resize(data.len() + 100_000, 0),
            _ => data.extend_from_slice(&random(n / 8, 30_000)),
        }
        n += 1;
    }
    data.truncate(len);
    data.into()
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image that differs from others by a number.
pub(crate) fn numbered(number: u32) -> Bytes {
    let text = String::from_utf8(image(&[]).to_vec()).unwrap();
    let rest = text.strip_prefix('{').unwrap();
    format!(r#"{{"annotations":{{"number":"{number}"}},{rest}"#).into()
}

/// An index that lists these manifests.
pub(crate) fn index(children: &[Digest]) -> Bytes {
    let children: Vec<_> = children
        .iter()
        .map(|digest| serde_json::json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 7}))
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    index.to_string().into()
}

/// A manifest about another one.
pub(crate) fn about(subject: Digest, number: u32) -> Bytes {
    let mut manifest: serde_json::Value = serde_json::from_slice(&numbered(number)).unwrap();
    manifest["subject"] =
        serde_json::json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 7});
    manifest.to_string().into()
}

#[tokio::test]
async fn blobs_of_every_length_read_back() {
    let bench = Bench::new().await;
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
        let digest = bench.push("a", &data).await;
        assert_eq!(bench.pull("a", &digest).await.unwrap(), data, "{len}");
    }
}

#[tokio::test]
async fn ranges_read_back() {
    let bench = Bench::new().await;
    let data = disk(3, 9_000_000);
    let digest = bench.push("a", &data).await;
    let reader = bench
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
    let bench = Bench::new().await;
    let data = disk(7, 8_000_000);
    bench.push("a", &data).await;
    let once = bench
        .registry
        .store()
        .stats()
        .stored_bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    let mut longer = data.to_vec();
    longer.extend_from_slice(b"one more line");
    bench.push("b", &longer.into()).await;
    bench.push("c", &data).await;
    let all = bench
        .registry
        .store()
        .stats()
        .stored_bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!(all - once < 200_000, "{} bytes more", all - once);
}

#[tokio::test]
async fn stored_frames_decode_to_the_blob_and_have_the_promised_length() {
    let bench = Bench::new().await;
    let data = disk(9, 6_000_000);
    let digest = bench.push("a", &data).await;
    let reader = bench
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
        let mut bench = Bench::new().await;
        let id = bench
            .registry
            .upload_start(&WHO, &name("a"), None)
            .await
            .unwrap()
            .id;
        let mut offset = 0;
        for end in [100, 100, 5000, 900_000, 2_100_000] {
            let part = data.slice(offset..end);
            let status = bench
                .registry
                .upload_append(&WHO, &name("a"), &id, None, body(&part))
                .await
                .unwrap();
            assert_eq!(status.offset, end as u64);
            bench = bench.restart().await;
            offset = end;
        }
        let stale = bench
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
        bench
            .registry
            .upload_finish(&WHO, &name("a"), &id, None, digest, body(&rest))
            .await
            .unwrap();
        let bench = bench.restart().await;
        assert_eq!(bench.pull("a", &digest).await.unwrap(), data);
        let gone = bench.registry.upload_status(&WHO, &name("a"), &id).await;
        assert!(matches!(gone, Err(RegistryError::UploadUnknown)));
    }
}

#[tokio::test]
async fn what_arrived_before_a_break_is_kept() {
    let bench = Bench::new().await;
    let data = disk(13, 2_500_000);
    let id = bench
        .registry
        .upload_start(&WHO, &name("a"), None)
        .await
        .unwrap()
        .id;
    let broken = body(&data.slice(..2_000_000))
        .chain(stream::iter([Err(BodyError::Broken("reset".into()))]));
    let result = bench
        .registry
        .upload_append(&WHO, &name("a"), &id, None, broken.boxed())
        .await;
    assert!(matches!(result, Err(RegistryError::Body(_))), "{result:?}");
    let offset = bench
        .registry
        .upload_status(&WHO, &name("a"), &id)
        .await
        .unwrap()
        .offset;
    assert_eq!(offset, 2_000_000);
    let digest = Digest::sha256(&data);
    bench
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
    assert_eq!(bench.pull("a", &digest).await.unwrap(), data);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let bench = Bench::new().await;
    let wrong = Digest::sha256(b"something else");
    let result = bench
        .registry
        .blob_push(&WHO, &name("a"), wrong, body(&disk(1, 100_000)))
        .await;
    assert!(
        matches!(result, Err(RegistryError::DigestMismatch { .. })),
        "{result:?}"
    );
    assert!(matches!(
        bench.pull("a", &wrong).await,
        Err(RegistryError::BlobUnknown(_))
    ));
    // Content that the store has does not help who does not have it.
    let digest = bench.push("secret", &disk(2, 100_000)).await;
    let result = bench
        .registry
        .blob_push(&WHO, &name("a"), digest, body(&disk(1, 100_000)))
        .await;
    assert!(
        matches!(result, Err(RegistryError::DigestMismatch { .. })),
        "{result:?}"
    );
    assert!(bench.pull("a", &digest).await.is_err());
}

/// An image with the config `{}` and these layers.
pub(crate) fn image(layers: &[Digest]) -> Bytes {
    let layers: Vec<_> = layers
        .iter()
        .map(|digest| format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1}}"#))
        .collect();
    Bytes::from(format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"layers":[{}]}}"#,
        config(),
        layers.join(","),
    ))
}

/// The digest of the config of every [`image`].
pub(crate) fn config() -> Digest {
    Digest::sha256(b"{}")
}

#[tokio::test]
async fn a_sparse_repository_may_lose_a_blob_before_its_manifest() {
    let rule = |repository: &str, sparse| SparseRule {
        repository: repository.to_owned(),
        sparse,
    };
    let options = RegistryOptions {
        sparse: vec![
            rule("all", policy::Sparse::All),
            rule("index", policy::Sparse::Index),
        ],
        ..RegistryOptions::default()
    };
    let bench = Bench::with(Arc::default(), Arc::default(), options).await;
    let registry = &bench.registry;
    let (manifest, config) = (image(&[]), config());
    let tag = "v1".parse::<Reference>().unwrap();
    for (repository, sparse) in [("all", true), ("index", false), ("other", false)] {
        bench.push(repository, &Bytes::from_static(b"{}")).await;
        let name = name(repository);
        registry
            .manifest_put(&WHO, &name, &tag, &[], None, manifest.clone())
            .await
            .unwrap();
        let deleted = registry.blob_delete(&WHO, &name, &config).await;
        assert_eq!(deleted.is_ok(), sparse, "{repository}: {deleted:?}");
        let pulled = bench.pull(repository, &config).await;
        assert_eq!(pulled.is_err(), sparse, "{repository}");
        assert!(registry.manifest_get(&WHO, &name, &tag).await.is_ok());
    }
    // The manifest still refers to it: pushed again, it is kept as before.
    bench.push("all", &Bytes::from_static(b"{}")).await;
    assert_eq!(bench.pull("all", &config).await.unwrap(), b"{}");
}

#[tokio::test]
async fn a_repository_that_lost_its_last_manifest_is_there_until_its_last_blob_goes() {
    let bench = Bench::new().await;
    let registry = &bench.registry;
    let (manifest, config) = (image(&[]), config());
    let (name, tag) = (name("a"), "v1".parse::<Reference>().unwrap());
    bench.push("a", &Bytes::from_static(b"{}")).await;
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
    let bench = Bench::new().await;
    let registry = &bench.registry;
    let (manifest, config) = (image(&[]), config());
    let (repository, tag) = (name("a"), "v1".parse::<Reference>().unwrap());
    let put = || registry.manifest_put(&WHO, &repository, &tag, &[], None, manifest.clone());
    assert!(matches!(put().await, Err(RegistryError::ManifestBlobUnknown(d)) if d == config));
    bench.push("a", &Bytes::from_static(b"{}")).await;
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
    let bench = Bench::new().await;
    let data = disk(5, 50_000);
    let digest = bench.push("a", &data).await;
    let absent = Digest::sha256(b"absent");
    for from in [Some(name("a")), None] {
        assert!(
            bench
                .registry
                .blob_mount(&WHO, &name("b"), &digest, from.as_ref())
                .await
                .unwrap()
        );
        assert!(
            !bench
                .registry
                .blob_mount(&WHO, &name("b"), &absent, from.as_ref())
                .await
                .unwrap()
        );
    }
    assert!(
        !bench
            .registry
            .blob_mount(&WHO, &name("c"), &digest, Some(&name("empty")))
            .await
            .unwrap()
    );
    assert_eq!(bench.pull("b", &digest).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_the_same_content_side_by_side_store_it_once() {
    let bench = Arc::new(Bench::new().await);
    let data = random(99, 10_000_000);
    let pushes = (0..4).map(|n| {
        let (bench, data) = (Arc::clone(&bench), data.clone());
        tokio::spawn(async move {
            // A different last byte makes it another blob of the same chunks.
            let mut data = data.to_vec();
            data.push(n);
            let data = Bytes::from(data);
            (bench.push("a", &data).await, data)
        })
    });
    let pushed: BTreeMap<_, _> = futures::future::try_join_all(pushes)
        .await
        .unwrap()
        .into_iter()
        .collect();
    for (digest, data) in &pushed {
        assert_eq!(bench.pull("a", digest).await.unwrap(), *data);
    }
    let stored = bench
        .registry
        .store()
        .stats()
        .stored_bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!(stored < 11_000_000, "{stored} bytes for 10 MB of chunks");
}

#[tokio::test]
async fn an_index_keeps_the_manifests_that_it_lists() {
    let bench = Bench::new().await;
    let registry = &bench.registry;
    let repository = name("a");
    bench.push("a", &Bytes::from_static(b"{}")).await;
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
    let bench = Bench::new().await;
    // Long enough that the pack goes on for longer than any read, behind the chunk that is damaged.
    let digest = bench.push("a", &random(1, 8_000_000)).await;
    let rows = bench.meta.scan(&key::chunks(), 1000).await.unwrap();
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
        assert_eq!(bench.meta.commit(txn).await.unwrap(), Commit::Done);
        assert!(bench.pull("a", &digest).await.is_err(), "{damaged:?}");
    }
}
