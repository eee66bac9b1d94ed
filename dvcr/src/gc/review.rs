//! Looking again at what nothing may refer to any more: blobs, repository by repository.
//!
//! Each step is one transaction whose checks fail if a push got there first; then the review is looked at anew. A review row is
//! removed only together with what makes it needless, so a crash repeats a step and never forgets one.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{GarbageCollector, pins::Removal};
use crate::{
    meta::{
        Check, Commit, Key, MetaError, MetaStore, Txn, key,
        key::Review,
        record::{self, BlobBody, BlobRecord, HoldRecord, Record, UntaggedRecord},
    },
    store::StoreError,
};

/// Reviews read at once.
const PAGE: usize = 1024;

/// Reviews looked at side by side: their transactions share commits, 512 of them at most.
const PARALLEL: usize = 512;

/// Reviews looked at before a rest while somebody pushes: so many lengthen the commit that a push waits for by a
/// millisecond or so.
const BUSY_PAGE: usize = 32;

/// What reviews came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// Reviews that were due.
    pub reviews: u64,
    /// Blobs that a repository lost.
    pub unlinked: u64,
    /// Blobs that no repository held any more and that are gone.
    pub removed: u64,
    /// Length of those, bytes.
    pub removed_bytes: u64,
}

impl Reviewed {
    fn add(self, other: Self) -> Self {
        Self {
            reviews: self.reviews + other.reviews,
            unlinked: self.unlinked + other.unlinked,
            removed: self.removed + other.removed,
            removed_bytes: self.removed_bytes + other.removed_bytes,
        }
    }
}

/// What is to be done about a review.
struct Step<'a> {
    txn: Txn,
    done: Reviewed,
    next: Next,
    /// Held until the transaction has ended.
    removal: Option<Removal<'a>>,
}

/// What becomes of a review after a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is over: its row goes with the step.
    Over,
    /// It is looked at again.
    Again,
    /// It stays for when it is due.
    Later,
}

impl GarbageCollector {
    /// Looks at every review that is due; with `grace`, at those that would be if that were the configured one. A review that
    /// is looked at early ends no lease.
    pub async fn review(&self, grace: Option<Duration>) -> Result<Reviewed, StoreError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (usual, grace) = (millis(self.grace), millis(grace.unwrap_or(self.grace)));
        let due_ms = self
            .clock
            .now_ms()
            .saturating_add(usual)
            .saturating_sub(grace);
        let mut total = Reviewed::default();
        let mut range = key::reviews_due(due_ms);
        loop {
            let slice = self.store.pace().slice();
            let page = match self.store.pace().is_busy() {
                true => BUSY_PAGE,
                false => PAGE,
            };
            let rows = self.meta.scan(&range, page).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(total);
            };
            range = key::after(range, last);
            let reviewed = stream::iter(rows)
                .map(|(row, _)| self.review_row(row))
                .buffer_unordered(PARALLEL)
                .try_fold(Reviewed::default(), async |sum, one| Ok(sum.add(one)))
                .await?;
            total = total.add(reviewed);
            slice.rest().await;
        }
    }

    async fn review_row(&self, row: Key) -> Result<Reviewed, StoreError> {
        let review = key::review_of(&row).ok_or_else(|| MetaError::Corrupt {
            key: hex::encode(&row),
            what: "a review",
        })?;
        let mut total = Reviewed {
            reviews: 1,
            ..Reviewed::default()
        };
        loop {
            let Step {
                mut txn,
                done,
                next,
                removal: _removal,
            } = if review.manifest {
                self.manifest_step(&review).await?
            } else {
                self.blob_step(&review).await?
            };
            match next {
                Next::Over => txn.deletes.push(row.clone()),
                Next::Again => {}
                Next::Later => break,
            }
            // A conflict means that somebody changed what this relied on: look again.
            if self.meta.commit(txn).await? == Commit::Done {
                total = total.add(done);
                if next == Next::Over {
                    break;
                }
            }
        }
        if total.unlinked > 0 {
            drop_repository_if_empty(&*self.meta, &review.repository).await?;
        }
        Ok(total)
    }

    /// Earlier versions asked for reviews of manifests; retention knows them by another row.
    async fn manifest_step(&self, review: &Review) -> Result<Step<'_>, StoreError> {
        if review.due_ms > self.clock.now_ms() {
            return Ok(Step::later());
        }
        let Review {
            repository, digest, ..
        } = review;
        let keys = [
            key::manifest(repository, digest),
            key::untagged(repository, digest),
        ];
        let mut txn = Txn::default();
        if let [Some(_), None] = self.meta.get(&keys).await?[..] {
            let [manifest, untagged] = keys;
            let row = UntaggedRecord {
                since_ms: review.due_ms,
                let_go: false,
            };
            txn.checks = vec![Check::Present(manifest), Check::Absent(untagged.clone())];
            txn.puts = vec![(untagged, row.encode())];
        }
        Ok(Step {
            txn,
            done: Reviewed::default(),
            next: Next::Over,
            removal: None,
        })
    }

    async fn blob_step(&self, review: &Review) -> Result<Step<'_>, StoreError> {
        let Review {
            repository, digest, ..
        } = review;
        let over = |checks| Step {
            txn: Txn {
                checks,
                ..Txn::default()
            },
            done: Reviewed::default(),
            next: Next::Over,
            removal: None,
        };
        let keys = [key::hold(repository, digest), key::blob(digest)];
        let mut rows = self.meta.get(&keys).await?.into_iter();
        let (hold, blob) = (rows.next().flatten(), rows.next().flatten());
        let [hold_key, blob_key] = keys;
        if let Some(hold) = hold {
            let edges = key::edges(digest, repository);
            if let Some((edge, _)) = self.meta.scan(&edges, 1).await?.into_iter().next() {
                // Whoever removes that reference asks for another review.
                return Ok(over(vec![Check::Present(edge)]));
            }
            let record = HoldRecord::decode(&hold_key, &hold)?;
            let lease_ms = record.lease_ms;
            let mut txn = Txn {
                checks: vec![Check::Exact(hold_key.clone(), hold)],
                ..Txn::default()
            };
            let now = self.clock.now_ms();
            if lease_ms > now && review.due_ms > now {
                return Ok(Step::later());
            }
            if lease_ms > now {
                let later = key::review_blob(lease_ms, repository, digest);
                txn.puts.push((later, record::mark()));
                return Ok(Step {
                    txn,
                    done: Reviewed::default(),
                    next: Next::Over,
                    removal: None,
                });
            }
            txn.checks.push(Check::EmptyRange(edges));
            txn.deletes = vec![hold_key, key::held_by(digest, repository)];
            let done = Reviewed {
                unlinked: 1,
                ..Reviewed::default()
            };
            return Ok(Step {
                txn,
                done,
                next: Next::Again,
                removal: None,
            });
        }
        let Some(blob) = blob else {
            // A push that came meanwhile may rely on this very review.
            let checks = [hold_key, blob_key].map(Check::Absent);
            return Ok(over(checks.into()));
        };
        let holders = key::holders(digest);
        if let Some((holder, _)) = self.meta.scan(&holders, 1).await?.into_iter().next() {
            return Ok(over(vec![Check::Present(holder)]));
        }
        let Some(removal) = self.pins.remove(digest) else {
            // A push is being compared with it.
            return Ok(Step::later());
        };
        let record = BlobRecord::decode(&blob_key, &blob)?;
        let mut deletes = vec![blob_key.clone(), key::inline(digest)];
        if let BlobBody::Recipe { id, parts } = record.body {
            deletes.extend(key::recipe_rows(id, parts));
            self.store.note_dead(record.stored_len.max(1));
        }
        Ok(Step {
            txn: Txn {
                checks: vec![Check::Exact(blob_key, blob), Check::EmptyRange(holders)],
                puts: vec![],
                deletes,
            },
            done: Reviewed {
                removed: 1,
                removed_bytes: record.len,
                ..Reviewed::default()
            },
            next: Next::Over,
            removal: Some(removal),
        })
    }
}

impl Step<'_> {
    /// It is too early.
    fn later() -> Self {
        Self {
            txn: Txn::default(),
            done: Reviewed::default(),
            next: Next::Later,
            removal: None,
        }
    }
}

/// Forgets a repository that holds nothing any more, so that it is not listed.
pub(crate) async fn drop_repository_if_empty(
    meta: &dyn MetaStore,
    repository: &dvcr_core::oci::RepositoryName,
) -> Result<(), MetaError> {
    let ranges = [
        key::manifests(repository),
        key::tags(repository),
        key::holds(repository),
    ];
    for range in &ranges {
        if !meta.scan(range, 1).await?.is_empty() {
            return Ok(());
        }
    }
    let txn = Txn {
        checks: ranges.map(Check::EmptyRange).into(),
        puts: vec![],
        deletes: vec![key::repository(repository.as_str())],
    };
    // A conflict means that somebody pushed meanwhile.
    let _: Commit = meta.commit(txn).await?;
    Ok(())
}
