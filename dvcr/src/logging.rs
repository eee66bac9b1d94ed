//! Where log lines go: standard error, as text for people or one JSON object a line for machines.

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::settings::{LogFormat, LogSettings};

/// Starts logging. Call once, before anything is worth a line.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let LogSettings { format, filter } = settings;
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("read log filter {filter:?}: write for example info,dvcr=debug")
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let output = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            let output = output.with_ansi(std::io::stderr().is_terminal());
            registry.with(output).try_init()
        }
        LogFormat::Json => registry.with(output.json().flatten_event(true)).try_init(),
    }
    .context("start logging")
}

/// Is the text a filter?
pub(crate) fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}
