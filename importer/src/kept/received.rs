//! A file on a server that is kept as it is received, so that another process can go on.
//!
//! Two files: `received` has the bytes, `segments` the BLAKE3 of each whole segment of them, one after the other. Nothing is synced:
//! what is there later is checked, and cut at the first segment that is not as noted.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    push::SpoolError,
    source::{Remote, RemoteStream},
};

/// Bytes under one hash.
const SEGMENT_BYTES: u64 = 1 << 20;

/// What the server sends, after what it has sent before. Read to its end, the file is whole.
pub(super) struct Received {
    remote: Arc<Remote>,
    bytes: File,
    segments: File,
    /// Bytes that are there from an earlier try and were not given yet.
    replay: Option<BufReader<File>>,
    stream: Option<RemoteStream>,
    /// Bytes in the file.
    len: u64,
    /// Of the segment that is not whole yet.
    hash: blake3::Hasher,
    bytes_max: u64,
}

impl Received {
    /// Where the bytes are.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("received")
    }

    /// Goes on with what is in `dir`, which is of the same version of the file.
    pub(super) fn open(remote: Arc<Remote>, dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let open = |path: PathBuf| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path)
        };
        let (mut bytes, mut segments) = (open(Self::path(dir))?, open(dir.join("segments"))?);
        let whole = sound(&bytes, &segments)?;
        let len = whole * SEGMENT_BYTES;
        bytes.set_len(len)?;
        bytes.seek(SeekFrom::Start(len))?;
        segments.set_len(whole * 32)?;
        segments.seek(SeekFrom::Start(whole * 32))?;
        let replay = BufReader::with_capacity(1 << 20, File::open(Self::path(dir))?);
        Ok(Self {
            remote,
            bytes,
            segments,
            replay: Some(replay),
            stream: None,
            len,
            hash: blake3::Hasher::new(),
            bytes_max,
        })
    }

    fn keep(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes.write_all(bytes)?;
        while !bytes.is_empty() {
            let room = SEGMENT_BYTES - self.len % SEGMENT_BYTES;
            let (part, behind) = bytes.split_at(room.min(bytes.len() as u64) as usize);
            self.hash.update(part);
            self.len += part.len() as u64;
            if self.len.is_multiple_of(SEGMENT_BYTES) {
                self.segments.write_all(self.hash.finalize().as_bytes())?;
                self.hash.reset();
            }
            bytes = behind;
        }
        if self.len > self.bytes_max {
            return Err(SpoolError::Full(self.bytes_max).into());
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
        let (remote, start) = (&self.remote, self.len);
        let stream = self
            .stream
            .get_or_insert_with(|| remote.stream(start, blake3::Hasher::new()));
        let len = stream.read(buf)?;
        self.keep(&buf[..len])?;
        Ok(len)
    }
}
