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

use dvcr_importer::{import, populate::Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar is drawn: often enough to look alive.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// A bar on standard error that follows a [`Progress`], if that is a terminal. Gone when dropped.
pub(crate) struct Bar {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// Begins to draw.
    pub(crate) fn follow(progress: Arc<Progress>, quiet: bool) -> Self {
        Self::new(quiet, move |stop| draw(&progress, stop))
    }

    /// Begins to draw an import, whose phases each have a bar.
    pub(crate) fn follow_import(progress: import::Progress, quiet: bool) -> Self {
        Self::new(quiet, move |stop| draw_import(&progress, stop))
    }

    fn new(quiet: bool, draw: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shown = !quiet && std::io::stderr().is_terminal();
        let thread = shown.then(|| {
            let stop = stop.clone();
            thread::spawn(move || draw(&stop))
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

fn draw(progress: &Progress, stop: &AtomicBool) {
    let style = |template: &str| {
        let style = ProgressStyle::with_template(template).expect("a template of this program");
        style.progress_chars("=> ")
    };
    let bar = ProgressBar::no_length();
    bar.set_style(style("{spinner} {bytes} {bytes_per_sec} {elapsed}"));
    while !stop.load(Ordering::Relaxed) {
        let total = progress.total();
        if total > 0 && bar.length() != Some(total) {
            bar.set_length(total);
            bar.set_style(style(
                "{bar:30} {percent:>3} % {bytes} of {total_bytes} {bytes_per_sec} {eta} left",
            ));
        }
        bar.set_position(progress.done());
        // Woken early when there is nothing more to draw.
        thread::park_timeout(DRAW_EVERY);
    }
    bar.finish_and_clear();
}

fn draw_import(progress: &import::Progress, stop: &AtomicBool) {
    let style = |template: &str| {
        let style = ProgressStyle::with_template(template).expect("a template of this program");
        style.progress_chars("=> ")
    };
    let bar = ProgressBar::no_length();
    let mut shown = None;
    while !stop.load(Ordering::Relaxed) {
        let state = progress.state();
        let total = state.total.filter(|total| *total > 0);
        if shown != Some((state.phase, total)) {
            shown = Some((state.phase, total));
            bar.reset();
            bar.set_message(state.phase.name());
            match total {
                Some(total) => {
                    bar.set_length(total);
                    bar.set_style(style(
                        "{msg:>10} {bar:30} {percent:>3} % {bytes} of {total_bytes} {bytes_per_sec} {eta} left",
                    ));
                }
                None => bar.set_style(style(
                    "{msg:>10} {spinner} {bytes} {bytes_per_sec} {elapsed}",
                )),
            }
        }
        bar.set_position(state.done);
        // Woken early when there is nothing more to draw.
        thread::park_timeout(DRAW_EVERY);
    }
    bar.finish_and_clear();
}
