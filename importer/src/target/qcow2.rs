//! A qcow2 file whose every place is known before the first byte is written.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use dvcr_core::disk::{CLUSTER_BYTES, CanonicalQcow2, ClusterMap};

use super::{
    RawOptions, Target, TargetError,
    raw::{io_error, open_file, sync_parent},
    space::free_bytes,
};
use crate::format::{DiskImage, ExtentKind, FormatError};

const CLUSTER: u64 = CLUSTER_BYTES as u64;

/// A qcow2 file: tables first, then clusters in the guest's order.
#[derive(Debug)]
pub struct Qcow2Target {
    path: PathBuf,
    file: File,
    virtual_len: u64,
    /// Adjacent clusters: first in the guest, first in the file, how many. Ascending.
    runs: Vec<(u64, u64, u64)>,
    known_zero: bool,
}

/// The clusters that a disk stores. Zeros among them are not looked for: see [`layout::scan`](crate::layout::scan).
pub fn stored_clusters(image: &DiskImage) -> Result<ClusterMap, FormatError> {
    let mut map = ClusterMap::new();
    for extent in image.extents() {
        let extent = extent?;
        if extent.kind == ExtentKind::Data {
            let end = (extent.offset + extent.len).div_ceil(CLUSTER);
            (extent.offset / CLUSTER..end).for_each(|cluster| map.insert(cluster));
        }
    }
    Ok(map)
}

impl Qcow2Target {
    /// Makes the file and its tables. Of the options those count that are about files: `preallocate`, `keep`, `source`.
    pub fn open(
        path: &Path,
        virtual_len: u64,
        qcow2: &CanonicalQcow2,
        options: RawOptions,
    ) -> Result<Self, TargetError> {
        let failed = |what| io_error(what, path);
        let free = free_bytes(path).map_err(failed("look at the file system of"))?;
        if qcow2.file_len() > free {
            return Err(TargetError::TooSmall {
                path: path.to_owned(),
                needed: qcow2.file_len(),
                available: free,
                advice: "a larger volume is needed",
            });
        }
        let file = open_file(path, Some(qcow2.file_len()), options)?;
        for number in 0..qcow2.meta_clusters() {
            file.write_all_at(&qcow2.meta_cluster(number), number * CLUSTER)
                .map_err(failed("write"))?;
        }
        let mut host = qcow2.meta_clusters();
        let runs = qcow2.runs().map(|run| {
            let first = host;
            host += run.end - run.start;
            (run.start, first, run.end - run.start)
        });
        Ok(Self {
            path: path.to_owned(),
            runs: runs.collect(),
            file,
            virtual_len,
            known_zero: !options.keep,
        })
    }

    /// Calls `act` for each part that has a place in the file, with that place.
    fn each(
        &self,
        offset: u64,
        len: u64,
        mut act: impl FnMut(u64, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset + len;
        let first = self
            .runs
            .partition_point(|(guest, _, count)| (guest + count) * CLUSTER <= offset);
        for (guest, host, count) in &self.runs[first..] {
            let start = (guest * CLUSTER).max(offset);
            let stop = ((guest + count) * CLUSTER).min(end);
            if start >= stop {
                break;
            }
            let at = host * CLUSTER + (start - guest * CLUSTER);
            act(at, (start - offset) as usize..(stop - offset) as usize)?;
        }
        Ok(())
    }
}

impl Target for Qcow2Target {
    fn guest_len(&self) -> Option<u64> {
        Some(self.virtual_len)
    }

    fn room(&self) -> u64 {
        self.virtual_len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let len = buf.len() as u64;
        self.each(offset, len, |at, range| {
            self.file.read_exact_at(&mut buf[range], at)
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let len = data.len() as u64;
        let mut end = 0;
        self.each(offset, len, |at, range| {
            // Between clusters that have a place there are zeros only.
            debug_assert!(data[end..range.start].iter().all(|byte| *byte == 0));
            end = range.end;
            self.file.write_all_at(&data[range], at)
        })
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.known_zero {
            return Ok(());
        }
        let zeros = vec![0; CLUSTER_BYTES];
        self.each(offset, len, |mut at, range| {
            let mut rest = range.len();
            while rest > 0 {
                let part = rest.min(zeros.len());
                self.file.write_all_at(&zeros[..part], at)?;
                at += part as u64;
                rest -= part;
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn finish(&self, _len: u64) -> io::Result<u64> {
        self.file.sync_all()?;
        sync_parent(&self.path)?;
        Ok(self.virtual_len)
    }
}
