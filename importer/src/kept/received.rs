//! Bytes that come over a network and are kept as they are received, so that another process can go on.
//!
//! Two files: one has the bytes, the other, called the same and `.segments`, the BLAKE3 of each whole segment of them, one after
//! the other. Nothing is synced: what is there later is checked, and cut at the first segment that is not as noted.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use crate::{push::SpoolError, source::Remote};

/// Bytes under one hash: no more is lost of what was received.
const SEGMENT_BYTES: u64 = 1 << 20;

/// What happens when there is no room for what is received.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Limit {
    /// More than so many bytes, or a file that cannot be written, is an error: the file is wanted itself.
    Fail(u64),
    /// From then on nothing is kept: a later try begins at the start.
    Forget(u64),
}

/// Opens what is received, from a byte on.
pub type Reopen = Box<dyn FnMut(u64) -> io::Result<Box<dyn Read + Send>> + Send>;

/// What is sent, after what was sent before. Read to its end, the file is whole.
pub struct Received {
    reopen: Reopen,
    bytes: File,
    segments: File,
    /// Bytes that are there from an earlier try and were not given yet.
    replay: Option<BufReader<File>>,
    stream: Option<Box<dyn Read + Send>>,
    /// Bytes in the file.
    len: u64,
    /// Bytes that there are to receive, if that is known.
    total: Option<u64>,
    /// Of the segment that is not whole yet.
    hash: blake3::Hasher,
    limit: Limit,
    keeping: bool,
}

impl Received {
    /// Goes on with what is at `path`, which is of the same version of `total` bytes.
    pub fn open(reopen: Reopen, path: &Path, total: Option<u64>, limit: Limit) -> io::Result<Self> {
        let open = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path)
        };
        let mut noted = path.as_os_str().to_owned();
        noted.push(".segments");
        let (mut bytes, mut segments) = (open(path)?, open(noted.as_ref())?);
        let mut whole = sound(&bytes, &segments)?;
        let mut len = whole * SEGMENT_BYTES;
        if total.is_some_and(|total| len > total) {
            (whole, len) = (0, 0);
        }
        bytes.set_len(len)?;
        bytes.seek(SeekFrom::Start(len))?;
        segments.set_len(whole * 32)?;
        segments.seek(SeekFrom::Start(whole * 32))?;
        let replay = BufReader::with_capacity(1 << 20, File::open(path)?);
        Ok(Self {
            reopen,
            bytes,
            segments,
            replay: Some(replay),
            stream: None,
            len,
            total,
            hash: blake3::Hasher::new(),
            limit,
            keeping: true,
        })
    }

    /// A file on a server that knows ranges.
    pub fn of_remote(remote: Arc<Remote>, path: &Path, limit: Limit) -> io::Result<Self> {
        let total = remote.length();
        let reopen = move |start| {
            let stream = remote.stream(start, blake3::Hasher::new());
            Ok(Box::new(stream) as Box<dyn Read + Send>)
        };
        Self::open(Box::new(reopen), path, total, limit)
    }

    /// Takes in what came.
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let start = self.len;
        self.len += bytes.len() as u64;
        if !self.keeping {
            return Ok(());
        }
        match (self.write(start, bytes), self.limit) {
            (Err(_), Limit::Forget(_)) => {
                self.keeping = false;
                self.segments.set_len(0)?;
                self.bytes.set_len(0)
            }
            (result, _) => result,
        }
    }

    fn write(&mut self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        let (Limit::Fail(bytes_max) | Limit::Forget(bytes_max)) = self.limit;
        if self.len > bytes_max {
            return Err(SpoolError::Full(bytes_max).into());
        }
        self.bytes.write_all(bytes)?;
        while !bytes.is_empty() {
            let room = SEGMENT_BYTES - at % SEGMENT_BYTES;
            let (part, behind) = bytes.split_at(room.min(bytes.len() as u64) as usize);
            self.hash.update(part);
            at += part.len() as u64;
            if at.is_multiple_of(SEGMENT_BYTES) {
                self.segments.write_all(self.hash.finalize().as_bytes())?;
                self.hash.reset();
            }
            bytes = behind;
        }
        Ok(())
    }
}

/// Whole segments that are as noted.
fn sound(bytes: &File, segments: &File) -> io::Result<u64> {
    let (mut bytes, mut segments) = (bytes, BufReader::new(segments));
    let mut segment = vec![0; SEGMENT_BYTES as usize];
    let (mut count, mut noted) = (0, [0; 32]);
    let filled = |result: io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    while filled(segments.read_exact(&mut noted))?
        && filled(bytes.read_exact(&mut segment))?
        && *blake3::hash(&segment).as_bytes() == noted
    {
        count += 1;
    }
    Ok(count)
}

impl Read for Received {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if let Some(replay) = &mut self.replay {
            // The file grows behind it only after it was read.
            let len = replay.read(buf)?;
            if len > 0 {
                return Ok(len);
            }
            self.replay = None;
        }
        if self.total == Some(self.len) {
            return Ok(0);
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert((self.reopen)(self.len)?),
        };
        let len = stream.read(buf)?;
        self.keep(&buf[..len])?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 5_000_000;

    fn content() -> Vec<u8> {
        (0..LEN as u32).map(|i| (i / 251) as u8).collect()
    }

    /// Reads `len` bytes; from where they had to be asked for.
    fn read(path: &Path, len: usize) -> Option<u64> {
        read_within(path, len, Limit::Fail(u64::MAX))
    }

    fn read_within(path: &Path, len: usize, limit: Limit) -> Option<u64> {
        let asked = Arc::new(std::sync::Mutex::new(None));
        let noted = asked.clone();
        let reopen = move |start: u64| {
            *noted.lock().unwrap() = Some(start);
            let rest = content().split_off(start as usize);
            Ok(Box::new(io::Cursor::new(rest)) as Box<dyn Read + Send>)
        };
        let stream = Received::open(Box::new(reopen), path, Some(LEN as u64), limit);
        let mut found = vec![];
        let mut part = stream.unwrap().take(len as u64);
        part.read_to_end(&mut found).unwrap();
        assert!(found == content()[..len.min(LEN)], "{len}");
        let asked = asked.lock().unwrap();
        *asked
    }

    #[test]
    fn whole_segments_are_not_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("received");
        assert_eq!(read(&path, 2_500_000), Some(0));
        assert_eq!(read(&path, 1_000_000), None);
        assert_eq!(read(&path, LEN + 1), Some(2 << 20));
        let tail = (LEN >> 20 << 20) as u64;
        assert_eq!(read(&path, LEN + 1), Some(tail));
        // Damage costs what follows it.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1_500_000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path, LEN + 1), Some(1 << 20));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("received");
        assert_eq!(
            read_within(&path, LEN + 1, Limit::Forget(3_000_000)),
            Some(0)
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(read(&path, LEN + 1), Some(0));
        let reopen = |_| Ok(Box::new(io::Cursor::new(content())) as Box<dyn Read + Send>);
        let path = dir.path().join("another");
        let limit = Limit::Fail(3_000_000);
        let stream = Received::open(Box::new(reopen), &path, Some(LEN as u64), limit);
        assert!(stream.unwrap().read_to_end(&mut vec![]).is_err());
    }
}
