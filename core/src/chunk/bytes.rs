//! The *bytes* cutter: content-defined cut points for data of any kind, by MinCDC.
//!
//! The end of a chunk is the position within a window whose last four bytes have the smallest hash, so both ends of the
//! window are hard bounds and an inserted byte moves only the cuts near it. Every position of the window must be
//! looked at, which is what vector units are good at; a rolling hash would have to look at them one after the other.
//!
//! The winner is spread evenly over the window, so chunks have 64 KiB on average (65.3 KiB measured on random bytes). The window
//! is as in the measurements that chose 64 KiB; a wider one of the same mean, 16..112 KiB, stores 8 to 27 % more after
//! scattered edits of random data, because longer chunks lose more, and has half as many positions again to look at.
//!
//! Speed on one core of an AMD EPYC with AVX2, random bytes, 2026-11-21: 17 GB/s from memory, 31 GB/s from cache; without
//! AVX2 3.6 GB/s. The same code compiled for AVX-512 was no faster (29 GB/s from cache), so there is no path for it.
//! Measured by `speed_of_each_path` below.

/// Fewest bytes of a chunk that is not the last.
pub const CUT_BYTES_MIN: usize = 32 << 10;

/// Most bytes of a chunk.
pub const CUT_BYTES_MAX: usize = 96 << 10;

/// Bytes that decide about a cut behind them.
const WORD: usize = 4;

/// 2^32 divided by the golden ratio. Multiples of it spread most evenly, so no small number, the commonest of words in
/// real data, comes near the top.
const FACTOR: u32 = 0x9E37_79B1;

/// Positions that are searched together; the block with the winner is then searched more finely.
const BLOCK: usize = 4096;

/// As [`BLOCK`], in the second step.
const SUB_BLOCK: usize = 256;

/// Length of the first chunk of `data`, which is either at least [`CUT_BYTES_MAX`] long or all that is left.
pub(super) fn cut(data: &[u8]) -> usize {
    cut_with(data, winner)
}

fn cut_with(data: &[u8], winner: impl Fn(&[u8]) -> usize) -> usize {
    if data.len() <= CUT_BYTES_MIN {
        return data.len();
    }
    // The shortest chunk ends with the window's first word, the longest one with its last.
    let window = &data[CUT_BYTES_MIN - WORD..data.len().min(CUT_BYTES_MAX)];
    CUT_BYTES_MIN + winner(window)
}

/// The score of the word; the highest wins. The hash of MinCDC is its complement, so that four zeros, which are
/// common and say nothing, are the last choice and not the first.
#[inline(always)]
fn score(word: [u8; WORD]) -> u32 {
    u32::from_le_bytes(word).wrapping_mul(FACTOR)
}

/// Position of the word with the highest score in `window` (at least one word long), the first of equals.
fn winner(window: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function was compiled for.
            #[allow(
                unsafe_code,
                reason = "calls code for a processor feature that was just detected"
            )]
            return unsafe { search_avx2(window) };
        }
    }
    search(window)
}

/// [`search`], compiled for 256-bit vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn search_avx2(window: &[u8]) -> usize {
    search(window)
}

/// The one implementation. It is inlined into a function for each vector width and written so that the compiler
/// vectorises it there: no intrinsics, no pointers, and all of them cut alike by construction.
#[inline(always)]
fn search(window: &[u8]) -> usize {
    let (block, best) = best_block(window, BLOCK);
    let (sub_block, _) = best_block(block_at(window, block, BLOCK), SUB_BLOCK);
    let at = block + sub_block;
    let first = block_at(window, at, SUB_BLOCK)
        .array_windows()
        .position(|word| score(*word) == best);
    at + first.expect("the best score is that of a word of this block")
}

/// Where the first block of `step` positions with the highest score begins, and that score.
#[inline(always)]
fn best_block(window: &[u8], step: usize) -> (usize, u32) {
    let mut best = (0, best_score(block_at(window, 0, step)));
    let mut start = step;
    while start + WORD <= window.len() {
        let score = best_score(block_at(window, start, step));
        if score > best.1 {
            best = (start, score);
        }
        start += step;
    }
    best
}

/// The bytes of the words that begin at `start .. start + step`, as far as the window goes.
#[inline(always)]
fn block_at(window: &[u8], start: usize, step: usize) -> &[u8] {
    &window[start..window.len().min(start + step + WORD - 1)]
}

/// Highest score of all words in `block`. Words overlap: those that begin at a multiple of four, then those one byte
/// further, and so on, because each such row is a plain load.
#[inline(always)]
fn best_score(block: &[u8]) -> u32 {
    let mut best = 0;
    for phase in 0..WORD.min(block.len()) {
        for word in block[phase..].as_chunks::<WORD>().0 {
            best = best.max(score(*word));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Path = (&'static str, fn(&[u8]) -> usize);

    /// Every implementation that this processor can run.
    #[allow(unused_mut, reason = "grows on some processors only")]
    fn paths() -> Vec<Path> {
        let mut paths: Vec<Path> = vec![("portable", |window| search(window)), ("chosen", winner)];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has what the function was compiled for.
                #[allow(
                    unsafe_code,
                    reason = "calls code for a processor feature that was just detected"
                )]
                paths.push(("avx2", |window| unsafe { search_avx2(window) }));
            }
        }
        paths
    }

    /// The definition, in one line: the first word with the highest score.
    fn definition(window: &[u8]) -> usize {
        let scores = window
            .windows(WORD)
            .map(|word| score(word.try_into().unwrap()));
        scores
            .enumerate()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .unwrap()
            .0
    }

    fn check(window: &[u8]) {
        let expected = definition(window);
        for (path, winner) in paths() {
            assert_eq!(
                winner(window),
                expected,
                "{path}, window of {} bytes",
                window.len()
            );
        }
    }

    fn random(len: usize, mut seed: u64) -> Vec<u8> {
        let next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 32) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    /// The word with the highest score of all.
    fn best_word() -> [u8; WORD] {
        // The factor is odd, so it has an inverse modulo 2^32; Newton's iteration doubles its correct bits.
        let inverse = (0..5).fold(FACTOR, |x, _| {
            x.wrapping_mul(2u32.wrapping_sub(FACTOR.wrapping_mul(x)))
        });
        u32::MAX.wrapping_mul(inverse).to_le_bytes()
    }

    #[test]
    fn all_paths_cut_alike_at_every_window_length() {
        let data = random(3 * BLOCK, 1);
        for len in (WORD..700)
            .chain(BLOCK - 20..BLOCK + 20)
            .chain(2 * BLOCK - 20..2 * BLOCK + 20)
        {
            check(&data[..len]);
        }
    }

    #[test]
    fn a_winner_in_any_last_position_is_found() {
        assert_eq!(score(best_word()), u32::MAX);
        for len in [
            WORD,
            5,
            8,
            255,
            256,
            259,
            260,
            BLOCK + 2,
            BLOCK + 3,
            BLOCK + 4,
            65_540,
        ] {
            for from_end in 0..len.min(300) - (WORD - 1) {
                let mut window = vec![7; len];
                let at = len - WORD - from_end;
                window[at..at + WORD].copy_from_slice(&best_word());
                assert_eq!(definition(&window), at);
                check(&window);
                // An equal one later loses.
                if from_end >= WORD {
                    window[len - WORD..].copy_from_slice(&best_word());
                    assert_eq!(definition(&window), at);
                    check(&window);
                }
            }
        }
    }

    #[test]
    fn constant_data_is_cut_at_the_minimum_and_bounds_are_hard() {
        fn check(data: &[u8], expected: usize) {
            for (path, winner) in paths() {
                assert_eq!(cut_with(data, winner), expected, "{path}");
            }
        }
        for byte in [0, 1, 0x20, 0xFF] {
            check(&[byte; CUT_BYTES_MAX], CUT_BYTES_MIN);
        }
        let mut data = vec![0; 2 * CUT_BYTES_MAX];
        data[CUT_BYTES_MAX - WORD..CUT_BYTES_MAX].copy_from_slice(&best_word());
        check(&data, CUT_BYTES_MAX);
        check(&data[..CUT_BYTES_MAX], CUT_BYTES_MAX);
        // One byte further and the word is out of the window, whatever follows.
        let mut data = vec![7; 2 * CUT_BYTES_MAX];
        data[CUT_BYTES_MAX - WORD + 1..=CUT_BYTES_MAX].copy_from_slice(&best_word());
        let expected = cut_with(&data[..CUT_BYTES_MAX], definition);
        check(&data, expected);
        // What is left at the end.
        for len in [1, 3, 4, CUT_BYTES_MIN - 1, CUT_BYTES_MIN] {
            check(&data[..len], len);
        }
        check(&data[..=CUT_BYTES_MIN], CUT_BYTES_MIN);
    }

    proptest! {
        #[test]
        fn all_paths_cut_alike(len in WORD..20_000usize, seed in 1u64.., mask: u8) {
            // The mask leaves few different bytes, so that there are many ties.
            let window: Vec<u8> = random(len, seed).into_iter().map(|byte| byte & mask).collect();
            check(&window);
        }
    }
}
