//! Taking in one blob: socket bytes become a digest and, beside it, chunks in packs.
//!
//! ```text
//! write() -> block (1 MiB) -+-> hash task: the blob's digest
//!                           +-> cut task: cut, BLAKE3, look up -> compress jobs -> append task: pack, recipe, flush
//! ```
//!
//! Blocks are reference-counted and carry their memory permits, so that what an upload holds is bounded wherever its bytes
//! are. Every [`FLUSH_BYTES`] and at the end of each request the pack is made durable and the recipe so far is committed,
//! together with the state from which the ingest can go on after a crash. The tasks are never cancelled: they end when
//! their input does, and clean up.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use dvcr_core::{
    chunk::Cutter,
    oci::{Algorithm, Digest},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Store, StoreError,
    append::{AppendTask, CutBatch, Stored, recipe_record},
    cut::CutTask,
    hasher::Hasher,
    ingest_state::IngestState,
    joined::joined,
    pack::BlobHead,
    recipe::RecipeBuilder,
    segment::Segment,
    session_row::SessionRow,
    verify::blob_head_record,
};
use crate::{
    blocking,
    meta::{Key, Txn, Value},
};

/// Bytes handed through the pipeline at once: large enough that a hand-over (some 10 us) is a hundredth of the work on it.
pub const BLOCK_BYTES: usize = 1 << 20;

/// Bytes after which an ingest flushes: what a crash makes a client send again, against one fdatasync and one commit.
pub const FLUSH_BYTES: u64 = 64 << 20;

/// Time after which a slow ingest flushes all the same: garbage collection waits for ingests that began before it.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(10);

/// Blobs up to this length live in the metadata: a config or an empty layer costs no pack write.
pub const INLINE_BYTES_MAX: u64 = 4096;

/// What arrives in one piece at least this long is a block of its own and is not copied.
const WHOLE_BYTES_MIN: usize = BLOCK_BYTES / 2;

/// Bytes in memory, with the permits for them; both go when the last slice does.
struct Block<T = BytesMut> {
    bytes: T,
    _permits: [OwnedSemaphorePermit; 2],
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Block<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// One message of the pipeline; marks and the end travel behind the blocks that they follow.
pub(super) enum Step {
    Block(Bytes),
    Mark(Mark),
    End,
}

/// A point at which the state of an ingest is recorded.
pub(super) struct Mark {
    /// Bytes of the blob up to here.
    pub(super) offset: u64,
    /// The midstate of its digest, from the hash task.
    pub(super) hasher: oneshot::Receiver<Hasher>,
    /// Told when the state is durable.
    pub(super) done: Option<oneshot::Sender<()>>,
}

enum HashStep {
    Block(Bytes),
    Mark(oneshot::Sender<Hasher>),
}

/// The tasks of a running ingest.
struct Pipeline {
    hash: mpsc::Sender<HashStep>,
    hashed: JoinHandle<Hasher>,
    /// None where the content is stored already and is only verified.
    steps: Option<mpsc::Sender<Step>>,
    stored: JoinHandle<Result<Stored, StoreError>>,
}

/// A blob being taken in.
pub struct Ingest {
    store: Arc<Store>,
    /// The state that this ingest began with; kept until the pipeline starts.
    state: IngestState,
    session: Option<SessionRow>,
    verify_only: bool,
    memory: Arc<Semaphore>,
    /// All that came, while it may yet become inline: up to [`INLINE_BYTES_MAX`], less than a connection's own buffers take. A
    /// block it is not, or clients that send a byte and no more would keep the memory of all uploads.
    first: BytesMut,
    block: Option<Block>,
    offset: u64,
    marked_offset: u64,
    marked_at: Instant,
    pipeline: Option<Pipeline>,
    /// The pipeline ended early, and bytes with it: what was recorded last is all there is.
    failed: bool,
}

/// A blob that is taken in whole. Commit what [`prepare`](Self::prepare) says, then drop this.
pub struct Finished {
    /// Length in bytes.
    pub len: u64,
    /// Digest by the ingest's algorithm.
    pub digest: Digest,
    /// Where the bytes are.
    pub body: FinishedBody,
    /// What the chunks take in the store, bytes.
    pub stored_len: u64,
    /// The session's row, if it has one: whoever commits the blob removes it.
    pub(crate) session: Option<SessionRow>,
    rows: Vec<(Key, Value)>,
    segment: Segment,
}

/// Where a finished blob's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishedBody {
    /// Here: it is small.
    Inline(Bytes),
    /// In chunks.
    Recipe {
        /// Recipe id.
        id: u64,
        /// Number of parts.
        parts: u32,
    },
    /// Nowhere: this ingest only verified the digest.
    Verified,
}

impl Finished {
    /// Makes the chunks durable and adds their rows and the recipe's to the transaction.
    pub async fn prepare(&self, txn: &mut Txn) -> Result<(), StoreError> {
        self.segment.prepare(txn).await?;
        txn.puts.extend(self.rows.iter().cloned());
        Ok(())
    }
}

impl Ingest {
    /// Goes on from `state`. Each flush commits `session` with its chunks; without one, nothing is flushed before the end.
    #[must_use]
    pub fn new(store: Arc<Store>, state: IngestState, session: Option<SessionRow>) -> Self {
        let memory = Arc::new(Semaphore::new(store.options.upload_blocks));
        let offset = state.offset;
        Self {
            store,
            state,
            session,
            verify_only: false,
            memory,
            first: BytesMut::new(),
            block: None,
            offset,
            marked_offset: offset,
            marked_at: Instant::now(),
            pipeline: None,
            failed: false,
        }
    }

    /// Only computes the digest, for content that is stored already.
    #[must_use]
    pub fn verify(store: Arc<Store>, algorithm: Algorithm, session: Option<SessionRow>) -> Self {
        let state = IngestState::new(0, algorithm);
        Self {
            verify_only: true,
            ..Self::new(store, state, session)
        }
    }

    /// Bytes taken in so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes in the next bytes. Waits while this upload or all together hold as much memory as they may.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        self.store
            .stats
            .ingested_bytes
            .fetch_add(bytes.len() as u64, Relaxed);
        let is_small = self.offset + bytes.len() as u64 <= INLINE_BYTES_MAX;
        if is_small && self.pipeline.is_none() {
            self.offset += bytes.len() as u64;
            self.first.extend_from_slice(&bytes);
            return Ok(());
        }
        while !bytes.is_empty() {
            if self.block.is_none() {
                let mine = Arc::clone(&self.memory).acquire_owned().await;
                let all = Arc::clone(&self.store.memory).acquire_owned().await;
                let permits = [mine, all].map(|p| p.expect("the semaphores are never closed"));
                let first = std::mem::take(&mut self.first);
                let is_whole = (WHOLE_BYTES_MIN..=BLOCK_BYTES).contains(&bytes.len());
                if is_whole && first.is_empty() {
                    self.offset += bytes.len() as u64;
                    let block = Block {
                        bytes,
                        _permits: permits,
                    };
                    self.push(Bytes::from_owner(block)).await?;
                    return self.flush_if_due().await;
                }
                // Small uploads stay small; the buffer grows to a block by doubling.
                let capacity = (first.len() + bytes.len()).clamp(64 << 10, BLOCK_BYTES);
                let mut buffer = BytesMut::with_capacity(capacity);
                buffer.extend_from_slice(&first);
                self.block = Some(Block {
                    bytes: buffer,
                    _permits: permits,
                });
            }
            let Some(block) = &mut self.block else {
                continue;
            };
            let part = bytes.split_to(bytes.len().min(BLOCK_BYTES - block.bytes.len()));
            block.bytes.extend_from_slice(&part);
            self.offset += part.len() as u64;
            if block.bytes.len() == BLOCK_BYTES {
                self.push_block().await?;
                self.flush_if_due().await?;
            }
        }
        Ok(())
    }

    /// To be called when no bytes have come for a moment: a slow client must not sit on the memory of a block.
    pub async fn idle(&mut self) -> Result<(), StoreError> {
        if self.offset > INLINE_BYTES_MAX {
            self.push_block().await?;
            self.flush_if_due().await?;
        }
        Ok(())
    }

    /// Records the state durably, so that the upload can go on from here after a restart. After a failure there is nothing
    /// to record: the last checkpoint stands.
    pub async fn suspend(mut self) -> Result<(), StoreError> {
        if self.failed || self.verify_only {
            return Ok(());
        }
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        if self.pipeline.is_none() && self.offset <= INLINE_BYTES_MAX {
            let mut state = self.state.clone();
            state.append(&self.first).map_err(StoreError::state)?;
            let mut txn = Txn::default();
            session.record(&state, &mut txn);
            return Segment::new(Arc::clone(&self.store.lanes))
                .flush(&*self.store.meta, txn)
                .await;
        }
        self.push_block().await?;
        let (done, flushed) = oneshot::channel();
        self.mark(Some(done)).await?;
        match flushed.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Ends the blob: everything is in packs, though not yet durable, and the digest is known.
    pub async fn finish(mut self) -> Result<Finished, StoreError> {
        if self.pipeline.is_none() && !self.verify_only && self.offset <= INLINE_BYTES_MAX {
            let mut state = self.state.clone();
            state.append(&self.first).map_err(StoreError::state)?;
            return Ok(Finished {
                len: self.offset,
                digest: Digest::of(state.algorithm, &state.tail),
                stored_len: state.tail.len() as u64,
                body: FinishedBody::Inline(state.tail),
                session: self.session,
                rows: Vec::new(),
                segment: Segment::new(Arc::clone(&self.store.lanes)),
            });
        }
        self.push_block().await?;
        self.start()?;
        let Some(Pipeline {
            hash,
            hashed,
            steps,
            stored,
        }) = self.pipeline.take()
        else {
            unreachable!("the pipeline was started")
        };
        drop(hash);
        if let Some(steps) = steps {
            // A closed pipeline says why below.
            let _ = steps.send(Step::End).await;
        }
        let stored = joined(stored, WHAT).await?;
        let digest = blocking::run({
            let hasher = joined_hash(hashed).await;
            move || hasher.finish()
        })
        .await;
        let Some((mut builder, mut segment, ticket, session)) = stored.parts else {
            return Ok(Finished {
                len: self.offset,
                digest,
                body: FinishedBody::Verified,
                stored_len: 0,
                session: self.session,
                rows: Vec::new(),
                segment: Segment::new(Arc::clone(&self.store.lanes)),
            });
        };
        // With these in the packs a lost database can be rebuilt from them.
        let (number, part) = builder.last_part();
        let head = BlobHead {
            digest,
            len: self.offset,
            recipe: builder.id(),
            parts: builder.parts(),
            created_unix_ms: self.store.clock.now_ms(),
        };
        let head = blob_head_record(&head)?;
        let part = recipe_record(builder.id(), number, part)?;
        segment.append_books(&ticket, vec![part, head]).await?;
        Ok(Finished {
            len: self.offset,
            digest,
            body: FinishedBody::Recipe {
                id: builder.id(),
                parts: builder.parts(),
            },
            stored_len: stored.stored_len,
            session,
            rows: builder.take_rows(),
            segment,
        })
    }

    async fn flush_if_due(&mut self) -> Result<(), StoreError> {
        let due = self.offset - self.marked_offset >= FLUSH_BYTES
            || (self.marked_at.elapsed() >= FLUSH_INTERVAL && self.offset > self.marked_offset);
        if due && self.session.is_some() {
            self.mark(None).await
        } else {
            Ok(())
        }
    }

    async fn mark(&mut self, done: Option<oneshot::Sender<()>>) -> Result<(), StoreError> {
        self.start()?;
        (self.marked_offset, self.marked_at) = (self.offset, Instant::now());
        let (save, saved) = oneshot::channel();
        let mark = Mark {
            offset: self.offset,
            hasher: saved,
            done,
        };
        let Some(pipeline) = &self.pipeline else {
            unreachable!("the pipeline was started")
        };
        let Some(steps) = &pipeline.steps else {
            return Ok(());
        };
        let sent = pipeline.hash.send(HashStep::Mark(save)).await.is_ok()
            && steps.send(Step::Mark(mark)).await.is_ok();
        if sent {
            Ok(())
        } else {
            Err(self.failure().await)
        }
    }

    async fn push_block(&mut self) -> Result<(), StoreError> {
        let first = std::mem::take(&mut self.first);
        match self.block.take() {
            Some(block) => self.push(Bytes::from_owner(block)).await,
            None if !first.is_empty() => self.push(first.freeze()).await,
            None => Ok(()),
        }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.start()?;
        let Some(pipeline) = &self.pipeline else {
            unreachable!("the pipeline was started")
        };
        let mut sent = pipeline
            .hash
            .send(HashStep::Block(bytes.clone()))
            .await
            .is_ok();
        if let Some(steps) = &pipeline.steps {
            sent &= steps.send(Step::Block(bytes)).await.is_ok();
        }
        if sent {
            Ok(())
        } else {
            Err(self.failure().await)
        }
    }

    /// Why the pipeline ended early.
    async fn failure(&mut self) -> StoreError {
        self.failed = true;
        let broken = || {
            StoreError::io(
                WHAT.into(),
                std::io::Error::other("the pipeline ended early"),
            )
        };
        match self.pipeline.take() {
            Some(Pipeline {
                stored,
                hash,
                steps,
                ..
            }) => {
                drop((hash, steps));
                joined(stored, WHAT).await.err().unwrap_or_else(broken)
            }
            None => broken(),
        }
    }

    fn start(&mut self) -> Result<(), StoreError> {
        if self.pipeline.is_some() {
            return Ok(());
        }
        if self.failed {
            // Started anew, it would record an offset without the bytes before it.
            return Err(StoreError::io(
                WHAT.into(),
                std::io::Error::other("the pipeline failed before"),
            ));
        }
        let state = &self.state;
        let corrupt = || StoreError::state("a digest midstate of this version");
        let hasher = Hasher::restore(state.algorithm, &state.midstate).ok_or_else(corrupt)?;
        // Both queues hold marks beside the blocks, of which there are never more than the memory permits.
        let queue = 2 * self.store.options.upload_blocks;
        let (hash, hash_steps) = mpsc::channel(queue);
        let hashed = self.store.tasks.spawn(hash_task(hasher, hash_steps));
        if self.verify_only {
            let stored = self.store.tasks.spawn(async {
                Ok(Stored {
                    stored_len: 0,
                    parts: None,
                })
            });
            self.pipeline = Some(Pipeline {
                hash,
                hashed,
                steps: None,
                stored,
            });
            return Ok(());
        }
        let cut_len = state.offset.saturating_sub(state.tail.len() as u64);
        let cutter = Cutter::restore(&state.cutter, cut_len)
            .ok_or_else(|| StoreError::state("a cutter of this version"))?;
        let (steps, cut_steps) = mpsc::channel(queue);
        let (batches, append_batches) = mpsc::channel::<CutBatch>(queue);
        let cut = CutTask::new(Arc::clone(&self.store), cutter, state.tail.clone());
        let append = AppendTask::new(
            Arc::clone(&self.store),
            RecipeBuilder::resume(state.recipe, state.starts.clone(), state.part.clone()),
            state,
            self.session.clone(),
        );
        // The cut task ends by closing the queue to the append task, whose result is the pipeline's.
        let cutting = self.store.tasks.spawn(cut.run(cut_steps, batches));
        let stored = self.store.tasks.spawn(async move {
            let stored = append.run(append_batches).await?;
            joined(cutting, WHAT).await?;
            Ok(stored)
        });
        self.pipeline = Some(Pipeline {
            hash,
            hashed,
            steps: Some(steps),
            stored,
        });
        Ok(())
    }
}

/// What a pipeline does.
const WHAT: &str = "take in a blob";

async fn hash_task(mut hasher: Hasher, mut steps: mpsc::Receiver<HashStep>) -> Hasher {
    while let Some(step) = steps.recv().await {
        match step {
            HashStep::Block(bytes) => {
                hasher = blocking::run(move || {
                    hasher.update(&bytes);
                    hasher
                })
                .await;
            }
            HashStep::Mark(save) => {
                // Nobody waits any more if the pipeline failed meanwhile.
                let _ = save.send(hasher.clone());
            }
        }
    }
    hasher
}

async fn joined_hash(task: JoinHandle<Hasher>) -> Hasher {
    match task.await {
        Ok(hasher) => hasher,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
