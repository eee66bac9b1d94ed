//! A bar that shows how far it is.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use crate::import::{Phase, Progress};

/// How often the bar is drawn.
const INTERVAL: Duration = Duration::from_millis(200);

/// A bar on standard error, if that is a terminal. Ends with the value.
pub(super) struct Bar {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// Shows `progress` from now on.
    pub(super) fn new(progress: Progress) -> Self {
        let (end, ended) = channel();
        let thread = thread::spawn(move || {
            let bar = ProgressBar::no_length();
            let mut phase = Phase::Open;
            bar.set_message(phase.name());
            loop {
                let state = progress.state();
                if state.phase != phase {
                    phase = state.phase;
                    bar.reset();
                    bar.set_message(phase.name());
                }
                let with_total = state.total.is_some_and(|total| total > 0);
                bar.set_style(style(with_total));
                if let Some(total) = state.total {
                    bar.set_length(total);
                }
                bar.set_position(state.done);
                if ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    bar.finish_and_clear();
                    return;
                }
            }
        });
        Self {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = if with_total {
        "{msg:>10} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left"
    } else {
        "{msg:>10} {spinner} {bytes} {bytes_per_sec}"
    };
    ProgressStyle::with_template(template).expect("the templates are right")
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // It only draws.
            let _ = thread.join();
        }
    }
}
