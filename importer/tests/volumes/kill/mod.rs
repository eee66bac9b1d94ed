//! Importer and registry, killed again and again while gigabytes move: each goes on where it was.
//!
//! `DVCR_KILL_BYTES` (such as `2G`) says how large the disk is. From 1 GiB on each of the two is killed ten times, and less than a
//! twentieth may be moved twice. A small disk is killed a few times only: what a kill costs does not depend on the disk.

mod import;
mod populate;
mod proxy;
mod world;

use std::{env, sync::Arc};

use dvcr_importer::source::ReadAt;

use crate::support::disk::Disk;

/// Length of the disk, unless the environment says otherwise.
const LEN: u64 = 256 << 20;

/// Disks of this length are killed often.
const LARGE: u64 = 1 << 30;

/// What a kill may cost, at most: a request or what is read ahead, what lies in sockets, and what is decoded and compressed. It
/// costs less on average; of a large disk the average counts, of a small one this.
const KILL_BYTES: u64 = 12 << 20;

/// How much is moved and how often it is disturbed.
#[derive(Clone, Copy, Debug)]
struct Scale {
    len: u64,
    /// Kills of the importer and of the registry, of each.
    kills: usize,
}

impl Scale {
    fn from_environment() -> Self {
        let len = match env::var("DVCR_KILL_BYTES") {
            Ok(text) => parse(&text),
            Err(_) => LEN,
        };
        let kills = if len >= LARGE { 10 } else { 2 };
        Self { len, kills }
    }

    /// Most bytes of `len` that may be moved twice.
    fn twice_max(self, len: u64) -> u64 {
        match self.len >= LARGE {
            true => len / 20,
            false => 2 * self.kills as u64 * KILL_BYTES,
        }
    }
}

fn parse(text: &str) -> u64 {
    let (digits, unit) = match text.strip_suffix('G') {
        Some(digits) => (digits, 1 << 30),
        None => (text.strip_suffix('M').unwrap_or(text), 1 << 20),
    };
    let number: u64 = digits.parse().expect("DVCR_KILL_BYTES is like 512M or 2G");
    number * unit
}

/// A disk that is made while it is read.
#[derive(Clone)]
struct Made(Arc<Disk>);

impl Made {
    fn new(seed: u64, len: u64) -> Self {
        Self(Arc::new(Disk::new(seed, len)))
    }
}

impl ReadAt for Made {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, buf);
        Ok(())
    }
}
