//! A machine that loses its power, its metadata, and bytes of its packs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::RwLock;

use super::keeper;
use crate::{
    backend::{PackBackend as _, crash::CrashBackend},
    clock::{Clock as _, ManualClock},
    meta::{
        Commit, Key, KeyRange, MetaError, MetaSnapshot, MetaStore, Txn, Value, key,
        memory::MemoryMeta,
        record::{ChunkRecord, Record as _},
    },
    registry::{Registry, RegistryOptions},
    simulation::{self, Dice, Power},
    store::{Store, StoreError, StoreOptions, pack::RECORD_HEADER_LEN},
    testing::{BEGIN_MS, checkpoint_of, rebuilt, thorough},
};

/// What survives a power failure, and the clock.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) meta: Arc<MemoryMeta>,
    pub(super) packs: Arc<CrashBackend>,
    pub(super) clock: Arc<ManualClock>,
}

/// The metadata as one server has it: what a server that was killed still wants to do does not happen.
struct MetaOfOneBoot {
    meta: Arc<MemoryMeta>,
    packs: Arc<CrashBackend>,
    power: Power,
    boot: u64,
}

impl MetaOfOneBoot {
    fn check(&self) -> Result<(), MetaError> {
        self.power
            .check(self.boot)
            .map_err(|error| MetaError::Unavailable(error.to_string()))
    }

    /// A row never names bytes that are not durable.
    fn check_durable(&self, txn: &Txn) {
        for (key, row) in &txn.puts {
            if key::chunk_of(key).map(|id| key::chunk(&id)) == Some(key.clone()) {
                let at = ChunkRecord::decode(key, row).unwrap();
                let end =
                    u64::from(at.offset) + RECORD_HEADER_LEN as u64 + u64::from(at.stored_len);
                let durable = self.packs.durable_len(at.pack);
                assert!(
                    durable >= Some(end),
                    "{at:?} ends at {end}, of which {durable:?} is durable"
                );
            }
        }
    }
}

#[async_trait]
impl MetaStore for MetaOfOneBoot {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, MetaError> {
        self.check()?;
        self.meta.get(keys).await
    }

    async fn scan_within(
        &self,
        range: &KeyRange,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Value)>, MetaError> {
        self.check()?;
        self.meta.scan_within(range, limit, bytes).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, MetaError> {
        simulation::turn().await;
        self.check()?;
        self.check_durable(&txn);
        self.meta.commit_now(txn)
    }

    async fn snapshot(&self) -> Result<Box<dyn MetaSnapshot>, MetaError> {
        self.check()?;
        self.meta.snapshot().await
    }
}

/// A server on it.
pub(super) struct Server {
    pub(super) machine: Machine,
    pub(super) registry: Registry,
    /// Held by a client from its first request about an image to the last: leases outlast that, so time must not jump.
    pub(super) at_work: RwLock<()>,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            meta: Arc::default(),
            packs: Arc::new(CrashBackend::new(&Power::new())),
            clock: Arc::new(ManualClock::new(BEGIN_MS)),
        }
    }

    pub(super) async fn boot(&self) -> Result<Server, StoreError> {
        let Self { meta, packs, clock } = self.clone();
        let power = packs.power().clone();
        let boot = power.boot();
        let meta = Arc::new(MetaOfOneBoot {
            meta,
            packs: Arc::clone(&packs),
            power,
            boot,
        });
        let options = StoreOptions {
            // What is decoded already would hide what became of it on the device.
            cache_bytes: 0,
            workers: 2,
            ..StoreOptions::default()
        };
        let store = Store::open(meta.clone(), packs, clock.clone(), options).await?;
        let options = RegistryOptions {
            gc: thorough(),
            grace: Duration::ZERO,
            retention: vec![keeper::rule()],
            ..RegistryOptions::default()
        };
        Ok(Server {
            machine: self.clone(),
            registry: Registry::new(meta, store, clock, options),
            at_work: RwLock::default(),
        })
    }

    /// A byte of a sealed pack changes.
    pub(super) fn damage(&self, dice: &mut Dice) {
        let packs = self.packs.list().unwrap();
        let sealed: Vec<_> = packs
            .into_iter()
            .filter(|pack| self.packs.is_sealed(*pack))
            .collect();
        if sealed.is_empty() || !dice.one_in(2) {
            return;
        }
        let pack = sealed[dice.below(sealed.len() as u64) as usize];
        let len = self.packs.len(pack).unwrap();
        self.packs.damage(pack, dice.below(len));
    }

    /// The metadata is lost, and made anew from packs and a checkpoint that is as new as can be.
    pub(super) async fn lose_metadata(&mut self) {
        let checkpoint = checkpoint_of(&*self.meta, self.clock.now_ms()).await;
        let packs = Arc::clone(&self.packs);
        let is_sealed = move |pack| packs.is_sealed(pack);
        let packs = self.packs.clone();
        let (meta, report) = rebuilt(packs, is_sealed, Some(checkpoint), self.clock.now_ms()).await;
        assert!(report.lost_blobs.is_empty(), "{report}");
        self.meta = meta;
    }
}
