//! What successive builds of one disk cost in this registry, and what fixed chunks of 64 KiB would cost.

use std::{
    collections::HashSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::{
    compare::Places,
    data::Blob,
    http::Body,
    machine::{self, Machine},
    oci::{self, Upload},
    registry::{Home, Kind},
    report,
};

/// What block-based stores cut disks into.
const FIXED_BYTES: usize = 64 << 10;
/// The second build must cost less than this share of what fixed chunks, compressed alike, would store of it.
const SHARE_MAX: f64 = 1.0 / 3.0;

/// Push successive builds of a disk and compare what they cost with fixed 64 KiB chunks.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Raw disk images, oldest first; benches/disks.sh makes some.
    #[arg(required = true, num_args = 2..)]
    disks: Vec<PathBuf>,
    /// The report is <results>/<date>-dedup.md.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// Bytes that one disk adds to a store.
struct Cost {
    name: String,
    len: usize,
    /// Not counting fixed chunks that are all zero.
    data: u64,
    ours: u64,
    fixed: Fixed,
}

#[derive(Copy, Clone, Debug, Default, PartialEq)]
struct Fixed {
    plain: u64,
    /// Each chunk compressed with zstd level 1, as ours are.
    compressed: u64,
}

/// Measures, writes the report, and fails if the second disk costs too much.
///
/// # Errors
/// The registry does not start or returns wrong bytes, a disk cannot be read, or dedup is worse than promised.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = options.places.program(Kind::Dvcr)?;
    let machine = Machine::describe(&options.places.dir)?;
    let home = Home::new(&options.places.dir, Kind::Dvcr)?;
    let server = program.start(home.path())?;
    let mut seen = HashSet::new();
    let mut used = usage(&server.data_dir())?;
    let mut costs = Vec::new();
    for path in &options.disks {
        let blob =
            Blob::of(std::fs::read(path).with_context(|| format!("read {}", path.display()))?);
        oci::push_blob(
            &mut server.client(),
            "disks",
            &blob.digest,
            Body::Slices(&[&blob.bytes]),
            Upload::Streamed,
        )?;
        let before = std::mem::replace(&mut used, usage(&server.data_dir())?);
        oci::verify_blob(&mut server.client(), "disks", &blob.digest, &blob.bytes)?;
        let (data, fixed) = fixed_chunks(&blob.bytes, &mut seen)?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        costs.push(Cost {
            name,
            len: blob.bytes.len(),
            data,
            ours: used.saturating_sub(before),
            fixed,
        });
    }
    server.stop()?;
    let path = report::write(
        &options.results,
        "dedup",
        &text(&machine, &program.version, &costs),
    )?;
    println!("{}", path.display());
    let second = costs.get(1).context("a second disk")?;
    let share = second.ours as f64 / second.fixed.compressed as f64;
    ensure!(
        share < SHARE_MAX,
        "{} costs {share:.3} of what compressed fixed chunks would store, not less than {SHARE_MAX:.3}",
        second.name
    );
    Ok(())
}

fn usage(data: &Path) -> Result<u64> {
    machine::settle();
    machine::disk_usage(data)
}

/// Bytes of the chunks that are not all zero, and what those take that are not in `seen` yet.
fn fixed_chunks(disk: &[u8], seen: &mut HashSet<[u8; 32]>) -> Result<(u64, Fixed)> {
    let (mut data, mut new) = (0, Fixed::default());
    for chunk in disk
        .chunks(FIXED_BYTES)
        .filter(|chunk| chunk.iter().any(|&byte| byte != 0))
    {
        data += chunk.len() as u64;
        if seen.insert(Sha256::digest(chunk).into()) {
            new.plain += chunk.len() as u64;
            new.compressed += zstd::bulk::compress(chunk, 1)?.len().min(chunk.len()) as u64;
        }
    }
    Ok((data, new))
}

fn text(machine: &Machine, version: &str, costs: &[Cost]) -> String {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let mut text = format!(
        "# Successive builds of one disk, {}\n\n{}",
        machine::today(),
        report::machine_list(machine)
    );
    let _ = write!(
        text,
        "- dvcr {version}. Each disk is pushed as it is, raw, as one blob; then every byte is compared.\n\n\
         MiB that each disk adds. *data*: its 64 KiB chunks that are not all zero. *dvcr*: blocks on disk, packs and metadata, after a sync. \
         *fixed*: chunks of 64 KiB, plain, and compressed with zstd level 1 as dvcr's are, without any metadata.\n\n\
         | disk | size | data | dvcr | fixed, plain | fixed, zstd | dvcr / plain | dvcr / zstd |\n|---|---|---|---|---|---|---|---|\n"
    );
    for Cost {
        name,
        len,
        data,
        ours,
        fixed,
    } in costs
    {
        let share = |of: u64| format!("{:.3}", *ours as f64 / of as f64);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} |",
            mib(*len as u64),
            mib(*data),
            mib(*ours),
            mib(fixed.plain),
            mib(fixed.compressed),
            share(fixed.plain),
            share(fixed.compressed)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_chunks_count_new_data_once_and_zeros_never() -> Result<()> {
        let mut seen = HashSet::new();
        let disk = [
            vec![1; FIXED_BYTES],
            vec![0; FIXED_BYTES],
            vec![1; FIXED_BYTES],
            vec![2; 100],
        ]
        .concat();
        let (data, first) = fixed_chunks(&disk, &mut seen)?;
        assert_eq!(
            (data, first.plain),
            (2 * FIXED_BYTES as u64 + 100, FIXED_BYTES as u64 + 100)
        );
        assert!(first.compressed < 200, "{first:?}");
        assert_eq!(fixed_chunks(&disk, &mut seen)?.1, Fixed::default());
        Ok(())
    }
}
