//! Progress on a terminal.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use dvcr_importer::{import, populate};
use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar is drawn: often enough to look alive.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// A bar where the end is known. What is left is a guess by the speed of the last seconds.
const KNOWN: &str =
    "{msg:>10} {bar:30} {percent:>3} % {bytes} of {total_bytes} {bytes_per_sec} {eta} left";

/// A bar where it is not.
const UNKNOWN: &str = "{msg:>10} {spinner} {bytes} {bytes_per_sec} {elapsed}";

/// What a bar shows.
struct Shown {
    what: &'static str,
    done: u64,
    total: Option<u64>,
}

/// A bar on standard error that follows somebody's progress, if that is a terminal. Gone when dropped.
pub(crate) struct Bar {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// Begins to draw.
    pub(crate) fn follow(progress: Arc<populate::Progress>, quiet: bool) -> Self {
        Self::new(quiet, move || Shown {
            // Nothing was moved as long as the source is being opened.
            what: if progress.total() + progress.done() == 0 {
                "opening"
            } else {
                "writing"
            },
            done: progress.done(),
            total: Some(progress.total()),
        })
    }

    /// Begins to draw an import, whose phases each have a bar.
    pub(crate) fn follow_import(progress: import::Progress, quiet: bool) -> Self {
        Self::new(quiet, move || {
            let state = progress.state();
            Shown {
                what: state.phase.name(),
                done: state.done,
                total: state.total,
            }
        })
    }

    fn new(quiet: bool, look: impl Fn() -> Shown + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shown = !quiet && std::io::stderr().is_terminal();
        let thread = shown.then(|| {
            let stop = stop.clone();
            thread::spawn(move || draw(look, &stop))
        });
        Self { stop, thread }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

fn draw(look: impl Fn() -> Shown, stop: &AtomicBool) {
    let style = |template: &str| {
        let style = ProgressStyle::with_template(template).expect("a template of this program");
        style.progress_chars("=> ")
    };
    let bar = ProgressBar::no_length();
    let mut before = None;
    while !stop.load(Ordering::Relaxed) {
        let Shown { what, done, total } = look();
        let total = total.filter(|total| *total > 0);
        if before != Some((what, total)) {
            before = Some((what, total));
            bar.reset();
            bar.set_message(what);
            bar.set_style(style(if total.is_some() { KNOWN } else { UNKNOWN }));
            if let Some(total) = total {
                bar.set_length(total);
            }
        }
        bar.set_position(done);
        // Woken early when there is nothing more to draw.
        thread::park_timeout(DRAW_EVERY);
    }
    bar.finish_and_clear();
}
