//! Where the data of a disk is cut: by content, on the grid of file systems' blocks.

use xxhash_rust::xxh3::xxh3_64;

/// The grid: the block of most file systems. Data that moved by less than that is cut differently.
pub const PAGE_BYTES: usize = 4 << 10;

/// Shortest piece, unless the data ends: 32 KiB.
pub const PIECE_BYTES_MIN: usize = 8 * PAGE_BYTES;

/// Longest piece: 96 KiB.
pub const PIECE_BYTES_MAX: usize = 24 * PAGE_BYTES;

/// Length of the piece that `data` begins with. `data` is what is left of a stretch without gaps, or its first
/// [`PIECE_BYTES_MAX`].
///
/// A piece ends behind the page with the least xxh3 (64 bits, seed 0) among those that its bounds allow, the first of
/// equal ones. 64 KiB on average. What is left of at most [`PIECE_BYTES_MIN`] is one piece.
pub fn piece_len(data: &[u8]) -> usize {
    if data.len() <= PIECE_BYTES_MIN {
        return data.len();
    }
    let data = &data[..data.len().min(PIECE_BYTES_MAX)];
    // The page that ends the shortest piece, and those behind it; the last may be short.
    let before = PIECE_BYTES_MIN - PAGE_BYTES;
    let least = data[before..]
        .chunks(PAGE_BYTES)
        .enumerate()
        .min_by_key(|(_, page)| xxh3_64(page));
    let pages = least.map_or(0, |(i, _)| i + 1);
    (before + pages * PAGE_BYTES).min(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let page = |i: u32| vec![i as u8; PAGE_BYTES];
        let data: Vec<u8> = (0..40).flat_map(page).collect();
        for len in [0, 1, PAGE_BYTES, PIECE_BYTES_MIN - 1, PIECE_BYTES_MIN] {
            assert_eq!(piece_len(&data[..len]), len);
        }
        let cut = piece_len(&data);
        assert!(
            (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&cut) && cut.is_multiple_of(PAGE_BYTES)
        );
        assert_eq!(piece_len(&data[..PIECE_BYTES_MAX]), cut, "looks no further");
        // Equal pages: the first of them.
        assert_eq!(piece_len(&[7; PIECE_BYTES_MAX]), PIECE_BYTES_MIN);
        // A short page at the end takes part, too.
        let mut ends = [false; 2];
        for i in 0..64 {
            let mut data = vec![7; PIECE_BYTES_MIN + PAGE_BYTES];
            data.extend([i; 5]);
            let len = piece_len(&data);
            assert!(len == PIECE_BYTES_MIN || len == data.len());
            ends[usize::from(len == data.len())] = true;
        }
        assert_eq!(ends, [true; 2]);
    }

    #[test]
    fn content_decides_not_place() {
        // A different start is forgotten after a piece or a few: the cuts meet again.
        let pages: Vec<_> = (0..2000u64)
            .map(|i| {
                xxh3_64(&i.to_le_bytes())
                    .to_le_bytes()
                    .repeat(PAGE_BYTES / 8)
            })
            .collect();
        let cuts = |from: usize| {
            let data = pages[from..].concat();
            let mut ends = std::collections::BTreeSet::new();
            let mut at = 0;
            while at < data.len() {
                at += piece_len(&data[at..]);
                ends.insert(from * PAGE_BYTES + at);
            }
            ends
        };
        let (all, later) = (cuts(0), cuts(5));
        let common = all.intersection(&later).count();
        assert!(common * 10 > all.len() * 9, "{common} of {}", all.len());
        assert!(
            (110..145).contains(&all.len()),
            "{} cuts in 2000 pages",
            all.len()
        );
    }
}
