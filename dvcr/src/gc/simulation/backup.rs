//! A backup of a server at work, made as `docs/backup.md` says: packs are held, a checkpoint is taken, packs are copied one after
//! the other.

use std::{collections::HashSet, io::ErrorKind, sync::Arc};

use super::{MINUTE_MS, machine::Server};
use crate::{
    backend::{PackBackend as _, memory::MemoryBackend},
    clock::Clock as _,
    simulation,
    store::StoreError,
    testing::{checkpoint_of, rebuilt},
};

/// Less than what goes by at the end of a simulation: a hold that a power failure left behind is over then.
const HOLD_MS: u64 = 9 * 24 * 60 * MINUTE_MS;

/// How often others go on while one pack is copied.
const TURNS: usize = 20;

/// Whatever the checkpoint names comes back from the copy.
pub(super) async fn back_up(server: &Server) -> Result<(), StoreError> {
    let (gc, machine) = (server.registry.gc(), &server.machine);
    let failed = |error| StoreError::io("copy packs".into(), error);
    gc.hold(machine.clock.now_ms() + HOLD_MS).await?;
    let checkpoint = checkpoint_of(&*machine.meta, machine.clock.now_ms()).await;
    let (copy, mut sealed) = (Arc::new(MemoryBackend::default()), HashSet::new());
    for pack in machine.packs.list().map_err(failed)? {
        // A copy takes long: collections begin and end meanwhile.
        for _ in 0..TURNS {
            simulation::turn().await;
        }
        if machine.packs.is_sealed(pack) {
            sealed.insert(pack);
        }
        let len = match machine.packs.len(pack) {
            // It was removed: that is found out below.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            len => len.map_err(failed)?,
        };
        let bytes = machine.packs.read(pack, 0, len as usize).map_err(failed)?;
        copy.create(pack).unwrap();
        copy.append(pack, 0, &[bytes]).unwrap();
    }
    gc.hold(0).await?;
    let is_sealed = move |pack| sealed.contains(&pack);
    let now_ms = machine.clock.now_ms();
    let (_, report) = rebuilt(copy, is_sealed, Some(checkpoint), now_ms).await;
    assert!(
        report.lost_blobs.is_empty(),
        "a backup lacks blobs: {report}"
    );
    Ok(())
}
