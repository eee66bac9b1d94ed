//! What every command needs: a runtime, signals, and an exit code.

use std::{error::Error, process::ExitCode};

use tokio::{
    runtime::{Builder, Handle},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::import::{ImportError, in_one_line};
use crate::source::retry::{Verdict, verdict};

/// Exit code of what failed and may succeed later: `EX_TEMPFAIL` of sysexits.h.
pub const EXIT_LATER: u8 = 75;

/// Exit code of what was stopped by a signal.
pub const EXIT_STOPPED: u8 = 130;

/// The running program.
pub(super) struct Process {
    /// Network and timers. Commands run beside it, on the main thread.
    pub(super) runtime: Handle,
    /// Cancelled by SIGINT and SIGTERM. A second signal ends the program at once.
    pub(super) stop: CancellationToken,
}

/// Runs a command and reports its error.
pub(super) fn run(command: impl FnOnce(&Process) -> Result<(), Box<dyn Error>>) -> ExitCode {
    let runtime = match Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("dvcr-importer: start threads: {error}");
            return ExitCode::from(EXIT_LATER);
        }
    };
    let process = Process {
        runtime: runtime.handle().clone(),
        stop: CancellationToken::new(),
    };
    let stop = process.stop.clone();
    runtime.spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return;
        };
        let mut wait = async || {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        wait().await;
        stop.cancel();
        wait().await;
        std::process::exit(i32::from(EXIT_STOPPED));
    });
    let result = command(&process);
    // Requests that nobody waits for any more.
    runtime.shutdown_background();
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let code = match judge(&*error) {
        Verdict::Final => 1,
        Verdict::Later => EXIT_LATER,
        Verdict::Stopped => EXIT_STOPPED,
    };
    eprintln!("dvcr-importer: {}", in_one_line(&*error));
    if code != 1 {
        eprintln!("dvcr-importer: run the same command again: it goes on where it was");
    }
    ExitCode::from(code)
}

fn judge(error: &(dyn Error + 'static)) -> Verdict {
    match error.downcast_ref::<ImportError>() {
        Some(error) => error.verdict(),
        None => verdict(error).unwrap_or(Verdict::Final),
    }
}
