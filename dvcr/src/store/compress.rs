//! How a chunk is stored: compressed where it pays, raw where it does not or where there is no time.

use std::sync::Mutex;

use bytes::Bytes;

use super::pack::Codec;

/// A chunk is stored compressed only if that saves at least one part in this many: decoding costs on every pull.
const GAIN_MIN: usize = 16;

/// Bytes looked at to guess whether a chunk compresses: enough that random bytes come out within 0.1 bit of 8.
const SAMPLE_BYTES: usize = 4096;

/// Estimated bits per byte above which compression is not tried. Measured: gzip, zstd, JPEG and encrypted data come out
/// at 7.9 and above, machine code at 6 to 6.7, text below 5.2.
const ENTROPY_MAX_BITS: f64 = 7.6;

/// How much work compression may be, chosen by how far the workers are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// zstd level 1: 0.6 GB/s a core.
    Full,
    /// zstd level -3: 0.75 GB/s a core, 12 % larger.
    Less,
    /// zstd level -5: 0.8 GB/s a core, 17 % larger.
    Least,
}

impl Effort {
    /// The effort for a number of blocks that wait for a worker, of which `cores` run at once.
    ///
    /// There is no step to no compression at all: measured on two cores (2026-11-21), it made one stream of disk-like data a
    /// fifth faster and took 1.8 times the space, for good.
    pub(crate) fn for_backlog(waiting: usize, cores: usize) -> Self {
        match waiting {
            w if w <= 2 * cores => Self::Full,
            w if w <= 3 * cores => Self::Less,
            _ => Self::Least,
        }
    }

    fn level(self) -> i32 {
        match self {
            Self::Full => 1,
            Self::Less => -3,
            Self::Least => -5,
        }
    }
}

/// Reusable zstd contexts: one is some hundred KiB, and making one costs more than compressing a chunk.
#[derive(Default)]
pub(crate) struct Codecs {
    compressors: Mutex<Vec<(i32, zstd::bulk::Compressor<'static>)>>,
    decompressors: Mutex<Vec<zstd::bulk::Decompressor<'static>>>,
}

/// Contexts kept for reuse; more are made under load and dropped after use.
const CONTEXTS_KEPT: usize = 16;

impl Codecs {
    /// The stored form of a chunk. Never longer than the chunk; `Raw` returns the chunk itself, not a copy.
    pub(crate) fn encode(&self, chunk: &Bytes, effort: Effort) -> (Codec, Bytes) {
        let raw = (Codec::Raw, chunk.clone());
        let level = effort.level();
        if entropy_bits(chunk) > ENTROPY_MAX_BITS {
            return raw;
        }
        let kept = lock(&self.compressors).pop();
        let Some((kept_level, mut compressor)) =
            kept.or_else(|| zstd::bulk::Compressor::new(level).ok().map(|c| (level, c)))
        else {
            return raw;
        };
        if kept_level != level && compressor.set_compression_level(level).is_err() {
            return raw;
        }
        let compressed = compressor.compress(chunk);
        let mut pool = lock(&self.compressors);
        if pool.len() < CONTEXTS_KEPT {
            pool.push((level, compressor));
        }
        drop(pool);
        match compressed {
            Ok(bytes) if bytes.len() <= chunk.len() - chunk.len() / GAIN_MIN => {
                (Codec::Zstd, Bytes::copy_from_slice(&bytes))
            }
            _ => raw,
        }
    }

    /// The chunk whose stored form is `payload` and whose length is `len`, or what is wrong.
    pub(crate) fn decode(&self, codec: Codec, payload: Bytes, len: usize) -> Result<Bytes, String> {
        let bytes = match codec {
            Codec::Raw => payload,
            Codec::Zstd => {
                let kept = lock(&self.decompressors).pop();
                let mut decompressor = match kept {
                    Some(decompressor) => decompressor,
                    None => zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?,
                };
                let decoded = decompressor
                    .decompress(&payload, len)
                    .map_err(|e| e.to_string());
                let mut pool = lock(&self.decompressors);
                if pool.len() < CONTEXTS_KEPT {
                    pool.push(decompressor);
                }
                drop(pool);
                decoded?.into()
            }
        };
        if bytes.len() == len {
            Ok(bytes)
        } else {
            Err(format!(
                "chunk of {} bytes where the recipe says {len}",
                bytes.len()
            ))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Shannon entropy of a sample spread over the data, bits per byte.
fn entropy_bits(data: &[u8]) -> f64 {
    // Four short runs: headers and padding at one place must not decide for all.
    const RUNS: usize = 4;
    let run = (SAMPLE_BYTES / RUNS).min(data.len() / RUNS);
    if run == 0 {
        return 0.0;
    }
    let mut counts = [0u32; 256];
    for i in 0..RUNS {
        let start = data.len() / RUNS * i;
        for byte in &data[start..start + run] {
            counts[usize::from(*byte)] += 1;
        }
    }
    let total = f64::from(u32::try_from(run * RUNS).expect("a sample is small"));
    let sum: f64 = counts
        .iter()
        .filter(|c| **c > 0)
        .map(|c| f64::from(*c) * f64::from(*c).log2())
        .sum();
    total.log2() - sum / total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(len: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        std::iter::repeat_with(move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()
        })
        .flatten()
        .take(len)
        .collect()
    }

    #[test]
    fn what_does_not_compress_is_kept_as_it_is_without_a_copy() {
        let codecs = Codecs::default();
        let chunk = Bytes::from(random(65536));
        let (codec, stored) = codecs.encode(&chunk, Effort::Full);
        assert_eq!((codec, stored.as_ptr()), (Codec::Raw, chunk.as_ptr()));
        assert!(entropy_bits(&chunk) > 7.9);
    }

    #[test]
    fn every_effort_reads_back() {
        let codecs = Codecs::default();
        let chunk = Bytes::from(b"the quick brown fox ".repeat(3000));
        let mut lens = Vec::new();
        for effort in [Effort::Full, Effort::Less, Effort::Least] {
            let (codec, stored) = codecs.encode(&chunk, effort);
            lens.push(stored.len());
            assert_eq!(codecs.decode(codec, stored, chunk.len()).unwrap(), chunk);
        }
        assert!(lens.iter().all(|len| *len < 2000), "{lens:?}");
    }

    #[test]
    fn a_stored_chunk_of_another_length_is_refused() {
        let codecs = Codecs::default();
        let (codec, stored) = codecs.encode(&Bytes::from(vec![7u8; 40_000]), Effort::Full);
        assert!(codecs.decode(codec, stored.clone(), 39_999).is_err());
        assert!(codecs.decode(codec, stored, 40_001).is_err());
        assert!(
            codecs
                .decode(Codec::Zstd, Bytes::from_static(b"junk"), 10)
                .is_err()
        );
    }

    #[test]
    fn effort_falls_with_the_backlog() {
        let efforts: Vec<_> = [0, 4, 5, 6, 7, 1000]
            .map(|w| Effort::for_backlog(w, 2))
            .to_vec();
        use Effort::*;
        assert_eq!(efforts, [Full, Full, Less, Less, Least, Least]);
    }
}
