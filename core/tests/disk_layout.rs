//! Golden vectors of the disk layout's pure parts.
//!
//! If one of these fails, do not update it: other cuts or tables corrupt nothing, but every disk that is imported from then
//! on is stored again beside its older copy. They change only together with `LAYOUT_VERSION`, knowingly.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "cutters need more of it")]
mod common;

use common::{random, text};
use dvcr_core::disk::{CLUSTER_BYTES, CanonicalQcow2, ClusterMap, piece_len, tar};

/// Pieces in pages of 4 KiB.
fn check_pieces(mut data: &[u8], expected: &[usize]) {
    let mut found = vec![];
    while !data.is_empty() {
        let (piece, rest) = data.split_at(piece_len(data));
        found.push(piece.len().div_ceil(4096));
        data = rest;
    }
    assert_eq!(found, expected);
}

#[test]
fn pieces() {
    check_pieces(
        &random(1, 2 << 20),
        &[
            11, 14, 19, 20, 22, 19, 12, 23, 17, 16, 12, 8, 16, 16, 21, 20, 13, 9, 19, 16, 18, 13,
            22, 15, 23, 12, 15, 16, 17, 13, 13, 11, 1,
        ],
    );
    check_pieces(
        &text(1, (1 << 20) + 100),
        &[
            16, 11, 14, 15, 11, 19, 9, 18, 24, 20, 11, 16, 10, 9, 20, 19, 12, 3,
        ],
    );
    check_pieces(&[0; 1 << 20], &[8; 32]);
    check_pieces(&[], &[]);
}

fn check_tables(virtual_len: u64, clusters: &[u64], lens: (u64, u64), hash: &str) {
    let map: ClusterMap = clusters.iter().copied().collect();
    let image = CanonicalQcow2::new(virtual_len, map).unwrap();
    assert_eq!(
        (
            image.meta_clusters(),
            image.file_len() / CLUSTER_BYTES as u64
        ),
        lens
    );
    let mut hasher = blake3::Hasher::new();
    for number in 0..image.meta_clusters() {
        hasher.update(&image.meta_cluster(number));
    }
    assert_eq!(hasher.finalize().to_hex()[..16], *hash);
}

#[test]
fn tables() {
    // Header, refcount table, one block, L1; then the L2 tables.
    check_tables(512, &[], (4, 4), "2dbf67019895db18");
    check_tables(1 << 30, &[0], (5, 6), "a8d98ad2b57223fc");
    check_tables(1 << 30, &[0, 8191, 8192], (6, 9), "5e18f0d28006acbe");
    // An L1 table of 16 clusters, of which the L2 tables are in the first and the last.
    let last = (64 << 40) / CLUSTER_BYTES as u64 - 1;
    check_tables(64 << 40, &[7, last], (21, 23), "cd802e19bc5f60fe");
    // Refcounts of themselves need a second block: 32,768 clusters fill the first.
    let many: Vec<u64> = (0..32_760).collect();
    check_tables(2 << 30, &many, (8, 32_768), "9ac22f34f37e3de3");
    let more: Vec<u64> = (0..32_761).collect();
    check_tables(2 << 30, &more, (9, 32_770), "6050c33ca585fecf");
}

#[test]
fn impossible_disks() {
    let map = |cluster| ClusterMap::from_iter([cluster]);
    assert!(CanonicalQcow2::new(0, ClusterMap::new()).is_none());
    assert!(CanonicalQcow2::new(1000, ClusterMap::new()).is_none());
    assert!(CanonicalQcow2::new((64 << 40) + 512, ClusterMap::new()).is_none());
    assert!(CanonicalQcow2::new(1 << 20, map(16)).is_none());
    assert!(CanonicalQcow2::new(1 << 20, map(15)).is_some());
    assert!(CanonicalQcow2::new((1 << 20) + 512, map(16)).is_some());
}

#[test]
fn archive_heads() {
    for (name, len, hash) in [
        (tar::QCOW2_NAME, 0x0005_0000, "65eca01bd034b851"),
        (tar::QCOW2_NAME, 16 << 30, "d679882dae56e756"),
        (tar::RAW_NAME, 700 << 20, "fa5b666b6011a7f2"),
    ] {
        assert_eq!(
            blake3::hash(&tar::head(name, len)).to_hex()[..16],
            *hash,
            "{name} {len}"
        );
    }
}
