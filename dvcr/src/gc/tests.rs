//! Garbage collection of a registry whose clock stands still until it is told to go on.

use std::task::Poll;

use bytes::Bytes;
use dvcr_core::oci::{Digest, Reference};

use super::*;
use crate::{
    backend::{
        PackBackend, PackId,
        crash::CrashBackend,
        faulty::{FaultScript, FaultyBackend, Op},
    },
    clock::ManualClock,
    meta::{
        memory::MemoryMeta,
        record::{PackRecord, PackState, Record as _},
    },
    registry::{Registry, RegistryOptions},
    simulation::{self, Power},
    store::StoreOptions,
    testing::{
        BEGIN_MS, HOUR_MS, WHO, World, body, checkpoint_of, config, disk, image, name, rebuilt,
    },
};

impl World {
    async fn delete_manifest(&self, repository: &str, manifest: Digest) {
        self.registry
            .manifest_delete(&WHO, &name(repository), &Reference::Digest(manifest))
            .await
            .unwrap();
    }

    async fn collect_after(&self, hours: u64) -> Collected {
        self.clock.advance_ms(hours * HOUR_MS);
        self.registry.gc().collect(false).await.unwrap()
    }
}

#[tokio::test]
async fn a_deleted_image_gives_its_bytes_back_once_its_grace_is_over() {
    let world = World::new().await;
    let (gone, kept) = (disk(1, 3_000_000), disk(100, 3_000_000));
    let manifest = world.push("a", &gone).await;
    world.push("b", &kept).await;
    world.collect_after(2).await;
    world.delete_manifest("a", manifest).await;
    let before = world.stored_bytes();
    let Collected { reviewed, .. } = world.collect_after(0).await;
    assert_eq!(reviewed.removed, 0, "grace");
    let Collected { reviewed, swept } = world.collect_after(2).await;
    // The config of both is the same blob.
    assert_eq!((reviewed.unlinked, reviewed.removed), (2, 1));
    assert_eq!(reviewed.removed_bytes, 3_000_000);
    assert!(swept.freed_bytes > 0 && swept.damaged == 0, "{swept:?}");
    assert!(world.stored_bytes() < before * 6 / 10);
    world.pull("b", &kept).await.unwrap();
    assert!(world.pull("a", &gone).await.is_err());
    let repositories = world.registry.repositories(&WHO, None, 10).await.unwrap();
    assert_eq!(repositories.items, [name("b")]);
    // Nothing is left to do, and what is pushed again is stored again.
    assert_eq!(world.collect_after(2).await, Collected::default());
    world.push("a", &gone).await;
    world.pull("a", &gone).await.unwrap();
}

#[tokio::test]
async fn chunks_that_another_image_shares_stay() {
    let world = World::new().await;
    let base = disk(1, 3_000_000);
    let mut patched = base.to_vec();
    patched[1_000_000..1_000_010].fill(1);
    let patched = Bytes::from(patched);
    let manifest = world.push("a", &base).await;
    world.push("b", &patched).await;
    world.delete_manifest("a", manifest).await;
    let Collected { reviewed, .. } = world.collect_after(2).await;
    assert_eq!(reviewed.removed, 1);
    world.pull("b", &patched).await.unwrap();
}

#[tokio::test]
async fn an_upload_keeps_the_chunks_that_it_found_stored() {
    let world = World::new().await;
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
    world.delete_manifest("a", manifest).await;
    let Collected { reviewed, swept } = world.collect_after(2).await;
    assert_eq!(reviewed.removed, 2);
    assert!(swept.packs > 0);
    let rest = body(&base.slice(2_000_000..));
    let digest = Digest::sha256(&base);
    let finished = world
        .registry
        .upload_finish(&WHO, &repository, &id, None, digest, rest);
    finished.await.unwrap();
    world.pull("b", &base).await.unwrap();
}

#[tokio::test]
async fn a_blob_that_was_asked_for_outlives_the_manifest_that_kept_it() {
    let options = RegistryOptions {
        grace: Duration::ZERO,
        ..RegistryOptions::default()
    };
    let world = World::with(options).await;
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
    world.delete_manifest("a", old).await;
    let Collected { reviewed, .. } = world.collect_after(0).await;
    assert_eq!(reviewed.removed, 0);
    world.put("a", &image(&[&data, &data])).await;
    world.collect_after(5).await;
    world.pull("a", &data).await.unwrap();
}

#[tokio::test]
async fn packs_that_are_held_for_a_backup_stay() {
    let world = World::new().await;
    let manifest = world.push("a", &disk(1, 1_000_000)).await;
    world.delete_manifest("a", manifest).await;
    let gc = world.registry.gc();
    gc.hold(world.clock.now_ms() + 5 * HOUR_MS).await.unwrap();
    let Collected { reviewed, swept } = world.collect_after(4).await;
    assert!(reviewed.removed > 0, "reviews go on");
    assert_eq!(swept, Swept::default());
    let Collected { swept, .. } = world.collect_after(2).await;
    assert!(swept.packs > 0);
    assert_eq!(world.stored_bytes(), 0);
}

#[test]
fn a_sweep_that_is_cancelled_leaves_nothing_behind() {
    let mut steps = 0;
    while !simulation::run(steps, sweep_cancelled_after(steps)) {
        steps += 3;
    }
    assert!(steps > 30, "it was cancelled {steps} times");
}

/// Begins a sweep and cancels it after so many polls; true if it had ended before.
async fn sweep_for(gc: &GarbageCollector, polls: u64) -> bool {
    let mut sweep = Box::pin(gc.sweep(true));
    for _ in 0..polls {
        if let Poll::Ready(swept) = futures::poll!(&mut sweep) {
            swept.unwrap();
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

async fn sweep_cancelled_after(polls: u64) -> bool {
    let world = World::new().await;
    let (gone, kept) = (disk(1, 300_000), disk(100, 300_000));
    let manifest = world.push("a", &gone).await;
    world.push("a", &kept).await;
    world.delete_manifest("a", manifest).await;
    world.clock.advance_ms(2 * HOUR_MS);
    let gc = world.registry.gc();
    gc.review(None).await.unwrap();
    let ended = sweep_for(gc, polls).await;
    // Not told to: it knows that something is left to do.
    gc.collect(false).await.unwrap();
    world.registry.store().close().await.unwrap();
    for (row, value) in world.meta.scan(&key::packs(), 100).await.unwrap() {
        let state = PackRecord::decode(&row, &value).unwrap().state;
        assert_eq!(state, PackState::Sealed, "after {polls} polls");
    }
    assert!(world.stored_bytes() < 250_000, "after {polls} polls");
    world.pull("a", &kept).await.unwrap();
    ended
}

#[test]
fn what_lies_in_a_pack_without_a_footer_is_found_whenever_a_sweep_of_a_full_device_stops() {
    let mut steps = 0;
    while !simulation::run(steps, full_sweep_stopped_after(steps)) {
        steps += 3;
    }
    assert!(steps > 30, "it was stopped {steps} times");
}

async fn full_sweep_stopped_after(polls: u64) -> bool {
    let (script, meta) = (FaultScript::new(), Arc::new(MemoryMeta::new()));
    let device = CrashBackend::new(&Power::new());
    device.say_short();
    let packs = Arc::new(FaultyBackend::new(device, Arc::clone(&script)));
    let clock = Arc::new(ManualClock::new(BEGIN_MS));
    let store = StoreOptions::default();
    let store = Store::open(meta.clone(), packs.clone(), clock.clone(), store);
    let store = store.await.unwrap();
    let options = RegistryOptions::default();
    let registry = Registry::new(meta.clone(), store.clone(), clock.clone(), options);
    for data in [disk(1, 300_000), disk(100, 300_000)] {
        let digest = Digest::sha256(&data);
        let repository = name("a");
        let push = registry.blob_push(&WHO, &repository, digest, body(&data));
        push.await.unwrap();
    }
    // What a crash leaves behind is sealed without a footer, too.
    script.fail_next(Op::Append, None, std::io::ErrorKind::StorageFull);
    store.rotate_packs().await.unwrap();
    let gone = Digest::sha256(&disk(1, 300_000));
    registry.blob_delete(&WHO, &name("a"), &gone).await.unwrap();
    clock.advance_ms(2 * HOUR_MS);
    // The other one would go with its lease.
    let kept = Digest::sha256(&disk(100, 300_000));
    registry.blob_head(&WHO, &name("a"), &kept).await.unwrap();
    registry.gc().review(None).await.unwrap();
    let ended = sweep_for(registry.gc(), polls).await;
    let checkpoint = checkpoint_of(&*meta, BEGIN_MS).await;
    let (_, report) = rebuilt(packs.clone(), |_| true, Some(checkpoint), BEGIN_MS).await;
    assert!(
        report.lost_blobs.is_empty(),
        "after {polls} polls: {report}"
    );
    registry.gc().collect(false).await.unwrap();
    assert!(packs.len(PackId(1)).is_err(), "after {polls} polls");
    ended
}

#[tokio::test]
async fn removing_most_of_what_is_stored_needs_to_be_told() {
    let limits = SweepLimits {
        removed_free_bytes: 0,
        ..GcOptions::default().limits
    };
    let gc = GcOptions {
        limits,
        ..GcOptions::default()
    };
    let options = RegistryOptions {
        gc,
        ..RegistryOptions::default()
    };
    let world = World::with(options).await;
    let manifest = world.push("a", &disk(1, 1_000_000)).await;
    world.delete_manifest("a", manifest).await;
    let before = world.stored_bytes();
    let Collected { reviewed, swept } = world.collect_after(2).await;
    assert!(reviewed.removed > 0 && swept.refused && swept.packs == 0);
    assert!(world.stored_bytes() >= before);
    assert!(world.registry.gc().plan().await.unwrap().too_much);
    let swept = world.registry.gc().sweep(true).await.unwrap();
    assert!(!swept.refused && world.stored_bytes() == 0, "{swept:?}");
}
