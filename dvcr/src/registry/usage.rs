//! Usage over time: what was stored, every ten minutes, every hour of the last month, every day before.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    Inner, Page, Principal, Registry, RegistryError,
    policy::{self, Action},
};
use crate::meta::{
    Commit, KeyRange, Txn, key,
    record::{Record as _, UsageRecord},
};

/// Time between two samples.
const SAMPLE_MS: u64 = 10 * 60 * 1000;

const HOUR_MS: u64 = 3_600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Every sample is kept for so long.
const ALL_MS: u64 = DAY_MS;

/// After that one of each hour, for so long.
const HOURLY_MS: u64 = 30 * DAY_MS;

/// After that one of each day, for so long.
const DAILY_MS: u64 = 10 * 366 * DAY_MS;

/// Samples that this leaves, with room for those of servers that restart often: 144 + 720 + 3,630, at 41 bytes each.
const SAMPLES_MAX: usize = 10_000;

/// Chunk rows read for an estimate of their number: wrong by about one percent.
const CHUNK_ROWS: usize = 10_000;

/// What was stored at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageSample {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub usage: UsageRecord,
}

impl Registry {
    /// Up to `n` samples after `after` within `from..to` (milliseconds since 1970), the oldest first.
    pub async fn usage(
        &self,
        who: &Principal,
        range: std::ops::Range<u64>,
        after: Option<u64>,
        n: usize,
    ) -> Result<Page<UsageSample>, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let range = KeyRange {
            from: key::usage(
                range
                    .start
                    .max(after.map_or(0, |after| after.saturating_add(1))),
            ),
            to: key::usage(range.end),
        };
        let mut items = Vec::new();
        if range.from < range.to {
            for (key, value) in self.0.meta.scan(&range, n + 1).await? {
                if let Some(at_ms) = key::usage_of(&key) {
                    let usage = UsageRecord::decode(&key, &value)?;
                    items.push(UsageSample { at_ms, usage });
                }
            }
        }
        let more = items.len() > n;
        items.truncate(n);
        Ok(Page { items, more })
    }

    /// Writes a sample, if it is time for one, and thins out older ones. `blobs`, `logical_bytes` and `stored_bytes` are those of
    /// [`Registry::sizes`]. Returns whether it was time.
    pub async fn note_usage(
        &self,
        (blobs, logical_bytes, stored_bytes): (u64, u64, u64),
    ) -> Result<bool, RegistryError> {
        let inner = &self.0;
        let now = inner.now_ms();
        let last = inner.last_sample_ms.load(Relaxed);
        // A clock that was set back does not stop samples.
        if last <= now && now - last < SAMPLE_MS {
            return Ok(false);
        }
        let rows = inner.meta.scan(&key::usages(), SAMPLES_MAX).await?;
        let times: Vec<u64> = rows
            .iter()
            .filter_map(|(key, _)| key::usage_of(key))
            .collect();
        let last = times.iter().rev().find(|time| **time <= now);
        let last = last.copied().unwrap_or(0);
        if now - last < SAMPLE_MS {
            // The first look since the start.
            inner.last_sample_ms.store(last, Relaxed);
            return Ok(false);
        }
        let usage = UsageRecord {
            blobs,
            logical_bytes,
            stored_bytes,
            chunks: inner.estimate_chunks().await?,
        };
        let txn = Txn {
            puts: vec![(key::usage(now), usage.encode())],
            deletes: surplus(&times, now).map(key::usage).collect(),
            ..Txn::default()
        };
        // It has no checks, so nothing contradicts it.
        let _: Commit = inner.meta.commit(txn).await?;
        inner.last_sample_ms.store(now, Relaxed);
        Ok(true)
    }
}

impl Inner {
    /// Number of chunk rows. Ids are hashes, so any part of them is a fair sample.
    async fn estimate_chunks(&self) -> Result<u64, RegistryError> {
        let mut found = 0;
        for bits in [0, 4, 8, 12, 16] {
            let part = key::chunks_of_part(0, bits);
            let rows = self.meta.scan(&part, CHUNK_ROWS).await?.len();
            found = (rows as u64) << bits;
            if rows < CHUNK_ROWS {
                break;
            }
        }
        Ok(found)
    }
}

/// Which of the samples, ascending, are too many: all but the first of each hour or day. Those of the future stay: a clock
/// that was wrong does not make them so.
fn surplus(times: &[u64], now: u64) -> impl Iterator<Item = u64> {
    let mut kept = None;
    times.iter().copied().filter(move |time| {
        let age = now.saturating_sub(*time);
        let place = match age {
            0..ALL_MS => return false,
            ALL_MS..HOURLY_MS => (HOUR_MS, time / HOUR_MS),
            HOURLY_MS..DAILY_MS => (DAY_MS, time / DAY_MS),
            DAILY_MS.. => return true,
        };
        let again = kept == Some(place);
        kept = Some(place);
        again
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thin(times: &mut Vec<u64>, now: u64) {
        let gone: std::collections::HashSet<u64> = surplus(times, now).collect();
        times.retain(|time| !gone.contains(time));
    }

    #[test]
    fn samples_are_thinned_out_as_they_age_and_bounded() {
        // Eleven years, a sample every ten minutes, thinned out after each.
        let mut times: Vec<u64> = Vec::new();
        let begin = 1_790_000_000_000 / DAY_MS * DAY_MS;
        let mut most = 0;
        let mut now = begin;
        while now < begin + 11 * 366 * DAY_MS {
            // Not each step, or the test takes minutes.
            if now.is_multiple_of(DAY_MS) {
                thin(&mut times, now);
            }
            times.push(now);
            most = most.max(times.len());
            now += SAMPLE_MS;
        }
        assert!(most < SAMPLES_MAX, "{most}");
        thin(&mut times, now);
        let steps = |range: std::ops::Range<u64>, step: u64| {
            let some: Vec<_> = times.iter().filter(|time| range.contains(time)).collect();
            assert!(
                some.windows(2).all(|pair| pair[1] - pair[0] == step),
                "{step}"
            );
            some.len() as u64
        };
        assert_eq!(steps(now - DAY_MS + 1..now, SAMPLE_MS), 143);
        assert_eq!(steps(now - 29 * DAY_MS..now - 2 * DAY_MS, HOUR_MS), 27 * 24);
        assert_eq!(
            steps(now - 3_000 * DAY_MS..now - 31 * DAY_MS, DAY_MS),
            2_969
        );
        assert!(times[0] >= now - DAILY_MS);
    }
}
