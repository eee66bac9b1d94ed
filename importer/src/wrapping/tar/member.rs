//! A disk where it lies, in an archive that can be read at random.

use std::sync::{Arc, atomic::Ordering};

use super::{disk::Search, entries::Entries};
use crate::{
    source::{ReadAt, Reader, Slice},
    wrapping::{
        Wrapping, WrappingError,
        bounds::{Counter, Source},
    },
};

/// The file of the name that is `wanted`, or the one disk of an archive; `None` if it has holes, which only a stream can fill.
pub fn member(
    archive: &Arc<dyn ReadAt>,
    wanted: Option<&str>,
) -> Result<Option<Slice<Arc<dyn ReadAt>>>, WrappingError> {
    let broken = || WrappingError::broken(Wrapping::Tar, "it ends early");
    let mut search = Search::new(wanted);
    // Offset and length, if it has no holes.
    let mut chosen: Option<Option<(u64, u64)>> = None;
    let mut at = 0;
    while chosen.is_none() || search.goes_on() && at < archive.len() {
        // From here on, without reading what is passed over.
        let count = Counter::default();
        let mut entries = Entries::new(Source {
            inner: Reader::starting_at(archive.clone(), at),
            count: count.clone(),
        });
        if chosen.is_some() {
            entries.may_end();
        }
        let Some(found) = search.next(&mut entries)? else {
            break;
        };
        at += count.load(Ordering::Relaxed);
        if chosen.is_none() {
            search.choose(&found);
            let start = at - found.head.len() as u64;
            chosen = Some(entries.is_plain().then_some((start, found.len)));
        } else {
            search.compare(found);
        }
        let (content, padding) = entries.rest();
        at = at
            .checked_add(content)
            .filter(|at| *at <= archive.len())
            .ok_or_else(broken)?;
        at = at.saturating_add(padding);
    }
    let chosen = chosen.ok_or_else(|| search.absent())?;
    search.check()?;
    let Some((start, len)) = chosen else {
        return Ok(None);
    };
    Slice::new(archive.clone(), start, len)
        .ok_or_else(broken)
        .map(Some)
}
