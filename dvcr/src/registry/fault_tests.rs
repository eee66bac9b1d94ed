//! Uploads that met a failing device: they go on from what was recorded last, and nothing is lost or made up.

use std::{io, sync::Arc};

use bytes::Bytes;
use dvcr_core::oci::Digest;

use super::*;
use crate::{
    backend::{
        faulty::{FaultScript, FaultyBackend, Op},
        memory::MemoryBackend,
    },
    clock::ManualClock,
    meta::memory::MemoryMeta,
    store::{Store, StoreOptions},
    testing::{WHO, body, disk, name, read},
};

/// Far more than an upload may hold in memory, so that a failure is noticed while the piece is still arriving.
const PIECE_BYTES: usize = 9_300_000;
const PIECES: usize = 2;
/// Blocks of 1 MiB that an upload may hold.
const BLOCKS: usize = 2;

async fn faulty() -> (Registry, Arc<FaultScript>) {
    let (meta, script) = (Arc::new(MemoryMeta::default()), FaultScript::new());
    let packs = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&script));
    let clock = Arc::new(ManualClock::new(1_000_000));
    let options = StoreOptions {
        upload_blocks: BLOCKS,
        ..StoreOptions::default()
    };
    let store = Store::open(meta.clone(), Arc::new(packs), clock.clone(), options)
        .await
        .unwrap();
    let registry = Registry::new(meta, store, clock, RegistryOptions::default());
    (registry, script)
}

/// Uploads a disk in pieces. `op` fails with `kind` in the piece with that number, which is then sent again from where the
/// registry says.
async fn check(op: Op, kind: io::ErrorKind, failing: usize) {
    let what = format!("{op:?} fails with {kind} in piece {failing}");
    let (registry, script) = faulty().await;
    let repository = name("a");
    let data = disk(failing as u64, PIECES * PIECE_BYTES);
    let id = registry
        .upload_start(&WHO, &repository, None)
        .await
        .unwrap()
        .id;
    let append = |from: usize, to: usize| {
        let range = Some((from as u64, to as u64 - 1));
        registry.upload_append(&WHO, &repository, &id, range, body(&data.slice(from..to)))
    };
    for piece in 0..PIECES {
        let (from, to) = (piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES);
        let mut offset = from;
        if piece == failing {
            script.fail_next(op, None, kind);
            append(from, to).await.expect_err(&what);
            assert_eq!(script.left(), 0, "{what}");
            let status = registry.upload_status(&WHO, &repository, &id).await;
            offset = status.unwrap().offset as usize;
            assert!((from..=to).contains(&offset), "{what}: stands at {offset}");
        }
        let status = append(offset, to).await.unwrap();
        assert_eq!(status.offset, to as u64, "{what}");
    }
    let digest = Digest::sha256(&data);
    let end = body(&Bytes::new());
    registry
        .upload_finish(&WHO, &repository, &id, None, digest, end)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = read(&registry, "a", &digest).await.unwrap();
    assert!(found == data, "{what}");
}

#[tokio::test]
async fn an_upload_goes_on_after_a_failure_of_the_device() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for op in [Op::Append, Op::MakeDurable] {
            for failing in 0..PIECES {
                check(op, kind, failing).await;
            }
        }
        check(Op::Create, kind, 0).await;
    }
}
