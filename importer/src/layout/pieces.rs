//! The archive of a disk, piece by piece: one piece becomes one frame.

use std::{ops::Range, sync::Arc};

use dvcr_core::disk::{
    CLUSTER_BYTES, CanonicalQcow2, PIECE_BYTES_MAX, piece_len,
    tar::{self, QCOW2_NAME, RAW_NAME},
};

use super::LayoutError;
use crate::{format::DiskImage, source::ReadAt};

/// Bytes that are read at a time.
const READ_BYTES: u64 = 1 << 20;

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
        match self {
            Self::Disk { qcow2, .. } => qcow2.file_len(),
            Self::Verbatim(source) => source.len(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Disk { .. } => QCOW2_NAME,
            Self::Verbatim(_) => RAW_NAME,
        }
    }

    /// Stretches of data without gaps, in bytes of the disk, whole clusters of a qcow2.
    fn stretches(&self) -> Stretches<'_> {
        const CLUSTER: u64 = CLUSTER_BYTES as u64;
        match self {
            Self::Disk { qcow2, .. } => {
                let runs = qcow2.runs();
                Box::new(runs.map(|run| run.start * CLUSTER..run.end * CLUSTER))
            }
            Self::Verbatim(source) => Box::new(std::iter::once(0..source.len())),
        }
    }

    /// Fills `buf`; what lies behind the disk's end, in its last cluster, is zeros.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), LayoutError> {
        match self {
            Self::Disk { image, .. } => {
                let rest = image.virtual_len().saturating_sub(offset);
                let len = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
                let (data, behind) = buf.split_at_mut(len);
                behind.fill(0);
                if !data.is_empty() {
                    image.read_at(offset, data)?;
                }
                Ok(())
            }
            Self::Verbatim(source) => Ok(source.read_at(offset, buf)?),
        }
    }
}

type Stretches<'a> = Box<dyn Iterator<Item = Range<u64>> + Send + 'a>;

/// All pieces of an archive in order. Ends after the first error.
pub struct Pieces<'a> {
    content: &'a Content<'a>,
    state: State,
    stretches: Stretches<'a>,
    /// What of the current stretch was not read yet.
    unread: Range<u64>,
    /// What was read and not given yet.
    buf: Vec<u8>,
    given: usize,
}

enum State {
    Head,
    Meta(u64),
    Data,
    End,
}

impl<'a> Pieces<'a> {
    /// The pieces of this content's archive.
    pub fn new(content: &'a Content<'a>) -> Self {
        Self {
            content,
            state: State::Head,
            stretches: content.stretches(),
            unread: 0..0,
            buf: vec![],
            given: 0,
        }
    }

    /// Makes sure that the buffer has enough for the next cut.
    fn fill(&mut self) -> Result<(), LayoutError> {
        if self.buf.len() - self.given >= PIECE_BYTES_MAX {
            return Ok(());
        }
        self.buf.drain(..self.given);
        self.given = 0;
        if self.buf.is_empty() && self.unread.is_empty() {
            self.unread = self.stretches.next().unwrap_or(0..0);
        }
        if self.unread.is_empty() {
            return Ok(());
        }
        let len = (self.unread.end - self.unread.start).min(READ_BYTES);
        let start = self.buf.len();
        self.buf.resize(start + len as usize, 0);
        self.content
            .read_at(self.unread.start, &mut self.buf[start..])?;
        self.unread.start += len;
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Vec<u8>>, LayoutError> {
        if matches!(self.state, State::Head) {
            self.state = State::Meta(0);
            return Ok(Some(tar::head(
                self.content.name(),
                self.content.file_len(),
            )));
        }
        if let (State::Meta(number), Content::Disk { qcow2, .. }) = (&self.state, self.content)
            && *number < qcow2.meta_clusters()
        {
            let cluster = qcow2.meta_cluster(*number);
            self.state = State::Meta(number + 1);
            return Ok(Some(cluster));
        }
        if matches!(self.state, State::End) {
            return Ok(None);
        }
        self.state = State::Data;
        self.fill()?;
        let len = piece_len(&self.buf[self.given..]);
        if len == 0 {
            self.state = State::End;
            return Ok(Some(tar::tail(self.content.file_len())));
        }
        let piece = self.buf[self.given..self.given + len].to_vec();
        self.given += len;
        Ok(Some(piece))
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Vec<u8>, LayoutError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance();
        if result.is_err() {
            self.state = State::End;
        }
        result.transpose()
    }
}
