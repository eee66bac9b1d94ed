//! Scrubs of packs in which bytes change.

use bytes::Bytes;
use dvcr_core::{chunk::ChunkId, oci::Digest};
use futures::TryStreamExt as _;

use super::{
    pass::{HOUR, PASS_INTERVAL_MS},
    *,
};
use crate::{
    backend::{PackBackend as _, PackId, faulty::Op},
    meta::{
        Txn, key,
        record::{BlobRecord, ChunkRecord, PackRecord, PackState, Record as _},
    },
    registry::{Damage, RegistryError, RegistryOptions},
    store::{
        Expected,
        pack::{Codec, PackBuilder, PackHeader, RECORD_HEADER_LEN, Record, RecordId},
        read_contents,
    },
    testing::{BEGIN_MS, HOUR_MS, WHO, World, body, disk, name},
};

const MIB: u64 = 1 << 20;

async fn world() -> World {
    let options = RegistryOptions {
        scrub_bytes_per_hour: MIB,
        ..RegistryOptions::default()
    };
    World::with(options).await
}

impl World {
    async fn head(&self, digest: &Digest) -> Result<(), RegistryError> {
        let head = self.registry.blob_head(&WHO, &name("a"), digest).await;
        head.map(drop)
    }

    /// Whether a blob of `a` reads back, or is damaged.
    async fn reads(&self, data: &Bytes) -> bool {
        use StoreError::{Corrupt, Io, Missing};
        match self.pull("a", data).await {
            Ok(()) => true,
            Err(RegistryError::Store(Corrupt { .. } | Missing(_) | Io { .. })) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Seals what is open and lists what lies in all packs.
    async fn records(&self) -> Vec<(PackId, RecordId, u64)> {
        self.registry.store().rotate_packs().await.unwrap();
        let mut records = Vec::new();
        for pack in self.packs.list().unwrap() {
            let contents = read_contents(&*self.packs, pack).unwrap();
            let entries = contents.entries.iter();
            records.extend(entries.map(|entry| (pack, entry.header.id(), u64::from(entry.offset))));
        }
        records
    }

    /// Changes a byte in the payload of one of the chunks.
    async fn damage_a_chunk(&self) -> (PackId, u64) {
        let records = self.records().await;
        let mut chunks = records.into_iter();
        let chunk = chunks.find(|(_, id, _)| matches!(id, RecordId::Chunk(_)));
        let (pack, _, offset) = chunk.unwrap();
        self.script
            .flip(pack, offset + RECORD_HEADER_LEN as u64 + 9, 4);
        (pack, offset)
    }

    async fn scrub(&self) -> ScrubRun {
        let scrubber = self.registry.scrubber();
        self.registry.store().rotate_packs().await.unwrap();
        let run = scrubber.start(None).await.unwrap().unwrap();
        scrubber.finish(&run).await.unwrap();
        scrubber.status().await.unwrap().run.unwrap()
    }

    async fn damaged_blobs(&self) -> Vec<(Digest, Vec<RepositoryName>)> {
        let found = self.registry.scrub_findings(&WHO, None, 100).await.unwrap();
        let blobs = found
            .items
            .into_iter()
            .filter_map(|found| match found.damage {
                Damage::Blob {
                    digest,
                    repositories,
                } => Some((digest, repositories)),
                _ => None,
            });
        blobs.collect()
    }

    async fn findings(&self) -> usize {
        let found = self.registry.scrub_findings(&WHO, None, 100).await;
        found.unwrap().items.len()
    }
}

#[tokio::test]
async fn damage_is_found_and_listed_and_the_next_push_heals_it() {
    let world = world().await;
    let data = disk(1, 900_000);
    world.push("a", &data).await;
    let digest = Digest::sha256(&data);
    world.push("b", &data).await;
    assert_eq!(world.scrub().await.found, 0);
    assert_eq!(world.findings().await, 0);
    world.damage_a_chunk().await;
    let run = world.scrub().await;
    assert_eq!((run.state, run.found), (ScrubState::Done, 2));
    let expected = vec![(digest, vec![name("a"), name("b")])];
    assert_eq!(world.damaged_blobs().await, expected);
    assert_eq!(world.findings().await, 2, "the blob and its chunk");
    // Loud, also after a restart; who asks whether to push is told to.
    let world = world.restart().await;
    assert!(!world.reads(&data).await);
    assert!(matches!(
        world.head(&digest).await,
        Err(RegistryError::BlobUnknown(_))
    ));
    let elsewhere = name("c");
    let mounted = world.registry.blob_mount(&WHO, &elsewhere, &digest, None);
    assert!(!mounted.await.unwrap());
    // What can be read of it still can.
    let reader = world.registry.blob_read(&WHO, &name("a"), &digest).await;
    let tail = reader.unwrap().body(800_000..900_000);
    let tail: Vec<Bytes> = tail.try_collect().await.unwrap();
    assert!(tail.concat() == data[800_000..]);

    world.push_blob("a", &data).await;
    assert!(world.reads(&data).await);
    world.head(&digest).await.unwrap();
    world.registry.scrubber().settle().await.unwrap();
    assert_eq!(world.findings().await, 0);
    assert_eq!(world.scrub().await.found, 0);
    // The damaged record goes with garbage collection.
    world.clock.advance_ms(2 * HOUR_MS);
    let collected = world.registry.gc().collect(true).await.unwrap();
    assert_eq!(collected.swept.damaged, 0, "{collected:?}");
    assert!(world.reads(&data).await);
}

#[tokio::test]
async fn healing_one_blob_heals_those_that_share_its_chunks() {
    let world = world().await;
    let one = disk(1, 900_000);
    let mut patched = one.to_vec();
    patched[800_000..800_050].fill(9);
    let other = Bytes::from(patched);
    world.push("a", &one).await;
    world.push("a", &other).await;
    world.damage_a_chunk().await;
    world.scrub().await;
    assert_eq!(world.damaged_blobs().await.len(), 2);
    world.push_blob("a", &other).await;
    world.registry.scrubber().settle().await.unwrap();
    assert_eq!(world.findings().await, 0);
    assert!(world.reads(&one).await && world.reads(&other).await);
    world.head(&Digest::sha256(&one)).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_relies_on_a_chunk_found_damaged_since_fails_and_the_next_try_heals() {
    let world = world().await;
    let data = disk(1, 900_000);
    world.push("a", &data).await;
    let mut patched = data.to_vec();
    patched[800_000..800_050].fill(9);
    let other = Bytes::from(patched);
    let (registry, repository, digest) = (&world.registry, name("a"), Digest::sha256(&other));
    let started = registry.upload_start(&WHO, &repository, None).await;
    let id = started.unwrap().id;
    let begin = body(&other.slice(..600_000));
    let sent = registry.upload_append(&WHO, &repository, &id, None, begin);
    sent.await.unwrap();
    world.damage_a_chunk().await;
    world.scrub().await;
    let rest = body(&other.slice(600_000..));
    let finished = registry.upload_finish(&WHO, &repository, &id, None, digest, rest);
    let error = finished.await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Store(StoreError::Corrupt { .. })),
        "{error}"
    );
    assert!(world.head(&digest).await.is_err());
    world.push_blob("a", &other).await;
    assert!(world.reads(&other).await && world.reads(&data).await);
}

#[tokio::test]
async fn damage_that_a_read_meets_heals_like_that_of_a_scrub() {
    let world = world().await;
    let data = disk(1, 900_000);
    world.push("a", &data).await;
    let digest = Digest::sha256(&data);
    world.damage_a_chunk().await;
    assert!(!world.reads(&data).await);
    world.registry.scrubber().settle().await.unwrap();
    assert_eq!(world.damaged_blobs().await.len(), 1);
    assert!(world.head(&digest).await.is_err());
    world.push_blob("a", &data).await;
    assert!(world.reads(&data).await);
}

#[tokio::test]
async fn a_bad_moment_of_the_device_is_no_damage() {
    let world = world().await;
    let data = disk(1, 900_000);
    world.push("a", &data).await;
    world.records().await;
    // The batch, and the first record after that.
    let fail = || {
        let kind = std::io::ErrorKind::Other;
        world.script.fail_next(Op::Read, None, kind);
    };
    let pack = world.packs.list().unwrap()[0];
    let contents = world
        .registry
        .store()
        .contents(pack)
        .await
        .unwrap()
        .unwrap();
    let entries = contents.entries.iter();
    let expected = entries.map(|entry| Expected::listed(pack, entry)).collect();
    fail();
    let bad = world.registry.store().verify_records(expected).await;
    assert!(bad.unwrap().unwrap().is_empty());
    // A finding that turns out to be wrong goes with the next scrub.
    world.damage_a_chunk().await;
    world.scrub().await;
    assert!(world.findings().await > 0);
    world.script.heal();
    world.scrub().await;
    assert_eq!(world.findings().await, 0);
    assert!(world.reads(&data).await);
}

#[tokio::test]
async fn damaged_recipes_are_written_anew_from_the_metadata() {
    let world = world().await;
    let data = disk(1, 900_000);
    world.push("a", &data).await;
    let records = world.records().await;
    for (pack, id, offset) in records {
        if !matches!(id, RecordId::Chunk(_)) {
            world
                .script
                .flip(pack, offset + RECORD_HEADER_LEN as u64 + 5, 1);
        }
    }
    let run = world.scrub().await;
    assert_eq!((run.found, world.findings().await), (0, 0));
    // A repair finds them.
    let checkpoint = world.checkpoint().await;
    let (world, report) = world.rebuilt(Some(checkpoint)).await;
    assert!(report.lost_blobs.is_empty(), "{report}");
    assert!(world.reads(&data).await);
}

#[tokio::test]
async fn a_pack_that_is_gone_heals_by_pushes() {
    let world = world().await;
    let data = disk(1, 900_000);
    world.push("a", &data).await;
    let digest = Digest::sha256(&data);
    world.records().await;
    for pack in world.packs.list().unwrap() {
        world.packs.delete(pack).unwrap();
    }
    world.scrub().await;
    let [(found, _)] = &world.damaged_blobs().await[..] else {
        panic!("one blob");
    };
    assert_eq!(*found, digest);
    assert!(!world.reads(&data).await);
    world.push_blob("a", &data).await;
    assert!(world.reads(&data).await);
    // Nothing needs the pack any more.
    world.clock.advance_ms(2 * HOUR_MS);
    world.registry.gc().collect(true).await.unwrap();
    world.scrub().await;
    assert_eq!(world.findings().await, 0);
    assert!(world.reads(&data).await);
}

#[tokio::test]
async fn a_damaged_footer_costs_no_blob() {
    let world = world().await;
    let data = disk(1, 900_000);
    world.push("a", &data).await;
    let digest = Digest::sha256(&data);
    world.records().await;
    let pack = world.packs.list().unwrap()[0];
    let end = world.packs.len(pack).unwrap();
    world.script.flip(pack, end - 1, 1);
    world.scrub().await;
    let found = world.registry.scrub_findings(&WHO, None, 100).await;
    let found = found.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].damage, Damage::Pack(pack));
    world.head(&digest).await.unwrap();
    assert!(world.reads(&data).await);
}

#[tokio::test]
async fn garbage_collection_does_not_copy_damage() {
    let world = world().await;
    let (kept, gone) = (disk(1, 900_000), disk(50, 5_000_000));
    world.push("a", &kept).await;
    world.push_blob("gone", &gone).await;
    let (pack, _) = world.damage_a_chunk().await;
    let [(.., first)] = &world.records().await[..1] else {
        panic!("there are records");
    };
    assert!(*first > 0);
    world.clock.advance_ms(2 * HOUR_MS);
    let collected = world.registry.gc().collect(true).await.unwrap();
    assert_eq!(collected.swept.damaged, 1, "{collected:?}");
    assert!(world.packs.list().unwrap().contains(&pack), "it stays");
    world.registry.scrubber().settle().await.unwrap();
    assert_eq!(world.damaged_blobs().await.len(), 1);
    assert!(!world.reads(&kept).await);
    // The same words as those of a scrub, and the same cure.
    world.push_blob("a", &kept).await;
    assert!(world.reads(&kept).await);
    world.registry.gc().collect(true).await.unwrap();
    assert!(!world.packs.list().unwrap().contains(&pack));
    assert!(world.reads(&kept).await);
}

#[tokio::test]
async fn a_chunk_with_other_bytes_and_right_checksums_is_found() {
    // As a memory error before the checksum was made would leave it.
    let world = world().await;
    let (data, other) = (disk(1, 9_000), disk(50, 9_000));
    let (pack, id) = (PackId(9_000), ChunkId::of(&data));
    let header = PackHeader { pack, nonce: 1 };
    let record = Record::new(RecordId::Chunk(id), Codec::Raw, 9_000, vec![other]).unwrap();
    let mut slices = Vec::new();
    let mut builder = PackBuilder::new(header, &mut slices);
    let entry = builder.push(record, &mut slices).unwrap();
    slices.push(builder.footer());
    world.packs.create(pack).unwrap();
    world.packs.append(pack, 0, &slices).unwrap();
    let bytes = world.packs.len(pack).unwrap();
    world.packs.seal(pack, bytes).unwrap();
    let row = PackRecord {
        state: PackState::Sealed,
        bytes,
        entries: 1,
    };
    let at = ChunkRecord {
        pack,
        offset: entry.offset,
        stored_len: 9_000,
    };
    let txn = Txn {
        puts: vec![
            (key::pack(pack), row.encode()),
            (key::chunk(&id), at.encode()),
        ],
        ..Txn::default()
    };
    let _ = world.meta.commit_now(txn).unwrap();
    assert_eq!(world.scrub().await.found, 1);
    // A push of the right bytes does not rely on it.
    world.push("a", &data).await;
    assert!(world.reads(&data).await);
}

#[tokio::test]
async fn a_repository_is_read_blob_by_blob() {
    let world = world().await;
    let (one, other) = (disk(1, 500_000), disk(50, 500_000));
    world.push("b", &other).await;
    world.records().await;
    world.push("a", &one).await;
    let digest = Digest::sha256(&one);
    let scrubber = world.registry.scrubber();
    let scrub = async |repository: &str| {
        let run = scrubber.start(Some(name(repository))).await;
        let run = run.unwrap().unwrap();
        let again = scrubber.start(None).await.unwrap();
        assert!(again.is_none(), "one at a time");
        scrubber.finish(&run).await.unwrap();
        scrubber.status().await.unwrap().run.unwrap()
    };
    let run = scrub("a").await;
    assert_eq!((run.found, run.bytes), (0, 500_000));
    // A recipe that makes another blob: every chunk is right, the digest is not.
    let key = key::blob(&digest);
    let row = world.meta.get_one(&key).await.unwrap().unwrap();
    let blob = BlobRecord::decode(&key, &row).unwrap();
    let other_key = key::blob(&Digest::sha256(&other));
    let other_row = world.meta.get_one(&other_key).await.unwrap().unwrap();
    let body = BlobRecord::decode(&other_key, &other_row).unwrap().body;
    let txn = Txn {
        puts: vec![(key, BlobRecord { body, ..blob }.encode())],
        ..Txn::default()
    };
    let _ = world.meta.commit_now(txn).unwrap();
    assert_eq!(scrub("b").await.found, 0);
    assert_eq!(scrub("a").await.found, 1);
    assert_eq!(world.damaged_blobs().await[0].0, digest);
    world.push_blob("a", &one).await;
    assert!(world.reads(&one).await);
    scrubber.settle().await.unwrap();
    assert_eq!(scrub("a").await.found, 0);
    assert_eq!(world.findings().await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_background_keeps_to_its_budget_and_goes_on_after_a_restart() {
    let world = world().await;
    // Packs of about a MiB: as much as may be read in an hour.
    for seed in 1..=3 {
        world.push("a", &disk(seed * 1_000, 2_000_000)).await;
        world.registry.store().rotate_packs().await.unwrap();
    }
    let stored = world.registry.scrubber().pack_bytes().await.unwrap();
    let begun = tokio::time::Instant::now();
    let half = begun.elapsed() + Duration::from_secs(HOUR * stored / MIB / 2);
    let pass = world.registry.scrubber().background_pass();
    assert!(tokio::time::timeout(half, pass).await.is_err(), "too fast");
    let (progress, _) = world.registry.scrubber().progress().await.unwrap();
    assert!(progress.last_pack > 0 && progress.full_pass_ms == 0);
    let world = world.restart().await;
    let scrubber = world.registry.scrubber();
    scrubber.background_pass().await.unwrap();
    let hours = begun.elapsed().as_secs_f64() / HOUR as f64;
    let needed = stored as f64 / MIB as f64;
    // A pack is begun anew after a restart, and some blobs are read as a whole.
    assert!(
        hours > needed * 0.95 && hours < needed * 1.8,
        "{hours} {needed}"
    );
    let (progress, _) = scrubber.progress().await.unwrap();
    assert_eq!((progress.last_pack, progress.full_pass_ms), (0, BEGIN_MS));
    assert!(progress.bytes > stored * 9 / 10, "{progress:?}");
    // The next pass is not due.
    let before = scrubber.stats().bytes.load(Relaxed);
    scrubber.background_pass().await.unwrap();
    assert_eq!(scrubber.stats().bytes.load(Relaxed), before);
    world.clock.advance_ms(PASS_INTERVAL_MS);
    scrubber.background_pass().await.unwrap();
    assert!(scrubber.stats().bytes.load(Relaxed) > before);
}

/// Two blobs in one pack, which is that, and where the second begins.
async fn halves() -> (World, [Bytes; 2], PackId, u64) {
    let world = world().await;
    let blobs = [disk(1, 300_000), disk(2, 300_000)];
    world.push_blob("a", &blobs[0]).await;
    let half = world.stored_bytes();
    world.push_blob("a", &blobs[1]).await;
    let [pack] = world.packs.list().unwrap()[..] else {
        panic!("one pack is open");
    };
    (world, blobs, pack, half)
}

/// A pack has other bytes than it had, as nothing that we do makes it.
fn put_in_its_place(world: &World, pack: PackId, bytes: &Bytes) {
    world.packs.delete(pack).unwrap();
    world.packs.create(pack).unwrap();
    world
        .packs
        .append(pack, 0, std::slice::from_ref(bytes))
        .unwrap();
    world.packs.seal(pack, bytes.len() as u64).unwrap();
}

#[tokio::test]
async fn a_pack_that_was_cut_off_between_two_records_is_found() {
    // Of what the metadata says, the pack's row is right, wrong as well, or gone.
    for row in ["right", "wrong", "gone"] {
        let (world, blobs, pack, half) = halves().await;
        world.registry.store().rotate_packs().await.unwrap();
        assert_eq!(world.scrub().await.found, 0);
        let bytes = world.packs.read(pack, 0, half as usize).unwrap();
        put_in_its_place(&world, pack, &bytes);
        let key = key::pack(pack);
        let mut txn = Txn::default();
        match row {
            "right" => {}
            "wrong" => {
                let row = PackRecord {
                    state: PackState::Sealed,
                    bytes: half,
                    entries: 1,
                };
                txn.puts.push((key, row.encode()));
            }
            _ => txn.deletes.push(key),
        }
        let _unconditional = world.meta.commit(txn).await.unwrap();
        let run = world.scrub().await;
        assert!(run.found > 0, "row {row}: {run:?}");
        let found = world.damaged_blobs().await;
        let lost = found.iter().map(|(digest, _)| *digest);
        let is_lost = |data| lost.clone().any(|digest| digest == Digest::sha256(data));
        assert_eq!(is_lost(&blobs[0]), row == "gone");
        assert!(is_lost(&blobs[1]), "row {row}");
        // Pushed again they are whole, and known to be.
        for data in &blobs {
            world.push_blob("a", data).await;
            assert!(world.reads(data).await);
        }
        assert_eq!(world.scrub().await.found, 0);
        assert!(world.damaged_blobs().await.is_empty());
    }
}

#[tokio::test]
async fn a_pack_to_whose_lost_end_rows_lead_is_not_swept() {
    let (world, blobs, pack, half) = halves().await;
    world.registry.store().rotate_packs().await.unwrap();
    let bytes = world.packs.read(pack, 0, half as usize).unwrap();
    put_in_its_place(&world, pack, &bytes);
    // Nothing needs the first blob any more.
    let repository = name("a");
    let digest = Digest::sha256(&blobs[0]);
    world
        .registry
        .blob_delete(&WHO, &repository, &digest)
        .await
        .unwrap();
    world.clock.advance_ms(48 * HOUR_MS);
    world.registry.gc().collect(true).await.unwrap();
    assert!(world.packs.list().unwrap().contains(&pack));
}
