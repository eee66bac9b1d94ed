//! Answers for people: tables and sizes.

use std::io::Write as _;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// A table without lines: columns that can also be cut with `awk`.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// Numbers stand under each other.
pub(super) fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Prints a table, without the spaces at its lines' ends.
pub(super) fn print(table: &Table) -> anyhow::Result<()> {
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    write(&out)
}

/// Prints a document.
pub(super) fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = serde_json::to_string_pretty(document).context("write JSON")?;
    out.push('\n');
    write(&out)
}

/// Prints a text.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("print answer")
}

/// A bar on standard error that shows how many of `what` are done; nothing where no terminal shows it.
pub(super) fn progress(what: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = format!("{{spinner}} {{msg}} {{wide_bar}} {{pos}} of {{len}} {what}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// A size as people read it: three digits or so.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut scaled = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if scaled < 1_024.0 {
            break;
        }
        scaled /= 1_024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{n} B")
    } else if scaled < 9.995 {
        format!("{scaled:.2} {unit}")
    } else if scaled < 99.95 {
        format!("{scaled:.1} {unit}")
    } else {
        format!("{scaled:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        fn check(n: u64, expected: &str) {
            assert_eq!(bytes(n), expected);
        }
        check(0, "0 B");
        check(1_023, "1023 B");
        check(1_024, "1.00 KiB");
        check(1_536, "1.50 KiB");
        check(10 << 20, "10.0 MiB");
        check(185 << 20, "185 MiB");
        check(u64::MAX, "16.0 EiB");
    }
}
