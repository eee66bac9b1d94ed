//! Where data is cut: the same for a disk that is read twice and for one that only comes by.

use dvcr_core::{
    chunk::is_zero,
    disk::{CLUSTER_BYTES, ClusterMap, PIECE_BYTES_MAX, piece_len},
};

use super::{Clusters, LayoutError};

const CLUSTER: u64 = CLUSTER_BYTES as u64;

/// Zeros in a row after which an empty piece says how far it went, so that who notes it need not read them again.
const NOTE_BYTES: u64 = 64 << 20;

/// A piece of a disk or of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it begins, in bytes of the disk.
    pub offset: u64,
    /// At most [`PIECE_BYTES_MAX`] bytes. None: everything between the piece before and `offset` is zeros.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Where it ends, in bytes of the disk.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// All data of a disk as pieces, in order. Ends after the first error.
///
/// What follows a piece depends on where it ends and on nothing else, so that it can be gone on from any piece's end.
pub struct DataPieces<C> {
    clusters: C,
    /// The clusters that held data so far; all of them at the end.
    map: ClusterMap,
    /// Whether clusters of zeros are left out.
    sparse: bool,
    /// What was read last, and how much of it was looked at.
    block: Vec<u8>,
    block_at: u64,
    looked: usize,
    /// Data without gaps that was not given yet, from `given` on, which is at `at` on the disk.
    stretch: Vec<u8>,
    given: usize,
    at: u64,
    /// The stretch ends with what was read of it.
    complete: bool,
    noted: u64,
    failed: bool,
}

impl<C: Clusters> DataPieces<C> {
    /// All of a disk; clusters of zeros are left out.
    pub fn disk(clusters: C) -> Self {
        Self::resume(clusters, ClusterMap::new(), 0)
    }

    /// What follows the piece that ended at `start`. `map` has the clusters of all pieces up to there, and `clusters` begins
    /// with the one that holds `start`.
    pub fn resume(clusters: C, map: ClusterMap, start: u64) -> Self {
        Self {
            clusters,
            map,
            sparse: true,
            block: vec![],
            block_at: 0,
            looked: 0,
            stretch: vec![],
            given: 0,
            at: start,
            complete: false,
            noted: start,
            failed: false,
        }
    }

    /// All of a file from `start` on, where a piece ended, zeros included.
    pub fn verbatim(clusters: C, start: u64) -> Self {
        Self {
            sparse: false,
            ..Self::resume(clusters, ClusterMap::new(), start)
        }
    }

    /// The clusters that held data, and where they came from.
    pub fn into_parts(self) -> (ClusterMap, C) {
        (self.map, self.clusters)
    }

    /// The clusters that held data so far.
    pub fn found(&self) -> &ClusterMap {
        &self.map
    }

    /// Makes sure that the stretch has enough for the next cut.
    fn fill(&mut self) -> Result<Option<Piece>, LayoutError> {
        if self.given == self.stretch.len() {
            self.complete = false;
        }
        self.stretch.drain(..self.given);
        self.given = 0;
        while !self.complete && self.stretch.len() < PIECE_BYTES_MAX {
            if self.looked == self.block.len() {
                self.looked = 0;
                match self.clusters.next(&mut self.block)? {
                    Some(at) => self.block_at = at,
                    None => {
                        self.block.clear();
                        self.complete = true;
                        break;
                    }
                }
            }
            let rest = &self.block[self.looked..];
            let cluster = &rest[..rest.len().min(CLUSTER_BYTES)];
            let offset = self.block_at + self.looked as u64;
            let number = offset / CLUSTER;
            // A cluster that a piece before ended in the middle of counts as a whole.
            if self.sparse && is_zero(cluster) && !self.map.contains(number) {
                self.looked += cluster.len();
                self.complete = !self.stretch.is_empty();
                let end = offset + cluster.len() as u64;
                if !self.complete && end >= self.noted + NOTE_BYTES {
                    self.noted = end;
                    return Ok(Some(Piece {
                        offset: end,
                        bytes: vec![],
                    }));
                }
                continue;
            }
            if self.stretch.is_empty() {
                // Only where it goes on in the middle of a cluster is there something before `at`.
                let before = self.at.saturating_sub(offset).min(cluster.len() as u64);
                self.at = offset + before;
                self.stretch.extend_from_slice(&cluster[before as usize..]);
            } else if offset == self.at + self.stretch.len() as u64 {
                self.stretch.extend_from_slice(cluster);
            } else {
                self.complete = true;
                break;
            }
            self.looked += cluster.len();
            if self.sparse {
                self.map.insert(number);
            }
        }
        Ok(None)
    }

    fn advance(&mut self) -> Result<Option<Piece>, LayoutError> {
        if let Some(note) = self.fill()? {
            return Ok(Some(note));
        }
        let len = piece_len(&self.stretch);
        if len == 0 {
            return Ok(None);
        }
        let piece = Piece {
            offset: self.at,
            bytes: self.stretch[..len].to_vec(),
        };
        self.given = len;
        self.at += len as u64;
        self.noted = self.at;
        Ok(Some(piece))
    }
}

impl<C: Clusters> Iterator for DataPieces<C> {
    type Item = Result<Piece, LayoutError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.advance();
        self.failed = result.is_err();
        result.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::StreamClusters;

    /// A disk of clusters that are zeros or count.
    fn disk(clusters: &str) -> Vec<u8> {
        let mut page = 0u64;
        let mut disk = vec![];
        for cluster in clusters.chars() {
            for _ in 0..CLUSTER_BYTES / 4096 {
                page += 1;
                let byte = if cluster == '.' { 0 } else { page };
                disk.extend(byte.to_le_bytes().repeat(512));
            }
        }
        disk
    }

    fn pieces(disk: &[u8]) -> (Vec<Piece>, ClusterMap) {
        let mut pieces = DataPieces::disk(StreamClusters::disk(disk));
        let all = pieces.by_ref().map(Result::unwrap).collect();
        (all, pieces.into_parts().0)
    }

    #[test]
    fn pieces_are_the_data() {
        for clusters in ["", ".", "x", "..x", "x..", "xx.x.xxxxxxx...xxx", "xxxxxx"] {
            let disk = disk(clusters);
            let (pieces, map) = pieces(&disk);
            let mut found = vec![0; disk.len()];
            let mut end = 0;
            for piece in &pieces {
                assert!(piece.offset >= end && piece.bytes.len() <= PIECE_BYTES_MAX);
                end = piece.end();
                found[piece.offset as usize..end as usize].copy_from_slice(&piece.bytes);
            }
            assert!(found == disk, "{clusters}");
            let data = clusters.chars().enumerate().filter(|(_, c)| *c == 'x');
            assert_eq!(map, data.map(|(i, _)| i as u64).collect(), "{clusters}");
        }
    }

    #[test]
    fn goes_on_from_any_piece() {
        let disk = disk("xx.x.xxxxxxx...xxx..");
        let (all, whole_map) = pieces(&disk);
        assert!(all.len() > 10);
        for (i, piece) in all.iter().enumerate() {
            let map: ClusterMap = all[..=i]
                .iter()
                .flat_map(|piece| piece.offset / CLUSTER..piece.end().div_ceil(CLUSTER))
                .collect();
            let start = (piece.end() / CLUSTER * CLUSTER) as usize;
            let mut clusters = StreamClusters::disk(&disk[start..]);
            clusters.at = start as u64;
            let mut rest = DataPieces::resume(clusters, map, piece.end());
            let found: Vec<_> = rest.by_ref().map(Result::unwrap).collect();
            assert!(found == all[i + 1..], "after piece {i}");
            assert_eq!(rest.into_parts().0, whole_map);
        }
    }

    #[test]
    fn long_holes_are_noted() {
        let hole = std::io::Read::take(std::io::repeat(0), 3 * NOTE_BYTES + CLUSTER);
        let notes: Vec<_> = DataPieces::disk(StreamClusters::disk(hole))
            .map(|piece| piece.unwrap())
            .collect();
        let offsets: Vec<_> = notes.iter().map(|note| note.offset / NOTE_BYTES).collect();
        assert_eq!(offsets, [1, 2, 3]);
        assert!(notes.iter().all(|note| note.bytes.is_empty()));
    }

    #[test]
    fn files_keep_their_zeros() {
        let file = vec![0; 3 * CLUSTER_BYTES + 5];
        let mut pieces = DataPieces::verbatim(StreamClusters::verbatim(&*file, 0), 0);
        let found: Vec<u8> = pieces.by_ref().flat_map(|p| p.unwrap().bytes).collect();
        assert!(found == file);
        assert!(pieces.into_parts().0.is_empty());
    }
}
