//! The threads of a populate.

use std::{
    array,
    io::{self, Read},
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{
    PopulateError, Progress, State,
    pages::parts,
    state::Written,
    windows::{WINDOW_BYTES, Window, Windows},
};
use crate::{
    format::{DiskImage, ExtentKind, limits::SECTOR_BYTES},
    image::DiskStream,
    target::{AlignedBuf, Target},
};

/// Bytes that are written between two syncs, at least: so much dirty memory there is at most, beside what is on its way, and so much
/// may be lost if the power fails.
const CHECKPOINT_BYTES: u64 = 128 << 20;

/// Threads if nobody says. Each has a window of 512 KiB, which a kill loses, and waits for a network most of the time: at 10 ms for
/// an answer these bring 200 MB/s.
const THREADS: usize = 4;

/// Buffers of a thread, used in turn. On a virtual machine the host's threads read what is written past the page cache, and to fill a
/// buffer that another processor has just read is slow: with one buffer for each thread, decoding took up to 2.5 times as long
/// (populate of 2 GiB of data, 2 virtual processors, 2026-11-21).
const BUFFERS: usize = 4;

/// Longest stretch of zeros that is written at once, so that somebody can stop it.
const ZEROS_BYTES: u64 = 1 << 30;

/// How a populate runs.
#[derive(Copy, Clone, Debug)]
pub struct Options<'a> {
    /// Threads that read, decode and write; at least 1.
    pub threads: usize,
    /// What earlier runs wrote, and where this one notes what it did.
    pub state: Option<&'a State>,
    /// What [`data_bytes`] gave, if somebody has called it: the tables are not read again.
    pub data_bytes: Option<u64>,
    /// Set by whoever wants it to stop.
    pub cancel: &'a AtomicBool,
}

impl<'a> Options<'a> {
    /// The usual number of threads, no state.
    pub fn new(cancel: &'a AtomicBool) -> Self {
        Self {
            threads: THREADS,
            state: None,
            data_bytes: None,
            cancel,
        }
    }
}

/// Something for one thread to do.
enum Job {
    Window(Window),
    /// A window from `offset` on that came in a stream, as long as `len`, and is in the buffer of whoever took the job.
    Filled {
        offset: u64,
        len: usize,
    },
}

/// Bytes of data in a disk. A look at all tables of its image: whoever opens the target after it knows that they are sound.
pub fn data_bytes(image: &DiskImage) -> Result<u64, PopulateError> {
    let mut data = 0;
    for extent in image.extents() {
        let extent = extent?;
        if extent.kind == ExtentKind::Data {
            data += extent.len;
        }
    }
    Ok(data)
}

/// Writes a disk, and zeros behind it up to the target's end. What an earlier run wrote is read back instead. Returns the length that a
/// guest sees, in bytes.
pub fn populate(
    image: &DiskImage,
    target: &dyn Target,
    options: Options<'_>,
    progress: &Progress,
) -> Result<u64, PopulateError> {
    let data = match options.data_bytes {
        Some(data) => data,
        None => data_bytes(image)?,
    };
    progress.expect(data);
    let len = image.virtual_len();
    let mut windows = Windows::new(image).chain(zeros(target, len).map(Ok));
    let run = Run::new(Some(image), target, options, progress);
    run.all(|_| Ok(windows.next().transpose()?.map(Job::Window)))?;
    run.finish(len)
}

/// Writes a disk as it comes, and zeros behind it. What an earlier run wrote is not written again. Returns the length that a guest sees.
pub fn populate_stream(
    mut stream: DiskStream,
    target: &dyn Target,
    options: Options<'_>,
    progress: &Progress,
) -> Result<u64, PopulateError> {
    progress.expect(stream.virtual_len().unwrap_or(0));
    let room = target.room();
    let mut len = 0;
    let mut behind = None;
    let run = Run::new(None, target, options, progress);
    run.all(|buf| {
        if behind.is_none() {
            let filled = fill(&mut stream, buf).map_err(PopulateError::Stream)?;
            let offset = len;
            len += filled as u64;
            if len > room {
                return Err(PopulateError::TooSmall(room));
            }
            if filled > 0 {
                return Ok(Some(Job::Filled {
                    offset,
                    len: filled,
                }));
            }
        }
        let zeros = behind.get_or_insert_with(|| zeros(target, len));
        Ok(zeros.next().map(Job::Window))
    })?;
    // Everything was compared, or this is where it turns out to be wrong.
    stream.finish().map_err(PopulateError::Stream)?;
    if len == 0 {
        let nothing = io::Error::new(io::ErrorKind::InvalidData, "the disk has no bytes");
        return Err(PopulateError::Stream(nothing));
    }
    run.finish(len)
}

/// Makes a disk of zeros, as long as the target. Returns its length.
pub fn populate_blank(
    target: &dyn Target,
    options: Options<'_>,
    progress: &Progress,
) -> Result<u64, PopulateError> {
    let len = target.guest_len().unwrap_or(SECTOR_BYTES);
    let mut windows = stretches(0..len);
    let run = Run::new(None, target, options, progress);
    run.all(|_| Ok(windows.next().map(Job::Window)))?;
    run.finish(len)
}

/// Zeros from `start` up to the target's end, if it has one.
fn zeros(target: &dyn Target, start: u64) -> impl Iterator<Item = Window> + Send + use<> {
    stretches(start..target.guest_len().unwrap_or(start))
}

fn stretches(range: Range<u64>) -> impl Iterator<Item = Window> + Send {
    let starts = range.clone().step_by(ZEROS_BYTES as usize);
    starts.map(move |start| Window::Zero(start..range.end.min(start + ZEROS_BYTES)))
}

/// Reads until `buf` is full or the stream ends.
pub(crate) fn fill(stream: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match stream.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// One populate while it runs.
struct Run<'a> {
    image: Option<&'a DiskImage>,
    target: &'a dyn Target,
    options: Options<'a>,
    progress: &'a Progress,
    /// Why it has to stop, once it has to.
    error: Mutex<Option<PopulateError>>,
    stopped: AtomicBool,
    /// Bytes that were written and may not be durable. Locked during a sync, so that no more become that.
    dirty_bytes: Mutex<u64>,
}

impl<'a> Run<'a> {
    fn new(
        image: Option<&'a DiskImage>,
        target: &'a dyn Target,
        options: Options<'a>,
        progress: &'a Progress,
    ) -> Self {
        Self {
            image,
            target,
            options,
            progress,
            error: Mutex::new(None),
            stopped: AtomicBool::new(false),
            dirty_bytes: Mutex::new(0),
        }
    }

    /// Does all jobs that `next` gives; what comes in a stream it puts into the buffer. What was done is durable afterwards and in the
    /// state, errors or not.
    fn all(
        &self,
        next: impl FnMut(&mut [u8]) -> Result<Option<Job>, PopulateError> + Send,
    ) -> Result<(), PopulateError> {
        let next = Mutex::new(next);
        thread::scope(|scope| {
            for _ in 0..self.options.threads.max(1) {
                scope.spawn(|| {
                    if let Err(error) = self.work(&next) {
                        self.stop(error);
                    }
                });
            }
        });
        if self.options.cancel.load(Ordering::Relaxed) {
            self.stop(PopulateError::Cancelled);
        }
        if let Err(error) = self.sync() {
            self.stop(error);
        }
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.take().map_or(Ok(()), Err)
    }

    fn stops(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.options.cancel.load(Ordering::Relaxed)
    }

    /// The first error is the one that counts.
    fn stop(&self, error: PopulateError) {
        self.stopped.store(true, Ordering::Relaxed);
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
    }

    /// One thread: takes jobs until there are no more, or somebody stops.
    fn work(
        &self,
        next: &Mutex<impl FnMut(&mut [u8]) -> Result<Option<Job>, PopulateError>>,
    ) -> Result<(), PopulateError> {
        let mut bufs: [_; BUFFERS] = array::from_fn(|_| AlignedBuf::new(WINDOW_BYTES as usize));
        loop {
            bufs.rotate_left(1);
            let [buf, spare, ..] = &mut bufs;
            let job = {
                // Another thread panicked: so will this one's scope.
                let Ok(mut next) = next.lock() else {
                    return Ok(());
                };
                if self.stops() {
                    return Ok(());
                }
                match next(buf) {
                    Ok(Some(job)) => job,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        // While nobody else can ask: a source that failed would give an end instead of its error.
                        self.stop(error);
                        return Ok(());
                    }
                }
            };
            let written = match job {
                Job::Window(window) => self.window(&window, buf)?,
                Job::Filled { offset, len } => self.filled(offset, &buf[..len], spare)?,
            };
            if let Some(written) = written {
                self.note(written)?;
            }
        }
    }

    /// Writes what came in a stream. `None` if there is nothing to note, because it was in place.
    fn filled(
        &self,
        offset: u64,
        bytes: &[u8],
        spare: &mut [u8],
    ) -> Result<Option<Written>, PopulateError> {
        let len = bytes.len() as u64;
        let written = self.written(offset, bytes);
        let known = self.known(offset, len) == Some(written.hash);
        if known && self.is_in_place(&written, &mut spare[..bytes.len()]) {
            self.progress.add_kept(len);
            self.progress.add_done(len);
            return Ok(None);
        }
        self.write(offset, bytes)?;
        self.progress.add_done(len);
        Ok(Some(written))
    }

    /// What an earlier run noted of a window.
    fn known(&self, offset: u64, len: u64) -> Option<u128> {
        let state = self.options.state?;
        state.window(offset, len)
    }

    /// Reads a window back. A target that cannot be read there is written anew.
    fn is_in_place(&self, written: &Written, buf: &mut [u8]) -> bool {
        self.target.read_at(written.offset, buf).is_ok()
            && Written::new(written.offset, buf) == *written
    }

    /// What there is to note of a window.
    fn written(&self, offset: u64, bytes: &[u8]) -> Written {
        match self.options.state {
            Some(_) => Written::new(offset, bytes),
            None => Written {
                offset,
                len: bytes.len() as u64,
                hash: 0,
            },
        }
    }

    /// Does one window. `None` if there is nothing to note: zeros, or what was in place.
    fn window(&self, window: &Window, buf: &mut [u8]) -> Result<Option<Written>, PopulateError> {
        let (range, data) = match window {
            Window::Zero(range) => {
                self.zero(range.start, range.end - range.start)?;
                return Ok(None);
            }
            Window::Data { range, data } => (range, data),
        };
        let Some(image) = self.image else {
            return Ok(None);
        };
        let offset = range.start;
        let len = range.end - range.start;
        let buf = &mut buf[..len as usize];
        let data_len: u64 = data.iter().map(|part| part.end - part.start).sum();
        if let Some(hash) = self.known(offset, len)
            && self.is_in_place(&Written { offset, len, hash }, buf)
        {
            self.progress.add_kept(data_len);
            self.progress.add_done(data_len);
            return Ok(None);
        }
        let mut at = offset;
        for part in data {
            buf[(at - offset) as usize..(part.start - offset) as usize].fill(0);
            let bytes = &mut buf[(part.start - offset) as usize..(part.end - offset) as usize];
            image.read_at(part.start, bytes)?;
            at = part.end;
        }
        buf[(at - offset) as usize..].fill(0);
        self.write(offset, buf)?;
        self.progress.add_done(data_len);
        Ok(Some(self.written(offset, buf)))
    }

    /// Writes a window: data as it is, zeros as holes.
    fn write(&self, offset: u64, window: &[u8]) -> Result<(), PopulateError> {
        for (range, zeros) in parts(window) {
            let at = offset + range.start as u64;
            if zeros {
                self.zero(at, range.len() as u64)?;
                continue;
            }
            let len = range.len() as u64;
            self.target
                .write_at(at, &window[range])
                .map_err(|source| PopulateError::Write { offset: at, source })?;
            self.progress.add_written(len);
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<(), PopulateError> {
        self.target
            .zero_at(offset, len)
            .map_err(|source| PopulateError::Write { offset, source })?;
        self.progress.add_zeroed(len);
        Ok(())
    }

    /// Notes a window that was written, at once: a sync may take seconds. A note that the power spares while it takes what was written
    /// does no harm: nothing is left out of the next run before it was read back. Makes everything durable now and then.
    fn note(&self, written: Written) -> Result<(), PopulateError> {
        if let Some(state) = self.options.state {
            state.append(written).map_err(PopulateError::State)?;
        }
        let mut dirty = self
            .dirty_bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *dirty += written.len;
        if *dirty >= CHECKPOINT_BYTES {
            self.sync()?;
            *dirty = 0;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), PopulateError> {
        self.target.sync().map_err(|error| self.not_durable(error))
    }

    fn finish(&self, len: u64) -> Result<u64, PopulateError> {
        let result = self.target.finish(len);
        result.map_err(|error| self.not_durable(error))
    }

    /// After a sync that failed, nobody knows what is durable: the page cache still gives what the device does not have, and another
    /// sync might succeed. So the next run must write everything again.
    fn not_durable(&self, error: io::Error) -> PopulateError {
        if let Some(state) = self.options.state {
            // Where that fails, too, the target is opened in a way that forgets the page cache.
            let _ = state.remove();
        }
        PopulateError::Sync(error)
    }
}
