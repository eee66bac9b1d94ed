//! The log of a VHDX that was not closed: what its last writer had on the way to tables. Source: \[MS-VHDX\] section 2.3.
//!
//! The log is a ring of entries. Those that belong together follow each other and count up; the last of them says where the
//! first one is. Nothing is written: the entries are laid over the source ([`Overlay`]).

use std::sync::Arc;

use super::{
    super::{FormatError, fields::Fields, pages::Pages},
    Guid,
    overlay::{Overlay, SECTOR_BYTES},
    sum_is_right,
};
use crate::source::ReadAt;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// Longest log that is read, and most bytes laid over the source. Hyper-V and QEMU make logs of 1 MiB.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// How far behind the source's end the log may say that the file ends: files grow by a block, which has 256 MiB at most.
const GROWTH_BYTES_MAX: u64 = 256 << 20;

/// Times the log's length that may be summed up in search of its entries: valid ones are, twice, and remains of older ones.
const SUMMED_MAX: usize = 16;

/// Section 2.3.1.1.
const ENTRY_HEADER_BYTES: usize = 64;
/// Sections 2.3.1.2 and 2.3.1.3.
const DESCRIPTOR_BYTES: usize = 32;

/// What a header says about the log: section 2.2.2.
pub(super) struct Log {
    pub(super) id: Guid,
    pub(super) version: u16,
    pub(super) at: u64,
    pub(super) len: u64,
}

/// An entry, checked.
struct Entry {
    /// Offset in the ring of this one, and of the first that belongs to it.
    at: usize,
    tail: usize,
    sequence: u64,
    bytes: Vec<u8>,
}

/// The source with the log replayed.
pub(super) fn replay(pages: &Pages, log: &Log) -> Result<Arc<dyn ReadAt>, FormatError> {
    if log.version != 0 {
        return Err(refused(format!("its log has version {}", log.version)));
    }
    if log.len > LOG_BYTES_MAX {
        return Err(refused(format!("its log has {} bytes", log.len)));
    }
    if log.len == 0 || !log.len.is_multiple_of(SECTOR) || !log.at.is_multiple_of(SECTOR) {
        return Err(pages.broken(format!("a log of {} bytes at {}", log.len, log.at)));
    }
    pages.check("the log", log.at, log.len)?;
    let mut bytes = vec![0; log.len as usize];
    pages.source().read_at(log.at, &mut bytes)?;

    let mut ring = Ring {
        budget: bytes.len() * SUMMED_MAX,
        id: log.id,
        bytes,
    };
    let entries = ring.active();
    let Some(head) = entries.last() else {
        if ring.is_unused() {
            return Ok(pages.source().clone());
        }
        return Err(refused("its log holds no valid entry".to_owned()));
    };
    let source_len = pages.source().len();
    let header = Fields(&head.bytes);
    let (flushed_len, last_len) = (header.u64_le(48), header.u64_le(56));
    if flushed_len > source_len {
        return Err(pages.broken(format!(
            "its log is of a file of {flushed_len} bytes, of which {source_len} are there; was it cut off?"
        )));
    }
    if last_len > source_len.saturating_add(GROWTH_BYTES_MAX) {
        return Err(pages.broken(format!("its log is of a file of {last_len} bytes")));
    }
    let mut overlay = Overlay::new(pages.source().clone(), last_len.max(source_len));
    for entry in &entries {
        apply(entry, &mut overlay).ok_or_else(|| {
            pages.broken(format!("the log's entry {} is invalid", entry.sequence))
        })?;
    }
    Ok(Arc::new(overlay))
}

fn refused(reason: String) -> FormatError {
    FormatError::refused(
        "a VHDX that was not closed",
        format!("{reason}: attach and detach it once, or run `qemu-img check -r all`"),
    )
}

/// The log's bytes.
struct Ring {
    bytes: Vec<u8>,
    id: Guid,
    /// Bytes that may still be summed up.
    budget: usize,
}

impl Ring {
    /// Whether nothing was logged yet: tables are written after the log, so they are as they were.
    fn is_unused(&self) -> bool {
        let mut sectors = self.bytes.chunks(SECTOR_BYTES);
        !sectors.any(|sector| sector.starts_with(b"loge") && sector[32..48] == self.id)
    }

    /// Section 2.3.3: of all runs of entries whose last one leads back into the run, the one that counts highest, from where
    /// that leads.
    fn active(&mut self) -> Vec<Entry> {
        let mut active: Vec<Entry> = vec![];
        let mut start = 0;
        while start < self.bytes.len() {
            let run = self.run_at(start);
            let Some(last) = run.last() else {
                start += SECTOR_BYTES;
                continue;
            };
            // Where it goes round the ring's end, everything was seen.
            let next = if last.at < start {
                self.bytes.len()
            } else {
                last.at + last.bytes.len()
            };
            let newest = active
                .last()
                .is_none_or(|best| last.sequence > best.sequence);
            if let Some(first) = run.iter().position(|entry| entry.at == last.tail)
                && newest
            {
                active = run.into_iter().skip(first).collect();
            }
            start = next;
        }
        active
    }

    /// Valid entries from `start` on, each where the one before it ends, and counting up.
    fn run_at(&mut self, start: usize) -> Vec<Entry> {
        let mut run: Vec<Entry> = vec![];
        let (mut at, mut rest) = (start, self.bytes.len());
        while rest > 0
            && let Some(entry) = self.entry_at(at, rest)
            && run
                .last()
                .is_none_or(|before| before.sequence.checked_add(1) == Some(entry.sequence))
        {
            at = (at + entry.bytes.len()) % self.bytes.len();
            rest -= entry.bytes.len();
            run.push(entry);
        }
        run
    }

    /// The entry at this offset, if there is a valid one of at most `rest` bytes.
    fn entry_at(&mut self, at: usize, rest: usize) -> Option<Entry> {
        let header = self.bytes.get(at..at + ENTRY_HEADER_BYTES)?;
        let fields = Fields(header);
        let len = fields.u32_le(8) as usize;
        let tail = fields.u32_le(12) as usize;
        let sequence = fields.u64_le(16);
        let descriptors = fields.u32_le(24) as usize;
        let sound = header.starts_with(b"loge")
            && (SECTOR_BYTES..=rest).contains(&len)
            && len.is_multiple_of(SECTOR_BYTES)
            && tail < self.bytes.len()
            && tail.is_multiple_of(SECTOR_BYTES)
            && sequence > 0
            && descriptors <= (len - ENTRY_HEADER_BYTES) / DESCRIPTOR_BYTES
            && *fields.bytes::<16>(32) == self.id;
        if !sound {
            return None;
        }
        self.budget = self.budget.checked_sub(len)?;
        let before_end = len.min(self.bytes.len() - at);
        let (below, above) = (
            &self.bytes[at..][..before_end],
            &self.bytes[..len - before_end],
        );
        let bytes = [below, above].concat();
        sum_is_right(&bytes).then_some(Entry {
            at,
            tail,
            sequence,
            bytes,
        })
    }
}

/// Lays what an entry holds over the source; `None` if it contradicts itself.
fn apply(entry: &Entry, overlay: &mut Overlay) -> Option<()> {
    let count = Fields(&entry.bytes).u32_le(24) as usize;
    let descriptors = &entry.bytes[ENTRY_HEADER_BYTES..][..count * DESCRIPTOR_BYTES];
    // Data begins in the sector behind the descriptors.
    let data_at = (ENTRY_HEADER_BYTES + descriptors.len()).next_multiple_of(SECTOR_BYTES);
    let mut sectors = entry.bytes.get(data_at..)?.chunks(SECTOR_BYTES);
    for descriptor in descriptors.as_chunks::<DESCRIPTOR_BYTES>().0 {
        let fields = Fields(descriptor);
        let at = fields.u64_le(16);
        if fields.u64_le(24) != entry.sequence || !at.is_multiple_of(SECTOR) {
            return None;
        }
        match fields.bytes::<4>(0) {
            b"zero" => {
                let len = fields.u64_le(8);
                let end = at.checked_add(len)?;
                if !len.is_multiple_of(SECTOR) {
                    return None;
                }
                overlay.zero(at, end)?;
            }
            b"desc" => {
                let mut sector: [u8; SECTOR_BYTES] = sectors.next()?.try_into().ok()?;
                // Section 2.3.1.4: both halves of the sequence number must have been written with it.
                let number = u64::from(Fields(&sector).u32_le(4)) << 32
                    | u64::from(Fields(&sector).u32_le(SECTOR_BYTES - 4));
                if !sector.starts_with(b"data") || number != entry.sequence {
                    return None;
                }
                // What stood in their place is in the descriptor.
                sector[..8].copy_from_slice(fields.bytes::<8>(8));
                sector[SECTOR_BYTES - 4..].copy_from_slice(fields.bytes::<4>(4));
                overlay.write(at, Box::new(sector))?;
            }
            _ => return None,
        }
    }
    Some(())
}
