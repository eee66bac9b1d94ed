//! Bounds on what an image may claim.

/// Largest virtual disk: 64 TiB, the most that VHDX allows; KVM guests and file systems of nodes end well below.
pub const VIRTUAL_BYTES_MAX: u64 = 64 << 40;

/// What every virtual size is rounded up to: the sector of a virtual disk.
pub const SECTOR_BYTES: u64 = 512;

/// Largest cluster of a compressed image, which is decoded in memory as a whole: 2 MiB, the most that qcow2 allows.
pub const PACKED_CLUSTER_BYTES_MAX: usize = 2 << 20;

/// Decoded clusters kept per image: with the largest clusters, 16 MiB.
pub const DECODED_CLUSTERS: usize = 8;

/// Unit in which tables are read: an L2 table of a qcow2 with common settings.
pub const PAGE_BYTES: usize = 64 << 10;

/// Pages of tables kept per image: 4 MiB in all, which covers 32 GiB of such a qcow2's guest addresses at a time.
pub const PAGES: usize = 64;

/// Longest run of data that is reported as one extent, so that the first is known before all tables were read.
pub const DATA_EXTENT_BYTES_MAX: u64 = 64 << 20;
