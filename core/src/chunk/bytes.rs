//! The *bytes* cutter: content-defined cut points for data of any kind, by MinCDC.
//!
//! The end of a chunk is the position within a window whose last four bytes have the smallest hash, so both ends of the
//! window are hard bounds and an inserted byte moves only the cuts near it. Every position of the window must be
//! looked at, which is what vector units are good at; a rolling hash would have to look at them one after the other.

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
    cut_with(data, last_of_window)
}

fn cut_with(data: &[u8], find: impl Fn(&[u8]) -> usize) -> usize {
    if data.len() <= CUT_BYTES_MIN {
        return data.len();
    }
    // The shortest chunk ends with the window's first word, the longest one with its last.
    let window = &data[CUT_BYTES_MIN - WORD..data.len().min(CUT_BYTES_MAX)];
    CUT_BYTES_MIN + find(window)
}

/// The score of the word; the highest wins. The hash of MinCDC is its complement, so that four zeros, which are
/// common and say nothing, are the last choice and not the first.
#[inline(always)]
fn score(word: [u8; WORD]) -> u32 {
    u32::from_le_bytes(word).wrapping_mul(FACTOR)
}

/// Position of the word with the highest score in `window` (at least one word long), the first of equals.
fn last_of_window(window: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function was compiled for.
            #[allow(
                unsafe_code,
                reason = "calls code for a processor feature that was just detected"
            )]
            return unsafe { search_avx512(window) };
        }
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

/// [`search`], compiled for 512-bit vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn search_avx512(window: &[u8]) -> usize {
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
