//! Streams on their way in: counted, hashed, and looked at where they end.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::Progress;
use crate::{
    checksum::{Checksum, Hashing, Mismatch},
    source::{ReadAt, Stretch, retry::SourceError},
};

/// A source at hand: ends with [`SourceError::Stopped`] when it is told to, and counts what is read.
pub(super) struct Stoppable<T> {
    pub(super) inner: T,
    pub(super) stop: CancellationToken,
    pub(super) progress: Progress,
}

impl<T: ReadAt> ReadAt for Stoppable<T> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.stop.is_cancelled() {
            return Err(SourceError::Stopped.into());
        }
        self.progress.advance(buf.len() as u64);
        self.inner.read_at(offset, buf)
    }

    fn stretch_at(&self, offset: u64) -> io::Result<Stretch> {
        self.inner.stretch_at(offset)
    }
}

/// Hashes and counts everything that is read through it, until it is told to stop.
pub(super) struct Watched<R> {
    inner: R,
    watch: Watch,
    stop: CancellationToken,
    progress: Progress,
}

/// What a [`Watched`] has seen, for who gave it away.
#[derive(Clone)]
pub(super) struct Watch(Arc<Mutex<(Hashing, u64)>>);

impl Watch {
    pub(super) fn new(checksums: &[Checksum]) -> Self {
        Self(Arc::new(Mutex::new((Hashing::new(checksums), 0))))
    }

    /// Compares checksums; how many bytes there were. To be called once, at the end.
    pub(super) fn verify(&self) -> Result<u64, Mismatch> {
        let mut seen = self.lock();
        let hashing = std::mem::replace(&mut seen.0, Hashing::new(&[]));
        hashing.verify().map(|()| seen.1)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Hashing, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Watched<R> {
    pub(super) fn new(inner: R, watch: Watch, stop: CancellationToken, progress: Progress) -> Self {
        Self {
            inner,
            watch,
            stop,
            progress,
        }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(SourceError::Stopped.into());
        }
        let len = self.inner.read(buf)?;
        let mut seen = self.watch.lock();
        seen.0.update(&buf[..len]);
        seen.1 += len as u64;
        self.progress.reached(seen.1);
        Ok(len)
    }
}
