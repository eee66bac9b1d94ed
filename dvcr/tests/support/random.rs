//! Content that no earlier run has pushed.

use std::time::{SystemTime, UNIX_EPOCH};

/// A xorshift generator: enough to make content unique and incompressible, and repeatable from the printed seed.
pub(crate) struct Random(u64);

impl Random {
    /// Seeded with the clock and the process, as content must differ from what an earlier run left in a registry that is not
    /// ours; `DVCR_TEST_SEED` repeats a run.
    pub(crate) fn new() -> Self {
        let seed = std::env::var("DVCR_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .expect("the clock is past 1970");
                now.as_nanos() as u64 ^ (u64::from(std::process::id()) << 40)
            });
        println!("DVCR_TEST_SEED={seed}");
        Self::from_seed(seed)
    }

    /// Another generator, for another thread.
    pub(crate) fn from_seed(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        // A stream of BLAKE3: tests push megabytes, and dependencies are optimised where tests are not.
        let seed = blake3::hash(&self.next().to_le_bytes());
        let mut bytes = vec![0; len];
        blake3::Hasher::new_keyed(seed.as_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    /// 16 lower-case hex digits.
    pub(crate) fn word(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}
