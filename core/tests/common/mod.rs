//! Data and helpers that the cutter's tests share.

use dvcr_core::chunk::{CHUNK_BYTES_MAX, Cut, Cutter};

/// Deterministic bytes that do not compress: xorshift64, eight little-endian bytes a step.
pub(crate) fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut data: Vec<u8> = std::iter::repeat_with(next)
        .take(len.div_ceil(8))
        .flatten()
        .collect();
    data.truncate(len);
    data
}

/// Deterministic bytes that compress to about a third: lines of few different words.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = [
        "chunk ", "recipe ", "pack ", "lease ", "sweep ", "0x", "\n", "the ", "of ", "17 ",
    ];
    let picks = random(seed, len);
    let mut data: Vec<u8> = picks
        .iter()
        .flat_map(|pick| words[usize::from(*pick) % 10].bytes())
        .take(len)
        .collect();
    data.truncate(len);
    data
}

/// All chunks of a blob that is given in slices of these lengths, then the rest at once. Checks the contract of
/// [`Cutter::next`] at each step. `revive` replaces the cutter by one restored from its state after each cut.
pub(crate) fn cuts_in_slices(
    data: &[u8],
    slices: impl IntoIterator<Item = usize>,
    revive: bool,
) -> Vec<Cut> {
    let mut cutter = Cutter::new();
    let mut cuts = Vec::new();
    let (mut from, mut to) = (0, 0);
    let mut slices = slices.into_iter();
    loop {
        let end = to == data.len();
        let given = &data[from..to];
        if let Some(cut) = cutter.next(given, end) {
            assert!(
                (1..=given.len()).contains(&cut.len),
                "{cut:?} of {} bytes",
                given.len()
            );
            assert!(cut.zero || cut.len <= CHUNK_BYTES_MAX, "{cut:?}");
            assert!(
                !cut.zero || given[..cut.len].iter().all(|byte| *byte == 0),
                "{cut:?}"
            );
            from += cut.len;
            cuts.push(cut);
            if revive {
                cutter =
                    Cutter::restore(&cutter.state(), from as u64).expect("a state can be restored");
            }
        } else if end {
            assert!(given.is_empty(), "{} bytes were not cut", given.len());
            return merged(&cuts);
        } else {
            assert!(
                given.len() < CHUNK_BYTES_MAX,
                "{} bytes are enough",
                given.len()
            );
            to = slices
                .next()
                .map_or(data.len(), |slice| data.len().min(to + slice));
        }
    }
}

/// All chunks of a blob that is given at once.
pub(crate) fn cuts(data: &[u8]) -> Vec<Cut> {
    cuts_in_slices(data, [], false)
}

/// The chunks with the pieces of each zero run joined: what does not depend on buffering.
fn merged(cuts: &[Cut]) -> Vec<Cut> {
    let mut merged: Vec<Cut> = Vec::new();
    for cut in cuts {
        match merged.last_mut() {
            Some(last) if last.zero && cut.zero => last.len += cut.len,
            _ => merged.push(*cut),
        }
    }
    merged
}

/// Data chunks as their lengths, zero runs as theirs negated.
pub(crate) fn signed_lengths(cuts: &[Cut]) -> Vec<i64> {
    cuts.iter()
        .map(|cut| {
            if cut.zero {
                -(cut.len as i64)
            } else {
                cut.len as i64
            }
        })
        .collect()
}
