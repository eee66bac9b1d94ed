//! The one qcow2 that a disk's content determines.
//!
//! Version 3, clusters of 64 KiB, big-endian (QEMU `docs/interop/qcow2.rst`):
//!
//! ```text
//! cluster 0    header, 112 bytes
//! then         refcount table | refcount blocks (16 bits each, all 1) | L1 table | an L2 table per 512 MiB that hold data
//! then         every cluster with a byte that is not zero, in guest order; the others have no entry
//! ```
//!
//! Tables come first, so that whoever reads from the start knows at once what follows.

use std::ops::Range;

use super::cluster_map::{ClusterMap, GROUP_CLUSTERS};

/// Length of a cluster: 64 KiB, what QEMU takes unless told otherwise.
pub const CLUSTER_BYTES: usize = 64 << 10;

const CLUSTER: u64 = CLUSTER_BYTES as u64;

/// Entries of 8 bytes in a cluster: refcount table, L1 and L2 tables.
const TABLE_ENTRIES: u64 = CLUSTER / 8;

/// Entries of 2 bytes in a refcount block.
const BLOCK_ENTRIES: u64 = CLUSTER / 2;

/// The cluster is referred to once: bit 63 of L1 and L2 entries.
const COPIED: u64 = 1 << 63;

/// Bytes of the disk under one L2 table.
const GROUP_BYTES: u64 = GROUP_CLUSTERS * CLUSTER;

/// Largest disk: 64 TiB. Its L1 table has 131,072 entries.
const VIRTUAL_BYTES_MAX: u64 = 64 << 40;

/// Tables and data of a canonical image, all places known.
#[derive(Clone, Debug)]
pub struct CanonicalQcow2 {
    virtual_len: u64,
    map: ClusterMap,
    /// Each L2 table: the group it stands for, and how many data clusters lie before its first.
    tables: Vec<(u64, u64)>,
    /// First clusters of: refcount blocks, L1 table, L2 tables, data; then the end. The refcount table is cluster 1.
    blocks: u64,
    l1: u64,
    l2: u64,
    data: u64,
    end: u64,
}

impl CanonicalQcow2 {
    /// The image of a disk of `virtual_len` bytes with data in the clusters of `map`.
    ///
    /// `None` if the length is 0, no multiple of 512 or above 64 TiB, or if a cluster lies beyond it.
    pub fn new(virtual_len: u64, map: ClusterMap) -> Option<Self> {
        let fits = map
            .last()
            .is_none_or(|last| last < virtual_len.div_ceil(CLUSTER));
        if virtual_len == 0
            || !virtual_len.is_multiple_of(512)
            || virtual_len > VIRTUAL_BYTES_MAX
            || !fits
        {
            return None;
        }
        let mut before = 0;
        let tables: Vec<_> = map
            .groups()
            .map(|(group, count)| {
                let table = (group, before);
                before += count;
                table
            })
            .collect();
        let l1_len = virtual_len.div_ceil(GROUP_BYTES).div_ceil(TABLE_ENTRIES);
        let rest = l1_len + tables.len() as u64 + map.len();
        // Refcounts count their own clusters, too. The sum grows with each step until it holds.
        let (mut table_len, mut blocks_len) = (1, 1);
        let end = loop {
            let end = 1 + table_len + blocks_len + rest;
            let blocks_needed = end.div_ceil(BLOCK_ENTRIES);
            let table_needed = blocks_needed.div_ceil(TABLE_ENTRIES);
            if (table_needed, blocks_needed) == (table_len, blocks_len) {
                break end;
            }
            (table_len, blocks_len) = (table_needed, blocks_needed);
        };
        let blocks = 1 + table_len;
        let l1 = blocks + blocks_len;
        let l2 = l1 + l1_len;
        let data = l2 + tables.len() as u64;
        Some(Self {
            virtual_len,
            map,
            tables,
            blocks,
            l1,
            l2,
            data,
            end,
        })
    }

    /// Length of the file in bytes, a multiple of [`CLUSTER_BYTES`].
    pub fn file_len(&self) -> u64 {
        self.end * CLUSTER
    }

    /// Clusters before the data.
    pub fn meta_clusters(&self) -> u64 {
        self.data
    }

    /// The clusters that hold data.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Maximal ranges of adjacent data clusters, as numbers on the disk, in the order in which they lie in the file.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        self.map.runs()
    }

    /// One cluster before the data; zeros from [`CanonicalQcow2::meta_clusters`] on.
    pub fn meta_cluster(&self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; CLUSTER_BYTES];
        if number == 0 {
            self.header(&mut bytes);
        } else if number < self.blocks {
            let first = (number - 1) * TABLE_ENTRIES;
            fill(&mut bytes, first, self.l1 - self.blocks, |i| {
                (self.blocks + i) * CLUSTER
            });
        } else if number < self.l1 {
            let first = (number - self.blocks) * BLOCK_ENTRIES;
            for (entry, _) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(first..self.end) {
                *entry = 1u16.to_be_bytes();
            }
        } else if number < self.l2 {
            let first = (number - self.l1) * TABLE_ENTRIES;
            for ((group, _), at) in self.tables.iter().zip(self.l2..) {
                if let Some(i) = group.checked_sub(first) {
                    put(&mut bytes, i, COPIED | (at * CLUSTER));
                }
            }
        } else if let Some((group, before)) = self.tables.get((number - self.l2) as usize) {
            for (cluster, at) in self.map.clusters_of(*group).zip(self.data + before..) {
                put(
                    &mut bytes,
                    cluster % GROUP_CLUSTERS,
                    COPIED | (at * CLUSTER),
                );
            }
        }
        bytes
    }

    fn header(&self, bytes: &mut [u8]) {
        let l1_entries = self.virtual_len.div_ceil(GROUP_BYTES) as u32;
        let fields: [(usize, &[u8]); 10] = [
            (0, b"QFI\xFB"),
            (4, &3u32.to_be_bytes()),
            (20, &CLUSTER.ilog2().to_be_bytes()),
            (24, &self.virtual_len.to_be_bytes()),
            (36, &l1_entries.to_be_bytes()),
            (40, &(self.l1 * CLUSTER).to_be_bytes()),
            (48, &CLUSTER.to_be_bytes()),
            (56, &((self.blocks - 1) as u32).to_be_bytes()),
            // Refcounts of 2^4 bits.
            (96, &4u32.to_be_bytes()),
            (100, &112u32.to_be_bytes()),
        ];
        for (at, field) in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
        }
    }
}

/// Fills a cluster with entries `first` and following of a table of `len`.
fn fill(bytes: &mut [u8], first: u64, len: u64, entry: impl Fn(u64) -> u64) {
    for (bytes, i) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(first..len) {
        *bytes = entry(i).to_be_bytes();
    }
}

/// Sets an entry of a table's cluster, if it is in this one.
fn put(bytes: &mut [u8], i: u64, value: u64) {
    let entry = usize::try_from(i)
        .ok()
        .and_then(|i| bytes.as_chunks_mut::<8>().0.get_mut(i));
    if let Some(entry) = entry {
        *entry = value.to_be_bytes();
    }
}
