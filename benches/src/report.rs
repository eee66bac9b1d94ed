//! Reports as Markdown.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    data::Kind as Data,
    load,
    machine::{self, Machine},
    registry::{Kind, Program},
    row::{Budget, Line},
    stats::{self, Summary},
};

/// What a reader needs to know besides the rows.
pub(crate) struct Facts<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) programs: &'a [Program],
    pub(crate) repetitions: usize,
    pub(crate) quick: bool,
}

/// Writes `<dir>/<date>-<name>.md`.
///
/// # Errors
/// The file system says no.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join(format!("{}-{name}.md", machine::today()));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// The machine, as a list.
pub(crate) fn machine_list(machine: &Machine) -> String {
    let Machine {
        cpu,
        cores,
        memory_gib,
        kernel,
        system,
        disk,
        fdatasync_ms,
        disk_write_mb_s,
        sha256_mb_s,
        load,
    } = machine;
    format!(
        "- Machine: {cpu}, {cores} cores, {memory_gib:.1} GiB of memory, {system}, Linux {kernel}, {disk}.\n\
         - Measured before the run: 4 KiB write and fdatasync {fdatasync_ms:.2} ms; 256 MiB written and synced at {disk_write_mb_s:.0} MB/s; \
         SHA-256 on one core {sha256_mb_s:.0} MB/s; load average {load:.2}.\n"
    )
}

/// The whole report of a comparison.
pub(crate) fn comparison(facts: &Facts<'_>, lines: &[Line]) -> String {
    let kinds: Vec<_> = facts.programs.iter().map(|program| program.kind).collect();
    let mut text = format!("# Comparison of registries, {}\n\n", machine::today());
    text += &machine_list(facts.machine);
    if facts.quick {
        text += "- A quick run: amounts are cut to a tenth or a quarter. For a first look only.\n";
    }
    let _ = writeln!(
        text,
        "- Client and server share the machine, over loopback, plain HTTP; {} runs of each group, registries in turn, each on a fresh directory.",
        facts.repetitions
    );
    let _ = writeln!(
        text,
        "- Data: *{}* is random bytes; *{}* is made like the files of a Debian disk (zstd level 1 in pieces of 64 KiB: 2.35); \
         zb's is 4 KiB of random bytes and then zeros. Pushes are POST, PATCH, PUT unless a row says Monolith or images (POST, PUT).",
        Data::Incompressible.name(),
        Data::Disk.name()
    );
    for program in facts.programs {
        let _ = writeln!(
            text,
            "- {} ({}): durable when it answers: {}.",
            program.kind.name(),
            program.version,
            program.kind.durability()
        );
    }
    text += "\nMedian (least - most) of the runs. \"better\" is how many times better dvcr is than distribution 3.1.1, in rate, time or size.\n\n";
    values(&mut text, &kinds, lines);
    let _ = write!(
        text,
        "\n## Processor time of the server, seconds (median)\n\nOn {} cores it is what bounds most rates.\n\n",
        facts.machine.cores
    );
    header(&mut text, "row", &kinds, &[]);
    for line in lines {
        let cells: Vec<_> = kinds
            .iter()
            .map(|&kind| {
                stats::median(&line.cpu_seconds(kind))
                    .map_or_else(|| "-".to_owned(), |s| format!("{s:.2}"))
            })
            .collect();
        let _ = writeln!(text, "| {} | {} |", line.row.name, cells.join(" | "));
    }
    let _ = write!(
        text,
        "\n## Latency of a request, ms: p50 / p90 / p99 (all runs together)\n\nA request of zb's and the small images' rows is a whole image, {} clients at once.\n\n",
        load::CLIENTS
    );
    header(&mut text, "row", &kinds, &[]);
    for line in lines
        .iter()
        .filter(|line| kinds.iter().any(|&kind| !line.latencies(kind).is_empty()))
    {
        let cells: Vec<_> = kinds
            .iter()
            .map(|&kind| percentiles(&line.latencies(kind)))
            .collect();
        let _ = writeln!(text, "| {} | {} |", line.row.name, cells.join(" | "));
    }
    let failures: Vec<_> = lines
        .iter()
        .flat_map(|line| {
            line.failures
                .iter()
                .map(|(kind, why)| (kind, &line.row.name, why))
        })
        .collect();
    if !failures.is_empty() {
        text += "\n## Failed\n\n";
        for (kind, row, why) in failures {
            let _ = writeln!(text, "- {}, {row}: {why}", kind.name());
        }
    }
    text
}

fn header(text: &mut String, first: &str, kinds: &[Kind], more: &[&str]) {
    let names: Vec<_> = [first]
        .into_iter()
        .chain(kinds.iter().map(|kind| kind.name()))
        .chain(more.iter().copied())
        .collect();
    let _ = writeln!(
        text,
        "| {} |\n|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
}

fn values(text: &mut String, kinds: &[Kind], lines: &[Line]) {
    header(text, "row", kinds, &["better", "must", ""]);
    for line in lines {
        let cells: Vec<_> = kinds.iter().map(|&kind| cell(line, kind)).collect();
        let ours = stats::median(&line.values(Kind::Dvcr));
        let theirs = stats::median(&reference(line, lines));
        let better = ours
            .zip(theirs)
            .map(|(ours, theirs)| line.row.unit.advantage(ours, theirs));
        let (must, met) = match line.row.budget {
            Some(Budget::Times(times)) => {
                (format!("{times}x"), better.map(|better| better >= times))
            }
            Some(Budget::AtMost(most)) => (
                format!("<= {most} {}", line.row.unit.name()),
                ours.map(|ours| ours <= most),
            ),
            None => (String::new(), None),
        };
        let met = match met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        let better = better.map_or_else(String::new, |better| format!("{better:.2}x"));
        let _ = writeln!(
            text,
            "| {}, {} | {} | {better} | {must} | {met} |",
            line.row.name,
            line.row.unit.name(),
            cells.join(" | ")
        );
    }
}

/// What distribution 3.1.1 reached; a pull as zstd, which it cannot serve, is held against its plain one.
fn reference(line: &Line, lines: &[Line]) -> Vec<f64> {
    let plain = line.row.name.replace(" as zstd,", "");
    lines
        .iter()
        .find(|line| line.row.name == plain)
        .map(|line| line.values(Kind::Distribution3))
        .unwrap_or_default()
}

fn cell(line: &Line, kind: Kind) -> String {
    let values = line.values(kind);
    match Summary::of(&values) {
        Some(Summary { n: 1, p50, .. }) => number(p50),
        Some(Summary { min, p50, max, .. }) => {
            format!("{} ({} - {})", number(p50), number(min), number(max))
        }
        None if line.failures.iter().any(|(k, _)| *k == kind) => "failed".to_owned(),
        None => "-".to_owned(),
    }
}

fn percentiles(latencies: &[f64]) -> String {
    Summary::of(latencies).map_or_else(
        || "-".to_owned(),
        |s| format!("{} / {} / {}", number(s.p50), number(s.p90), number(s.p99)),
    )
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (1234.5, "1234"),
            (123.4, "123"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
