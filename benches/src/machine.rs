//! The machine that a run happened on, and what the rows need from its kernel.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::stats;

/// Facts that a reader needs to judge the figures.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) system: String,
    /// File system type, device and size of the data directories.
    pub(crate) disk: String,
    /// 4 KiB write + fdatasync, median of a few.
    pub(crate) fdatasync_ms: f64,
    /// 256 MiB written in 1 MiB pieces, then fdatasync.
    pub(crate) disk_write_mb_s: f64,
    /// SHA-256 on one core, the ceiling of any registry that checks what one stream pushes.
    pub(crate) sha256_mb_s: f64,
    /// One-minute load average before the run.
    pub(crate) load: f64,
}

impl Machine {
    /// Describes this machine; `dir` is where the registries will keep their data.
    pub(crate) fn describe(dir: &Path) -> Result<Machine> {
        let (fdatasync_ms, disk_write_mb_s) = disk_speed(dir)?;
        Ok(Machine {
            cpu: proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: proc_kib("/proc/meminfo", "MemTotal").unwrap_or(0.0) / f64::from(1 << 20),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            system: proc_field("/etc/os-release", "PRETTY_NAME")
                .unwrap_or_default()
                .trim_matches('"')
                .to_owned(),
            disk: disk_of(dir)?,
            fdatasync_ms,
            disk_write_mb_s,
            sha256_mb_s: sha256_speed(),
            load: load(),
        })
    }
}

/// One-minute load average.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0)
}

/// The value after `name` and `:` or `=` in a file of such lines.
fn proc_field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, value) = line.split_once([':', '='])?;
    Some(value.trim().to_owned())
}

/// A field in kB of a file like `/proc/PID/status`.
pub(crate) fn proc_kib(path: &str, name: &str) -> Option<f64> {
    proc_field(path, name)?.split(' ').next()?.parse().ok()
}

fn disk_of(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, point, _)| dir.starts_with(point))
        .max_by_key(|(_, point, _)| point.len())
        .context("no mount holds the directory")?;
    Ok(format!("{} on {}", mount.2, mount.0))
}

fn disk_speed(dir: &Path) -> Result<(f64, f64)> {
    let path = dir.join("speed-probe");
    let mut file = fs::File::create(&path)?;
    let mut page = [0xA5; 4096];
    let mut syncs = Vec::new();
    for i in 0..32u64 {
        let start = Instant::now();
        page[0] = i as u8;
        file.write_all_at(&page, i * 4096)?;
        file.sync_data()?;
        syncs.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let piece = vec![0x5A; 1 << 20];
    let start = Instant::now();
    for _ in 0..256 {
        file.write_all(&piece)?;
    }
    file.sync_data()?;
    let write = 256.0 * f64::from(1 << 20) / start.elapsed().as_secs_f64() / 1e6;
    fs::remove_file(path)?;
    Ok((stats::median(&syncs).unwrap_or(0.0), write))
}

fn sha256_speed() -> f64 {
    let piece = vec![0x5A; 64 << 20];
    let start = Instant::now();
    std::hint::black_box(Sha256::digest(&piece));
    piece.len() as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Writes all dirty pages back, so that one registry's leftovers do not slow the next one down.
pub(crate) fn settle() {
    rustix::fs::sync();
}

/// Makes the kernel forget the pages of every file below `path`. Needs no privilege and leaves other programs their cache;
/// directories and inodes stay cached, which is nothing beside a GiB of data.
pub(crate) fn drop_page_cache(path: &Path) -> Result<()> {
    settle();
    for_each_file(path, &mut |file, _| {
        let file = fs::File::open(file)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    })
}

/// Bytes that a tree takes on disk (allocated blocks, not lengths: holes are free, preallocation is not).
pub(crate) fn disk_usage(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for_each_file(path, &mut |_, meta| {
        bytes += meta.blocks() * 512;
        Ok(())
    })?;
    Ok(bytes)
}

fn for_each_file(
    path: &Path,
    call: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<()>,
) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        // Servers delete temporary files while this walks.
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            for_each_file(&path, call)?;
        } else if meta.is_file() {
            call(&path, &meta)?;
        }
    }
    Ok(())
}

/// Today, as `YYYY-MM-DD` (UTC).
pub(crate) fn today() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    date_of((since.as_secs() / 86_400) as i64)
}

/// The proleptic Gregorian date of a day number since 1970-01-01 (for days from then on).
fn date_of(day: i64) -> String {
    // Count from 0000-03-01: leap days then end a year, so months have a closed form.
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (day, date) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (11_016, "2000-02-29"),
            (20_453, "2025-12-31"),
            (20_454, "2026-01-01"),
        ] {
            assert_eq!(date_of(day), date);
        }
    }
}
