//! What garbage collection costs pushes, how fast it is, and what it costs on other registries.

mod collection;
mod peers;
mod pushers;
mod synthetic;

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, ensure};

use crate::{
    compare::Places,
    machine::{self, Machine},
    registry::Kind,
    report,
};

/// Budgets of DESIGN section 8.
const RATIO_MAX: f64 = 1.5;
const REVIEWS_MIN: f64 = 2_000.0;

/// Measure garbage collection: pushes beside it, its speed, and other registries.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// A tenth of everything: does it run, and roughly how fast?
    #[arg(long)]
    quick: bool,
    /// Registries for the comparison.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "dvcr,distribution2,olareg"
    )]
    registries: Vec<Kind>,
    /// Stored chunks of 64 KiB for the mark.
    #[arg(long, default_value_t = 16_000_000)]
    chunks: u64,
    /// The report is <results>/<date>-gc.md.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// Amounts.
pub(crate) struct Scale {
    /// Small images, half of which are deleted.
    images: usize,
    /// Images of 1 MiB, half of which are deleted.
    large: usize,
    /// Seconds of pushes without a collection.
    idle_seconds: u64,
    /// Times that images are deleted and collected, at least.
    rounds: usize,
    /// Reviews that are due.
    reviews: u64,
    chunks: u64,
}

/// Measures, writes the report, and fails where a budget is missed.
///
/// # Errors
/// A registry does not do what it should, or ours too slowly.
pub(crate) fn run(options: &Options) -> Result<()> {
    let part = if options.quick { 10 } else { 1 };
    let scale = Scale {
        images: 2_000 / part,
        large: 4_096 / part,
        idle_seconds: 30 / part as u64,
        rounds: if options.quick { 1 } else { 3 },
        reviews: 200_000 / part as u64,
        chunks: options.chunks / part as u64,
    };
    let places = &options.places;
    let machine = Machine::describe(&places.dir)?;
    let program = places.program(Kind::Dvcr)?;
    let mut text = format!(
        "# Garbage collection, {}\n\n{}",
        machine::today(),
        report::machine_list(&machine)
    );
    if options.quick {
        text += "- A quick run: a tenth of everything. For a first look only.\n";
    }
    let _ = writeln!(
        text,
        "- Client and server share the machine, over loopback, plain HTTP; {} clients push whenever there is a row about pushes. dvcr {}.",
        pushers::CLIENTS,
        program.version
    );
    text += peers::HEAD;
    for &kind in &options.registries {
        let row = peers::measure(&places.program(kind)?, &places.dir, &scale)?;
        eprint!("{row}");
        text += &row;
    }
    let large = collection::measure(&program, &places.dir, &scale)?;
    eprint!("{}", large.text);
    text += &large.text;
    let synthetic = synthetic::measure(&program, &places.dir, &scale)?;
    eprint!("{}", synthetic.text);
    text += &synthetic.text;
    let path = report::write(&options.results, "gc", &text)?;
    println!("{}", path.display());
    ensure!(
        large.ratio <= RATIO_MAX,
        "p99 of pushes while collecting is {:.2} times idle, more than {RATIO_MAX}",
        large.ratio
    );
    ensure!(
        synthetic.reviews_a_second >= REVIEWS_MIN,
        "{:.0} reviews a second, less than {REVIEWS_MIN}",
        synthetic.reviews_a_second
    );
    Ok(())
}
