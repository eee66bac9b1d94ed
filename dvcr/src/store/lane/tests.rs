//! Packs that several uploads write: batches, failures, and who waits for whom.

use futures::FutureExt as _;

use super::*;
use crate::{
    backend::{
        faulty::{FaultScript, FaultyBackend, Op},
        memory::MemoryBackend,
    },
    meta::memory::MemoryMeta,
    store::pack::{Codec, PACK_ENTRIES_MAX},
};

/// Lanes on a device that fails when the script says so.
fn lanes() -> (Arc<Lanes>, Arc<FaultScript>) {
    let meta: Arc<dyn MetaStore> = Arc::new(MemoryMeta::new());
    let script = FaultScript::new();
    let packs = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&script));
    let lanes = Lanes::new(
        Arc::new(packs),
        Arc::clone(&meta),
        IdAllocator::new(meta, "pack"),
        Arc::default(),
        Arc::default(),
        Arc::default(),
        TaskTracker::new(),
    );
    (Arc::new(lanes), script)
}

/// A chunk of these bytes.
fn chunk(bytes: &'static [u8]) -> Record {
    let id = RecordId::Chunk(ChunkId::of(bytes));
    Record::new(id, Codec::Raw, bytes.len(), vec![Bytes::from_static(bytes)]).unwrap()
}

async fn append(ticket: &LaneTicket, bytes: &'static [u8]) -> Result<Placed, StoreError> {
    match ticket.append(vec![chunk(bytes)]).await?.pop() {
        Some(Appended::Chunk(placed)) => Ok(placed),
        _ => panic!("a chunk was appended"),
    }
}

#[tokio::test]
async fn what_a_failed_seal_should_have_made_durable_is_not_acknowledged() {
    for op in [Op::Append, Op::Seal] {
        let (lanes, script) = lanes();
        let ticket = lanes.ticket();
        let placed = append(&ticket, b"a chunk").await.unwrap();
        // A sweep seals what is open, and that fails. The next sync would succeed.
        script.fail_next(op, None, io::ErrorKind::Other);
        assert!(lanes.close().await.is_err(), "{op:?}");
        let durable = lanes.make_durable(&placed.pack, placed.end()).await;
        assert!(durable.is_err(), "{op:?}");
        // It is offered to nobody, and pushed again it is stored anew.
        assert!(lanes.pending(&[ChunkId::of(b"a chunk")])[0].is_none());
        let again = append(&ticket, b"a chunk").await.unwrap();
        assert_ne!(again.pack.id, placed.pack.id);
        lanes.make_durable(&again.pack, again.end()).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_pack_has_no_room_for_goes_into_the_next_as_a_whole() {
    let (lanes, _) = lanes();
    let ticket = lanes.ticket();
    let first = append(&ticket, b"first").await.unwrap();
    {
        let mut builder = first.pack.builder();
        let mut slices = Vec::new();
        while builder.entries().len() < PACK_ENTRIES_MAX - 1 {
            builder.push(chunk(b"one of many"), &mut slices).unwrap();
        }
    }
    // There is room for one of them.
    let batch = vec![chunk(b"second"), chunk(b"third")];
    let appended = ticket.append(batch).await.unwrap();
    for (appended, bytes) in appended.iter().zip([b"second" as &[u8], b"third"]) {
        let Appended::Chunk(placed) = appended else {
            panic!("a chunk was appended");
        };
        assert_ne!(placed.pack.id, first.pack.id);
        lanes
            .make_durable(&placed.pack, placed.end())
            .await
            .unwrap();
        assert!(lanes.pending(&[ChunkId::of(bytes)])[0].is_some());
    }
    // What no pack takes changes nothing, and nobody waits for it.
    let id = ChunkId::of(b"too many");
    let flood = vec![chunk(b"too many"); PACK_ENTRIES_MAX + 1];
    assert!(ticket.append(flood).await.is_err());
    assert!(lanes.pending(&[id])[0].is_none());
    append(&ticket, b"fourth").await.unwrap();
}

#[tokio::test]
async fn a_chunk_that_another_upload_is_still_writing_is_not_durable_yet() {
    let (lanes, _) = lanes();
    let pack = lanes.open_pack(false).await.unwrap();
    let there = *pack.appended.borrow();
    lanes.make_durable(&pack, there).await.unwrap();
    // Somebody found the chunk among the pending ones before it was handed to the backend.
    let mut waits = Box::pin(lanes.make_durable(&pack, there + 1));
    assert!(waits.as_mut().now_or_never().is_none());
    // Why it does not come is why it was not written: a full device is one that may have room again.
    pack.fail(&io::ErrorKind::StorageFull.into());
    assert!(matches!(waits.await, Err(StoreError::Full)));
}
