//! Bytes that come over a network and are kept as they are received, so that another process can go on.
//!
//! Two files: one has the bytes, each where it belongs; the other, called the same and `.segments`, the BLAKE3 of each whole segment
//! of them, zeros for one that is not there. Nothing is synced: what is there later is checked, and received again where it is not
//! as noted.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use bytes::Bytes;

use crate::{push::SpoolError, source::Remote};

/// Bytes under one hash: no more is lost of what was on its way on one connection.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Bytes that are received at a time where there is one stream only.
const CHUNK_BYTES: usize = 256 << 10;

/// What happens when there is no room for what is received.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Limit {
    /// More than so many bytes, or a file that cannot be written, is an error: the file is wanted itself.
    Fail(u64),
    /// Then nothing is kept: a later try begins at the start.
    Forget(u64),
}

/// Bytes and where they belong; `None` if all that was asked for has come.
pub type Feed = Box<dyn FnMut() -> io::Result<Option<(u64, Bytes)>> + Send>;

/// Where bytes are received from.
pub trait Supply: Send {
    /// All bytes from `start` on, in order.
    fn stream(&self, start: u64) -> io::Result<Box<dyn Read + Send>>;

    /// The bytes of these ranges, in any order, but in order within each of our segments.
    fn parts(&self, ranges: Vec<Range<u64>>) -> io::Result<Feed> {
        let mut streams = vec![];
        for range in ranges.into_iter().rev() {
            let len = range.end - range.start;
            streams.push((range.start, self.stream(range.start)?.take(len)));
        }
        Ok(Box::new(move || {
            while let Some((at, stream)) = streams.last_mut() {
                let mut chunk = vec![0; CHUNK_BYTES];
                let len = stream.read(&mut chunk)?;
                if len > 0 {
                    chunk.truncate(len);
                    *at += len as u64;
                    return Ok(Some((*at - len as u64, chunk.into())));
                }
                if stream.limit() > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                streams.pop();
            }
            Ok(None)
        }))
    }
}

impl Supply for Arc<Remote> {
    fn stream(&self, start: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Remote::stream(self, start, blake3::Hasher::new())))
    }

    fn parts(&self, ranges: Vec<Range<u64>>) -> io::Result<Feed> {
        let mut parts = Remote::parts(self, ranges);
        Ok(Box::new(move || parts.receive()))
    }
}

/// What is sent, after what was sent before, in order. Read to its end, the file is whole.
///
/// A thread of its own receives and keeps, as fast as bytes come: what waits in sockets would be lost.
pub struct Received {
    supply: Box<dyn Supply>,
    total: u64,
    /// Bytes that were given.
    given: u64,
    /// Whether it need not be kept.
    forget: bool,
    way: Way,
}

enum Way {
    /// By way of the file.
    Kept(Arc<Kept>),
    /// Nothing is kept.
    Plain(Box<dyn Read + Send>),
}

struct Kept {
    bytes: File,
    segments: File,
    total: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Which segments are there.
    have: Vec<bool>,
    /// Whether something receives what is not.
    receiving: bool,
    /// Why no more will come.
    end: Option<End>,
    /// Nobody wants it any more.
    over: bool,
}

enum End {
    /// The source failed, or gave less than it should.
    Failed(io::Error),
    /// It cannot be kept.
    Full(io::Error),
}

impl Received {
    /// Goes on with what is at `path`, which is of the same version of `total` bytes.
    pub fn open(
        supply: impl Supply + 'static,
        path: &Path,
        total: u64,
        limit: Limit,
    ) -> io::Result<Self> {
        let supply: Box<dyn Supply> = Box::new(supply);
        let way = match limit {
            Limit::Fail(bytes_max) if total > bytes_max => {
                return Err(SpoolError::Full(bytes_max).into());
            }
            Limit::Forget(bytes_max) if total > bytes_max => Way::Plain(supply.stream(0)?),
            _ => Way::Kept(Arc::new(Kept::open(path, total)?)),
        };
        Ok(Self {
            supply,
            total,
            given: 0,
            forget: matches!(limit, Limit::Forget(_)),
            way,
        })
    }

    /// Waits until the segment that holds the next byte is there. False if it cannot be kept, and need not be.
    fn wait(&self, kept: &Arc<Kept>) -> io::Result<bool> {
        let mut state = kept.lock();
        loop {
            if state.have[(self.given / SEGMENT_BYTES) as usize] {
                return Ok(true);
            }
            match state.end.take() {
                Some(End::Full(_)) if self.forget => return Ok(false),
                Some(End::Full(error) | End::Failed(error)) => return Err(error),
                None => {}
            }
            if !state.receiving {
                state.receiving = true;
                let feed = self.supply.parts(missing(&state.have, self.total))?;
                let kept = kept.clone();
                thread::spawn(move || kept.receive(feed));
            }
            state = kept
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Kept {
    fn open(path: &Path, total: u64) -> io::Result<Self> {
        let open = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path)
        };
        let mut noted = path.as_os_str().to_owned();
        noted.push(".segments");
        let (bytes, segments) = (open(path)?, open(noted.as_ref())?);
        bytes.set_len(total)?;
        segments.set_len(32 * total.div_ceil(SEGMENT_BYTES))?;
        let state = State {
            have: sound(&bytes, &segments, total)?,
            ..State::default()
        };
        Ok(Self {
            bytes,
            segments,
            total,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is of one field.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps all that comes, until nobody wants it any more.
    fn receive(&self, mut feed: Feed) {
        // Segments that are coming: how many bytes of them are there, and their hash so far.
        let mut coming = HashMap::new();
        let end = loop {
            match feed() {
                Ok(Some((at, bytes))) => match self.keep(at, &bytes, &mut coming) {
                    Ok(()) if self.lock().over => return,
                    Ok(()) => {}
                    Err(error) => break End::Full(error),
                },
                Ok(None) => break End::Failed(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => break End::Failed(error),
            }
        };
        let mut state = self.lock();
        state.end = Some(end);
        state.receiving = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Writes bytes where they belong, and notes the segments that they make whole.
    fn keep(
        &self,
        mut at: u64,
        mut bytes: &[u8],
        coming: &mut HashMap<u64, (u64, blake3::Hasher)>,
    ) -> io::Result<()> {
        self.bytes.write_all_at(bytes, at)?;
        while !bytes.is_empty() {
            let number = at / SEGMENT_BYTES;
            let end = self.total.min((number + 1) * SEGMENT_BYTES);
            let (part, behind) = bytes.split_at((end - at).min(bytes.len() as u64) as usize);
            let (filled, hash) = coming.entry(number).or_default();
            *filled += part.len() as u64;
            hash.update(part);
            at += part.len() as u64;
            bytes = behind;
            if number * SEGMENT_BYTES + *filled == end {
                let hash = *hash.finalize().as_bytes();
                self.segments.write_all_at(&hash, 32 * number)?;
                coming.remove(&number);
                self.lock().have[number as usize] = true;
                self.changed.notify_all();
            }
        }
        Ok(())
    }
}

/// Segments that are as noted.
fn sound(bytes: &File, segments: &File, total: u64) -> io::Result<Vec<bool>> {
    let mut notes = BufReader::new(segments);
    let mut segment = vec![0; SEGMENT_BYTES as usize];
    let mut noted = [0; 32];
    let mut have = vec![];
    for at in (0..total).step_by(SEGMENT_BYTES as usize) {
        notes.read_exact(&mut noted)?;
        let segment = &mut segment[..(total - at).min(SEGMENT_BYTES) as usize];
        let sound = noted != [0; 32] && {
            bytes.read_exact_at(segment, at)?;
            *blake3::hash(segment).as_bytes() == noted
        };
        have.push(sound);
    }
    Ok(have)
}

/// What is not there.
fn missing(have: &[bool], total: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = vec![];
    for (have, start) in have.iter().zip((0..).step_by(SEGMENT_BYTES as usize)) {
        let end = total.min(start + SEGMENT_BYTES);
        match ranges.last_mut() {
            _ if *have => {}
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

impl Read for Received {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || self.given == self.total {
            return Ok(0);
        }
        if let Way::Kept(kept) = &self.way {
            if self.wait(kept)? {
                let end = (self.given / SEGMENT_BYTES + 1) * SEGMENT_BYTES;
                let len = (end.min(self.total) - self.given).min(buf.len() as u64) as usize;
                kept.bytes.read_exact_at(&mut buf[..len], self.given)?;
                self.given += len as u64;
                return Ok(len);
            }
            kept.segments.set_len(0)?;
            kept.bytes.set_len(0)?;
            self.way = Way::Plain(self.supply.stream(self.given)?);
        }
        let Way::Plain(stream) = &mut self.way else {
            return Ok(0);
        };
        let len = stream.read(buf)?;
        self.given += len as u64;
        Ok(len)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Way::Kept(kept) = &self.way {
            kept.lock().over = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 5_000_000;

    fn content() -> Vec<u8> {
        (0..LEN as u32).map(|i| (i / 251) as u8).collect()
    }

    /// Notes what it was asked for, and stops after some bytes. Parts come interleaved if it is asked for several.
    struct Site {
        asked: Arc<Mutex<Vec<Range<u64>>>>,
        gives: u64,
    }

    impl Supply for Site {
        fn stream(&self, start: u64) -> io::Result<Box<dyn Read + Send>> {
            let rest = content().split_off(start as usize);
            Ok(Box::new(io::Cursor::new(rest).take(self.gives)))
        }

        fn parts(&self, ranges: Vec<Range<u64>>) -> io::Result<Feed> {
            self.asked.lock().unwrap().extend(ranges.clone());
            let step = 2 * SEGMENT_BYTES;
            let mut parts: Vec<_> = ranges
                .into_iter()
                .flat_map(|range| {
                    let starts = range.clone().step_by(step as usize);
                    starts.map(move |start| start..range.end.min(start + step))
                })
                .collect();
            let (content, mut left) = (content(), self.gives);
            Ok(Box::new(move || {
                parts.retain(|part| !part.is_empty());
                let Some(part) = parts
                    .iter_mut()
                    .rev()
                    .max_by_key(|part| part.end - part.start)
                else {
                    return Ok(None);
                };
                let end = part.end.min(part.start + 100_000);
                if left < end - part.start {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                left -= end - part.start;
                let bytes = content[part.start as usize..end as usize].to_vec();
                let at = std::mem::replace(&mut part.start, end);
                Ok(Some((at, bytes.into())))
            }))
        }
    }

    /// Reads as much as there is; how much that was, and how many bytes were asked for.
    fn read(path: &Path, gives: u64, limit: Limit) -> (u64, u64) {
        let asked = Arc::<Mutex<Vec<Range<u64>>>>::default();
        let site = Site {
            asked: asked.clone(),
            gives,
        };
        let mut found = vec![];
        let result = Received::open(site, path, LEN, limit)
            .unwrap()
            .read_to_end(&mut found);
        assert_eq!(result.is_ok(), found.len() as u64 == LEN);
        assert!(found == content()[..found.len()]);
        let asked = asked.lock().unwrap();
        let asked = asked.iter().map(|range| range.end - range.start).sum();
        (found.len() as u64, asked)
    }

    #[test]
    fn whole_segments_are_not_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("received");
        let all = Limit::Fail(u64::MAX);
        let (_, asked) = read(&path, 4_000_000, all);
        assert_eq!(asked, LEN);
        let (found, asked) = read(&path, LEN, all);
        // Three parts were on their way.
        assert!(found == LEN && asked < LEN / 2 + SEGMENT_BYTES, "{asked}");
        assert_eq!(read(&path, 0, all), (LEN, 0));
        // Damage costs one segment.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1_500_000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path, LEN, all), (LEN, SEGMENT_BYTES));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("received");
        assert_eq!(read(&path, LEN, Limit::Forget(LEN - 1)), (LEN, 0));
        assert!(!path.exists());
        let site = Site {
            asked: Arc::default(),
            gives: LEN,
        };
        assert!(Received::open(site, &path, LEN, Limit::Fail(LEN - 1)).is_err());
    }

    /// Layers come in one stream, by way of the default.
    #[test]
    fn one_stream_goes_on() {
        struct Layer(u64);
        impl Supply for Layer {
            fn stream(&self, start: u64) -> io::Result<Box<dyn Read + Send>> {
                assert!(start >= self.0, "{start}");
                Ok(Box::new(io::Cursor::new(
                    content().split_off(start as usize),
                )))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        let open = |from| Received::open(Layer(from), &path, LEN, Limit::Forget(LEN)).unwrap();
        let mut part = vec![0; 2_500_000];
        open(0).read_exact(&mut part).unwrap();
        let mut all = vec![];
        open(2 << 20).read_to_end(&mut all).unwrap();
        assert!(all == content());
    }
}
