//! Metadata that is lost and made anew.

use std::{
    io::{Cursor, Read},
    ops::ControlFlow,
    sync::Arc,
};

use crate::{
    backend::{PackBackend, PackId},
    checkpoint::format::{CheckpointHeader, CheckpointReader, CheckpointWriter},
    meta::{MetaStore, key, memory::MemoryMeta},
    repair::{RepairReport, Sources, rebuild},
};

/// A checkpoint in memory.
pub(crate) type Checkpoint = CheckpointReader<Box<dyn Read + Send>>;

/// A checkpoint of what is in the metadata now.
pub(crate) async fn checkpoint_of(meta: &dyn MetaStore, now_ms: u64) -> Checkpoint {
    let snapshot = meta.snapshot().await.unwrap();
    let header = CheckpointHeader {
        number: 1,
        created_ms: now_ms,
    };
    let mut writer = CheckpointWriter::new(Vec::new(), &header).unwrap();
    for range in key::checkpointed() {
        let put = &mut |key: &[u8], value: &[u8]| {
            writer.row(key, value).unwrap();
            ControlFlow::Continue(())
        };
        snapshot.each(&range, put).unwrap();
    }
    let (bytes, _) = writer.finish().unwrap();
    CheckpointReader::new(Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>).unwrap()
}

/// New metadata, from a checkpoint and what lies in packs.
pub(crate) async fn rebuilt(
    packs: Arc<dyn PackBackend>,
    is_sealed: impl Fn(PackId) -> bool + Send + Sync + 'static,
    checkpoint: Option<Checkpoint>,
    now_ms: u64,
) -> (Arc<MemoryMeta>, RepairReport) {
    let meta: Arc<MemoryMeta> = Arc::default();
    let sources = Sources {
        packs,
        is_sealed: Box::new(is_sealed),
        checkpoint,
    };
    let report = rebuild(sources, meta.clone(), now_ms, &mut ()).await;
    (meta, report.unwrap())
}
