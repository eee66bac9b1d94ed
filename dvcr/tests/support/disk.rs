//! A disk too large for memory, made from a seed: any range of it can be made again at any time.

use sha2::{Digest as _, Sha256};

/// Everything is laid out in extents of this length.
const EXTENT_BYTES: u64 = 4 << 20;
/// What is repeated comes from so many bytes: 32 MiB.
const REPEATED_BYTES: u64 = 32 << 20;
/// Streams are handled in pieces of this length.
const PIECE_BYTES: usize = 1 << 20;

/// A disk with random, compressible, repeated and zero extents.
pub(crate) struct Disk {
    seed: [u8; 32],
    len: u64,
}

/// What an extent holds.
enum Extent {
    Random,
    /// As compressible as text: random bytes in hex.
    Compressible,
    /// Bytes that other extents have as well, at other alignments.
    Repeated {
        from: u64,
    },
    Zero,
}

impl Disk {
    pub(crate) fn new(seed: u64, len: u64) -> Self {
        let seed = *blake3::hash(&seed.to_le_bytes()).as_bytes();
        Self { seed, len }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` with what lies at `offset`, which must be within the disk.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) {
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let within = offset % EXTENT_BYTES;
            let len = rest.len().min((EXTENT_BYTES - within) as usize);
            let (now, later) = rest.split_at_mut(len);
            self.read_extent(offset / EXTENT_BYTES, within, now);
            offset += len as u64;
            rest = later;
        }
    }

    fn read_extent(&self, extent: u64, within: u64, buffer: &mut [u8]) {
        match self.extent(extent) {
            Extent::Zero => buffer.fill(0),
            Extent::Random => self.random("random", extent * EXTENT_BYTES + within, buffer),
            Extent::Repeated { from } => self.random("repeated", from + within, buffer),
            Extent::Compressible => {
                let begin = within / 2;
                let mut random = vec![0; buffer.len() / 2 + 2];
                self.random("compressible", extent * EXTENT_BYTES + begin, &mut random);
                let text = hex::encode(random);
                let odd = (within % 2) as usize;
                buffer.copy_from_slice(&text.as_bytes()[odd..odd + buffer.len()]);
            }
        }
    }

    fn extent(&self, extent: u64) -> Extent {
        let mut drawn = [0; 16];
        self.random("extents", extent * 16, &mut drawn);
        let draw = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
        match draw(&drawn[..8]) % 8 {
            0..=2 => Extent::Random,
            3 | 4 => Extent::Compressible,
            5 | 6 => Extent::Repeated {
                from: draw(&drawn[8..]) % (REPEATED_BYTES - EXTENT_BYTES),
            },
            _ => Extent::Zero,
        }
    }

    /// An endless stream of random bytes, from `position` on.
    fn random(&self, stream: &str, position: u64, buffer: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(stream.as_bytes());
        let mut reader = hasher.finalize_xof();
        reader.set_position(position);
        reader.fill(buffer);
    }

    /// `sha256:hex` of the whole disk.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < self.len {
            let len = buffer.len().min((self.len - offset) as usize);
            self.read(offset, &mut buffer[..len]);
            hasher.update(&buffer[..len]);
            offset += len as u64;
        }
        format!("sha256:{}", hex::encode(hasher.finalize()))
    }
}
