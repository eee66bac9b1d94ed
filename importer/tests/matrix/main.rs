//! Every way of a disk as one table: sources x formats x wrappings x targets.
//!
//! | dimension | values |
//! |---|---|
//! | source | file, pipe, block device; web servers that behave, that drop every connection, that lie about ranges, that know neither ranges nor lengths; S3 (moto), Google (fake-gcs-server) and Azure (Azurite); images as docker makes them (gzip, zstd, plain, layers with whiteouts) and artifacts, in docker-registry with a login and in Distribution with a token service; our own layout |
//! | format | raw, ISO 9660; qcow2 of version 2, with zlib and zstd, with extended L2; VMDK sparse and streamed, OVA; VDI, VHD and VHDX, growing and fixed |
//! | wrapping | none, gzip (also of several members), xz, zstd, bzip2, tar, gzip in xz, tar in gzip |
//! | target | `dvcr serve` with TLS, `disk.img`, a block device that held something else |
//!
//! The program goes each way. `qemu-img` made the images, and says what is on the disk: `disk.img` and device must have the SHA-256 of
//! what `qemu-img convert` writes, an image of the registry is compared by `qemu-img compare`, and equal disks must become equal layers.
//!
//! Without being told otherwise it goes the ways of [`cells::pairs`]. `DVCR_MATRIX=all` goes all of them, anything else those whose name
//! has that in it: `DVCR_MATRIX=HttpBreaks/Ova/`.
//!
//! Programs come from `tools/install.sh clients`; a missing one fails with that advice. Block devices need root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../dvcr/tests/support/mod.rs"]
mod blackbox;
#[path = "../../../client/tests/support/mod.rs"]
mod reply;
#[path = "../support/site.rs"]
mod site;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../../dvcr/tests/oci_client/tokens.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod tokens;

mod cells;
mod formats;
mod objects;
mod once;
mod place;
mod registries;
mod sources;
mod stores;
mod targets;
mod wrappings;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use cells::Cell;
use place::Place;

/// Cells at a time on each core: much of their time they wait for a disk, a server, or to try again.
const CELLS_PER_CORE: usize = 2;

/// The cells that the environment asks for.
fn chosen() -> Vec<Cell> {
    let cells = match std::env::var("DVCR_MATRIX").as_deref() {
        Err(_) => cells::pairs(),
        Ok("all") => cells::product(),
        Ok(part) => {
            let named = |cell: &Cell| cell.to_string().contains(part);
            cells::product().into_iter().filter(named).collect()
        }
    };
    assert!(!cells.is_empty(), "no cell has such a name");
    cells
}

#[test]
fn every_disk_arrives_whatever_the_way() {
    let (cells, begin) = (chosen(), Instant::now());
    let place = Place::new();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(vec![]);
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores * CELLS_PER_CORE {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = catch_unwind(AssertUnwindSafe(|| targets::go(&place, *cell)));
                    if let Err(panic) = result {
                        let line = format!("{cell}: {}", said(&*panic));
                        failed.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("{} cells in {} s", cells.len(), begin.elapsed().as_secs());
    assert!(
        failed.is_empty(),
        "{} of {} cells failed; DVCR_MATRIX=NAME goes one way alone\n{}",
        failed.len(),
        cells.len(),
        failed.join("\n")
    );
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied())
        .unwrap_or("a panic")
}
