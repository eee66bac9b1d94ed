//! Clients, a clock and a collector at once, in an order that the seed says, on packs whose power fails: **a committed manifest
//! always reads back in full**, and what was deleted costs nothing in the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use dvcr_core::oci::{Digest, Manifest, Reference};
use futures::{TryStreamExt as _, future};
use tokio::sync::RwLock;

use super::*;
use crate::{
    backend::{PackBackend as _, crash::CrashBackend},
    clock::ManualClock,
    meta::{
        Commit, Key, KeyRange, MetaError, MetaSnapshot, Txn, Value, key,
        memory::MemoryMeta,
        record::{ChunkRecord, Record as _},
    },
    registry::{
        Principal, Registry, RegistryError, RegistryOptions,
        tests::{body, disk, image, name},
    },
    repair::{Sources, rebuild, tests::checkpoint_of},
    simulation::{self, Dice, Power},
    store::{StoreOptions, pack::RECORD_HEADER_LEN},
};

mod keeper;

use keeper::Keeper;

const WHO: Principal = Principal::Anonymous;
const MINUTE_MS: u64 = 60_000;

/// Clients at once, each with a repository of its own and all with the same few disks.
const CLIENTS: usize = 3;
/// What each does before everybody rests.
const STEPS: usize = 10;

/// No request waits so long for anything.
const STUCK: Duration = Duration::from_secs(24 * 3600);

/// Disks that share much, in pairs.
static DISKS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let pair = |seed: u64| {
        let base = disk(seed * 100 + 1, 150_000);
        let mut patched = base.to_vec();
        patched[60_000..60_050].fill(9);
        [base, Bytes::from(patched)]
    };
    (0..3).flat_map(pair).collect()
});

/// What survives a power failure, and the clock.
#[derive(Clone)]
struct Machine {
    meta: Arc<MemoryMeta>,
    packs: Arc<CrashBackend>,
    clock: Arc<ManualClock>,
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

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Key, Value)>, MetaError> {
        self.check()?;
        self.meta.scan(range, limit).await
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
struct Server {
    machine: Machine,
    registry: Registry,
    /// Held by a client from its first request about an image to the last: leases outlast that, so time must not jump.
    at_work: RwLock<()>,
}

impl Machine {
    async fn boot(&self) -> Result<Server, StoreError> {
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
        // Everything that is dead goes, at once.
        let gc = GcOptions {
            limits: SweepLimits {
                unused_share: 0.0,
                ..GcOptions::default().limits
            },
            ..GcOptions::default()
        };
        let options = RegistryOptions {
            gc,
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
    fn damage(&self, dice: &mut Dice) {
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

    fn stored_bytes(&self) -> u64 {
        let packs = self.packs.list().unwrap();
        packs
            .iter()
            .map(|pack| self.packs.len(*pack).unwrap())
            .sum()
    }
}

impl Machine {
    /// The metadata is lost, and made anew from packs and a checkpoint that is as new as can be.
    async fn lose_metadata(&mut self) {
        let checkpoint = checkpoint_of(&*self.meta, self.clock.now_ms()).await;
        let packs = Arc::clone(&self.packs);
        let sources = Sources {
            packs: self.packs.clone(),
            is_sealed: Box::new(move |pack| packs.is_sealed(pack)),
            checkpoint: Some(checkpoint),
        };
        let meta: Arc<MemoryMeta> = Arc::default();
        let rebuilt = rebuild(sources, meta.clone(), self.clock.now_ms(), &mut ()).await;
        let report = rebuilt.unwrap();
        assert!(report.lost_blobs.is_empty(), "{report}");
        self.meta = meta;
    }
}

/// One client's repository, and what it holds for all the client knows.
struct Client {
    repository: String,
    dice: Dice,
    manifests: BTreeMap<Digest, Bytes>,
    /// Whether what is stored may be damaged: then reads may fail.
    knows_damage: bool,
    /// Where the power failed in between: they are there in full, or not at all.
    unsure: BTreeMap<Digest, Bytes>,
}

impl Client {
    fn new(seed: u64, number: usize) -> Self {
        Self {
            repository: format!("r{number}"),
            dice: Dice::new(seed * 1000 + number as u64),
            manifests: BTreeMap::new(),
            knows_damage: false,
            unsure: BTreeMap::new(),
        }
    }

    async fn work(&mut self, server: &Server) -> Result<(), RegistryError> {
        for _ in 0..STEPS {
            let _at_work = server.at_work.read().await;
            match self.dice.below(10) {
                0..=3 => self.push(server).await?,
                4 | 5 => self.delete(server).await?,
                6 => self.retag(server).await?,
                7 => self.abandon(server).await?,
                _ => self.look(server).await?,
            }
        }
        Ok(())
    }

    fn one(&mut self) -> Option<(Digest, Bytes)> {
        let count = self.manifests.len() as u64;
        let at = self.dice.below(count.max(1)) as usize;
        let (digest, manifest) = self.manifests.iter().nth(at)?;
        Some((*digest, manifest.clone()))
    }

    async fn push(&mut self, server: &Server) -> Result<(), RegistryError> {
        let mut layers = Vec::new();
        for _ in 0..=self.dice.below(2) {
            let data = &DISKS[self.dice.below(DISKS.len() as u64) as usize];
            layers.push(self.push_blob(server, data).await?);
        }
        self.push_blob(server, &Bytes::from_static(b"{}")).await?;
        self.put(server, image(&layers), None).await
    }

    async fn push_blob(&mut self, server: &Server, data: &Bytes) -> Result<Digest, RegistryError> {
        let (repository, digest) = (name(&self.repository), Digest::sha256(data));
        match server.registry.blob_head(&WHO, &repository, &digest).await {
            Err(RegistryError::BlobUnknown(_)) => {}
            found => return found.map(|_| digest),
        }
        let registry = &server.registry;
        if self.dice.one_in(2)
            && registry
                .blob_mount(&WHO, &repository, &digest, None)
                .await?
        {
            return Ok(digest);
        }
        let id = registry.upload_start(&WHO, &repository, None).await?.id;
        let first = self.dice.below(data.len() as u64 + 1) as usize;
        registry
            .upload_append(&WHO, &repository, &id, None, body(&data.slice(..first)))
            .await?;
        let rest = body(&data.slice(first..));
        registry
            .upload_finish(&WHO, &repository, &id, None, digest, rest)
            .await?;
        Ok(digest)
    }

    async fn put(
        &mut self,
        server: &Server,
        manifest: Bytes,
        tag: Option<&str>,
    ) -> Result<(), RegistryError> {
        let digest = Digest::sha256(&manifest);
        let reference = match tag {
            Some(tag) => Reference::Tag(tag.parse().unwrap()),
            None => Reference::Digest(digest),
        };
        self.unsure.insert(digest, manifest.clone());
        let repository = name(&self.repository);
        server
            .registry
            .manifest_put(&WHO, &repository, &reference, &[], None, manifest.clone())
            .await?;
        self.unsure.remove(&digest);
        self.manifests.insert(digest, manifest);
        Ok(())
    }

    async fn retag(&mut self, server: &Server) -> Result<(), RegistryError> {
        match self.one() {
            Some((_, manifest)) => self.put(server, manifest, Some("latest")).await,
            None => Ok(()),
        }
    }

    async fn delete(&mut self, server: &Server) -> Result<(), RegistryError> {
        let Some((digest, manifest)) = self.one() else {
            return Ok(());
        };
        self.manifests.remove(&digest);
        self.unsure.insert(digest, manifest.clone());
        let reference = Reference::Digest(digest);
        server
            .registry
            .manifest_delete(&WHO, &name(&self.repository), &reference)
            .await?;
        self.unsure.remove(&digest);
        if self.dice.one_in(2) {
            return Ok(());
        }
        // Again, without asking for its blobs: they may be gone, but not in between.
        match self.put(server, manifest, None).await {
            Err(RegistryError::ManifestBlobUnknown(_)) => {
                self.unsure.remove(&digest);
                Ok(())
            }
            put => put,
        }
    }

    /// Begins an upload; goes away, or cancels it.
    async fn abandon(&mut self, server: &Server) -> Result<(), RegistryError> {
        let repository = name(&self.repository);
        let registry = &server.registry;
        let id = registry.upload_start(&WHO, &repository, None).await?.id;
        let data = &DISKS[self.dice.below(DISKS.len() as u64) as usize];
        let begin = body(&data.slice(..100_000));
        registry
            .upload_append(&WHO, &repository, &id, None, begin)
            .await?;
        if self.dice.one_in(2) {
            registry.upload_cancel(&WHO, &repository, &id).await?;
        }
        Ok(())
    }

    async fn look(&mut self, server: &Server) -> Result<(), RegistryError> {
        match self.one() {
            Some((digest, _)) => match self.read_back(server, &digest).await {
                Err(RegistryError::Store(StoreError::Corrupt { .. })) if self.knows_damage => {
                    Ok(())
                }
                read => read,
            },
            None => Ok(()),
        }
    }

    /// Everything that this client holds, as a client does it: asks for each blob first.
    async fn push_again(&mut self, server: &Server) {
        for manifest in self.manifests.clone().into_values() {
            for blob in Manifest::parse(None, &manifest).unwrap().blobs() {
                let data = DISKS
                    .iter()
                    .find(|data| Digest::sha256(data) == blob.digest);
                let small = Bytes::from_static(b"{}");
                self.push_blob(server, data.unwrap_or(&small))
                    .await
                    .unwrap();
            }
            self.put(server, manifest, None).await.unwrap();
        }
    }

    /// The manifest and everything that it refers to.
    async fn read_back(&self, server: &Server, digest: &Digest) -> Result<(), RegistryError> {
        let repository = name(&self.repository);
        let reference = Reference::Digest(*digest);
        let stored = server
            .registry
            .manifest_get(&WHO, &repository, &reference)
            .await?;
        assert_eq!(Digest::sha256(&stored.bytes), *digest);
        let manifest = Manifest::parse(None, &stored.bytes)?;
        for blob in manifest.blobs() {
            let reader = server
                .registry
                .blob_read(&WHO, &repository, &blob.digest)
                .await?;
            let body = reader.body(0..reader.info().len);
            let frames: Vec<Bytes> = body.try_collect().await.map_err(RegistryError::Store)?;
            assert_eq!(Digest::sha256(&frames.concat()), blob.digest);
        }
        Ok(())
    }

    /// Everything that this client was promised.
    async fn check(&mut self, server: &Server) {
        for (digest, manifest) in std::mem::take(&mut self.unsure) {
            match self.read_back(server, &digest).await {
                Ok(()) => {
                    self.manifests.insert(digest, manifest);
                }
                Err(RegistryError::ManifestUnknown(_)) => {}
                Err(error) => panic!(
                    "{} {digest} is neither there nor gone: {error:?}",
                    self.repository
                ),
            }
        }
        for digest in self.manifests.keys() {
            if let Err(error) = self.read_back(server, digest).await {
                panic!("{} {digest} does not read back: {error:?}", self.repository);
            }
        }
    }
}

/// Clients at work while garbage is collected and time goes by.
async fn everybody(
    server: &Server,
    clients: &mut [Client],
    keeper: Option<&mut Keeper>,
    dice: &mut Dice,
) {
    let power = server.machine.packs.power();
    let clients = future::join_all(clients.iter_mut().map(|client| async {
        if let Err(error) = client.work(server).await {
            assert!(power.is_off(), "{}: {error:?}", client.repository);
        }
    }));
    let keeper = async {
        if let Some(keeper) = keeper
            && let Err(error) = keeper.work(server).await
        {
            assert!(power.is_off(), "keeper: {error:?}");
        }
    };
    let collector = async {
        loop {
            if let Err(error) = server.registry.gc().collect(false).await {
                assert!(power.is_off(), "collect: {error:?}");
                future::pending::<()>().await;
            }
            tokio::task::yield_now().await;
        }
    };
    let time = async {
        loop {
            let _nobody_is_at_work = server.at_work.write().await;
            server.machine.clock.advance_ms(dice.below(90) * MINUTE_MS);
            if dice.one_in(4)
                && let Err(error) = server.registry.expire_uploads().await
            {
                assert!(power.is_off(), "expire uploads: {error:?}");
            }
            for _ in 0..dice.below(30) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        _ = future::join(clients, keeper) => {}
        () = collector => {}
        () = time => {}
        // The runtime's clock jumps when nobody can go on.
        () = tokio::time::sleep(STUCK) => panic!("everybody waits for somebody else"),
    }
}

async fn simulate(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut machine = Machine {
        meta: Arc::default(),
        packs: Arc::new(CrashBackend::new(&Power::new())),
        clock: Arc::new(ManualClock::new(1_000_000)),
    };
    // Half of the time packs are emptied as on a full device.
    if dice.one_in(2) {
        machine.packs.say_short();
    }
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| Client::new(seed, n)).collect();
    let mut keeper = Keeper::new(seed);
    for _ in 0..3 {
        if dice.one_in(2) {
            machine.packs.power().fail_at_sync(1 + dice.below(80));
        }
        match machine.boot().await {
            Ok(server) => everybody(&server, &mut clients, Some(&mut keeper), &mut dice).await,
            Err(error) => assert!(machine.packs.power().is_off(), "boot: {error:?}"),
        }
        // Also where the power stayed: a server that is killed.
        let packs = machine.packs.reopen(dice.next_u64());
        packs.power().restore();
        machine.packs = Arc::new(packs);
        if dice.one_in(3) {
            machine.lose_metadata().await;
        }
        let server = machine.boot().await.unwrap();
        for client in &mut clients {
            client.check(&server).await;
        }
        keeper.check(&server).await;
    }
    // In the end nothing is stored but what is needed. A tag, what it named, what that listed go one after the other.
    let server = machine.boot().await.unwrap();
    for _ in 0..5 {
        machine.clock.advance_ms(10 * 24 * 60 * MINUTE_MS);
        server.registry.expire_uploads().await.unwrap();
        server.registry.gc().collect(false).await.unwrap();
    }
    for client in &mut clients {
        client.check(&server).await;
    }
    let mut needed = keeper.check(&server).await;
    for client in &clients {
        needed.extend(client.manifests.values().cloned());
    }
    server.registry.store().close().await.unwrap();
    assert_no_waste(&machine, &needed).await;
}

/// Bytes of packs change while clients push, garbage is collected and a scrub never rests. What reads reads right, and once
/// everybody has pushed again what they hold, everything reads in full.
async fn simulate_damage(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut machine = Machine {
        meta: Arc::default(),
        packs: Arc::new(CrashBackend::new(&Power::new())),
        clock: Arc::new(ManualClock::new(1_000_000)),
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| Client::new(seed, n)).collect();
    for client in &mut clients {
        client.knows_damage = true;
    }
    for _ in 0..3 {
        let server = machine.boot().await.unwrap();
        let mut where_to = dice.clone();
        let scrub = async {
            loop {
                machine.damage(&mut where_to);
                server.registry.scrubber().read_all().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = everybody(&server, &mut clients, None, &mut dice) => {}
            () = scrub => {}
        }
        // The server is killed.
        let packs = machine.packs.reopen(dice.next_u64());
        packs.power().restore();
        machine.packs = Arc::new(packs);
    }
    let server = machine.boot().await.unwrap();
    let scrubber = server.registry.scrubber();
    // No more damage. All of it is found, and pushing heals it.
    let scrub = async || {
        server.registry.store().rotate_packs().await.unwrap();
        let repositories = (0..CLIENTS).map(|n| name(&format!("r{n}")));
        for repository in repositories {
            scrubber.read_repository(&repository).await.unwrap();
        }
    };
    scrub().await;
    for client in &mut clients {
        client.push_again(&server).await;
    }
    scrubber.settle().await.unwrap();
    scrub().await;
    for client in &mut clients {
        client.knows_damage = false;
        client.check(&server).await;
    }
    let (_, damaged_blobs, _) = scrubber.status().await.unwrap().found;
    assert_eq!(damaged_blobs, 0, "everything was healed");
}

/// A fresh store with the same content takes as much, but for headers and footers of a few packs.
async fn assert_no_waste(machine: &Machine, manifests: &[Bytes]) {
    let fresh = Machine {
        meta: Arc::default(),
        packs: Arc::new(CrashBackend::new(&Power::new())),
        clock: Arc::new(ManualClock::new(1_000_000)),
    };
    let server = fresh.boot().await.unwrap();
    for data in DISKS.iter() {
        let digest = Digest::sha256(data);
        if manifests.iter().any(|manifest| {
            let manifest = Manifest::parse(None, manifest).unwrap();
            manifest.blobs().any(|blob| blob.digest == digest)
        }) {
            server
                .registry
                .blob_push(&WHO, &name("a"), digest, body(data))
                .await
                .unwrap();
        }
    }
    server.registry.store().close().await.unwrap();
    let (found, needed) = (machine.stored_bytes(), fresh.stored_bytes());
    assert!(
        found <= needed * 11 / 10 + 16_384,
        "{found} bytes where {needed} would do"
    );
}

/// Seeds tried in each run of the tests; `DVCR_SIMULATION_SEEDS=FROM..TO` tries others.
const SEEDS: std::ops::Range<u64> = 0..300;

/// Seeds of the simulation of damage in each run of the tests.
const DAMAGE_SEEDS: std::ops::Range<u64> = 0..60;

#[test]
fn damage_is_found_and_heals_and_nothing_wrong_is_read() {
    try_seeds(DAMAGE_SEEDS, simulate_damage);
}

#[test]
fn a_committed_manifest_always_reads_back_in_full() {
    try_seeds(SEEDS, simulate);
}

/// Runs a simulation with these seeds, or those that the environment names, on all cores.
fn try_seeds<F: Future<Output = ()>>(seeds: std::ops::Range<u64>, simulate: fn(u64) -> F) {
    let named = std::env::var("DVCR_SIMULATION_SEEDS").ok().map(|text| {
        let (from, to) = text.split_once("..").expect("FROM..TO");
        from.parse().expect("a number")..to.parse().expect("a number")
    });
    let seeds: Vec<u64> = named.unwrap_or(seeds).collect();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) =
                    seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as usize)
                {
                    let failed =
                        std::panic::catch_unwind(|| simulation::run(*seed, simulate(*seed)));
                    if let Err(panic) = failed {
                        eprintln!(
                            "seed {seed} fails; try it again with DVCR_SIMULATION_SEEDS={seed}..{}",
                            seed + 1
                        );
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
