//! A registry in memory: its clock stands still until it is told to go on, and its device fails when it is told to.

use std::sync::Arc;

use bytes::Bytes;
use dvcr_core::oci::{Digest, Reference};

use super::{BEGIN_MS, Checkpoint, WHO, body, checkpoint_of, config, image, name, read, rebuilt};
use crate::{
    backend::{
        faulty::{FaultScript, FaultyBackend},
        memory::MemoryBackend,
    },
    clock::ManualClock,
    meta::{MetaStore as _, key, memory::MemoryMeta},
    registry::{Registry, RegistryError, RegistryOptions},
    repair::RepairReport,
    store::{Store, StoreOptions},
};

/// See the module's text. What a target is: `repository`, `repository:tag` or `repository@digest`.
pub(crate) struct World {
    pub(crate) meta: Arc<MemoryMeta>,
    pub(crate) packs: Arc<FaultyBackend<MemoryBackend>>,
    /// What goes wrong on the device.
    pub(crate) script: Arc<FaultScript>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) registry: Registry,
    options: RegistryOptions,
}

impl World {
    /// With nothing in it, and the options that are the default.
    pub(crate) async fn new() -> Self {
        Self::with(RegistryOptions::default()).await
    }

    /// With nothing in it.
    pub(crate) async fn with(options: RegistryOptions) -> Self {
        let script = FaultScript::new();
        let packs = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&script));
        let clock = Arc::new(ManualClock::new(BEGIN_MS));
        Self::on(Arc::default(), Arc::new(packs), script, clock, options).await
    }

    async fn on(
        meta: Arc<MemoryMeta>,
        packs: Arc<FaultyBackend<MemoryBackend>>,
        script: Arc<FaultScript>,
        clock: Arc<ManualClock>,
        options: RegistryOptions,
    ) -> Self {
        let store = StoreOptions {
            // What is decoded already would hide what became of it on the device.
            cache_bytes: 0,
            ..StoreOptions::default()
        };
        let store = Store::open(meta.clone(), packs.clone(), clock.clone(), store);
        let store = store.await.unwrap();
        Self {
            registry: Registry::new(meta.clone(), store, clock.clone(), options.clone()),
            meta,
            packs,
            script,
            clock,
            options,
        }
    }

    /// The same data, opened by another process.
    pub(crate) async fn restart(self) -> Self {
        let meta = Arc::clone(&self.meta);
        self.restart_on(meta).await
    }

    async fn restart_on(self, meta: Arc<MemoryMeta>) -> Self {
        Self::on(meta, self.packs, self.script, self.clock, self.options).await
    }

    /// A checkpoint of what is in the metadata now.
    pub(crate) async fn checkpoint(&self) -> Checkpoint {
        checkpoint_of(&*self.meta, BEGIN_MS).await
    }

    /// The metadata goes, and comes back from a checkpoint and what lies in packs now.
    pub(crate) async fn rebuilt(self, checkpoint: Option<Checkpoint>) -> (Self, RepairReport) {
        self.registry.store().close().await.unwrap();
        self.rebuilt_from(true, checkpoint).await
    }

    /// The same after a crash: no pack was sealed.
    pub(crate) async fn rebuilt_after_a_crash(
        self,
        checkpoint: Option<Checkpoint>,
    ) -> (Self, RepairReport) {
        self.rebuilt_from(false, checkpoint).await
    }

    async fn rebuilt_from(
        self,
        are_sealed: bool,
        checkpoint: Option<Checkpoint>,
    ) -> (Self, RepairReport) {
        let packs = self.packs.clone();
        let (meta, report) = rebuilt(packs, move |_| are_sealed, checkpoint, BEGIN_MS).await;
        (self.restart_on(meta).await, report)
    }

    /// Pushes a blob.
    pub(crate) async fn push_blob(&self, repository: &str, data: &Bytes) -> Digest {
        let digest = Digest::sha256(data);
        self.registry
            .blob_push(&WHO, &name(repository), digest, body(data))
            .await
            .unwrap();
        digest
    }

    /// Pushes the config of every image.
    pub(crate) async fn push_config(&self, repository: &str) {
        let digest = self.push_blob(repository, &Bytes::from_static(b"{}")).await;
        assert_eq!(digest, config());
    }

    /// Pushes a manifest, and nothing that it refers to.
    pub(crate) async fn try_put(
        &self,
        repository: &str,
        reference: &Reference,
        manifest: &Bytes,
    ) -> Result<Digest, RegistryError> {
        let (repository, manifest) = (name(repository), manifest.clone());
        let put = self
            .registry
            .manifest_put(&WHO, &repository, reference, &[], None, manifest);
        Ok(put.await?.digest)
    }

    /// Pushes a manifest, and nothing that it refers to.
    pub(crate) async fn put(&self, target: &str, manifest: &Bytes) -> Digest {
        let (repository, reference) = match target.split_once('@').or(target.split_once(':')) {
            Some((repository, reference)) => (repository, reference.parse().unwrap()),
            None => (target, Digest::sha256(manifest).into()),
        };
        let put = self.try_put(repository, &reference, manifest).await;
        put.unwrap()
    }

    /// Pushes an image with this layer; returns the manifest's digest.
    pub(crate) async fn push(&self, target: &str, layer: &Bytes) -> Digest {
        let repository = target.split([':', '@']).next().unwrap();
        self.push_blob(repository, layer).await;
        self.push_config(repository).await;
        self.put(target, &image(&[layer])).await
    }

    /// Whether a blob reads back. Never with other bytes.
    pub(crate) async fn pull(&self, repository: &str, data: &Bytes) -> Result<(), RegistryError> {
        let found = read(&self.registry, repository, &Digest::sha256(data)).await?;
        assert!(found == data[..], "other bytes");
        Ok(())
    }

    /// Whether a manifest is there, without asking for it as a client would.
    pub(crate) async fn holds(&self, repository: &str, manifest: Digest) -> bool {
        let key = key::manifest(&name(repository), &manifest);
        self.meta.get_one(&key).await.unwrap().is_some()
    }

    /// Bytes of all packs.
    pub(crate) fn stored_bytes(&self) -> u64 {
        super::stored_bytes(&*self.packs)
    }
}
