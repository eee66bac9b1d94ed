//! Collections of garbage.

use bytes::Bytes;

use super::{Record, VERSION};
use crate::meta::{
    Value,
    codec::{Decoded, Reader, Writer},
};

/// A collection of garbage that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcRunRecord {
    /// Whether somebody asked for it.
    pub requested: bool,
    /// Whether a full device began it.
    pub full: bool,
    /// Whether it might remove more at once than is allowed.
    pub force: bool,
    /// Whether packs were not emptied because that would have removed more at once than is allowed.
    pub refused: bool,
    /// The grace that was asked for, milliseconds.
    pub grace_ms: Option<u64>,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, milliseconds since 1970.
    pub finished_ms: u64,
    /// Reviews that were due.
    pub reviews: u64,
    /// Blobs that a repository lost.
    pub unlinked: u64,
    /// Blobs that are gone.
    pub removed: u64,
    /// Length of those, bytes.
    pub removed_bytes: u64,
    /// Packs chosen to be emptied.
    pub chosen_packs: u64,
    /// Packs emptied and removed.
    pub packs: u64,
    /// Bytes given back, less what was copied.
    pub freed_bytes: u64,
    /// Bytes copied.
    pub moved_bytes: u64,
    /// Packs that stay because of damage.
    pub damaged: u64,
    /// Why it failed; empty if it did not.
    pub error: String,
}

/// Flags of a collection.
const GC_REQUESTED: u8 = 1;
const GC_FORCE: u8 = 2;
const GC_REFUSED: u8 = 4;
const GC_GRACE: u8 = 8;
const GC_FULL: u8 = 16;

impl Record for GcRunRecord {
    fn encode(&self) -> Value {
        let flags = [
            (GC_REQUESTED, self.requested),
            (GC_FORCE, self.force),
            (GC_REFUSED, self.refused),
            (GC_GRACE, self.grace_ms.is_some()),
            (GC_FULL, self.full),
        ];
        let set = flags.iter().filter(|(_, set)| *set).map(|(bit, _)| bit);
        Writer::new(VERSION)
            .u8(set.sum())
            .u64(self.grace_ms.unwrap_or(0))
            .u64(self.started_ms)
            .u64(self.finished_ms)
            .u64(self.reviews)
            .u64(self.unlinked)
            .u64(self.removed)
            .u64(self.removed_bytes)
            .u64(self.chosen_packs)
            .u64(self.packs)
            .u64(self.freed_bytes)
            .u64(self.moved_bytes)
            .u64(self.damaged)
            .tail(self.error.as_bytes())
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let flags = r.u8()?;
        let has = |bit| flags & bit != 0;
        let grace_ms = r.u64()?;
        Ok(Self {
            requested: has(GC_REQUESTED),
            full: has(GC_FULL),
            force: has(GC_FORCE),
            refused: has(GC_REFUSED),
            grace_ms: has(GC_GRACE).then_some(grace_ms),
            started_ms: r.u64()?,
            finished_ms: r.u64()?,
            reviews: r.u64()?,
            unlinked: r.u64()?,
            removed: r.u64()?,
            removed_bytes: r.u64()?,
            chosen_packs: r.u64()?,
            packs: r.u64()?,
            freed_bytes: r.u64()?,
            moved_bytes: r.u64()?,
            damaged: r.u64()?,
            error: String::from_utf8_lossy(r.tail()).into_owned(),
        })
    }
}
