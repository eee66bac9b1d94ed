//! The whole registry on a machine whose power fails in each sync in turn, of packs and of metadata alike.
//!
//! A model knows what was acknowledged. After each crash all of that must be there, byte for byte; what was under way may
//! have happened or not; and the registry must go on as if nothing had been.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use dvcr_core::oci::{Digest, Reference};

use super::*;
use crate::{
    backend::{PackBackend, PackId, crash::CrashBackend},
    clock::ManualClock,
    gc::Swept,
    meta::{
        record::{PackRecord, PackState},
        redb::{
            RedbMeta, RedbOptions,
            crash_disk::{CrashDisk, Dice, Power},
        },
    },
    store::{StoreError, StoreOptions, pack::PACK_HEADER_LEN},
    testing::{WHO, body, disk, image, name, read},
};

/// A machine, and what it acknowledged.
struct Machine {
    power: Power,
    meta_disk: CrashDisk,
    packs: Arc<CrashBackend>,
    meta: Arc<RedbMeta>,
    clock: Arc<ManualClock>,
    registry: Registry,
    acknowledged: Model,
}

#[derive(Default)]
struct Model {
    blobs: BTreeMap<Digest, Bytes>,
    manifests: BTreeMap<Digest, Bytes>,
    /// What a tag points to; both where a move was under way.
    tags: BTreeMap<String, Vec<Option<Digest>>>,
    /// Sessions and how much of their blob was acknowledged.
    uploads: BTreeMap<[u8; 16], (Bytes, usize)>,
}

impl Machine {
    async fn new() -> Self {
        let power = Power::new();
        let meta_disk = CrashDisk::new(&power);
        let packs = Arc::new(CrashBackend::new(&power));
        drop(open_meta(&meta_disk));
        let clock = Arc::new(ManualClock::new(1_000_000));
        Self::boot(power, meta_disk, packs, clock, Model::default()).await
    }

    async fn boot(
        power: Power,
        meta_disk: CrashDisk,
        packs: Arc<CrashBackend>,
        clock: Arc<ManualClock>,
        acknowledged: Model,
    ) -> Self {
        let meta = Arc::new(open_meta(&meta_disk));
        let options = StoreOptions {
            workers: 1,
            ..StoreOptions::default()
        };
        let store = Store::open(meta.clone(), packs.clone(), clock.clone(), options)
            .await
            .unwrap();
        let options = RegistryOptions::default();
        let registry = Registry::new(meta.clone(), store, clock.clone(), options);
        Self {
            power,
            meta_disk,
            packs,
            meta,
            clock,
            registry,
            acknowledged,
        }
    }

    /// What is left after a power failure, started again.
    async fn crash(self, seed: u64) -> Self {
        let Self {
            power,
            meta_disk,
            packs,
            meta,
            clock,
            registry,
            acknowledged,
        } = self;
        power.cut();
        drop(registry);
        meta.close().await;
        let packs = Arc::new(packs.reopen(seed));
        meta_disk.crash(seed);
        power.restore();
        Self::boot(power, meta_disk, packs, clock, acknowledged).await
    }

    async fn push_blob(&mut self, data: &Bytes) -> Result<Digest, RegistryError> {
        let digest = Digest::sha256(data);
        self.registry
            .blob_push(&WHO, &name("a"), digest, body(data))
            .await?;
        self.acknowledged.blobs.insert(digest, data.clone());
        Ok(digest)
    }

    async fn push_manifest(
        &mut self,
        tag: &str,
        layers: &[&Bytes],
    ) -> Result<Digest, RegistryError> {
        self.push_blob(&Bytes::from_static(b"{}")).await?;
        let manifest = image(layers);
        let digest = Digest::sha256(&manifest);
        let targets = self
            .acknowledged
            .tags
            .entry(tag.into())
            .or_insert_with(|| vec![None]);
        targets.push(Some(digest));
        let reference = Reference::Tag(tag.parse().unwrap());
        self.registry
            .manifest_put(&WHO, &name("a"), &reference, &[], None, manifest.clone())
            .await?;
        self.acknowledged
            .tags
            .insert(tag.into(), vec![Some(digest)]);
        self.acknowledged.manifests.insert(digest, manifest);
        Ok(digest)
    }

    async fn delete_manifest(&mut self, digest: Digest) -> Result<(), RegistryError> {
        // From here on it may be gone, and its tags with it.
        self.acknowledged.manifests.remove(&digest);
        for targets in self
            .acknowledged
            .tags
            .values_mut()
            .filter(|t| t.contains(&Some(digest)))
        {
            targets.push(None);
        }
        self.registry
            .manifest_delete(&WHO, &name("a"), &Reference::Digest(digest))
            .await
    }

    /// Sends the next bytes of an upload; begins it with the first.
    async fn append(
        &mut self,
        id: Option<SessionId>,
        data: &Bytes,
        upto: usize,
    ) -> Result<SessionId, RegistryError> {
        let id = match id {
            Some(id) => id,
            None => self.registry.upload_start(&WHO, &name("a"), None).await?.id,
        };
        let done = self
            .acknowledged
            .uploads
            .get(&id.0)
            .map_or(0, |(_, done)| *done);
        self.registry
            .upload_append(&WHO, &name("a"), &id, None, body(&data.slice(done..upto)))
            .await?;
        self.acknowledged.uploads.insert(id.0, (data.clone(), upto));
        Ok(id)
    }

    async fn finish(&mut self, id: SessionId) -> Result<(), RegistryError> {
        let (data, done) = self.acknowledged.uploads.remove(&id.0).unwrap();
        let digest = Digest::sha256(&data);
        self.registry
            .upload_finish(
                &WHO,
                &name("a"),
                &id,
                None,
                digest,
                body(&data.slice(done..)),
            )
            .await?;
        self.acknowledged.blobs.insert(digest, data);
        Ok(())
    }

    /// Lets leases and graces end and collects garbage. Blobs to which no manifest refers may be gone then.
    async fn collect(&mut self) -> Result<Swept, StoreError> {
        self.clock.advance_ms(2 * 3_600_000);
        let mut kept = std::collections::BTreeSet::new();
        for manifest in self.acknowledged.manifests.values() {
            let manifest = dvcr_core::oci::Manifest::parse(None, manifest).unwrap();
            kept.extend(manifest.blobs().map(|blob| blob.digest));
        }
        self.acknowledged
            .blobs
            .retain(|digest, _| kept.contains(digest));
        let swept = self.registry.gc().collect(false).await?.swept;
        Ok(swept)
    }

    /// Something of everything; ends with the power.
    async fn work(&mut self, seed: u64) -> Result<(), RegistryError> {
        let base = disk(seed, 700_000);
        let first = self.push_blob(&base).await?;
        self.push_manifest("v1", &[&base]).await?;
        let mut patched = base.to_vec();
        patched[300_000..300_100].fill(7);
        let patched = Bytes::from(patched);
        let id = self.append(None, &patched, 1000).await?;
        self.append(Some(id), &patched, 400_000).await?;
        let small = Bytes::from(format!("small {seed}"));
        self.push_blob(&small).await?;
        self.append(Some(id), &patched, 650_000).await?;
        self.finish(id).await?;
        let old = self.push_manifest("v2", &[&patched, &small]).await?;
        self.push_manifest("v2", &[&small]).await?;
        self.delete_manifest(old).await?;
        let mounted = self
            .registry
            .blob_mount(&WHO, &name("b"), &first, None)
            .await?;
        assert!(mounted);
        let unfinished = disk(seed + 1, 200_000);
        let unfinished = self.append(None, &unfinished, 150_000).await?;
        self.collect().await?;
        // Some of it lies in the pack that is emptied.
        let mixed: Bytes = [&patched[..], &disk(seed + 2, 100_000)].concat().into();
        self.push_blob(&mixed).await?;
        let doomed = self.push_manifest("v3", &[&mixed]).await?;
        self.append(Some(unfinished), &disk(seed + 1, 200_000), 190_000)
            .await?;
        self.delete_manifest(doomed).await?;
        self.collect().await?;
        Ok(())
    }

    /// Everything acknowledged is there.
    async fn check(&self) {
        for (digest, data) in &self.acknowledged.blobs {
            assert_eq!(self.pull(digest).await, *data, "{digest}");
        }
        for (digest, manifest) in &self.acknowledged.manifests {
            let found = self
                .registry
                .manifest_get(&WHO, &name("a"), &Reference::Digest(*digest))
                .await
                .unwrap();
            assert_eq!(found.bytes, *manifest);
        }
        for (tag, targets) in &self.acknowledged.tags {
            let reference = Reference::Tag(tag.parse().unwrap());
            let found = self
                .registry
                .manifest_get(&WHO, &name("a"), &reference)
                .await;
            assert!(
                targets.contains(&found.as_ref().ok().map(|m| m.digest)),
                "{tag}: {found:?} of {targets:?}"
            );
            if let Ok(manifest) = found {
                let manifest = dvcr_core::oci::Manifest::parse(None, &manifest.bytes).unwrap();
                for blob in manifest.blobs() {
                    self.pull(&blob.digest).await;
                }
            }
        }
        for (id, (data, done)) in &self.acknowledged.uploads {
            let id = SessionId(*id);
            let status = self
                .registry
                .upload_status(&WHO, &name("a"), &id)
                .await
                .unwrap();
            assert!(
                status.offset >= *done as u64,
                "{} of {done} bytes",
                status.offset
            );
            let rest = data.slice(status.offset as usize..);
            let digest = Digest::sha256(data);
            self.registry
                .upload_finish(&WHO, &name("a"), &id, None, digest, body(&rest))
                .await
                .unwrap();
            assert_eq!(self.pull(&digest).await, *data);
        }
    }

    /// Once garbage is collected and the store is closed, every pack that the metadata knows is sealed, and others are empty.
    async fn check_packs(&mut self) {
        let swept = self.collect().await.unwrap();
        assert_eq!(swept.damaged, 0, "{swept:?}");
        self.registry.store().close().await.unwrap();
        let rows = self.meta.scan(&key::packs(), 1000).await.unwrap();
        let mut known = Vec::new();
        for (key, row) in rows {
            let record = PackRecord::decode(&key, &row).unwrap();
            let id = key::last_field(&key::packs(), &key).try_into().unwrap();
            let pack = PackId(u64::from_be_bytes(id));
            assert_eq!(record.state, PackState::Sealed, "{pack}");
            assert_eq!(record.bytes, self.packs.len(pack).unwrap(), "{pack}");
            known.push(pack);
        }
        for pack in self.packs.list().unwrap() {
            let len = self.packs.len(pack).unwrap();
            assert!(
                known.contains(&pack) || len < PACK_HEADER_LEN as u64,
                "{pack}"
            );
        }
    }

    async fn pull(&self, digest: &Digest) -> Vec<u8> {
        read(&self.registry, "a", digest).await.unwrap()
    }
}

fn open_meta(disk: &CrashDisk) -> RedbMeta {
    let disk = disk.clone();
    RedbMeta::open_with(
        move || Ok(disk.open()),
        &RedbOptions {
            cache_bytes: 4 << 20,
        },
    )
    .unwrap()
}

#[tokio::test]
async fn a_crash_at_any_sync_loses_nothing_acknowledged() {
    let mut machine = Machine::new().await;
    machine.work(1).await.unwrap();
    let syncs = machine.power.syncs();
    machine.check().await;
    assert!(syncs > 30, "the work does {syncs} syncs");
    for crash_at in 1..=syncs {
        let mut machine = Machine::new().await;
        machine.power.fail_at_sync(crash_at);
        // The first sync of a fresh machine may be that of its database; either way the power ends the work.
        let result = machine.work(1).await;
        let mut machine = machine.crash(crash_at).await;
        machine.check().await;
        machine.check_packs().await;
        if let Err(error) = result {
            assert!(
                !matches!(error, RegistryError::DigestMismatch { .. }),
                "{error}"
            );
        }
        // Life goes on.
        machine.acknowledged.uploads.clear();
        machine.work(2).await.unwrap();
        machine.check().await;
    }
}

#[tokio::test]
async fn crashes_again_and_again_lose_nothing_acknowledged() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut machine = Machine::new().await;
        for round in 0..6 {
            machine.power.fail_at_sync(1 + dice.below(50));
            let _power_failed = machine.work(seed * 10 + round % 3).await;
            machine = machine.crash(dice.next_u64()).await;
            machine.check().await;
            machine.check_packs().await;
            machine.acknowledged.uploads.clear();
        }
        assert!(!machine.packs.list().unwrap().is_empty());
    }
}
