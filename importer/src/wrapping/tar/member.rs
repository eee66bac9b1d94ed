//! A disk where it lies, in an archive that can be read at random.

use std::sync::{Arc, atomic::Ordering};

use super::Disk;
use crate::{
    source::{ReadAt, Reader, Slice},
    wrapping::{
        Wrapping, WrappingError,
        bounds::{Counter, Source},
    },
};

/// The first disk of an archive; `None` if it has holes, which only a stream can fill.
pub fn member(archive: &Arc<dyn ReadAt>) -> Result<Option<Slice<Arc<dyn ReadAt>>>, WrappingError> {
    let count = Counter::default();
    let disk = Disk::find(Source {
        inner: Reader::new(archive.clone()),
        count: count.clone(),
    })?;
    let Some((start, len)) = disk.place(count.load(Ordering::Relaxed)) else {
        return Ok(None);
    };
    let broken = || WrappingError::broken(Wrapping::Tar, "it ends early");
    Slice::new(archive.clone(), start, len)
        .ok_or_else(broken)
        .map(Some)
}
