//! How long things took, counted without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in microseconds; one more bucket takes what is longer.
///
/// From a fast NVMe device (0.2 ms for two fsyncs) to a disk that other work keeps busy.
pub const BUCKET_MICROS: [u64; 12] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];

/// A histogram of durations. Each figure is read alone; together they are not a snapshot.
#[derive(Debug, Default)]
pub struct Durations {
    sum_micros: AtomicU64,
    buckets: [AtomicU64; BUCKET_MICROS.len() + 1],
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_MICROS.partition_point(|bound| *bound < micros);
        self.sum_micros.fetch_add(micros, Relaxed);
        self.buckets[bucket].fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// All together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_micros.load(Relaxed) as f64 / 1e6
    }

    /// How many fell into each bucket, with its upper bound in seconds; the last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BUCKET_MICROS.iter().map(|micros| *micros as f64 / 1e6);
        bounds
            .chain([f64::MAX])
            .zip(self.buckets.iter().map(|count| count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for micros in [0, 250, 251, 5_000_000, 5_000_001] {
            durations.observe(Duration::from_micros(micros));
        }
        let counts: Vec<_> = durations.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(durations.count(), 5);
        assert!((durations.sum_seconds() - 10.000_502).abs() < 1e-9);
    }
}
