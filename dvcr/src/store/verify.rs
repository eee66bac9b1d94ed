//! Reading records to see whether they are what was written.

use std::{io, sync::Arc};

use bytes::Bytes;
use dvcr_core::chunk::ChunkId;

use super::{
    PackContents, Store, StoreError,
    append::recipe_record,
    compress::Codecs,
    joined::joined,
    named::record_end,
    pack::{
        BlobHead, Codec, Entry, PAYLOAD_BYTES_MAX, RECORD_HEADER_LEN, Record, RecordHeader,
        RecordId, open_record,
    },
    read_contents,
    recipe::RecipePart,
    segment::Segment,
};
use crate::{
    backend::{PackBackend, PackId},
    blocking,
    meta::{
        MetaError, Pages, Txn, key,
        record::{BlobBody, BlobRecord, ChunkRecord, Record as _},
    },
};

/// Rows read at once.
const ROWS: usize = 1000;

/// A record that should be somewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) id: RecordId,
    pub(crate) at: ChunkRecord,
    /// What a footer says of it; a chunk's row says less.
    pub(crate) header: Option<RecordHeader>,
}

impl Expected {
    /// What a pack says that there is.
    pub(crate) fn listed(pack: PackId, entry: &Entry) -> Self {
        Self {
            id: entry.header.id(),
            at: ChunkRecord {
                pack,
                offset: entry.offset,
                // Bounded by PAYLOAD_BYTES_MAX.
                stored_len: entry.header.stored_len() as u32,
            },
            header: Some(entry.header),
        }
    }

    fn len(&self) -> usize {
        RECORD_HEADER_LEN + self.at.stored_len as usize
    }

    /// The first offset behind the record.
    pub(crate) fn end(&self) -> u64 {
        record_end(&self.at)
    }
}

/// A record that is not there.
#[derive(Clone, Debug)]
pub(crate) struct Bad {
    pub(crate) id: RecordId,
    pub(crate) at: ChunkRecord,
    pub(crate) what: String,
}

/// The header and payload of a record, if the bytes are that record: checksums, and BLAKE3 of what a chunk decodes to.
pub(super) fn check_record(
    bytes: &Bytes,
    id: RecordId,
    expected: Option<&RecordHeader>,
    codecs: &Codecs,
) -> Result<(RecordHeader, Bytes), String> {
    let (header, payload) = open_record(bytes).map_err(|e| e.to_string())?;
    if header.id() != id || expected.is_some_and(|expected| *expected != header) {
        return Err("another record lies there".to_owned());
    }
    match id {
        RecordId::Chunk(chunk_id) => {
            let chunk = codecs.decode(header.codec(), payload.clone(), header.raw_len())?;
            if ChunkId::of(&chunk) != chunk_id {
                return Err(format!("chunk {chunk_id} has other bytes"));
            }
        }
        RecordId::RecipePart { .. } => {
            RecipePart::parse(&payload).map_err(|what| format!("{what} expected"))?;
        }
        RecordId::BlobHead { .. } => {
            BlobHead::decode(&payload).map_err(|e| e.to_string())?;
        }
    }
    Ok((header, payload))
}

/// Which of these records of one pack, ascending, are not there. `NotFound` if there is no such pack. Blocks.
fn verify(packs: &dyn PackBackend, codecs: &Codecs, expected: &[Expected]) -> io::Result<Vec<Bad>> {
    let (Some(first), Some(last)) = (expected.first(), expected.last()) else {
        return Ok(Vec::new());
    };
    let begin = u64::from(first.at.offset);
    // Neighbours are read at once; if that fails, each by itself tells which.
    let len = usize::try_from(last.end().saturating_sub(begin)).unwrap_or(usize::MAX);
    let whole = match packs.read(first.at.pack, begin, len) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        whole => whole.ok(),
    };
    let mut bad = Vec::new();
    for record in expected {
        let check = |bytes: &Bytes| {
            check_record(bytes, record.id, record.header.as_ref(), codecs).map(drop)
        };
        let from = usize::try_from(u64::from(record.at.offset) - begin).unwrap_or(usize::MAX);
        if let Some(whole) = &whole
            && check(&whole.slice(from..from + record.len())).is_ok()
        {
            continue;
        }
        // Once more: a bus or memory may have had a bad moment.
        let again = packs.read(record.at.pack, u64::from(record.at.offset), record.len());
        let checked = match again {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err("the pack ends before the record does".to_owned())
            }
            Err(error) => Err(format!("it cannot be read: {error}")),
            Ok(bytes) => check(&bytes),
        };
        if let Err(what) = checked {
            let (id, at) = (record.id, record.at);
            bad.push(Bad { id, at, what });
        }
    }
    Ok(bad)
}

impl Store {
    /// Lists what lies in a pack that is not written any more. None if it is gone.
    pub(crate) async fn contents(&self, pack: PackId) -> Result<Option<PackContents>, StoreError> {
        let packs = Arc::clone(&self.packs);
        match blocking::run(move || read_contents(&*packs, pack)).await {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(format!("list pack {pack}"), error)),
        }
    }

    /// Which of these records of one pack, ascending and near each other, are damaged. None if the pack is gone.
    pub(crate) async fn verify_records(
        &self,
        expected: Vec<Expected>,
    ) -> Result<Option<Vec<Bad>>, StoreError> {
        // A row that was damaged must not make us read without bound.
        let (bounded, too_long): (Vec<_>, Vec<_>) = expected
            .into_iter()
            .partition(|record| record.at.stored_len as usize <= PAYLOAD_BYTES_MAX);
        let (packs, codecs) = (Arc::clone(&self.packs), Arc::clone(&self.codecs));
        let verified = blocking::run(move || verify(&*packs, &codecs, &bounded)).await;
        let mut bad = match verified {
            Ok(bad) => bad,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("verify records".into(), error)),
        };
        bad.extend(too_long.into_iter().map(|record| Bad {
            id: record.id,
            at: record.at,
            what: "its row has an impossible length".to_owned(),
        }));
        Ok(Some(bad))
    }

    /// A recipe part or blob head, made anew from the rows; none if nothing needs it any more.
    pub(super) async fn book(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        match id {
            RecordId::Chunk(_) => Ok(None),
            RecordId::RecipePart { recipe, part } => {
                let key = key::recipe(recipe, part);
                let Some(row) = self.meta.get_one(&key).await? else {
                    return Ok(None);
                };
                recipe_record(recipe, part, &RecipePart::decode(&key, &row)?).map(Some)
            }
            RecordId::BlobHead { recipe } => {
                let mut pages = Pages::new(&*self.meta, key::blobs(), ROWS);
                while let Some(rows) = pages.next().await? {
                    for (row, value) in &rows {
                        let blob = BlobRecord::decode(row, value)?;
                        let BlobBody::Recipe { id, parts } = blob.body else {
                            continue;
                        };
                        if id == recipe {
                            let digest = key::blob_of(row).ok_or_else(|| MetaError::Corrupt {
                                key: hex::encode(row),
                                what: "a digest",
                            })?;
                            let head = BlobHead {
                                digest,
                                len: blob.len,
                                recipe,
                                parts,
                                created_unix_ms: blob.created_ms,
                            };
                            return blob_head_record(&head).map(Some);
                        }
                    }
                }
                Ok(None)
            }
        }
    }

    /// Stores recipe parts and blob heads anew whose records are damaged: only repair needs them, and the rows have them.
    pub(crate) async fn rewrite_books(
        self: &Arc<Self>,
        ids: Vec<RecordId>,
    ) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let store = Arc::clone(self);
        // An append is not to be cancelled, and a scrub may be.
        let task = self.tasks.spawn(async move {
            let mut records = Vec::new();
            for id in ids {
                records.extend(store.book(id).await?);
            }
            let count = records.len() as u64;
            if count > 0 {
                let mut segment = Segment::new(Arc::clone(&store.lanes));
                segment.append_books(&store.lanes.ticket(), records).await?;
                segment.prepare(&mut Txn::default()).await?;
            }
            Ok(count)
        });
        joined(task, "write recipes anew").await
    }
}

/// A blob head as a record of a pack.
pub(super) fn blob_head_record(head: &BlobHead) -> Result<Record, StoreError> {
    let payload = Bytes::from(head.encode());
    let len = payload.len();
    let id = RecordId::BlobHead {
        recipe: head.recipe,
    };
    Record::new(id, Codec::Raw, len, vec![payload])
        .map_err(|e| StoreError::io("lay out a blob head".into(), io::Error::other(e)))
}
