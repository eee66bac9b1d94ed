//! What an earlier run wrote, so that the next one goes on.
//!
//! A text file. The first line says which disk goes to which target; each other line names a window that was written, with a hash
//! of its bytes:
//!
//! ```text
//! dvcr-populate 1 <image> <length of the disk> <what the target is>
//! <offset> <length> <xxh3, 128 bits, hex>
//! ```
//!
//! The file is a hint and no more: a window is left out only if the target's bytes, read back, have that hash. So it does no harm
//! that a target was overwritten or exchanged, that a line is torn, or that the power failed before a window was durable: what is
//! read back and in place is synced with everything else before a populate is done.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use xxhash_rust::xxh3::xxh3_128;

/// First words of a state file.
const MAGIC: &str = "dvcr-populate 1";

/// Longest line that is read: first lines have an image's digest and a few numbers.
const LINE_BYTES_MAX: u64 = 1024;

/// Which disk goes where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// What identifies the disk's content: an image's digest and the file in it, a file's inode and time.
    pub image: String,
    /// Length of the disk in bytes.
    pub virtual_len: u64,
    /// Format and length of the target.
    pub target: String,
}

impl Header {
    fn line(&self) -> String {
        let word = |text: &str| text.replace(|c: char| c.is_whitespace() || c.is_control(), "_");
        let (image, target) = (word(&self.image), word(&self.target));
        format!("{MAGIC} {image} {} {target}\n", self.virtual_len)
    }
}

/// Windows by offset, 32 bytes each: 128 MiB for a disk of 2 TiB without holes.
type Windows = Vec<Known>;

/// A window that was noted.
#[derive(Debug)]
struct Known {
    offset: u64,
    len: u32,
    hash: [u64; 2],
}

/// The state file of a running populate. Only one process can have it open.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    file: File,
    windows: Windows,
}

/// A window that was written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Written {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) hash: u128,
}

impl Written {
    pub(super) fn new(offset: u64, bytes: &[u8]) -> Self {
        Self {
            offset,
            len: bytes.len() as u64,
            hash: xxh3_128(bytes),
        }
    }
}

impl State {
    /// Opens the state of this disk and target. What a file says about any other is forgotten. A file that is no state is somebody's:
    /// [`io::ErrorKind::InvalidInput`], and it stays as it is.
    pub fn open(path: &Path, header: &Header) -> io::Result<Self> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        if !is_state(&file)? {
            let reason = "the file is no state of a populate; name another one";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let windows = match read(&file, &header.line())? {
            Some(windows) => windows,
            None => {
                file.set_len(0)?;
                file.write_all(header.line().as_bytes())?;
                file.sync_all()?;
                vec![]
            }
        };
        // A torn last line must not swallow the next one.
        file.write_all(b"\n")?;
        Ok(Self {
            path: path.to_owned(),
            file,
            windows,
        })
    }

    /// Whether an earlier run got anywhere.
    pub fn is_resumed(&self) -> bool {
        !self.windows.is_empty()
    }

    /// What is known of a window: what its bytes should hash to.
    pub(super) fn window(&self, offset: u64, len: u64) -> Option<u128> {
        // Of those at the same place the last one counts.
        let behind = self.windows.partition_point(|known| known.offset <= offset);
        let known = self.windows[..behind].last()?;
        let [high, low] = known.hash;
        let hash = u128::from(high) << 64 | u128::from(low);
        (known.offset == offset && u64::from(known.len) == len).then_some(hash)
    }

    /// Notes a window that was written to the target. Lines of several threads do not mix: each is one write at the file's end.
    pub(super) fn append(&self, Written { offset, len, hash }: Written) -> io::Result<()> {
        (&self.file).write_all(format!("{offset} {len} {hash:032x}\n").as_bytes())
    }

    /// There is nothing to go on with: the disk is whole, or was never begun.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Whether a file begins as one of ours, or as far as a crash may have let it come: a part of the first words, or zeros that the file
/// system puts where nothing was written yet.
fn is_state(file: &File) -> io::Result<bool> {
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut head = vec![];
    let mut start = file.take(LINE_BYTES_MAX + 1);
    start.read_to_end(&mut head)?;
    let len = head.len().min(MAGIC.len());
    let torn = head.len() as u64 <= LINE_BYTES_MAX && head.iter().all(|byte| *byte == 0);
    Ok(torn || head[..len] == MAGIC.as_bytes()[..len])
}

/// The windows in a file, if its first line is this one.
fn read(mut file: &File, first: &str) -> io::Result<Option<Windows>> {
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let mut line = vec![];
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', line)
    };
    next(&mut line)?;
    if line != first.as_bytes() {
        return Ok(None);
    }
    let mut windows = vec![];
    while next(&mut line)? > 0 {
        if let Some((offset, len, hash)) = parse(&line) {
            windows.push(Known {
                offset,
                len,
                hash: [(hash >> 64) as u64, hash as u64],
            });
        }
    }
    // Stable: of equal ones, the last stays last.
    windows.sort_by_key(|known| known.offset);
    Ok(Some(windows))
}

fn parse(line: &[u8]) -> Option<(u64, u32, u128)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let mut words = line.split(' ');
    let (offset, len, hash) = (words.next()?, words.next()?, words.next()?);
    // A torn line has fewer digits.
    let hash = (hash.len() == 32).then(|| u128::from_str_radix(hash, 16).ok());
    Some((offset.parse().ok()?, len.parse().ok()?, hash??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(image: &str) -> Header {
        Header {
            image: image.to_owned(),
            virtual_len: 1 << 30,
            target: "raw 1073741824".to_owned(),
        }
    }

    #[test]
    fn windows_are_remembered_for_one_disk_and_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let open = |image: &str| State::open(&path, &header(image)).unwrap();
        let state = open("a");
        assert!(!state.is_resumed());
        let (one, two) = (Written::new(0, b"one"), Written::new(4 << 20, b"second"));
        state.append(one).unwrap();
        state.append(two).unwrap();
        assert!(State::open(&path, &header("a")).is_err(), "somebody has it");
        drop(state);

        let state = open("a");
        assert!(state.is_resumed());
        assert_eq!(state.window(0, 3), Some(one.hash));
        assert_eq!(state.window(0, 4), None);
        assert_eq!(state.window(4 << 20, 6), Some(two.hash));
        drop(state);
        assert!(!open("b").is_resumed());
        assert!(!open("a").is_resumed(), "and the other's is forgotten");
        open("a").remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_last_note_of_a_window_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let notes = [(8, b"one"), (0, b"two"), (8, b"new")];
        let state = State::open(&path, &header("a")).unwrap();
        for (offset, bytes) in notes {
            state.append(Written::new(offset, bytes)).unwrap();
        }
        drop(state);
        let state = State::open(&path, &header("a")).unwrap();
        assert_eq!(state.window(8, 3), Some(xxh3_128(b"new")));
        assert_eq!(state.window(0, 3), Some(xxh3_128(b"two")));
        assert_eq!(state.window(9, 3), None);
        assert_eq!(size_of::<Known>(), 32);
    }

    #[test]
    fn torn_and_strange_lines_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (one, two) = (Written::new(0, b"one"), Written::new(3, b"two"));
        let state = State::open(&path, &header("a")).unwrap();
        state.append(one).unwrap();
        state.append(two).unwrap();
        drop(state);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let state = State::open(&path, &header("a")).unwrap();
            assert!(state.window(0, 3).is_none_or(|hash| hash == one.hash));
            assert!(state.window(3, 3).is_none_or(|hash| hash == two.hash));
            state.append(two).unwrap();
            drop(state);
            let state = State::open(&path, &header("a")).unwrap();
            assert_eq!(state.window(3, 3), Some(two.hash), "cut at {len}");
        }
        fs::write(&path, [0; 100]).unwrap();
        assert!(!State::open(&path, &header("a")).unwrap().is_resumed());
    }

    #[test]
    fn files_of_other_kinds_were_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        for content in [&[b'x'; 100_000][..], b"dvcr-notes", &[0; 2000], b"\0\0x"] {
            fs::write(&path, content).unwrap();
            let error = State::open(&path, &header("a")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}
