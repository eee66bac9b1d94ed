//! What each format has to say: where the bytes of the guest's disk lie.

use super::{FormatError, pages::Pages};

/// The map of an image, made from its checked header.
pub(super) trait Layout: Send + Sync {
    /// The image's own idea of the disk's length in bytes. At least 1.
    fn virtual_len(&self) -> u64;

    /// Where the bytes from `guest` on lie; `guest` is below [`Layout::virtual_len`].
    ///
    /// The run's length is at least 1, may reach beyond the disk's end, and should be as long as one look at one page of
    /// tables tells.
    fn run_at(&self, pages: &Pages, guest: u64) -> Result<Run, FormatError>;
}

/// A stretch of the guest's disk that lies in one place.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) len: u64,
    pub(super) place: Place,
}

impl Run {
    pub(super) fn zero(len: u64) -> Self {
        Self {
            len,
            place: Place::Zero,
        }
    }

    pub(super) fn stored(at: u64, len: u64) -> Self {
        Self {
            len,
            place: Place::Stored(at),
        }
    }
}

/// Where a run lies.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Nowhere: it reads as zeros.
    Zero,
    /// As it is, from this offset of the source on.
    Stored(u64),
    /// In a compressed cluster, from byte `skip` of the decoded cluster on.
    Packed { cluster: Packed, skip: usize },
}

/// A compressed cluster.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Packed {
    /// Offset in the source.
    pub(super) at: u64,
    /// Bytes there; the compressed stream may end before.
    pub(super) len: usize,
    /// Bytes of `len` that may belong to a neighbour, because the format counts in sectors.
    pub(super) slack: usize,
    /// Length of the decoded cluster, at most [`PACKED_CLUSTER_BYTES_MAX`](super::limits::PACKED_CLUSTER_BYTES_MAX).
    pub(super) decoded_len: usize,
    pub(super) codec: Codec,
}

/// How a cluster is compressed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Codec {
    /// RFC 1951 without a header: qcow2.
    Deflate,
    /// RFC 1950: VMDK.
    Zlib,
    /// RFC 8878: qcow2.
    Zstd,
}
