//! What every command needs: a runtime, and signals.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::outcome::STOPPED;

/// The running program. Commands run on the main thread, beside the runtime.
pub(crate) struct Process {
    runtime: Runtime,
    /// Set by the first signal.
    pub(crate) cancel: Arc<AtomicBool>,
    /// The same, for what waits.
    pub(crate) stop: CancellationToken,
    /// Set by commands that keep what they have: the same command goes on where this one ends.
    pub(crate) kept: AtomicBool,
}

impl Process {
    /// Starts the runtime, and waits for signals: the first asks to stop, which leaves a state to go on from; the second ends the
    /// program.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let signals = {
            // At once: whoever sees this process do something may ask it to stop.
            let _in_runtime = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate()].map(signal)
        };
        let [interrupt, terminate] = signals;
        let (interrupt, terminate) = (interrupt?, terminate?);
        let process = Self {
            runtime,
            cancel: Arc::default(),
            stop: CancellationToken::new(),
            kept: AtomicBool::new(false),
        };
        let (cancel, stop) = (process.cancel.clone(), process.stop.clone());
        process
            .runtime
            .spawn(watch_signals(interrupt, terminate, cancel, stop));
        Ok(process)
    }

    /// Network and timers.
    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Ends requests that nobody waits for any more.
    pub(crate) fn end(self) {
        self.runtime.shutdown_background();
    }
}

async fn watch_signals(
    mut interrupt: Signal,
    mut terminate: Signal,
    cancel: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
        if cancel.swap(true, Ordering::Relaxed) {
            std::process::exit(STOPPED.into());
        }
    }
}
