//! What an upload keeps of the memory of all.

use super::*;
use crate::{
    backend::memory::MemoryBackend,
    clock::ManualClock,
    meta::memory::MemoryMeta,
    store::StoreOptions,
    testing::{BEGIN_MS, random},
};

async fn store() -> Arc<Store> {
    let options = StoreOptions {
        all_upload_blocks: 4,
        ..StoreOptions::default()
    };
    let clock = Arc::new(ManualClock::new(BEGIN_MS));
    let packs = Arc::new(MemoryBackend::default());
    let store = Store::open(Arc::new(MemoryMeta::new()), packs, clock, options);
    store.await.unwrap()
}

fn ingest(store: &Arc<Store>) -> Ingest {
    let state = IngestState::new(1, Algorithm::Sha256);
    Ingest::new(Arc::clone(store), state, None)
}

#[tokio::test]
async fn clients_that_send_a_byte_and_no_more_stop_nobody() {
    let store = store().await;
    let mut lazy: Vec<Ingest> = (0..64).map(|_| ingest(&store)).collect();
    for ingest in &mut lazy {
        ingest.write(Bytes::from_static(b"x")).await.unwrap();
        ingest.idle().await.unwrap();
    }
    assert_eq!(store.ingest_memory_bytes(), 0);
    let data = random(1, 3 << 20);
    let mut busy = ingest(&store);
    busy.write(data.clone()).await.unwrap();
    assert_eq!(busy.finish().await.unwrap().digest, Digest::sha256(&data));
}

#[tokio::test]
async fn what_came_first_stays_first_however_it_comes() {
    let data = random(1, 3 << 20);
    let inline = INLINE_BYTES_MAX as usize;
    let len = data.len();
    for ends in [
        vec![1, inline, inline + 1, len],
        vec![1, len],
        vec![inline, inline + (1 << 20), len],
        vec![7, 7 + (1 << 20), 100 + (1 << 20), len],
        vec![1, inline],
        vec![inline + 1],
    ] {
        for verify in [false, true] {
            let store = store().await;
            let mut ingest = match verify {
                true => Ingest::verify(Arc::clone(&store), Algorithm::Sha256, None),
                false => ingest(&store),
            };
            let mut at = 0;
            for end in &ends {
                ingest.write(data.slice(at..*end)).await.unwrap();
                ingest.idle().await.unwrap();
                at = *end;
            }
            let finished = ingest.finish().await.unwrap();
            assert_eq!(finished.digest, Digest::sha256(&data[..at]), "{ends:?}");
            assert_eq!(finished.len, at as u64);
        }
    }
}
