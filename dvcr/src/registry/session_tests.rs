//! Several requests for one upload, and uploads whose requests fail in the middle.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use bytes::Bytes;
use dvcr_core::oci::{Algorithm, Digest};
use futures::{StreamExt as _, channel::mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    backend::memory::MemoryBackend,
    clock::ManualClock,
    meta::{MetaError, MetaSnapshot, memory::MemoryMeta},
    store::StoreOptions,
    testing::{BEGIN_MS, WHO, World, body, name, random, read},
};

const DAY_MS: u64 = 24 * 3600 * 1000;
const MIB: usize = 1 << 20;

type Sender = mpsc::UnboundedSender<Result<Bytes, BodyError>>;

/// A PATCH whose body comes bit by bit.
struct Patch {
    body: Sender,
    ended: JoinHandle<Result<UploadStatus, RegistryError>>,
}

impl Patch {
    fn begin(registry: &Registry, id: SessionId) -> Self {
        let (sender, body) = mpsc::unbounded();
        let registry = registry.clone();
        let ended = tokio::spawn(async move { append(&registry, id, body.boxed()).await });
        Self {
            body: sender,
            ended,
        }
    }

    fn send(&self, bytes: &Bytes) {
        self.body.unbounded_send(Ok(bytes.clone())).unwrap();
    }

    async fn end(self) -> Result<UploadStatus, RegistryError> {
        drop(self.body);
        self.ended.await.unwrap()
    }
}

async fn begin(registry: &Registry) -> SessionId {
    let begun = registry.upload_start(&WHO, &name("a"), None).await;
    begun.unwrap().id
}

async fn append(
    registry: &Registry,
    id: SessionId,
    body: Body,
) -> Result<UploadStatus, RegistryError> {
    registry
        .upload_append(&WHO, &name("a"), &id, None, body)
        .await
}

fn finish(
    registry: &Registry,
    id: SessionId,
    digest: Digest,
    data: &Bytes,
) -> JoinHandle<Result<(), RegistryError>> {
    let (registry, data) = (registry.clone(), data.clone());
    tokio::spawn(async move {
        registry
            .upload_finish(&WHO, &name("a"), &id, None, digest, body(&data))
            .await
    })
}

/// Lets everybody else get as far as they can. The clock stands still, and is moved on when nobody has anything to do.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_late_patch_are_never_served_as_another_blob() {
    let world = World::new().await;
    let id = begin(&world.registry).await;
    let (head, tail, other) = (random(1, MIB), random(2, MIB), random(3, MIB));
    let first = Patch::begin(&world.registry, id);
    first.send(&head);
    rest().await;
    let second = Patch::begin(&world.registry, id);
    rest().await;
    assert_eq!(first.end().await.unwrap().offset, MIB as u64);
    rest().await;
    // The second has the upload now.
    let blob: Bytes = [&head[..], &tail].concat().into();
    let digest = Digest::sha256(&blob);
    let put = finish(&world.registry, id, digest, &tail);
    rest().await;
    second.send(&other);
    assert_eq!(second.end().await.unwrap().offset, 2 * MIB as u64);
    let put = put.await.unwrap();
    assert!(
        matches!(put, Err(RegistryError::DigestMismatch { .. })),
        "{put:?}"
    );
    assert!(read(&world.registry, "a", &digest).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_sent_twice_commits_once_and_reads_back() {
    let world = World::new().await;
    let id = begin(&world.registry).await;
    let (head, tail) = (random(1, MIB), random(2, MIB));
    let patch = Patch::begin(&world.registry, id);
    patch.send(&head);
    rest().await;
    let blob: Bytes = [&head[..], &tail].concat().into();
    let digest = Digest::sha256(&blob);
    let puts = [(); 3].map(|()| finish(&world.registry, id, digest, &tail));
    rest().await;
    patch.end().await.unwrap();
    let mut done = 0;
    for put in puts {
        match put.await.unwrap() {
            Ok(()) => done += 1,
            Err(error) => assert!(matches!(error, RegistryError::UploadUnknown), "{error}"),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(
        world.registry.active_uploads(),
        0,
        "sessions that are left over"
    );
    world.pull("a", &blob).await.unwrap();
    world.clock.advance_ms(2 * DAY_MS);
    assert_eq!(world.registry.expire_uploads().await.unwrap(), 0);
    world.restart().await.pull("a", &blob).await.unwrap();
}

/// Two servers on the same data, which know nothing of each other's sessions.
#[tokio::test(start_paused = true)]
async fn an_upload_that_another_server_went_on_with_fails_and_harms_nothing() {
    let world = World::new().await;
    let other = Registry::new(
        world.meta.clone(),
        Arc::clone(world.registry.store()),
        world.clock.clone(),
        RegistryOptions::default(),
    );
    let blob = random(1, 2 * MIB);
    let (head, tail) = (blob.slice(..MIB), blob.slice(MIB..));
    let digest = Digest::sha256(&blob);
    let id = begin(&world.registry).await;
    let patch = Patch::begin(&world.registry, id);
    patch.send(&head);
    patch.end().await.unwrap();

    let late = Patch::begin(&world.registry, id);
    late.send(&tail);
    rest().await;
    finish(&other, id, digest, &tail).await.unwrap().unwrap();
    late.end().await.unwrap_err();
    let put = finish(&world.registry, id, digest, &Bytes::new()).await;
    assert!(matches!(put, Ok(Err(RegistryError::UploadUnknown))));
    let cancel = world.registry.upload_cancel(&WHO, &name("a"), &id).await;
    assert!(matches!(cancel, Err(RegistryError::UploadUnknown)));
    world.pull("a", &blob).await.unwrap();
}

/// Metadata that commits the next blob and says that it failed.
#[derive(Default)]
struct Ambiguous {
    meta: MemoryMeta,
    next: AtomicBool,
}

#[async_trait::async_trait]
impl MetaStore for Ambiguous {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, MetaError> {
        self.meta.get(keys).await
    }

    async fn scan_within(
        &self,
        range: &KeyRange,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Value)>, MetaError> {
        self.meta.scan_within(range, limit, bytes).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, MetaError> {
        let blobs = key::blobs();
        let mut puts = txn.puts.iter();
        let has_blob = puts.any(|(key, _)| (&blobs.from..&blobs.to).contains(&key));
        let done = self.meta.commit(txn).await;
        if has_blob && self.next.swap(false, SeqCst) {
            return Err(MetaError::Unavailable("it may have been applied".into()));
        }
        done
    }

    async fn snapshot(&self) -> Result<Box<dyn MetaSnapshot>, MetaError> {
        self.meta.snapshot().await
    }
}

#[tokio::test]
async fn a_blob_whose_commit_seemed_to_fail_outlives_retry_and_cancel() {
    for (stored, cancels) in [(true, false), (true, true), (false, false), (false, true)] {
        let meta = Arc::new(Ambiguous::default());
        let clock = Arc::new(ManualClock::new(BEGIN_MS));
        let packs = Arc::new(MemoryBackend::default());
        let store = Store::open(meta.clone(), packs, clock.clone(), StoreOptions::default());
        let store = store.await.unwrap();
        let registry = Registry::new(meta.clone(), store, clock, RegistryOptions::default());
        let blob = random(5, 3 * MIB);
        let digest = Digest::sha256(&blob);
        let id = begin(&registry).await;
        let mut rest = blob.clone();
        if stored {
            let head = rest.split_to(MIB);
            append(&registry, id, body(&head)).await.unwrap();
        }
        meta.next.store(true, SeqCst);
        let put = finish(&registry, id, digest, &rest).await.unwrap();
        assert!(matches!(put, Err(RegistryError::Meta(_))), "{put:?}");
        if cancels {
            let _ = registry.upload_cancel(&WHO, &name("a"), &id).await;
        } else {
            let _ = finish(&registry, id, digest, &rest).await.unwrap();
        }
        let found = read(&registry, "a", &digest).await;
        assert!(found.unwrap() == blob, "{stored} {cancels}");
    }
}

async fn recipe_rows(world: &World) -> usize {
    let rows = world.meta.scan(&key::recipes(), usize::MAX).await;
    rows.unwrap().len()
}

/// A recipe may have got further than the row says that leads to it.
#[tokio::test]
async fn an_upload_that_failed_leaves_no_recipe() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for stored in [false, true] {
            let world = World::new().await;
            let id = begin(&world.registry).await;
            if stored {
                let data = random(1, MIB);
                append(&world.registry, id, body(&data)).await.unwrap();
                let mut txn = Txn::default();
                let further = (1..70).map(|part| (key::recipe(1, part), Value::new()));
                txn.puts.extend(further);
                assert_eq!(world.meta.commit(txn).await.unwrap(), Commit::Done);
            }
            let wrong = Digest::of(algorithm, b"other");
            let put = finish(&world.registry, id, wrong, &random(2, 5 * MIB)).await;
            let put = put.unwrap();
            assert!(
                matches!(put, Err(RegistryError::DigestMismatch { .. })),
                "{put:?}"
            );
            assert_eq!(recipe_rows(&world).await, 0, "{algorithm:?} {stored}");
            assert_eq!(world.registry.active_uploads(), 0);
        }
    }
}

/// Nothing that is begun and not used keeps others out, and neither does what broke off.
#[tokio::test]
async fn uploads_that_nobody_uses_make_room() {
    let options = RegistryOptions {
        uploads_max: 20,
        ..RegistryOptions::default()
    };
    let world = World::with(options).await;
    let registry = &world.registry;
    let used = begin(registry).await;
    append(registry, used, body(&random(1, MIB))).await.unwrap();
    for _ in 0..100 {
        begin(registry).await;
        assert!(registry.active_uploads() <= 20);
    }
    for _ in 0..30 {
        let id = begin(registry).await;
        let broken = futures::stream::iter([
            Ok(random(1, 5000)),
            Err(BodyError::Broken("gone".to_owned())),
        ]);
        append(registry, id, broken.boxed()).await.unwrap_err();
    }
    let used = append(registry, used, body(&random(2, MIB))).await;
    assert_eq!(used.unwrap().offset, 2 * MIB as u64);
    world.push_blob("b", &random(3, MIB)).await;
    assert!(registry.active_uploads() <= 20);
}

/// Its client comes back on another connection while the server still waits on the old one.
#[tokio::test(start_paused = true)]
async fn a_request_that_went_silent_gives_way_and_one_that_flows_does_not() {
    let world = World::new().await;
    let id = begin(&world.registry).await;
    let patch = Patch::begin(&world.registry, id);
    patch.send(&random(1, MIB));
    rest().await;
    let status = world.registry.upload_status(&WHO, &name("a"), &id).await;
    assert_eq!(status.unwrap().offset, MIB as u64);
    patch.end().await.unwrap_err();

    let patch = Patch::begin(&world.registry, id);
    rest().await;
    let flow = async {
        loop {
            patch.send(&random(2, 1000));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let repository = name("a");
    let status = world.registry.upload_status(&WHO, &repository, &id);
    tokio::select! {
        () = flow => {}
        status = status => assert!(matches!(status, Err(RegistryError::TooMany { .. })), "{status:?}"),
    }
    patch.end().await.unwrap();

    // To cancel it waits for nobody.
    let patch = Patch::begin(&world.registry, id);
    patch.send(&random(3, 1000));
    rest().await;
    let cancel = world.registry.upload_cancel(&WHO, &name("a"), &id).await;
    cancel.unwrap();
    let ended = patch.end().await;
    assert!(
        matches!(ended, Err(RegistryError::UploadUnknown)),
        "{ended:?}"
    );
}
