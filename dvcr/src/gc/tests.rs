//! Garbage collection of a registry whose clock stands still until it is told to go on.

use std::sync::Arc;

use bytes::Bytes;
use dvcr_core::oci::{Digest, Reference};
use futures::TryStreamExt as _;

use super::*;
use crate::{
    backend::{PackBackend as _, memory::MemoryBackend},
    clock::ManualClock,
    meta::memory::MemoryMeta,
    registry::{
        Principal, Registry, RegistryError, RegistryOptions,
        tests::{body, config, disk, image, name},
    },
    store::StoreOptions,
};

const WHO: Principal = Principal::Anonymous;
const HOUR_MS: u64 = 3_600_000;

struct World {
    clock: Arc<ManualClock>,
    packs: Arc<MemoryBackend>,
    registry: Registry,
}

impl World {
    async fn new(options: RegistryOptions, limits: SweepLimits) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let meta = Arc::new(MemoryMeta::new());
        let packs = Arc::new(MemoryBackend::default());
        let store = Store::open(
            meta.clone(),
            packs.clone(),
            clock.clone(),
            StoreOptions::default(),
        )
        .await
        .unwrap();
        let options = RegistryOptions {
            gc: GcOptions {
                limits,
                ..GcOptions::default()
            },
            ..options
        };
        Self {
            registry: Registry::new(meta, store, clock.clone(), options),
            clock,
            packs,
        }
    }

    async fn default() -> Self {
        Self::new(RegistryOptions::default(), GcOptions::default().limits).await
    }

    async fn push_blob(&self, repository: &str, data: &Bytes) -> Digest {
        let digest = Digest::sha256(data);
        self.registry
            .blob_push(&WHO, &name(repository), digest, body(data))
            .await
            .unwrap();
        digest
    }

    async fn push(&self, repository: &str, data: &Bytes) -> Digest {
        let layer = self.push_blob(repository, data).await;
        self.push_blob(repository, &Bytes::from_static(b"{}")).await;
        let manifest = image(&[layer]);
        self.put(repository, &manifest).await.unwrap()
    }

    async fn put(&self, repository: &str, manifest: &Bytes) -> Result<Digest, RegistryError> {
        let reference = Reference::Digest(Digest::sha256(manifest));
        let put = self
            .registry
            .manifest_put(
                &WHO,
                &name(repository),
                &reference,
                &[],
                None,
                manifest.clone(),
            )
            .await?;
        Ok(put.digest)
    }

    async fn delete(&self, repository: &str, manifest: Digest) {
        self.registry
            .manifest_delete(&WHO, &name(repository), &Reference::Digest(manifest))
            .await
            .unwrap();
    }

    async fn pull(&self, repository: &str, data: &Bytes) -> bool {
        let (repository, digest) = (name(repository), Digest::sha256(data));
        let reader = self.registry.blob_read(&WHO, &repository, &digest).await;
        let Ok(reader) = reader else {
            return false;
        };
        let frames: Result<Vec<Bytes>, _> = reader.body(0..reader.info().len).try_collect().await;
        frames.is_ok_and(|frames| frames.concat() == *data)
    }

    fn stored_bytes(&self) -> u64 {
        let packs = self.packs.list().unwrap();
        packs
            .iter()
            .map(|pack| self.packs.len(*pack).unwrap())
            .sum()
    }

    async fn collect_after(&self, hours: u64) -> Collected {
        self.clock.advance_ms(hours * HOUR_MS);
        self.registry.gc().collect(false).await.unwrap()
    }
}

#[tokio::test]
async fn a_deleted_image_gives_its_bytes_back_once_its_grace_is_over() {
    let world = World::default().await;
    let (gone, kept) = (disk(1, 3_000_000), disk(100, 3_000_000));
    let manifest = world.push("a", &gone).await;
    world.push("b", &kept).await;
    world.collect_after(2).await;
    world.delete("a", manifest).await;
    let before = world.stored_bytes();
    let Collected { reviewed, .. } = world.collect_after(0).await;
    assert_eq!(reviewed.removed, 0, "grace");
    let Collected { reviewed, swept } = world.collect_after(2).await;
    // The config of both is the same blob.
    assert_eq!((reviewed.unlinked, reviewed.removed), (2, 1));
    assert_eq!(reviewed.removed_bytes, 3_000_000);
    assert!(swept.freed_bytes > 0 && swept.damaged == 0, "{swept:?}");
    assert!(world.stored_bytes() < before * 6 / 10);
    assert!(world.pull("b", &kept).await);
    assert!(!world.pull("a", &gone).await);
    let repositories = world.registry.repositories(&WHO, None, 10).await.unwrap();
    assert_eq!(repositories.items, [name("b")]);
    // Nothing is left to do, and what is pushed again is stored again.
    assert_eq!(world.collect_after(2).await, Collected::default());
    world.push("a", &gone).await;
    assert!(world.pull("a", &gone).await);
}

#[tokio::test]
async fn chunks_that_another_image_shares_stay() {
    let world = World::default().await;
    let base = disk(1, 3_000_000);
    let mut patched = base.to_vec();
    patched[1_000_000..1_000_010].fill(1);
    let patched = Bytes::from(patched);
    let manifest = world.push("a", &base).await;
    world.push("b", &patched).await;
    world.delete("a", manifest).await;
    let Collected { reviewed, .. } = world.collect_after(2).await;
    assert_eq!(reviewed.removed, 1);
    assert!(world.pull("b", &patched).await);
}

#[tokio::test]
async fn an_upload_keeps_the_chunks_that_it_found_stored() {
    let world = World::default().await;
    let base = disk(1, 3_000_000);
    let manifest = world.push("a", &base).await;
    let repository = name("b");
    let upload = world.registry.upload_start(&WHO, &repository, None);
    let id = upload.await.unwrap().id;
    let begin = body(&base.slice(..2_000_000));
    let appended = world
        .registry
        .upload_append(&WHO, &repository, &id, None, begin);
    assert_eq!(appended.await.unwrap().offset, 2_000_000);
    world.delete("a", manifest).await;
    let Collected { reviewed, swept } = world.collect_after(2).await;
    assert_eq!(reviewed.removed, 2);
    assert!(swept.packs > 0);
    let rest = body(&base.slice(2_000_000..));
    let digest = Digest::sha256(&base);
    let finished = world
        .registry
        .upload_finish(&WHO, &repository, &id, None, digest, rest);
    finished.await.unwrap();
    assert!(world.pull("b", &base).await);
}

#[tokio::test]
async fn a_blob_that_was_asked_for_outlives_the_manifest_that_kept_it() {
    let options = RegistryOptions {
        grace: Duration::ZERO,
        ..RegistryOptions::default()
    };
    let world = World::new(options, GcOptions::default().limits).await;
    let data = disk(1, 100_000);
    let old = world.push("a", &data).await;
    world.collect_after(5).await;
    // A client that pushes another manifest with the same layer asks first and finds it.
    for blob in [Digest::sha256(&data), config()] {
        world
            .registry
            .blob_head(&WHO, &name("a"), &blob)
            .await
            .unwrap();
    }
    world.delete("a", old).await;
    let Collected { reviewed, .. } = world.collect_after(0).await;
    assert_eq!(reviewed.removed, 0);
    let layer = Digest::sha256(&data);
    world.put("a", &image(&[layer, layer])).await.unwrap();
    world.collect_after(5).await;
    assert!(world.pull("a", &data).await);
}

#[tokio::test]
async fn removing_most_of_what_is_stored_needs_to_be_told() {
    let limits = SweepLimits {
        removed_free_bytes: 0,
        ..GcOptions::default().limits
    };
    let world = World::new(RegistryOptions::default(), limits).await;
    let manifest = world.push("a", &disk(1, 1_000_000)).await;
    world.delete("a", manifest).await;
    let before = world.stored_bytes();
    let Collected { reviewed, swept } = world.collect_after(2).await;
    assert!(reviewed.removed > 0 && swept.refused && swept.packs == 0);
    assert!(world.stored_bytes() >= before);
    assert!(world.registry.gc().plan().await.unwrap().too_much);
    let swept = world.registry.gc().sweep(true).await.unwrap();
    assert!(!swept.refused && world.stored_bytes() == 0, "{swept:?}");
}
