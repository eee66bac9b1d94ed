//! From a disk that can be read twice to its layer.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use dvcr_core::{
    disk::{ANNOTATION_INDEX_DIGEST, ANNOTATION_INDEX_OFFSET, ANNOTATION_LAYOUT, LAYOUT_VERSION},
    oci::{Algorithm, Digest},
};
use sha2::{Digest as _, Sha256};

use super::{Content, IndexSpool, LayoutError, encode, pieces};

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

/// Writes the layer of `content`, compressing on `threads` threads beside the one that reads and the caller's own.
/// After an error `out` holds nothing of use.
pub fn write_layer(
    content: &Content<'_>,
    threads: usize,
    out: &mut dyn Write,
) -> Result<Layer, LayoutError> {
    write_layer_in(content, threads, &std::env::temp_dir(), out)
}

/// The same; the index of a large disk waits in a temporary file in `dir`.
pub fn write_layer_in(
    content: &Content<'_>,
    threads: usize,
    dir: &Path,
    out: &mut dyn Write,
) -> Result<Layer, LayoutError> {
    let mut diff_id = Sha256::new();
    let hashed = pieces(content).map(|piece| {
        let piece = piece?;
        diff_id.update(&piece);
        Ok(((), piece))
    });
    let mut hash = Sha256::new();
    let mut index = IndexSpool::new(dir);
    let mut index_offset = 0;
    encode(hashed, threads, |(), raw_len, frame| {
        out.write_all(frame)?;
        hash.update(frame);
        index.push(frame, raw_len)?;
        index_offset += frame.len() as u64;
        Ok(())
    })?;
    let mut hashed = Hashed {
        out,
        hash: &mut hash,
    };
    let (index_len, index_digest) = index.finish(&mut hashed)?;
    Ok(Layer {
        digest: digest(hash),
        len: index_offset + index_len,
        diff_id: digest(diff_id),
        index_offset,
        index_digest,
    })
}

/// Hashes what is written through it.
pub(crate) struct Hashed<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) hash: &'a mut Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.out.write(buf)?;
        self.hash.update(&buf[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes the same archive without compression; its digest and length.
pub fn write_plain(
    content: &Content<'_>,
    out: &mut dyn Write,
) -> Result<(Digest, u64), LayoutError> {
    let mut hash = Sha256::new();
    let mut len = 0;
    for piece in pieces(content) {
        let piece = piece?;
        hash.update(&piece);
        out.write_all(&piece)?;
        len += piece.len() as u64;
    }
    Ok((digest(hash), len))
}

pub(crate) fn digest(hash: Sha256) -> Digest {
    Digest::new(Algorithm::Sha256, &hash.finalize()).expect("a SHA-256 has the length of one")
}
