//! The threads of a populate.

use std::{
    io::{self, Read},
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
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

/// How a populate runs.
#[derive(Copy, Clone, Debug)]
pub struct Options<'a> {
    /// Threads that read, decode and write; at least 1.
    pub threads: usize,
    /// What earlier runs wrote, and where this one notes what it did.
    pub state: Option<&'a State>,
    /// Set by whoever wants it to stop.
    pub cancel: &'a AtomicBool,
}

impl<'a> Options<'a> {
    /// The usual number of threads, no state.
    pub fn new(cancel: &'a AtomicBool) -> Self {
        Self {
            threads: THREADS,
            state: None,
            cancel,
        }
    }
}

/// Something for one thread to do.
enum Job {
    Window(Window),
    /// What came in a stream: a window from `offset` on, as much of it as is filled.
    Bytes {
        offset: u64,
        len: usize,
        buf: AlignedBuf,
    },
}

/// Writes a disk, and zeros behind it up to the target's end. What an earlier run wrote is read back instead.
pub fn populate(
    image: &DiskImage,
    target: &dyn Target,
    options: Options<'_>,
    progress: &Progress,
) -> Result<(), PopulateError> {
    // A first look at all tables: a broken image is found before anything is written.
    let mut data = 0;
    for extent in image.extents() {
        let extent = extent?;
        if extent.kind == ExtentKind::Data {
            data += extent.len;
        }
    }
    progress.expect(data);
    let run = Run::new(Some(image), target, options, progress);
    run.all(|jobs| {
        for window in Windows::new(image) {
            if !jobs.send(Job::Window(window?)) {
                return Ok(());
            }
        }
        let len = image.virtual_len();
        jobs.zeros(len..target.guest_len().unwrap_or(len));
        Ok(())
    })?;
    finish(target, image.virtual_len())
}

/// Writes a disk as it comes, and zeros behind it. What an earlier run wrote is not written again. Its length, in bytes.
pub fn populate_stream(
    mut stream: DiskStream,
    target: &dyn Target,
    options: Options<'_>,
    progress: &Progress,
) -> Result<u64, PopulateError> {
    progress.expect(stream.virtual_len().unwrap_or(0));
    let mut len = 0;
    let run = Run::new(None, target, options, progress);
    run.all(|jobs| {
        loop {
            let mut buf = jobs.buffer();
            let filled = fill(&mut stream, &mut buf).map_err(PopulateError::Stream)?;
            let room = target.guest_len().unwrap_or(u64::MAX);
            if len + filled as u64 > room {
                return Err(PopulateError::TooSmall(room));
            }
            let job = Job::Bytes {
                offset: len,
                len: filled,
                buf,
            };
            len += filled as u64;
            if filled == 0 || !jobs.send(job) {
                break;
            }
        }
        jobs.zeros(len..target.guest_len().unwrap_or(len));
        Ok(())
    })?;
    // Everything was compared, or this is where it turns out to be wrong.
    stream.finish().map_err(PopulateError::Stream)?;
    if len == 0 {
        let nothing = io::Error::new(io::ErrorKind::InvalidData, "the disk has no bytes");
        return Err(PopulateError::Stream(nothing));
    }
    finish(target, len)?;
    Ok(len)
}

/// Makes a disk of zeros, as long as the target.
pub fn populate_blank(
    target: &dyn Target,
    options: Options<'_>,
    progress: &Progress,
) -> Result<(), PopulateError> {
    let len = target.guest_len().unwrap_or(SECTOR_BYTES);
    let run = Run::new(None, target, options, progress);
    run.all(|jobs| {
        jobs.zeros(0..len);
        Ok(())
    })?;
    finish(target, len)
}

fn finish(target: &dyn Target, len: u64) -> Result<(), PopulateError> {
    target.finish(len).map_err(PopulateError::Sync)
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
    /// Buffers of streams that were written.
    spare: Mutex<Vec<AlignedBuf>>,
}

/// Where jobs are handed out.
struct Jobs<'a> {
    run: &'a Run<'a>,
    sender: SyncSender<Job>,
}

impl Jobs<'_> {
    /// False if there is no use in more.
    fn send(&self, job: Job) -> bool {
        !self.run.stops() && self.sender.send(job).is_ok()
    }

    /// Zeros in parts, so that somebody can stop it.
    fn zeros(&self, range: Range<u64>) {
        const PART_BYTES: u64 = 1 << 30;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PART_BYTES);
            if !self.send(Job::Window(Window::Zero(at..end))) {
                return;
            }
            at = end;
        }
    }

    fn buffer(&self) -> AlignedBuf {
        let spare = self.run.spare.lock().ok().and_then(|mut spare| spare.pop());
        spare.unwrap_or_else(|| AlignedBuf::new(WINDOW_BYTES as usize))
    }
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
            spare: Mutex::new(vec![]),
        }
    }

    /// Does all jobs that `produce` hands out. What was done is durable afterwards and in the state, errors or not.
    fn all(
        &self,
        produce: impl FnOnce(&Jobs<'_>) -> Result<(), PopulateError> + Send,
    ) -> Result<(), PopulateError> {
        let threads = self.options.threads.max(1);
        let (sender, jobs) = sync_channel(threads);
        let (done_sender, done) = sync_channel(threads);
        let jobs = Mutex::new(jobs);
        thread::scope(|scope| {
            for _ in 0..threads {
                let done = done_sender.clone();
                let jobs = &jobs;
                scope.spawn(move || self.work(jobs, &done));
            }
            drop(done_sender);
            scope.spawn(move || {
                let jobs = Jobs { run: self, sender };
                if let Err(error) = produce(&jobs) {
                    self.stop(error);
                }
            });
            self.checkpoints(done);
        });
        if self.options.cancel.load(Ordering::Relaxed) {
            self.stop(PopulateError::Cancelled);
        }
        match self.error.lock() {
            Ok(mut error) => error.take().map_or(Ok(()), Err),
            Err(_) => Err(PopulateError::Stream(io::Error::other("a thread panicked"))),
        }
    }

    fn stops(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.options.cancel.load(Ordering::Relaxed)
    }

    /// The first error is the one that counts.
    fn stop(&self, error: PopulateError) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Ok(mut first) = self.error.lock() {
            first.get_or_insert(error);
        }
    }

    /// Takes jobs until there are no more. After an error the rest is taken and dropped, so that nobody waits.
    fn work(&self, jobs: &Mutex<Receiver<Job>>, done: &SyncSender<u64>) {
        let mut buf = AlignedBuf::new(WINDOW_BYTES as usize);
        loop {
            let Ok(Ok(job)) = jobs.lock().map(|jobs| jobs.recv()) else {
                return;
            };
            if self.stops() {
                continue;
            }
            let result = match job {
                Job::Window(window) => self.window(&window, &mut buf),
                Job::Bytes {
                    offset,
                    len,
                    buf: bytes,
                } => {
                    let result = self.bytes(offset, &bytes[..len], &mut buf);
                    if let Ok(mut spare) = self.spare.lock() {
                        spare.push(bytes);
                    }
                    result
                }
            };
            match result.and_then(|written| self.note(written)) {
                Ok(0) => {}
                // Nobody listens any more after a failed sync.
                Ok(bytes) => drop(done.send(bytes)),
                Err(error) => self.stop(error),
            }
        }
    }

    /// Writes what came in a stream. `None` if there is nothing to note, because it was in place.
    fn bytes(
        &self,
        offset: u64,
        bytes: &[u8],
        buf: &mut AlignedBuf,
    ) -> Result<Option<Written>, PopulateError> {
        let len = bytes.len() as u64;
        let written = self.written(offset, bytes);
        let known = self.known(offset, len) == Some(written.hash);
        if known && self.is_in_place(&written, &mut buf[..bytes.len()]) {
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
    fn window(
        &self,
        window: &Window,
        buf: &mut AlignedBuf,
    ) -> Result<Option<Written>, PopulateError> {
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

    /// Notes what was written, at once: a sync may take seconds. A note that the power spares while it takes what was written does no
    /// harm: nothing is left out of the next run before it was read back. Returns how many bytes were written.
    fn note(&self, written: Option<Written>) -> Result<u64, PopulateError> {
        let Some(written) = written else { return Ok(0) };
        if let Some(state) = self.options.state {
            state.append(written).map_err(PopulateError::State)?;
        }
        Ok(written.len)
    }

    /// Makes what was written durable every now and then.
    fn checkpoints(&self, done: Receiver<u64>) {
        let mut bytes = 0;
        for written in done {
            bytes += written;
            if bytes >= CHECKPOINT_BYTES {
                bytes = 0;
                if let Err(error) = self.target.sync() {
                    // A second sync might succeed, and would mean nothing.
                    return self.stop(PopulateError::Sync(error));
                }
            }
        }
        if let Err(error) = self.target.sync() {
            self.stop(PopulateError::Sync(error));
        }
    }
}
