//! The archive of a disk that can be read twice, piece by piece: one piece becomes one frame.

use std::sync::Arc;

use dvcr_core::disk::{
    CanonicalQcow2,
    tar::{self, QCOW2_NAME, RAW_NAME},
};

use super::{Clusters, DataPieces, ImageClusters, LayoutError, StreamClusters};
use crate::{
    format::DiskImage,
    source::{ReadAt, Reader},
};

/// What goes into a layer.
pub enum Content<'a> {
    /// A disk, as canonical qcow2.
    Disk {
        /// Where its bytes come from.
        image: &'a DiskImage,
        /// Where they go.
        qcow2: CanonicalQcow2,
    },
    /// An image as it came, byte for byte.
    Verbatim(Arc<dyn ReadAt>),
}

impl<'a> Content<'a> {
    /// A disk: the first of the two passes over it.
    pub fn disk(image: &'a DiskImage) -> Result<Self, LayoutError> {
        let map = super::scan(image)?;
        let qcow2 = CanonicalQcow2::new(image.virtual_len(), map).ok_or(LayoutError::TooLarge)?;
        Ok(Self::Disk { image, qcow2 })
    }

    /// Length of the file in the archive.
    pub fn file_len(&self) -> u64 {
        self.surrounding().file_len()
    }

    /// What stands around the data.
    pub fn surrounding(&self) -> Surrounding<'_> {
        match self {
            Self::Disk { qcow2, .. } => Surrounding::Disk(qcow2),
            Self::Verbatim(source) => Surrounding::Verbatim(source.len()),
        }
    }
}

/// What an archive has before and behind the data.
#[derive(Copy, Clone, Debug)]
pub enum Surrounding<'a> {
    /// Of a disk.
    Disk(&'a CanonicalQcow2),
    /// Of a file of this length.
    Verbatim(u64),
}

impl<'a> Surrounding<'a> {
    /// Length of the file in the archive.
    pub fn file_len(self) -> u64 {
        match self {
            Self::Disk(qcow2) => qcow2.file_len(),
            Self::Verbatim(len) => len,
        }
    }

    /// The pieces before the data: the archive's headers, then the tables.
    pub fn before(self) -> impl Iterator<Item = Vec<u8>> + Send + 'a {
        let (name, qcow2) = match self {
            Self::Disk(qcow2) => (QCOW2_NAME, Some(qcow2)),
            Self::Verbatim(_) => (RAW_NAME, None),
        };
        let tables = qcow2.into_iter().flat_map(|qcow2| {
            let numbers = 0..qcow2.meta_clusters();
            numbers.map(|number| qcow2.meta_cluster(number))
        });
        std::iter::once(tar::head(name, self.file_len())).chain(tables)
    }

    /// The last piece: the archive's end.
    pub fn behind(self) -> Vec<u8> {
        tar::tail(self.file_len())
    }
}

/// All pieces of an archive in order. After an error there is nothing more of use.
pub fn pieces<'a>(
    content: &'a Content<'a>,
) -> impl Iterator<Item = Result<Vec<u8>, LayoutError>> + Send + 'a {
    let clusters: Box<dyn Clusters + 'a> = match content {
        Content::Disk { image, .. } => Box::new(ImageClusters::new(image, 0)),
        Content::Verbatim(source) => {
            Box::new(StreamClusters::verbatim(Reader::new(source.clone()), 0))
        }
    };
    let (mut data, scanned) = match content {
        Content::Disk { qcow2, .. } => (DataPieces::disk(clusters), Some(qcow2)),
        Content::Verbatim(_) => (DataPieces::verbatim(clusters, 0), None),
    };
    let data = std::iter::from_fn(move || {
        loop {
            return match data.next() {
                Some(Ok(piece)) if piece.bytes.is_empty() => continue,
                Some(piece) => Some(piece.map(|piece| piece.bytes)),
                // The tables were written for what the first pass saw.
                None if scanned.is_some_and(|qcow2| qcow2.map() != data.found()) => {
                    Some(Err(LayoutError::Changed))
                }
                None => None,
            };
        }
    });
    let surrounding = content.surrounding();
    let before = surrounding.before().map(Ok);
    let behind = std::iter::once_with(move || Ok(surrounding.behind()));
    before.chain(data).chain(behind)
}

impl<T: Clusters + ?Sized> Clusters for Box<T> {
    fn next(&mut self, block: &mut Vec<u8>) -> Result<Option<u64>, LayoutError> {
        (**self).next(block)
    }
}
