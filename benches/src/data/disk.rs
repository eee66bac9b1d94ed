//! Disk-like bytes: files one after the other, each starting on a 4 KiB page and followed by the zeros of its last page's slack.
//!
//! The mix, by file, and what zstd level 1 makes of each in 64 KiB pieces (the whole: about 2.35, within 2.2-2.5):
//!
//! | share | kind | stands for | ratio |
//! |---|---|---|---|
//! | 36 % | code: instruction templates with varying operands | executables, libraries, kernel modules | 2.6 |
//! | 32 % | text: words by Zipf's law, lines, punctuation | scripts, sources, docs, locale data | 3.0 |
//! | 14 % | tables: fixed records with counters, offsets, flags | package lists, symbol tables, databases, file system metadata | 3.3 |
//! | 11 % | random bytes | compressed files: .gz, .xz, .zst, firmware, pictures | 1 |
//! | 7 % | zero pages | unwritten or trimmed space | all |
//!
//! File sizes are log-uniform from 2 KiB to 512 KiB. Every file is unique: nothing here deduplicates.

use std::sync::LazyLock;

use super::Rng;

const PAGE_BYTES: usize = 4096;
const WORDS: usize = 8192;
const TEMPLATES: usize = 512;
const FILE_BYTES_MIN_LOG2: u64 = 11;
const FILE_BYTES_MAX_LOG2: u64 = 19;

/// Words of the text files, most frequent first: short ones lead, as in real languages.
static VOCABULARY: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut rng = Rng::new(0x776F_7264);
    (0..WORDS)
        .map(|rank| {
            let len = 2 + rng.below(3 + (rank as u64 + 2).ilog2() as u64 * 2 / 3);
            (0..len)
                .map(|_| {
                    b"etaoinshrdlcumwfgypbvkxjqz"[(rng.below(26) * rng.below(27) / 26) as usize]
                })
                .collect()
        })
        .collect()
});

/// Byte patterns of the code files: an opcode part, then how many operand bytes follow.
static CODE: LazyLock<Vec<(Vec<u8>, usize)>> = LazyLock::new(|| {
    let mut rng = Rng::new(0x636F_6465);
    (0..TEMPLATES)
        .map(|_| {
            let opcode = (0..2 + rng.below(3)).map(|_| rng.next() as u8).collect();
            (opcode, [0, 0, 1, 1, 1, 2, 4][rng.below(7) as usize])
        })
        .collect()
});

/// Fills a piece; the last file is cut short where the piece ends.
pub(super) fn fill(rng: &mut Rng, out: &mut [u8]) {
    out.fill(0);
    let mut at = 0;
    while at < out.len() {
        let exponent = FILE_BYTES_MIN_LOG2 + rng.below(FILE_BYTES_MAX_LOG2 - FILE_BYTES_MIN_LOG2);
        let len = (1 << exponent) + rng.below(1 << exponent) as usize;
        let end = (at + len).min(out.len());
        let file = &mut out[at..end];
        match rng.below(100) {
            0..36 => code(rng, file),
            36..68 => text(rng, file),
            68..82 => tables(rng, file),
            82..93 => rng.fill(file),
            _ => {}
        }
        at = end.next_multiple_of(PAGE_BYTES);
    }
}

/// Copies as much as fits; false when the file is full.
fn put(file: &mut [u8], at: &mut usize, bytes: &[u8]) -> bool {
    let take = bytes.len().min(file.len() - *at);
    file[*at..*at + take].copy_from_slice(&bytes[..take]);
    *at += take;
    *at < file.len()
}

/// Repeats `len` earlier bytes of the file, as idioms, boilerplate and padding do; nothing at the file's start.
fn echo(file: &mut [u8], at: &mut usize, random: u64, len: usize) -> bool {
    let distance = 64 << (((random & 0xFF) * 9) >> 8);
    let distance = distance + (random >> 8) as usize % distance;
    if distance < *at {
        let from = *at - distance;
        let take = len.min(distance).min(file.len() - *at);
        file.copy_within(from..from + take, *at);
        *at += take;
    }
    *at < file.len()
}

/// A rank below `n` with a probability that falls about as 1 / rank.
fn zipf(random: u64, n: usize) -> usize {
    // The exponent of a log-uniform value: 16 bits choose the octave, 16 others the place within it.
    let octaves = n.ilog2() as u64;
    let octave = ((random & 0xFFFF) * octaves) >> 16;
    let base = 1usize << octave;
    base - 1 + ((((random >> 16) & 0xFFFF) * base as u64) >> 16) as usize
}

fn text(rng: &mut Rng, file: &mut [u8]) {
    let vocabulary = &*VOCABULARY;
    let (mut at, mut column) = (0, 0);
    // Each file leans on words of its own topic, as real files do.
    let topic = rng.below(WORDS as u64) as usize;
    loop {
        let random = rng.next();
        let rank = zipf(random, WORDS);
        let rank = if random >> 62 == 0 {
            (topic + rank) % WORDS
        } else {
            rank
        };
        if random >> 60 == 0 && !echo(file, &mut at, rng.next(), 24 + (random >> 50) as usize % 64)
        {
            return;
        }
        let word = &vocabulary[rank];
        column += word.len() + 1;
        let separator: &[u8] = match (random >> 40) & 31 {
            _ if column > 72 => {
                column = 0;
                b"\n"
            }
            0 => b", ",
            1 => b" = \"",
            2 => b"/",
            3 => b"-",
            4 => b"_",
            5 => b"(",
            _ => b" ",
        };
        if !put(file, &mut at, word) || !put(file, &mut at, separator) {
            return;
        }
    }
}

fn code(rng: &mut Rng, file: &mut [u8]) {
    let code = &*CODE;
    let mut at = 0;
    loop {
        let random = rng.next();
        let (opcode, operands) = &code[zipf(random, TEMPLATES)];
        if random >> 59 < 7 && !echo(file, &mut at, rng.next(), 8 + (random >> 52) as usize % 64) {
            return;
        }
        // Operands are mostly small; the upper bytes of wide ones repeat.
        let low = (random >> 32) as u8;
        let operand = [low & (low >> 4 | 0x1F), (random >> 44) as u8 & 0x3F, 0, 0];
        if !put(file, &mut at, opcode) || !put(file, &mut at, &operand[..*operands]) {
            return;
        }
    }
}

fn tables(rng: &mut Rng, file: &mut [u8]) {
    let mut at = 0;
    let (mut id, mut offset) = (rng.next() as u32, rng.below(1 << 30));
    let (time, kind) = (rng.next() as u32 >> 1, rng.next() as u16);
    loop {
        let random = rng.next();
        id = id.wrapping_add(1);
        offset += (random & 0x3FF) * 8;
        let mut record = [0; 32];
        record[..4].copy_from_slice(&id.to_le_bytes());
        record[4..12].copy_from_slice(&offset.to_le_bytes());
        record[12..14].copy_from_slice(&(random as u16 & 0x7F).to_le_bytes());
        record[16..20].copy_from_slice(&(time + ((random >> 48) as u32 & 7) * 60).to_le_bytes());
        record[20..22].copy_from_slice(&kind.to_le_bytes());
        record[22] = (random >> 20) as u8 & 3;
        if !put(file, &mut at, &record) {
            return;
        }
    }
}
