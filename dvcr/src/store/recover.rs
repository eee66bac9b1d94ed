//! Closing the packs that a crash left open.
//!
//! Everything that a committed row names is durable, so nothing is lost and nothing has to be walked before serving. The
//! packs themselves get their footer in the background: their records are walked up to the first that is not whole.

use std::sync::Arc;

use super::{
    Store, StoreError,
    pack::{Footer, PACK_HEADER_LEN, PackHeader, RecordWalk},
};
use crate::{
    backend::PackId,
    blocking,
    meta::{
        Check, Txn, key,
        record::{PackRecord, PackState, Record as _},
    },
};

/// Rows read at once.
const PAGE: usize = 1000;

impl Store {
    /// The packs that are open according to the metadata; before the first upload, those that a crash left open.
    pub(super) async fn left_open(&self) -> Result<Vec<PackId>, StoreError> {
        let mut open = Vec::new();
        let mut range = key::packs();
        loop {
            let rows = self.meta.scan(&range, PAGE).await?;
            for (key, row) in &rows {
                let record = PackRecord::decode(key, row)?;
                let id = key::last_field(&key::packs(), key)
                    .try_into()
                    .map(u64::from_be_bytes);
                if let (PackState::Open, Ok(id)) = (record.state, id) {
                    open.push(PackId(id));
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => range = key::after(range, last),
                _ => return Ok(open),
            }
        }
    }

    /// Closes these packs. One that cannot be closed is logged and left.
    pub(super) async fn close_left_open(self: Arc<Self>, packs: Vec<PackId>) {
        for pack in packs {
            match self.recover(pack).await {
                Ok(entries) => {
                    tracing::info!(%pack, entries, "closed a pack that a crash left open");
                }
                Err(error) => {
                    tracing::error!(%pack, error = &error as &dyn std::error::Error, "close a pack that a crash left open");
                }
            }
        }
    }

    async fn recover(&self, pack: PackId) -> Result<usize, StoreError> {
        let packs = Arc::clone(&self.packs);
        let walked = blocking::run(move || -> Result<Option<(u64, usize)>, StoreError> {
            let io = |e| StoreError::io(format!("walk pack {pack}"), e);
            let len = match packs.len(pack) {
                Ok(len) => len,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(io(e)),
            };
            if len < PACK_HEADER_LEN as u64 {
                return Ok(None);
            }
            let header = packs.read(pack, 0, PACK_HEADER_LEN).map_err(io)?;
            let corrupt = |e: super::pack::LayoutError| StoreError::Corrupt {
                pack,
                offset: 0,
                what: e.to_string(),
            };
            let header = PackHeader::decode(&header).map_err(corrupt)?;
            let mut walk = RecordWalk::new(len, |offset, len| packs.read(pack, offset, len));
            let mut entries = Vec::new();
            for walked in walk.by_ref() {
                entries.push(walked.map_err(io)?.entry);
            }
            let end = walk.valid_len();
            let footer = Footer::encode(&header, &entries);
            let sealed = end + footer.len() as u64;
            // A backend that takes no appends after a restart keeps the pack without a footer: repair walks it.
            let sealed = match packs.append(pack, end, &[footer.into()]) {
                Ok(()) => sealed,
                Err(_) => end,
            };
            packs.seal(pack, sealed).map_err(io)?;
            Ok(Some((sealed, entries.len())))
        })
        .await?;
        let mut txn = Txn {
            checks: vec![Check::Present(key::pack(pack))],
            ..Txn::default()
        };
        match walked {
            Some((bytes, entries)) => {
                let entries_u32 = u32::try_from(entries).unwrap_or(u32::MAX);
                let row = PackRecord {
                    state: PackState::Sealed,
                    bytes,
                    entries: entries_u32,
                };
                txn.puts.push((key::pack(pack), row.encode()));
            }
            // The row was committed and the file never came to be: nothing can refer to it.
            None => txn.deletes.push(key::pack(pack)),
        }
        let _conflict_means_gone = self.meta.commit(txn).await?;
        Ok(walked.map_or(0, |(_, entries)| entries))
    }
}
