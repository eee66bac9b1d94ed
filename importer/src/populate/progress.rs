//! How far a populate is, for whoever looks.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dvcr_core::oci::{Descriptor, Reference};

use crate::{
    image::{Document, Image, Repository},
    source::ReadAt,
};

/// Counters in bytes of the disk. They only grow.
#[derive(Default, Debug)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    written: AtomicU64,
    zeroed: AtomicU64,
    kept: AtomicU64,
    /// Of a source that is read from start to end: bytes read, and bytes in all, 0 if nobody knows.
    source_read: AtomicU64,
    source_len: AtomicU64,
}

impl Progress {
    /// Data that there is to move; 0 if that is not known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Data that was moved or found in place.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes that were written to the target.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that are zeros: left as holes, or made so.
    pub fn zeroed(&self) -> u64 {
        self.zeroed.load(Ordering::Relaxed)
    }

    /// Bytes that an earlier run had written.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// How far it is, 0 to 100: by the data of the disk, or by the bytes of the source where only its end tells how much data there
    /// is; 0 while neither is known.
    pub fn percent(&self) -> f64 {
        let (part, whole) = match (self.total(), self.done()) {
            // What goes to a temporary file first is not moved yet.
            (0, 0) => return 0.0,
            (0, _) => (
                self.source_read.load(Ordering::Relaxed),
                self.source_len.load(Ordering::Relaxed),
            ),
            (total, done) => (done, total),
        };
        match whole {
            0 => 0.0,
            whole => (100.0 * part as f64 / whole as f64).min(100.0),
        }
    }

    /// Counts what is read of a source of `len` bytes.
    pub fn watch<R>(self: &Arc<Self>, stream: R, len: Option<u64>) -> Watched<R> {
        self.source_read.store(0, Ordering::Relaxed);
        self.source_len.store(len.unwrap_or(0), Ordering::Relaxed);
        Watched {
            inner: stream,
            progress: self.clone(),
        }
    }

    /// Counts what is read of the layers of an image.
    #[must_use]
    pub fn watch_image(self: &Arc<Self>, image: Image) -> Image {
        let progress = self.clone();
        image.through(|inner| WatchedLayers { inner, progress })
    }

    pub(crate) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Data that was moved to where nothing is left out.
    pub(crate) fn moved(&self, bytes: u64) {
        self.add_done(bytes);
        self.add_written(bytes);
    }

    pub(super) fn add_done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_zeroed(&self, bytes: u64) {
        self.zeroed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A stream whose bytes are counted.
pub struct Watched<R> {
    inner: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        let read = &self.progress.source_read;
        read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

/// A repository the bytes of whose layers are counted, one layer at a time.
struct WatchedLayers {
    inner: Arc<dyn Repository>,
    progress: Arc<Progress>,
}

impl Repository for WatchedLayers {
    fn manifest(&self, reference: &Reference) -> io::Result<Document> {
        self.inner.manifest(reference)
    }

    fn blob(&self, blob: &Descriptor) -> io::Result<Arc<dyn ReadAt>> {
        self.inner.blob(blob)
    }

    fn stream_from(&self, blob: &Descriptor, start: u64) -> io::Result<Box<dyn Read + Send>> {
        let stream = self.inner.stream_from(blob, start)?;
        let len = blob.size.saturating_sub(start);
        Ok(Box::new(self.progress.watch(stream, Some(len))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_unknown_length_was_done_at_once() {
        let progress = Arc::new(Progress::default());
        let mut stream = progress.watch(&[0; 8][..], Some(8));
        stream.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(progress.percent(), 0.0, "nothing is written");
        progress.moved(1000);
        assert_eq!(progress.percent(), 25.0);
        io::copy(&mut stream, &mut io::sink()).unwrap();
        assert_eq!(progress.percent(), 100.0);
        let _ = progress.watch(&[0; 8][..], None);
        assert_eq!(progress.percent(), 0.0, "nobody knows");
        progress.expect(4000);
        assert_eq!(progress.percent(), 25.0);
    }
}
