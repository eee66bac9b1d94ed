//! What the client of registries tells on its way, such as that it tries again: lines on standard error like our own.

use std::{fmt, io};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
};

/// Shows it from now on. Other libraries stay silent: what fails in them comes back as an error.
pub(crate) fn show() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("dvcr_client=warn"))
        .with_writer(io::stderr)
        .event_format(Line)
        .init();
}

/// The message, after the program's name.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "dvcr-importer: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
