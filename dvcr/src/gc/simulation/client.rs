//! A client that pushes, mounts, asks, deletes, retags and abandons uploads of disks that share much.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use bytes::Bytes;
use dvcr_core::oci::{Digest, Manifest, Reference};
use futures::{FutureExt as _, StreamExt as _, stream};

use super::machine::Server;
use crate::{
    registry::{Body, RegistryError},
    simulation::Dice,
    store::StoreError,
    testing::{WHO, body, disk, image, name, read},
};

/// What each does before everybody rests.
pub(super) const STEPS: usize = 10;

/// Pushes of one blob, each of which may meet new damage.
const TRIES: u32 = 10;

/// Longest pause in the middle of a request, milliseconds: several collections may begin and end in it.
const PAUSE_MS_MAX: u64 = 10_000;

/// Disks of which each eight share all but a chunk.
pub(super) static DISKS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let family = |seed: u64| {
        // Half of it does not compress.
        let base = disk(seed * 100 + 3, 150_000);
        (0..8).map(move |n| {
            let mut patched = base.to_vec();
            patched[n * 18_000..][..50].fill(9);
            Bytes::from(patched)
        })
    };
    (0..3).flat_map(family).collect()
});

/// What the clients of one seed are like. Seeds that do less do that more often.
#[derive(Clone, Copy)]
struct Habits {
    /// So many of [`DISKS`] are pushed.
    disks: u64,
    /// One request in so many pauses.
    pauses: u64,
    /// All begin with this one, at once.
    first: u64,
}

impl Habits {
    fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let disks = 1 + dice.below(DISKS.len() as u64);
        Self {
            disks,
            pauses: 1 + dice.below(4),
            first: dice.below(disks),
        }
    }
}

/// One client's repository, and what it holds for all the client knows.
pub(super) struct Client {
    pub(super) repository: String,
    pub(super) dice: Dice,
    habits: Habits,
    pub(super) manifests: BTreeMap<Digest, Bytes>,
    /// Whether what is stored may be damaged: then reads may fail.
    pub(super) knows_damage: bool,
    /// Where the power failed in between: they are there in full, or not at all.
    unsure: BTreeMap<Digest, Bytes>,
}

impl Client {
    pub(super) fn new(seed: u64, number: usize) -> Self {
        Self {
            repository: format!("r{number}"),
            dice: Dice::new(seed * 1000 + number as u64),
            habits: Habits::of(seed),
            manifests: BTreeMap::new(),
            knows_damage: false,
            unsure: BTreeMap::new(),
        }
    }

    pub(super) async fn work(&mut self, server: &Server) -> Result<(), RegistryError> {
        self.push_first(server).await?;
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

    /// What everybody pushes at the same time.
    async fn push_first(&mut self, server: &Server) -> Result<(), RegistryError> {
        let _at_work = server.at_work.read().await;
        self.push_blob(server, &DISKS[self.habits.first as usize])
            .await
            .map(drop)
    }

    pub(super) fn disk(&mut self) -> &'static Bytes {
        &DISKS[self.dice.below(self.habits.disks) as usize]
    }

    async fn push(&mut self, server: &Server) -> Result<(), RegistryError> {
        let mut layers = Vec::new();
        for _ in 0..=self.dice.below(2) {
            let data = self.disk();
            self.push_blob(server, data).await?;
            layers.push(data);
        }
        self.push_blob(server, &Bytes::from_static(b"{}")).await?;
        self.put(server, image(&layers), None).await
    }

    pub(super) async fn push_blob(
        &mut self,
        server: &Server,
        data: &Bytes,
    ) -> Result<Digest, RegistryError> {
        for _ in 1..TRIES {
            match self.push_blob_once(server, data).await {
                // As the error says.
                Err(RegistryError::Store(StoreError::Corrupt { .. })) if self.knows_damage => {}
                pushed => return pushed,
            }
        }
        self.push_blob_once(server, data).await
    }

    async fn push_blob_once(
        &mut self,
        server: &Server,
        data: &Bytes,
    ) -> Result<Digest, RegistryError> {
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
        // In one request, what the store has is only compared.
        let first = match self.dice.one_in(3) {
            true => 0,
            false => 1 + self.dice.below(data.len() as u64) as usize,
        };
        if first > 0 {
            let begin = self.sent(data.slice(..first));
            registry
                .upload_append(&WHO, &repository, &id, None, begin)
                .await?;
        }
        let rest = self.sent(data.slice(first..));
        registry
            .upload_finish(&WHO, &repository, &id, None, digest, rest)
            .await?;
        Ok(digest)
    }

    /// The bytes of a request, as this client sends them: sometimes it pauses before them, or when it has sent most.
    fn sent(&mut self, mut data: Bytes) -> Body {
        let half = data.len() as u64 / 2;
        let begin = data.split_to((half + self.dice.below(half + 1)) as usize);
        stream::iter([begin, data].map(|part| (self.pause(), part)))
            .then(|(pause, part)| tokio::time::sleep(pause).map(move |()| part))
            .flat_map(|part| body(&part))
            .boxed()
    }

    fn pause(&mut self) -> Duration {
        match self.dice.one_in(self.habits.pauses) {
            true => Duration::from_millis(self.dice.below(PAUSE_MS_MAX)),
            false => Duration::ZERO,
        }
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
        let data = self.disk();
        let begin = self.sent(data.slice(..100_000));
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
                // Healing gives a blob another recipe.
                Err(RegistryError::Store(StoreError::Corrupt { .. } | StoreError::Gone))
                    if self.knows_damage =>
                {
                    Ok(())
                }
                read => read,
            },
            None => Ok(()),
        }
    }

    /// Everything that this client holds, as a client does it: asks for each blob first.
    pub(super) async fn push_again(&mut self, server: &Server) {
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

    /// Of a blob that does not read back nobody hears that it is there: it would never be pushed again.
    pub(super) async fn check_heads(&self, server: &Server) {
        let (registry, repository) = (&server.registry, name(&self.repository));
        let manifests = self.manifests.values();
        let blobs = manifests.flat_map(|m| {
            Manifest::parse(None, m)
                .unwrap()
                .blobs()
                .cloned()
                .collect::<Vec<_>>()
        });
        for digest in blobs.map(|blob| blob.digest) {
            match read(registry, &self.repository, &digest).await {
                Ok(_) => {}
                Err(RegistryError::Store(StoreError::Corrupt { .. })) => {
                    // What was not known yet is known now.
                    registry.scrubber().settle().await.unwrap();
                    let head = registry.blob_head(&WHO, &repository, &digest).await;
                    assert!(
                        matches!(head, Err(RegistryError::BlobUnknown(_))),
                        "{digest} does not read back, and HEAD says {head:?}"
                    );
                }
                Err(error) => panic!("{digest} does not read back: {error:?}"),
            }
        }
    }

    /// The manifest and everything that it refers to.
    pub(super) async fn read_back(
        &self,
        server: &Server,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let repository = name(&self.repository);
        let reference = Reference::Digest(*digest);
        let stored = server
            .registry
            .manifest_get(&WHO, &repository, &reference)
            .await?;
        assert_eq!(Digest::sha256(&stored.bytes), *digest);
        let manifest = Manifest::parse(None, &stored.bytes)?;
        for blob in manifest.blobs() {
            let found = read(&server.registry, &self.repository, &blob.digest).await?;
            assert_eq!(Digest::sha256(&found), blob.digest);
        }
        Ok(())
    }

    /// Everything that this client was promised.
    pub(super) async fn check(&mut self, server: &Server) {
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
