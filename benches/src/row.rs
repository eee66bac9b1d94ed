//! What is measured, and what was measured: rows, samples, failures. Nothing here talks to a registry.

use std::time::Instant;

use anyhow::Result;

use crate::registry::{Kind, Server};

/// Unit of a row's value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// 10^6 bytes a second, counted before any content coding.
    MegabytesPerSecond,
    /// Whole images, or whatever one request of the row is.
    RequestsPerSecond,
    Milliseconds,
    Mebibytes,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::MegabytesPerSecond => "MB/s",
            Unit::RequestsPerSecond => "/s",
            Unit::Milliseconds => "ms",
            Unit::Mebibytes => "MiB",
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Unit::MegabytesPerSecond | Unit::RequestsPerSecond)
    }

    /// How many times better `value` is than `reference`: above 1 is better, whatever the unit.
    pub(crate) fn advantage(self, value: f64, reference: f64) -> f64 {
        if self.more_is_better() {
            value / reference
        } else {
            reference / value
        }
    }
}

/// What ours must reach.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Budget {
    /// So many times better than distribution 3.1.1 in the same run.
    Times(f64),
    /// An absolute bound, in the row's unit.
    AtMost(f64),
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) budget: Option<Budget>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: Unit) -> Row {
        Row {
            name: name.into(),
            unit,
            budget: None,
        }
    }

    pub(crate) fn must(mut self, budget: Budget) -> Row {
        self.budget = Some(budget);
        self
    }
}

/// What one measurement yields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// In the row's unit.
    pub(crate) value: f64,
    /// Of each request, in milliseconds; empty for rows of one request.
    pub(crate) latencies: Vec<f64>,
}

impl From<f64> for Measured {
    fn from(value: f64) -> Measured {
        Measured {
            value,
            latencies: Vec::new(),
        }
    }
}

/// One measurement of one registry.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) measured: Measured,
    /// Processor time that the server used meanwhile, seconds.
    pub(crate) cpu_seconds: f64,
}

/// Everything measured of one row.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) row: Row,
    pub(crate) samples: Vec<(Kind, Sample)>,
    /// Why a registry has no value here, or fewer than the others.
    pub(crate) failures: Vec<(Kind, String)>,
}

/// Collects measurements, in the order in which rows first appear.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) lines: Vec<Line>,
}

impl Recorder {
    /// Measures, with the server's processor time; a failure is recorded and does not stop what follows.
    pub(crate) fn measure<M: Into<Measured>>(
        &mut self,
        row: Row,
        server: &Server,
        measurement: impl FnOnce() -> Result<M>,
    ) {
        let kind = server.kind();
        let outcome = (|| {
            let cpu = server.cpu_seconds()?;
            let measured = measurement()?.into();
            Ok(Sample {
                measured,
                cpu_seconds: server.cpu_seconds()? - cpu,
            })
        })();
        let line = self.line(row);
        match outcome {
            Ok(sample) => {
                eprintln!(
                    "{:>20}  {:<60} {:>10.3} {}",
                    kind.name(),
                    line.row.name,
                    sample.measured.value,
                    line.row.unit.name()
                );
                line.samples.push((kind, sample));
            }
            Err(error) => line.fail(kind, error),
        }
    }

    /// A registry could not be measured at all in a group of rows.
    pub(crate) fn fail(&mut self, group: &str, kind: Kind, error: anyhow::Error) {
        self.line(Row::new(format!("{group}: set-up"), Unit::Milliseconds))
            .fail(kind, error);
    }

    fn line(&mut self, row: Row) -> &mut Line {
        let at = self
            .lines
            .iter()
            .position(|line| line.row.name == row.name)
            .unwrap_or_else(|| {
                self.lines.push(Line {
                    row,
                    samples: Vec::new(),
                    failures: Vec::new(),
                });
                self.lines.len() - 1
            });
        &mut self.lines[at]
    }
}

impl Line {
    fn fail(&mut self, kind: Kind, error: anyhow::Error) {
        let why = format!("{error:#}");
        eprintln!("{:>20}  {:<60} failed: {why}", kind.name(), self.row.name);
        self.failures.push((kind, why));
    }

    pub(crate) fn values(&self, kind: Kind) -> Vec<f64> {
        self.of(kind).map(|sample| sample.measured.value).collect()
    }

    pub(crate) fn cpu_seconds(&self, kind: Kind) -> Vec<f64> {
        self.of(kind).map(|sample| sample.cpu_seconds).collect()
    }

    /// Latencies of all repetitions together.
    pub(crate) fn latencies(&self, kind: Kind) -> Vec<f64> {
        self.of(kind)
            .flat_map(|sample| sample.measured.latencies.iter().copied())
            .collect()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |(k, _)| *k == kind)
            .map(|(_, sample)| sample)
    }
}

/// Runs something; returns its bytes' rate in MB/s.
pub(crate) fn rate(bytes: u64, run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    run()?;
    Ok(bytes as f64 / begin.elapsed().as_secs_f64() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_above_one_in_every_unit() {
        assert_eq!(Unit::MegabytesPerSecond.advantage(200.0, 100.0), 2.0);
        assert_eq!(Unit::Milliseconds.advantage(1.0, 2.0), 2.0);
    }
}
