//! Frames of a disk that only comes by, kept in a directory until all are there.
//!
//! Two files. `frames` has frames, one after the other. `journal` has a header and a record of each frame, integers
//! little-endian:
//!
//! | bytes | header |
//! |---|---|
//! | 8 | `DVCRFRM1` |
//! | 32 | BLAKE3 of what the source is, version and all |
//!
//! | bytes | record |
//! |---|---|
//! | 8 | where the piece begins, in bytes of the disk |
//! | 4 | length of the piece; 0: everything up to there is zeros |
//! | 4 | length of the frame |
//! | 32 | BLAKE3 of the frame |
//! | 4 | CRC-32C of the 48 bytes before |
//!
//! Nothing is synced: what is there when the directory is opened again is checked, frame by frame, up to the first that is not
//! as its record says. A killed process loses nothing, a power failure what the system had not written.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use dvcr_core::{
    chunk::ChunkId,
    disk::{CLUSTER_BYTES, ClusterMap},
};

use crate::layout::FRAME_BYTES_MAX;

const MAGIC: [u8; 8] = *b"DVCRFRM1";
const HEADER_BYTES: u64 = 40;
const RECORD_BYTES: usize = 52;

/// Frames between two writes of records: an importer that is killed makes no more of them again.
const RECORDS_BUFFERED: usize = 16;

/// One frame and where its bytes belong.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where the piece begins, in bytes of the disk.
    pub offset: u64,
    /// Length of the piece; 0 if there is none, and everything up to `offset` is zeros.
    pub raw_len: u32,
    /// Length of the frame.
    pub stored_len: u32,
    /// What the frame hashes to.
    pub id: ChunkId,
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.id.0);
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (fields, crc) = bytes.split_last_chunk::<4>()?;
        let (offset, rest) = fields.split_first_chunk::<8>()?;
        let (raw_len, rest) = rest.split_first_chunk::<4>()?;
        let (stored_len, id) = rest.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*crc) == crc32c::crc32c(fields)).then_some(Self {
            offset: u64::from_le_bytes(*offset),
            raw_len: u32::from_le_bytes(*raw_len),
            stored_len: u32::from_le_bytes(*stored_len),
            id: ChunkId(id.try_into().ok()?),
        })
    }
}

/// Frames on disk, and what they are.
pub struct FrameSpool {
    dir: PathBuf,
    frames: BufWriter<File>,
    journal: File,
    /// Records whose frames may still be in memory.
    pending: Vec<Record>,
    /// Clusters that have data.
    map: ClusterMap,
    /// Where the last piece ended, in bytes of the disk.
    end: u64,
    /// Bytes of frames.
    stored: u64,
    bytes_max: u64,
}

/// Why frames cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory cannot be written or read.
    #[error("write to the work directory")]
    Io(#[from] io::Error),
    /// It would become larger than it may.
    #[error("the disk takes more than {0} bytes in the work directory, its limit")]
    Full(u64),
}

impl From<SpoolError> for io::Error {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Io(error) => error,
            full @ SpoolError::Full(_) => Self::new(io::ErrorKind::StorageFull, full),
        }
    }
}

impl FrameSpool {
    /// Opens the spool in `dir`, which exists: with what is there if that is of the same source, else empty.
    pub fn open(dir: &Path, source: &str, bytes_max: u64) -> Result<Self, SpoolError> {
        let identity = *blake3::hash(source.as_bytes()).as_bytes();
        let open = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(dir.join(name))
        };
        let (frames, journal) = (open("frames")?, open("journal")?);
        let mut spool = Self {
            dir: dir.to_owned(),
            frames: BufWriter::with_capacity(1 << 20, frames),
            journal,
            pending: vec![],
            map: ClusterMap::new(),
            end: 0,
            stored: 0,
            bytes_max,
        };
        let records = spool.recover(&identity)?;
        if records == 0 {
            spool.journal.set_len(0)?;
            spool.journal.write_all(&MAGIC)?;
            spool.journal.write_all(&identity)?;
        }
        let journal_len = HEADER_BYTES + records * RECORD_BYTES as u64;
        spool.journal.set_len(journal_len)?;
        spool.journal.seek(SeekFrom::Start(journal_len))?;
        spool.frames.get_mut().set_len(spool.stored)?;
        spool.frames.seek(SeekFrom::Start(spool.stored))?;
        Ok(spool)
    }

    /// An empty spool in `dir`, whatever was there.
    pub fn create(dir: &Path, bytes_max: u64) -> Result<Self, SpoolError> {
        fs::write(dir.join("journal"), [])?;
        Self::open(dir, "", bytes_max)
    }

    /// Takes over what is there, as far as it is sound; how many records that are.
    fn recover(&mut self, identity: &[u8; 32]) -> Result<u64, SpoolError> {
        let mut journal = BufReader::new(&self.journal);
        let mut header = [0; HEADER_BYTES as usize];
        if !filled(&mut journal, &mut header)? || header[..8] != MAGIC || header[8..] != *identity {
            return Ok(0);
        }
        let mut frames = BufReader::with_capacity(1 << 20, self.frames.get_ref());
        let (mut count, mut bytes, mut frame) = (0, [0; RECORD_BYTES], vec![]);
        let (mut map, mut end, mut stored) = (ClusterMap::new(), 0, 0);
        while filled(&mut journal, &mut bytes)? {
            let Some(record) = Record::decode(&bytes) else {
                break;
            };
            if u64::from(record.stored_len) > FRAME_BYTES_MAX {
                break;
            }
            frame.resize(record.stored_len as usize, 0);
            if !filled(&mut frames, &mut frame)? || ChunkId::of(&frame) != record.id {
                break;
            }
            note(&mut map, &record);
            end = record.offset + u64::from(record.raw_len);
            stored += u64::from(record.stored_len);
            count += 1;
        }
        (self.map, self.end, self.stored) = (map, end, stored);
        Ok(count)
    }

    /// Keeps the frame of a piece of `raw_len` bytes.
    pub fn push(&mut self, offset: u64, raw_len: usize, frame: &[u8]) -> Result<(), SpoolError> {
        let record = Record {
            offset,
            // Pieces have 96 KiB at most, their frames little more.
            raw_len: raw_len as u32,
            stored_len: frame.len() as u32,
            id: ChunkId::of(frame),
        };
        self.stored += frame.len() as u64;
        if self.stored > self.bytes_max {
            return Err(SpoolError::Full(self.bytes_max));
        }
        self.frames.write_all(frame)?;
        note(&mut self.map, &record);
        self.end = offset + raw_len as u64;
        self.pending.push(record);
        if self.pending.len() >= RECORDS_BUFFERED {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is in memory. Frames go first: a record never speaks of a frame that was not written.
    pub fn flush(&mut self) -> Result<(), SpoolError> {
        self.frames.flush()?;
        let records: Vec<u8> = self.pending.drain(..).flat_map(|r| r.encode()).collect();
        self.journal.write_all(&records)?;
        Ok(())
    }

    /// The clusters that have data.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Where the last piece ended, in bytes of the disk: there it goes on.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of frames.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// All records so far that have a frame, in order.
    pub fn records(&self) -> io::Result<impl Iterator<Item = io::Result<Record>> + Send + use<>> {
        let mut journal = BufReader::new(File::open(self.dir.join("journal"))?);
        journal.seek(SeekFrom::Start(HEADER_BYTES))?;
        let mut bytes = [0; RECORD_BYTES];
        let records = std::iter::from_fn(move || {
            let record = match filled(&mut journal, &mut bytes) {
                Ok(false) => return None,
                Ok(true) => Record::decode(&bytes).ok_or_else(broken),
                Err(error) => Err(error),
            };
            Some(record)
        });
        Ok(records.filter(|record| !matches!(record, Ok(record) if record.stored_len == 0)))
    }

    /// The frames, one after the other, from the start.
    pub fn frames(&self) -> io::Result<File> {
        File::open(self.dir.join("frames"))
    }

    /// Removes everything.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(self.dir.join("journal"))?;
        fs::remove_file(self.dir.join("frames"))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the work directory was changed")
}

fn note(map: &mut ClusterMap, record: &Record) {
    let end = record.offset + u64::from(record.raw_len);
    let clusters = record.offset / CLUSTER_BYTES as u64..end.div_ceil(CLUSTER_BYTES as u64);
    if record.raw_len > 0 {
        clusters.for_each(|cluster| map.insert(cluster));
    }
}

/// Fills `buf`; false if the file ends before.
fn filled(file: &mut impl Read, buf: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buf) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(spool: &mut FrameSpool, frames: std::ops::Range<u64>) {
        for i in frames {
            spool.push(i * 100_000, 70_000, &[i as u8; 300]).unwrap();
        }
    }

    #[test]
    fn goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FrameSpool::open(dir.path(), "disk 1", 1 << 20).unwrap();
        let mut spool = open();
        pushed(&mut spool, 0..40);
        spool.push(5_000_000, 0, &[]).unwrap();
        spool.flush().unwrap();
        let records: Vec<_> = spool.records().unwrap().map(Result::unwrap).collect();
        assert_eq!(records.len(), 40);
        let map = spool.map().clone();
        drop(spool);
        let spool = open();
        assert_eq!((spool.end(), spool.stored()), (5_000_000, 12_000));
        assert_eq!(*spool.map(), map);
        let found: Vec<_> = spool.records().unwrap().map(Result::unwrap).collect();
        assert_eq!(found, records);
        drop(spool);
        // Another source begins anew.
        let spool = FrameSpool::open(dir.path(), "disk 2", 1 << 20).unwrap();
        assert_eq!((spool.end(), spool.stored()), (0, 0));
        spool.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_sound_is_made_again() {
        for (name, cut, bend, kept) in [
            ("frames", Some(2900), None, 9),
            ("frames", None, Some(1500), 5),
            ("journal", Some(40 + 52 * 7 + 51), None, 7),
            ("journal", None, Some(40 + 52 * 3), 3),
            ("journal", None, Some(8), 0),
            ("journal", Some(20), None, 0),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut spool = FrameSpool::open(dir.path(), "disk", 1 << 20).unwrap();
            pushed(&mut spool, 0..20);
            spool.flush().unwrap();
            drop(spool);
            let path = dir.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            if let Some(at) = bend {
                bytes[at] ^= 1;
            }
            bytes.truncate(cut.unwrap_or(bytes.len()));
            fs::write(&path, bytes).unwrap();
            let mut spool = FrameSpool::open(dir.path(), "disk", 1 << 20).unwrap();
            let found = spool.records().unwrap().map(Result::unwrap).count();
            assert_eq!(found, kept, "{name} {cut:?} {bend:?}");
            pushed(&mut spool, kept as u64..20);
            spool.flush().unwrap();
            assert_eq!(spool.records().unwrap().count(), 20);
        }
    }

    #[test]
    fn the_limit_holds() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = FrameSpool::open(dir.path(), "disk", 1000).unwrap();
        pushed(&mut spool, 0..3);
        let error = spool.push(900_000, 70_000, &[0; 300]).unwrap_err();
        assert!(matches!(error, SpoolError::Full(1000)));
    }
}
