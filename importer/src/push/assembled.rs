//! A layer made of kept frames: the same bytes that [`write_layer`](crate::layout::write_layer) makes.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use sha2::{Digest as _, Sha256};

use super::{FrameSpool, frames::Record};
use crate::layout::{
    Encoder, FRAME_BYTES_MAX, Hashed, IndexSpool, Layer, LayoutError, Surrounding, digest, encode,
};

/// Decoded pieces between the thread that decodes and the one that hashes: 6 MiB.
const PIECES_AHEAD: usize = 64;

/// What stands before the frames, in a file.
const TABLES: &str = "tables";

/// What stands behind them.
const INDEX: &str = "index";

/// A layer on disk, in parts.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The layer.
    pub layer: Layer,
    /// Length of the archive without compression.
    pub plain_len: u64,
    parts: Arc<[(PathBuf, u64)]>,
}

impl Assembled {
    /// Puts the layer of a complete spool together in `dir`, the spool's own.
    pub fn new(
        dir: &Path,
        spool: &FrameSpool,
        surrounding: Surrounding<'_>,
        threads: usize,
    ) -> Result<Self, LayoutError> {
        let mut index = IndexSpool::new(dir);
        let mut diff_id = Sha256::new();
        let mut tables = BufWriter::new(File::create(dir.join(TABLES))?);
        let (mut len, mut plain_len) = (0, 0);
        let before = surrounding.before().map(|piece| {
            diff_id.update(&piece);
            Ok(((), piece))
        });
        encode(before, threads, |(), raw_len, frame| {
            index.push(frame, raw_len)?;
            len += frame.len() as u64;
            plain_len += raw_len as u64;
            Ok(tables.write_all(frame)?)
        })?;
        tables.flush()?;
        let tables_len = len;
        for record in spool.records()? {
            let record = record?;
            index.push_known(record.id, record.stored_len, record.raw_len)?;
            len += u64::from(record.stored_len);
            plain_len += u64::from(record.raw_len);
        }
        let frames_len = len - tables_len;
        let behind = surrounding.behind();
        let end = Encoder::new()?.encode(&behind)?;
        index.push(&end, behind.len())?;
        let index_offset = len + end.len() as u64;
        plain_len += behind.len() as u64;
        let mut last = BufWriter::new(File::create(dir.join(INDEX))?);
        last.write_all(&end)?;
        let (index_len, index_digest) = index.finish(&mut last)?;
        last.flush()?;
        let end_len = end.len() as u64 + index_len;
        let parts = [
            (dir.join(TABLES), tables_len),
            (dir.join("frames"), frames_len),
            (dir.join(INDEX), end_len),
        ];

        let mut hash = Sha256::new();
        hash_file(&dir.join(TABLES), &mut hash)?;
        let diff_id = hash_frames(spool, &mut hash, diff_id)?;
        hash_file(&dir.join(INDEX), &mut hash)?;
        Ok(Self {
            layer: Layer {
                digest: digest(hash),
                len: len + end_len,
                diff_id: digest(diff_id.chain_update(&behind)),
                index_offset,
                index_digest,
            },
            plain_len,
            parts: parts.into(),
        })
    }

    /// The layer from `offset` on.
    pub fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut skip = offset;
        let mut rest: Box<dyn Read + Send> = Box::new(io::empty());
        for (path, len) in self.parts.iter() {
            let part = skip.min(*len);
            skip -= part;
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(part))?;
            rest = Box::new(rest.chain(file.take(len - part)));
        }
        Ok(rest)
    }

    /// The archive without compression from `offset` on.
    pub fn open_plain(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut decoder = zstd::Decoder::new(self.open(0)?)?;
        let skipped = io::copy(&mut decoder.by_ref().take(offset), &mut io::sink())?;
        if skipped < offset {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Box::new(decoder))
    }
}

/// Goes once through all frames: their bytes into `hash`, what they hold into `diff_id`, each on a thread of its own.
fn hash_frames(
    spool: &FrameSpool,
    hash: &mut Sha256,
    mut diff_id: Sha256,
) -> Result<Sha256, LayoutError> {
    let mut frames = BufReader::with_capacity(1 << 20, spool.frames()?);
    let (sender, receiver) = sync_channel::<Vec<u8>>(PIECES_AHEAD);
    thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            receiver.iter().for_each(|piece| diff_id.update(&piece));
            diff_id
        });
        let mut decoder = zstd::bulk::Decompressor::new()?;
        let mut frame = vec![];
        for record in spool.records()? {
            let Record {
                stored_len,
                raw_len,
                ..
            } = record?;
            if u64::from(stored_len.max(raw_len)) > FRAME_BYTES_MAX {
                return Err(LayoutError::Broken("a kept frame is too long"));
            }
            frame.resize(stored_len as usize, 0);
            frames.read_exact(&mut frame)?;
            hash.update(&frame);
            let piece = decoder.decompress(&frame, raw_len as usize)?;
            // It ends with its sender only.
            let _ = sender.send(piece);
        }
        drop(sender);
        let diff_id = hashing.join();
        Ok(diff_id.map_err(|_| io::Error::other("the hashing thread panicked"))?)
    })
}

fn hash_file(path: &Path, hash: &mut Sha256) -> io::Result<u64> {
    let out = &mut io::sink();
    io::copy(&mut File::open(path)?, &mut Hashed { out, hash })
}
