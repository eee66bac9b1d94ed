//! How far an import is, for bars and metrics.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// What an import does.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Asking the source what it is.
    Open,
    /// Reading what an earlier try has kept, or comparing checksums of a file at hand.
    Check,
    /// Receiving the source.
    Receive,
    /// Unpacking what has to be read at random.
    Unpack,
    /// Finding the data of a disk at hand.
    Scan,
    /// Sending the layer.
    Send,
    /// All is there.
    Done,
}

impl Phase {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "connecting",
            Self::Check => "checking",
            Self::Receive => "receiving",
            Self::Unpack => "unpacking",
            Self::Scan => "scanning",
            Self::Send => "sending",
            Self::Done => "done",
        }
    }

    /// Which part of the whole it is, in percent: a guess that never goes back.
    fn span(self) -> (f64, f64) {
        match self {
            Self::Open => (0.0, 0.0),
            Self::Check => (0.0, 1.0),
            Self::Receive => (1.0, 75.0),
            Self::Unpack => (75.0, 78.0),
            Self::Scan => (75.0, 80.0),
            Self::Send => (80.0, 100.0),
            Self::Done => (100.0, 100.0),
        }
    }
}

/// Shared by who imports and who watches.
#[derive(Clone, Default)]
pub struct Progress {
    /// Bytes that came over the network, those received twice included.
    pub received: Arc<AtomicU64>,
    /// Bytes of all phases.
    moved: Arc<AtomicU64>,
    state: Arc<Mutex<Option<State>>>,
    kept: Arc<AtomicBool>,
}

/// How far it is.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct State {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done of it.
    pub done: u64,
    /// Bytes in all, if known.
    pub total: Option<u64>,
}

impl State {
    /// How far the whole import is, 0 to 100.
    pub fn percent(&self) -> f64 {
        let (from, to) = self.phase.span();
        match self.total {
            Some(total) if total > 0 => {
                from + (to - from) * (self.done.min(total) as f64 / total as f64)
            }
            _ => from,
        }
    }
}

impl Progress {
    /// Begins a phase of so many bytes.
    pub fn begin(&self, phase: Phase, total: Option<u64>) {
        *self.lock() = Some(State {
            phase,
            done: 0,
            total,
        });
    }

    /// How many bytes of the phase are done.
    pub fn reached(&self, done: u64) {
        if let Some(state) = &mut *self.lock() {
            let by = done.saturating_sub(state.done);
            self.moved.fetch_add(by, Ordering::Relaxed);
            state.done = done;
        }
    }

    /// So many more bytes of the phase are done.
    pub fn advance(&self, by: u64) {
        self.moved.fetch_add(by, Ordering::Relaxed);
        if let Some(state) = &mut *self.lock() {
            state.done += by;
        }
    }

    /// How far it is.
    pub fn state(&self) -> State {
        self.lock().unwrap_or(State {
            phase: Phase::Open,
            done: 0,
            total: None,
        })
    }

    /// Whether another try goes on where this one ended: what came in is kept.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    pub(super) fn keeps(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Bytes that came over the network.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that were moved in all phases so far: what a speed is measured by.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<State>> {
        // The value is replaced as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
