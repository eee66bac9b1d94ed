//! From pieces to a layer, on several threads.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use dvcr_core::{
    disk::{
        ANNOTATION_INDEX_DIGEST, ANNOTATION_INDEX_OFFSET, ANNOTATION_LAYOUT, IndexWriter,
        LAYOUT_VERSION,
    },
    oci::{Algorithm, Digest},
};
use sha2::{Digest as _, Sha256};

use super::{Content, Encoder, LayoutError, Pieces};

/// Pieces on their way from the disk to the layer: with their frames, at most 12 MiB.
const PIECES_IN_FLIGHT: usize = 64;

/// A layer that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// Digest of the layer.
    pub digest: Digest,
    /// Length of the layer in bytes.
    pub len: u64,
    /// Digest of the archive without compression, for the image's configuration.
    pub diff_id: Digest,
    /// Where the index begins.
    pub index_offset: u64,
    /// Digest of the index.
    pub index_digest: Digest,
}

impl Layer {
    /// What the layer's descriptor says about it.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        [
            (ANNOTATION_LAYOUT, LAYOUT_VERSION.to_owned()),
            (ANNOTATION_INDEX_OFFSET, self.index_offset.to_string()),
            (ANNOTATION_INDEX_DIGEST, self.index_digest.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// One piece, and where its frame is waited for.
type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// A frame to come, and the length of its piece. In the order of the layer.
type Pending = (Receiver<io::Result<Vec<u8>>>, usize);

/// Writes the layer of `content`, compressing on `threads` threads beside the one that reads and the caller's own.
/// After an error `out` holds nothing of use.
pub fn write_layer(
    content: &Content<'_>,
    threads: usize,
    out: &mut dyn Write,
) -> Result<Layer, LayoutError> {
    let (job_sender, jobs) = sync_channel::<Job>(PIECES_IN_FLIGHT);
    let (pending_sender, pending) = sync_channel::<Pending>(PIECES_IN_FLIGHT);
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        let jobs = &jobs;
        for _ in 0..threads.max(1) {
            scope.spawn(move || work(jobs));
        }
        let reader = scope.spawn(move || read(content, &job_sender, &pending_sender));
        let written = write(pending, out);
        // Why writing stopped early is known to the reader if reading failed.
        let diff_id = reader
            .join()
            .map_err(|_| io::Error::other("the reading thread panicked"))?;
        let diff_id = diff_id?;
        written.map(|written| written.layer(diff_id))
    })
}

/// Compresses pieces until there are no more.
fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut encoder = Encoder::new();
    loop {
        let job = jobs.lock().map(|jobs| jobs.recv());
        let Ok(Ok((piece, frame))) = job else {
            return;
        };
        let result = match &mut encoder {
            Ok(encoder) => encoder.encode(&piece),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // Nobody waits for it any more if writing failed.
        let _ = frame.send(result);
    }
}

/// Hands out all pieces; the digest of them all. Stops early if nobody takes them any more.
fn read(
    content: &Content<'_>,
    jobs: &SyncSender<Job>,
    pending: &SyncSender<Pending>,
) -> Result<Digest, LayoutError> {
    let mut hash = Sha256::new();
    for piece in Pieces::new(content) {
        let piece = piece?;
        hash.update(&piece);
        let (sender, receiver) = sync_channel(1);
        let taken =
            pending.send((receiver, piece.len())).is_ok() && jobs.send((piece, sender)).is_ok();
        if !taken {
            break;
        }
    }
    Ok(digest(hash))
}

/// A layer, but for what its archive hashes to.
struct Written {
    hash: Sha256,
    index_offset: u64,
    index: Vec<u8>,
}

impl Written {
    fn layer(self, diff_id: Digest) -> Layer {
        Layer {
            digest: digest(self.hash),
            len: self.index_offset + self.index.len() as u64,
            diff_id,
            index_offset: self.index_offset,
            index_digest: Digest::sha256(&self.index),
        }
    }
}

/// Writes all frames in order, then the index.
fn write(pending: Receiver<Pending>, out: &mut dyn Write) -> Result<Written, LayoutError> {
    let mut hash = Sha256::new();
    let mut index = IndexWriter::default();
    let mut len = 0;
    for (frame, raw_len) in pending {
        let frame = frame
            .recv()
            .map_err(|_| io::Error::other("a compressing thread ended"))??;
        out.write_all(&frame)?;
        hash.update(&frame);
        index.push(&frame, raw_len).ok_or(LayoutError::TooLarge)?;
        len += frame.len() as u64;
    }
    let index = index.finish();
    out.write_all(&index)?;
    hash.update(&index);
    Ok(Written {
        hash,
        index_offset: len,
        index,
    })
}

fn digest(hash: Sha256) -> Digest {
    Digest::new(Algorithm::Sha256, &hash.finalize()).expect("a SHA-256 has the length of one")
}
