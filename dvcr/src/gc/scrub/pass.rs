//! A pass over all packs: in the background within a budget, going on where it was after a restart; or now.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use dvcr_core::oci::RepositoryName;

use super::{Pace, ROWS, Scrubber};
use crate::{
    backend::PackId,
    gc::mark::each,
    meta::{
        Check, Commit, Pages, Txn, key,
        record::{BlobRecord, PackRecord, PackState, Record as _, ScrubRecord},
    },
    store::StoreError,
};

/// Time from the begin of one pass in the background to that of the next, at least: what is little need not be read again and
/// again all day.
pub(super) const PASS_INTERVAL_MS: u64 = 7 * 24 * 3600 * 1000;

/// Of the bytes read from packs, one in so many is spent on digests of whole blobs besides.
const SAMPLE_SHARE: u64 = 8;

/// Seconds.
pub(super) const HOUR: u64 = 3600;

impl Scrubber {
    /// Goes on with the pass that is going on, or begins one if it is time.
    pub(super) async fn background_pass(&self) -> Result<(), StoreError> {
        let (progress, _) = self.progress().await?;
        let now = self.clock.now_ms();
        let due_ms = match progress.pass_began_ms {
            0 => 0,
            began_ms => began_ms.saturating_add(PASS_INTERVAL_MS),
        };
        if progress.last_pack == 0 && now < due_ms {
            return Ok(());
        }
        if progress.last_pack == 0 {
            self.update(|progress| {
                progress.pass_began_ms = now;
                progress.pass_bytes = 0;
            })
            .await?;
        }
        let mut last = PackId(progress.last_pack);
        while let Some(pack) = self.next_pack(last).await? {
            let read = self.scrub_pack(pack, Pace::Background).await?;
            self.update(|progress| {
                progress.last_pack = pack.0;
                progress.pass_bytes += read;
                progress.bytes += read;
                progress.sample_bytes += read / SAMPLE_SHARE;
            })
            .await?;
            self.sample().await?;
            last = pack;
        }
        self.end_pass().await
    }

    async fn end_pass(&self) -> Result<(), StoreError> {
        self.check_rows().await?;
        let now = self.clock.now_ms();
        self.update(|progress| {
            progress.last_pack = 0;
            progress.full_pass_ms = now;
        })
        .await?;
        self.stats.full_pass_ms.store(now, Relaxed);
        self.settle().await?;
        tracing::info!("scrubbed all packs");
        Ok(())
    }

    /// Reads every sealed pack.
    pub(in crate::gc) async fn read_all(&self) -> Result<(), StoreError> {
        let mut last = PackId(0);
        while let Some(pack) = self.next_pack(last).await? {
            let read = self.scrub_pack(pack, Pace::Now).await?;
            self.update(|progress| progress.bytes += read).await?;
            last = pack;
        }
        self.end_pass().await
    }

    /// Reads every blob of a repository.
    pub(in crate::gc) async fn read_repository(
        &self,
        repository: &RepositoryName,
    ) -> Result<(), StoreError> {
        for (digest, _) in self.blobs_of(repository).await? {
            self.scrub_blob(&digest, Pace::Now).await?;
        }
        self.settle().await
    }

    /// The next sealed pack. Open ones are too new to be damaged; condemned ones are checked by who empties them.
    async fn next_pack(&self, last: PackId) -> Result<Option<PackId>, StoreError> {
        let range = key::after(key::packs(), &key::pack(last));
        let mut pages = Pages::new(&*self.meta, range, ROWS);
        while let Some(rows) = pages.next().await? {
            for (row, value) in &rows {
                if PackRecord::decode(row, value)?.state == PackState::Sealed
                    && let Some(pack) = key::pack_of(row)
                {
                    return Ok(Some(pack));
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn pack_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        each(self.source(), key::packs(), ROWS, |row, value| {
            let pack = PackRecord::decode(row, value)?;
            if pack.state == PackState::Sealed {
                bytes += pack.bytes;
            }
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    /// Compares the digest of the blob whose turn it is, once enough bytes have come together for it.
    async fn sample(&self) -> Result<(), StoreError> {
        let (progress, _) = self.progress().await?;
        let all = key::blobs();
        let range = match progress.sampled {
            Some(last) => key::after(all.clone(), &key::blob(&last)),
            None => all.clone(),
        };
        let next = self.meta.scan(&range, 1).await?.into_iter().next();
        let Some((row, value)) = next else {
            // From the begin again.
            return self.update(|progress| progress.sampled = None).await;
        };
        let len = BlobRecord::decode(&row, &value)?.len;
        let Some(digest) = key::blob_of(&row).filter(|_| len <= progress.sample_bytes) else {
            return Ok(());
        };
        self.scrub_blob(&digest, Pace::Background).await?;
        self.update(|progress| {
            progress.sample_bytes = progress.sample_bytes.saturating_sub(len);
            progress.sampled = Some(digest);
        })
        .await
    }

    /// Counts bytes, and lets others have the device: in the background for as long as the budget says.
    pub(super) async fn spend(&self, bytes: u64, pace: Pace) {
        self.stats.bytes.fetch_add(bytes, Relaxed);
        match pace {
            Pace::Background => {
                let ms = u128::from(bytes) * u128::from(HOUR * 1000)
                    / u128::from(self.bytes_per_hour.max(1));
                let ms = u64::try_from(ms).unwrap_or(u64::MAX);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Pace::Now => {
                if let Some(run) = &mut *self.run() {
                    run.bytes += bytes;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    pub(super) async fn progress(&self) -> Result<(ScrubRecord, Option<Bytes>), StoreError> {
        let key = key::scrub_state();
        let row = self.meta.get_one(&key).await?;
        let record = row.as_ref().map(|row| ScrubRecord::decode(&key, row));
        Ok((record.transpose()?.unwrap_or_default(), row))
    }

    async fn update(&self, change: impl Fn(&mut ScrubRecord)) -> Result<(), StoreError> {
        loop {
            let (mut progress, row) = self.progress().await?;
            change(&mut progress);
            let key = key::scrub_state();
            let txn = Txn {
                checks: vec![match row {
                    Some(row) => Check::Exact(key.clone(), row),
                    None => Check::Absent(key.clone()),
                }],
                puts: vec![(key, progress.encode())],
                deletes: vec![],
            };
            // A conflict means that another scrub wrote.
            if self.meta.commit(txn).await? == Commit::Done {
                return Ok(());
            }
        }
    }
}
