//! Closing the packs that a crash left open.
//!
//! Everything that a committed row names is durable, so nothing is lost and nothing has to be walked before serving. The
//! packs themselves are closed in the background: what a crash tore at their end is cut off, but never what a row leads to,
//! whatever the bytes there say.

use std::{io, sync::Arc};

use dvcr_core::chunk::ChunkId;

use super::{
    Expected, Store, StoreError,
    contents::read_contents,
    pack::{Footer, LayoutError, PACK_HEADER_LEN, PackHeader, RecordId, TRAILER_LEN},
};
use crate::{
    backend::{PackBackend, PackId},
    blocking,
    meta::{
        Check, Pages, Txn, key,
        record::{ChunkRecord, PackRecord, PackState, Record as _},
    },
};

/// Rows read at once.
const PAGE: usize = 1000;

impl Store {
    /// Looks through the packs before the first upload. Returns those that a crash left open; those that were being emptied
    /// go on being hidden from look-ups.
    pub(super) async fn unsealed(&self) -> Result<Vec<PackId>, StoreError> {
        let mut open = Vec::new();
        let mut pages = Pages::new(&*self.meta, key::packs(), PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, row) in &rows {
                let record = PackRecord::decode(key, row)?;
                match (record.state, key::pack_of(key)) {
                    (PackState::Open, Some(pack)) => open.push(pack),
                    (PackState::Condemned, Some(pack)) => self.condemned.insert([pack]),
                    _ => {}
                }
            }
        }
        Ok(open)
    }

    /// Closes these packs. One that cannot be closed is logged and left.
    pub(super) async fn close_left_open(self: Arc<Self>, packs: Vec<PackId>) {
        let mut found = Vec::new();
        for pack in packs {
            let backend = Arc::clone(&self.packs);
            match blocking::run(move || look_at(&*backend, pack)).await {
                Ok(left) => found.push((pack, left)),
                Err(error) => log(pack, &StoreError::io(format!("read pack {pack}"), error)),
            }
        }
        // What would be cut off or forgotten must not be what rows lead to: bytes may have changed since they were written.
        let torn = found.iter().filter(|(_, left)| !left.is_whole());
        let torn = torn.map(|(pack, _)| *pack).collect();
        let named = match self.named_ends(&torn).await {
            Ok(named) => named,
            Err(error) => {
                let what = &error as &dyn std::error::Error;
                tracing::error!(
                    error = what,
                    "look for what lies in packs that a crash left open"
                );
                return;
            }
        };
        for (pack, left) in found {
            let named_to = named.get(&pack).copied().unwrap_or(0);
            if let Err(error) = self.close_one(pack, &left, named_to).await {
                log(pack, &error);
            }
        }
    }

    async fn close_one(&self, pack: PackId, left: &Left, named_to: u64) -> Result<(), StoreError> {
        let (len, damage) = match left.close_at(named_to) {
            Closing::Forget => {
                let backend = Arc::clone(&self.packs);
                blocking::run(move || backend.delete(pack))
                    .await
                    .map_err(|e| StoreError::io(format!("remove pack {pack}"), e))?;
                let txn = Txn {
                    deletes: vec![key::pack(pack)],
                    ..Txn::default()
                };
                let _unconditional = self.meta.commit(txn).await?;
                return Ok(());
            }
            Closing::Leave(what) => {
                self.mark_pack(pack, what).await?;
                return Ok(());
            }
            Closing::Seal { len, damage } => (len, damage),
        };
        if let Some(what) = damage {
            self.mark_pack(pack, &what).await?;
        }
        let backend = Arc::clone(&self.packs);
        blocking::run(move || backend.seal(pack, len))
            .await
            .map_err(|e| StoreError::io(format!("close pack {pack}"), e))?;
        let row = PackRecord {
            state: PackState::Sealed,
            bytes: len,
            entries: left.entries,
        };
        let txn = Txn {
            checks: vec![Check::Present(key::pack(pack))],
            puts: vec![(key::pack(pack), row.encode())],
            deletes: vec![],
        };
        let _conflict_means_gone = self.meta.commit(txn).await?;
        // What no row leads to was torn, and is nobody's.
        for (id, at) in &left.bad {
            self.mark_chunk(
                id,
                at,
                "its bytes had changed when the pack was closed after a crash",
            )
            .await?;
        }
        let entries = left.entries;
        tracing::info!(%pack, entries, "closed a pack that a crash left open");
        Ok(())
    }
}

fn log(pack: PackId, error: &StoreError) {
    let error = error as &dyn std::error::Error;
    tracing::error!(%pack, error, "close a pack that a crash left open");
}

/// A pack that a crash left open, as it was found.
#[derive(Clone, Debug, Default)]
struct Left {
    /// Length of the file, none if there is no file.
    len: Option<u64>,
    /// Where the last record ends that is whole.
    whole_to: u64,
    /// Where what is listed ends.
    listed_to: u64,
    entries: u32,
    /// Chunks that are listed and not whole.
    bad: Vec<(ChunkId, ChunkRecord)>,
}

/// What is to be done with such a pack.
#[derive(Debug, PartialEq, Eq)]
enum Closing {
    /// It never came to be: nothing refers to it.
    Forget,
    /// There is nothing to close, and something refers to it.
    Leave(&'static str),
    /// It is sealed at this length, and damaged if that is said.
    Seal { len: u64, damage: Option<String> },
}

impl Left {
    /// Whether nothing would be cut off.
    fn is_whole(&self) -> bool {
        self.len == Some(self.whole_to)
    }

    /// How to close the pack if rows lead to records of it up to there.
    fn close_at(&self, named_to: u64) -> Closing {
        let is_named = named_to > 0;
        match self.len {
            None if is_named => Closing::Leave("its file is gone"),
            Some(len) if len < PACK_HEADER_LEN as u64 && is_named => {
                Closing::Leave("its file was cut off")
            }
            None => Closing::Forget,
            Some(len) if len < PACK_HEADER_LEN as u64 => Closing::Forget,
            // Nobody can tell where the records behind begin but the rows: all of it stays.
            Some(len) if named_to > self.listed_to => Closing::Seal {
                len,
                damage: Some(format!(
                    "what follows offset {} cannot be listed, and is needed up to offset {named_to} of {len}",
                    self.listed_to
                )),
            },
            Some(_) => Closing::Seal {
                len: self.whole_to.max(named_to),
                damage: None,
            },
        }
    }
}

/// Looks at a pack that nobody writes any more.
fn look_at(packs: &dyn PackBackend, pack: PackId) -> io::Result<Left> {
    let len = match packs.len(pack) {
        Ok(len) => len,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Left::default()),
        Err(e) => return Err(e),
    };
    let mut left = Left {
        len: Some(len),
        ..Left::default()
    };
    if len < PACK_HEADER_LEN as u64 {
        return Ok(left);
    }
    if let Err(error @ LayoutError::Version { .. }) =
        PackHeader::decode(&packs.read(pack, 0, PACK_HEADER_LEN)?)
    {
        return Err(io::Error::new(io::ErrorKind::Unsupported, error));
    }
    let contents = read_contents(packs, pack)?;
    left.whole_to = contents.whole_to();
    left.listed_to = contents.listed_to();
    left.entries = u32::try_from(contents.entries.len()).unwrap_or(u32::MAX);
    let entries = contents.entries.iter();
    let bad = entries.filter(|entry| contents.bad.contains(&entry.offset));
    left.bad = bad
        .filter_map(|entry| match entry.header.id() {
            RecordId::Chunk(id) => Some((id, Expected::listed(pack, entry).at)),
            _ => None,
        })
        .collect();
    Ok(left)
}

/// The footer, if the pack has one.
pub(super) fn read_footer(
    packs: &dyn PackBackend,
    pack: PackId,
    header: &PackHeader,
    len: u64,
) -> io::Result<Option<Footer>> {
    let mut need = TRAILER_LEN;
    while need as u64 <= len {
        let tail = packs.read(pack, len - need as u64, need)?;
        match Footer::decode(header, len, &tail) {
            Ok(footer) => return Ok(Some(footer)),
            Err(LayoutError::Short { need: more, .. }) if more > need => need = more,
            Err(_) => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        meta::key::Finding,
        store::pack::RECORD_HEADER_LEN,
        testing::{World, disk},
    };

    #[test]
    fn what_rows_lead_to_is_never_cut_off() {
        let left = |len, whole_to, listed_to| Left {
            len,
            whole_to,
            listed_to,
            ..Left::default()
        };
        let seal = |len| Closing::Seal { len, damage: None };
        let torn = left(Some(900), 500, 700);
        let table = [
            (left(None, 0, 0), 0, Closing::Forget),
            (left(None, 0, 0), 90, Closing::Leave("its file is gone")),
            (left(Some(7), 0, 0), 0, Closing::Forget),
            (
                left(Some(7), 0, 0),
                90,
                Closing::Leave("its file was cut off"),
            ),
            (torn.clone(), 0, seal(500)),
            (torn.clone(), 400, seal(500)),
            (torn.clone(), 600, seal(600)),
            (torn.clone(), 700, seal(700)),
        ];
        for (left, named_to, expected) in table {
            assert_eq!(left.close_at(named_to), expected, "{left:?}, {named_to}");
        }
        let kept = torn.close_at(701);
        assert!(
            matches!(
                &kept,
                Closing::Seal {
                    len: 900,
                    damage: Some(_)
                }
            ),
            "{kept:?}"
        );
    }

    /// Six blobs in a pack that is open, and where its first chunk lies.
    async fn six_blobs() -> (World, Vec<Bytes>, PackId) {
        let world = World::new().await;
        let blobs: Vec<Bytes> = (1..7).map(|n| disk(n, 90_000)).collect();
        for blob in &blobs {
            world.push_blob("a", blob).await;
        }
        let [pack] = world.packs.list().unwrap()[..] else {
            panic!("one pack is open");
        };
        (world, blobs, pack)
    }

    #[tokio::test]
    async fn a_changed_bit_in_a_pack_that_a_crash_left_open_costs_one_chunk() {
        let header = PACK_HEADER_LEN as u64 + 20;
        for (at, damaged_packs) in [(header, 1), (header + RECORD_HEADER_LEN as u64, 0)] {
            let (world, blobs, pack) = six_blobs().await;
            let bytes = world.stored_bytes();
            world.script.flip(pack, at, 1);
            let world = world.restart().await;
            world.registry.store().close().await.unwrap();
            assert_eq!(world.stored_bytes(), bytes, "nothing is cut off");
            let known = world.registry.store().damaged().counts().0 as u64;
            assert_eq!(known, 1 - damaged_packs, "without anybody reading it");
            assert!(world.pull("a", &blobs[0]).await.is_err());
            for blob in &blobs[1..] {
                world.pull("a", blob).await.unwrap();
            }
            let found = world.registry.store().finding(&Finding::Pack(pack)).await;
            assert_eq!(u64::from(found.unwrap().is_some()), damaged_packs);
            // It was a bad moment of the device.
            world.script.heal();
            world.pull("a", &blobs[0]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_lies_behind_a_changed_bit_comes_back_without_metadata() {
        let (world, blobs, pack) = six_blobs().await;
        let checkpoint = world.checkpoint().await;
        let at = PACK_HEADER_LEN + RECORD_HEADER_LEN + 20;
        world.script.flip(pack, at as u64, 1);
        let (world, report) = world.rebuilt_after_a_crash(Some(checkpoint)).await;
        assert_eq!(report.lost_blobs.len(), 1, "{report}");
        world.registry.store().close().await.unwrap();
        for blob in &blobs[1..] {
            world.pull("a", blob).await.unwrap();
        }
    }

    #[tokio::test]
    async fn without_metadata_nothing_is_cut_off_behind_a_changed_header() {
        let (world, _, pack) = six_blobs().await;
        let checkpoint = world.checkpoint().await;
        let bytes = world.stored_bytes();
        world.script.flip(pack, PACK_HEADER_LEN as u64 + 20, 1);
        let (world, report) = world.rebuilt_after_a_crash(Some(checkpoint)).await;
        assert_eq!(report.damaged_packs.len(), 1, "{report}");
        world.registry.store().close().await.unwrap();
        assert_eq!(world.stored_bytes(), bytes, "all of it is kept");
    }
}
