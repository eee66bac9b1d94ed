//! Closing the packs that a crash left open.
//!
//! Everything that a committed row names is durable, so nothing is lost and nothing has to be walked before serving. The
//! packs themselves get their footer in the background: their records are walked up to the first that is not whole.

use std::{io, sync::Arc};

use super::{
    Store, StoreError,
    pack::{Footer, LayoutError, PACK_HEADER_LEN, PackHeader, RecordWalk, TRAILER_LEN},
};
use crate::{
    backend::{PackBackend, PackId},
    blocking,
    meta::{
        Check, Pages, Txn, key,
        record::{PackRecord, PackState, Record as _},
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
        let sealed = blocking::run(move || seal_found(&*packs, pack))
            .await
            .map_err(|e| StoreError::io(format!("close pack {pack}"), e))?;
        let mut txn = Txn {
            checks: vec![Check::Present(key::pack(pack))],
            ..Txn::default()
        };
        match sealed {
            Some((bytes, entries)) => {
                let row = PackRecord {
                    state: PackState::Sealed,
                    bytes,
                    entries: u32::try_from(entries).unwrap_or(u32::MAX),
                };
                txn.puts.push((key::pack(pack), row.encode()));
            }
            // The row was committed and the pack never came to be: nothing can refer to it.
            None => txn.deletes.push(key::pack(pack)),
        }
        let _conflict_means_gone = self.meta.commit(txn).await?;
        Ok(sealed.map_or(0, |(_, entries)| entries))
    }
}

/// Seals a pack that nobody writes any more, and returns its length and the number of its records. None if there is no pack, or
/// one without a whole header, which is removed.
fn seal_found(packs: &dyn PackBackend, pack: PackId) -> io::Result<Option<(u64, usize)>> {
    let len = match packs.len(pack) {
        Ok(len) => len,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if len < PACK_HEADER_LEN as u64 {
        packs.delete(pack)?;
        return Ok(None);
    }
    let header = match PackHeader::decode(&packs.read(pack, 0, PACK_HEADER_LEN)?) {
        Ok(header) => header,
        Err(error @ LayoutError::Version { .. }) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
        // Nothing of it was ever durable, or it was damaged later. Either way it stays as it is: rows may name it.
        Err(_) => {
            packs.seal(pack, len)?;
            return Ok(Some((len, 0)));
        }
    };
    // The server stopped between sealing the file and saying so in the metadata.
    if let Some(footer) = read_footer(packs, pack, &header, len)? {
        packs.seal(pack, len)?;
        return Ok(Some((len, footer.entries.len())));
    }
    let mut walk = RecordWalk::new(len, |offset, len| packs.read(pack, offset, len));
    let mut entries = Vec::new();
    for walked in walk.by_ref() {
        entries.push(walked?.entry);
    }
    let end = walk.valid_len();
    let footer = Footer::encode(&header, &entries);
    // A backend that takes no appends after a restart keeps the pack without a footer: repair walks it.
    let len = match packs.append(pack, end, &[footer.clone().into()]) {
        Ok(()) => end + footer.len() as u64,
        Err(_) => end,
    };
    packs.seal(pack, len)?;
    Ok(Some((len, entries.len())))
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
