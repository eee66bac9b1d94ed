//! Collections: one at a time, asked about while they go on, remembered when they are over.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use super::{Collected, FULL_REST, FULL_REST_MIN, GarbageCollector, Reviewed, Swept};
use crate::{
    meta::{
        Commit, MetaError, Txn, key,
        record::{GcRunRecord, Record as _},
    },
    store::StoreError,
};

/// Collections that may wait for the one that goes on. Two that wait do the same unless they differ in grace or force.
const WAITING_MAX: usize = 4;

/// Collections that are remembered: 200 KB or so. With one that does something every five minutes, more than three days.
const HISTORY_MAX: usize = 1000;

/// What began a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The time between two had passed.
    Interval,
    /// Somebody asked for it.
    Request,
    /// The device was full.
    Full,
}

/// How to collect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Instead of the configured grace. Leases and uploads protect in any case.
    pub grace: Option<Duration>,
    /// Also where that removes more at once than is allowed.
    pub force: bool,
}

/// Where a collection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Another one is going on.
    Waiting,
    /// Looks at blobs that nothing may refer to any more.
    Reviewing,
    /// Empties packs of which little is alive.
    Sweeping,
    /// Is over.
    Done,
    /// Is over; packs were not emptied, because that would have removed more at once than is allowed.
    Refused,
    /// Ended with an error.
    Failed,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Later ones have larger ones. The time at which it was asked for, or a little more where several were.
    pub id: u64,
    /// What began it.
    pub trigger: Trigger,
    /// How it was to be done.
    pub options: RunOptions,
    /// Where it stands.
    pub state: RunState,
    /// When it began, or was asked for; milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
    /// What it has come to so far.
    pub collected: Collected,
    /// Packs that it has chosen to empty so far.
    pub chosen_packs: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What is going on.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Held by the collection that is going on.
    turn: tokio::sync::Mutex<()>,
    /// Somebody asked for a collection.
    asked: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    waiting: Vec<Run>,
    current: Option<Run>,
    last: Option<Run>,
    last_remembered: Option<Run>,
}

/// What is going on, as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunsNow {
    /// The collection that is going on.
    pub running: Option<Run>,
    /// Collections that wait for it, in the order in which they were asked for.
    pub waiting: Vec<Run>,
    /// The one that ended last, since the start.
    pub last: Option<Run>,
}

impl Runs {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is in it is right between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first that was asked for and waits.
    fn next_asked(&self) -> Option<Run> {
        let state = self.lock();
        let mut waiting = state.waiting.iter();
        waiting.find(|run| run.trigger == Trigger::Request).cloned()
    }

    /// Tells what a sweep that goes on has done.
    pub(super) fn sweeping(&self, swept: Swept, newly_chosen: usize) {
        if let Some(run) = &mut self.lock().current {
            run.collected.swept = swept;
            run.chosen_packs += newly_chosen as u64;
        }
    }

    fn reviewed(&self, reviewed: Reviewed) {
        if let Some(run) = &mut self.lock().current {
            run.collected.reviewed = reviewed;
            run.state = RunState::Sweeping;
        }
    }
}

impl GarbageCollector {
    /// Asks for a collection, which [`GarbageCollector::run`] does. None: so many wait already that another would do nothing new.
    pub fn start(&self, options: RunOptions) -> Option<Run> {
        let run = self.new_run(Trigger::Request, options)?;
        self.runs.asked.notify_one();
        Some(run)
    }

    /// Collects again and again, when somebody asks for it, and at once when the device is full. Never returns.
    pub async fn run(&self) {
        // Not at once: a start has other things to do than to walk through all recipes.
        let first = Instant::now() + self.options.interval;
        let mut ticks = interval_at(first, self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A full device stays full if there is no garbage, and looking for it has its price.
        let mut again = Instant::now();
        loop {
            let full = async {
                sleep_until(again).await;
                self.store.full().await;
            };
            let trigger = tokio::select! {
                _ = ticks.tick() => Trigger::Interval,
                () = self.runs.asked.notified() => Trigger::Request,
                () = full => {
                    tracing::info!("the device is full: collecting garbage now");
                    Trigger::Full
                }
            };
            let begun = Instant::now();
            let mut freed = false;
            // The log and the history have the errors.
            match trigger {
                Trigger::Request => {
                    while let Some(run) = self.runs.next_asked() {
                        let _ = self.perform(run).await;
                    }
                }
                trigger => {
                    let collected = self.collect_for(trigger, RunOptions::default()).await;
                    freed = collected.is_ok_and(|collected| collected.swept.freed_bytes > 0);
                }
            }
            let rest = match freed {
                true => FULL_REST_MIN,
                false => (begun.elapsed() * FULL_REST).max(FULL_REST_MIN),
            };
            again = Instant::now() + rest;
        }
    }

    /// Reviews what is due; sweeps if something may be dead. With `force` also where that removes more at once than is allowed.
    pub async fn collect(&self, force: bool) -> Result<Collected, StoreError> {
        let options = RunOptions { force, grace: None };
        self.collect_for(Trigger::Interval, options).await
    }

    async fn collect_for(
        &self,
        trigger: Trigger,
        options: RunOptions,
    ) -> Result<Collected, StoreError> {
        match self.new_run(trigger, options) {
            Some(run) => self.perform(run).await,
            // Those that wait do the same.
            None => Ok(Collected::default()),
        }
    }

    /// What is going on.
    #[must_use]
    pub fn runs_now(&self) -> RunsNow {
        let state = self.runs.lock();
        RunsNow {
            running: state.current.clone(),
            waiting: state.waiting.clone(),
            last: state.last.clone(),
        }
    }

    /// A collection that waits, goes on, has just ended, or is remembered.
    pub async fn find_run(&self, id: u64) -> Result<Option<Run>, MetaError> {
        let RunsNow {
            running,
            waiting,
            last,
        } = self.runs_now();
        let known = waiting.into_iter().chain(running).chain(last);
        if let Some(run) = known.into_iter().find(|run| run.id == id) {
            return Ok(Some(run));
        }
        let key = key::gc_run(id);
        let row = self.meta.get_one(&key).await?;
        row.map(|row| Ok(run_of(id, GcRunRecord::decode(&key, &row)?)))
            .transpose()
    }

    /// Up to `n` remembered collections before the one with this id, the last first; and whether there are more.
    pub async fn history(
        &self,
        before: Option<u64>,
        n: usize,
    ) -> Result<(Vec<Run>, bool), MetaError> {
        // All of them are read: there are few, and they lie in the other order.
        let mut runs = Vec::new();
        for (key, row) in self.meta.scan(&key::gc_runs(), HISTORY_MAX + 1).await? {
            let Some(id) = key::gc_run_of(&key) else {
                continue;
            };
            if before.is_none_or(|before| id < before) {
                runs.push(run_of(id, GcRunRecord::decode(&key, &row)?));
            }
        }
        runs.reverse();
        let more = runs.len() > n;
        runs.truncate(n);
        Ok((runs, more))
    }

    fn new_run(&self, trigger: Trigger, options: RunOptions) -> Option<Run> {
        let now = self.clock.now_ms();
        let mut state = self.runs.lock();
        if state.waiting.len() >= WAITING_MAX {
            return None;
        }
        state.last_id = now.max(state.last_id + 1);
        let run = Run {
            id: state.last_id,
            trigger,
            options,
            state: RunState::Waiting,
            started_ms: now,
            finished_ms: None,
            collected: Collected::default(),
            chosen_packs: 0,
            error: None,
        };
        state.waiting.push(run.clone());
        Some(run)
    }

    async fn perform(&self, mut run: Run) -> Result<Collected, StoreError> {
        let waiting = Waiting(&self.runs, run.id);
        let _turn = self.runs.turn.lock().await;
        drop(waiting);
        run.state = RunState::Reviewing;
        run.started_ms = self.clock.now_ms();
        self.runs.lock().current = Some(run.clone());

        let begun = std::time::Instant::now();
        let result = self.collect_now(run.options).await;
        self.stats.collections.observe(begun.elapsed());
        match result {
            Ok(_) => self.stats.succeeded_ms.store(self.clock.now_ms(), Relaxed),
            Err(_) => _ = self.stats.failures.fetch_add(1, Relaxed),
        }

        let run = self.ended(run, &result);
        let last = self.runs.lock().last_remembered.clone();
        let remember = worth_remembering(&run, last.as_ref());
        if remember && let Err(error) = self.remember(&run).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "remember what a collection did"
            );
        }
        // Not before: whoever sees that it is over finds it in the history.
        let mut state = self.runs.lock();
        state.current = None;
        if remember {
            state.last_remembered = Some(run.clone());
        }
        state.last = Some(run);
        result
    }

    /// A collection as it is when it is over.
    fn ended(&self, run: Run, result: &Result<Collected, StoreError>) -> Run {
        let mut run = self.runs.lock().current.clone().unwrap_or(run);
        run.finished_ms = Some(self.clock.now_ms());
        match result {
            Ok(collected) => {
                run.collected = *collected;
                run.state = if collected.swept.refused {
                    RunState::Refused
                } else {
                    RunState::Done
                };
            }
            Err(error) => {
                run.state = RunState::Failed;
                run.error = Some(error.to_string());
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "collect garbage; the next collection goes on"
                );
            }
        }
        run
    }

    async fn collect_now(&self, options: RunOptions) -> Result<Collected, StoreError> {
        if let Some(before) = self.before.get() {
            before(options.force).await;
        }
        let reviewed = self.review(options.grace).await?;
        self.stats.reviews.fetch_add(reviewed.reviews, Relaxed);
        self.stats
            .removed_blobs
            .fetch_add(reviewed.removed, Relaxed);
        self.runs.reviewed(reviewed);
        let mut swept = Swept::default();
        if self.store.stats().maybe_dead_bytes.load(Relaxed) > 0 {
            swept = self.sweep(options.force).await?;
        }
        if reviewed.removed > 0 || swept.packs > 0 {
            tracing::info!(
                reviews = reviewed.reviews,
                blobs = reviewed.removed,
                packs = swept.packs,
                freed_bytes = swept.freed_bytes,
                moved_bytes = swept.moved_bytes,
                "collected garbage"
            );
        }
        Ok(Collected { reviewed, swept })
    }

    /// Writes a row for a collection, and removes the oldest ones beyond the bound.
    async fn remember(&self, run: &Run) -> Result<(), MetaError> {
        let all = self.meta.scan(&key::gc_runs(), HISTORY_MAX + 1).await?;
        let surplus = (all.len() + 1).saturating_sub(HISTORY_MAX);
        let txn = Txn {
            puts: vec![(key::gc_run(run.id), record_of(run).encode())],
            deletes: all.into_iter().take(surplus).map(|(key, _)| key).collect(),
            ..Txn::default()
        };
        // It has no checks, so nothing contradicts it.
        let _: Commit = self.meta.commit(txn).await?;
        Ok(())
    }
}

/// A place among those that wait, given up when its turn comes, or when nobody waits for it any more.
struct Waiting<'a>(&'a Runs, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.retain(|run| run.id != self.1);
    }
}

/// Whether the history tells more with this one: most collections find nothing to do, and one that fails every five minutes
/// for a week is told once.
fn worth_remembering(run: &Run, last: Option<&Run>) -> bool {
    let Collected { reviewed, swept } = run.collected;
    let did = reviewed.unlinked + reviewed.removed + swept.packs + swept.moved_bytes > 0;
    let news = last.is_none_or(|last| last.state != run.state);
    match run.state {
        RunState::Done => run.trigger == Trigger::Request || did,
        _ => run.trigger == Trigger::Request || did || news,
    }
}

fn record_of(run: &Run) -> GcRunRecord {
    let Collected { reviewed, swept } = run.collected;
    let grace = run.options.grace;
    GcRunRecord {
        requested: run.trigger == Trigger::Request,
        full: run.trigger == Trigger::Full,
        force: run.options.force,
        refused: swept.refused,
        grace_ms: grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        started_ms: run.started_ms,
        finished_ms: run.finished_ms.unwrap_or(run.started_ms),
        reviews: reviewed.reviews,
        unlinked: reviewed.unlinked,
        removed: reviewed.removed,
        removed_bytes: reviewed.removed_bytes,
        chosen_packs: run.chosen_packs,
        packs: swept.packs,
        freed_bytes: swept.freed_bytes,
        moved_bytes: swept.moved_bytes,
        damaged: swept.damaged,
        error: run.error.clone().unwrap_or_default(),
    }
}

fn run_of(id: u64, record: GcRunRecord) -> Run {
    let trigger = match (record.requested, record.full) {
        (true, _) => Trigger::Request,
        (false, true) => Trigger::Full,
        (false, false) => Trigger::Interval,
    };
    let state = match (record.error.is_empty(), record.refused) {
        (false, _) => RunState::Failed,
        (true, true) => RunState::Refused,
        (true, false) => RunState::Done,
    };
    Run {
        id,
        trigger,
        options: RunOptions {
            grace: record.grace_ms.map(Duration::from_millis),
            force: record.force,
        },
        state,
        started_ms: record.started_ms,
        finished_ms: Some(record.finished_ms),
        collected: Collected {
            reviewed: Reviewed {
                reviews: record.reviews,
                unlinked: record.unlinked,
                removed: record.removed,
                removed_bytes: record.removed_bytes,
            },
            swept: Swept {
                packs: record.packs,
                freed_bytes: record.freed_bytes,
                moved_bytes: record.moved_bytes,
                damaged: record.damaged,
                full: 0,
                refused: record.refused,
            },
        },
        chosen_packs: record.chosen_packs,
        error: (!record.error.is_empty()).then_some(record.error),
    }
}
