//! What successive builds of one disk take.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    data::Blob,
    http::Body,
    machine,
    oci::{self, Upload},
    registry::Program,
    row::{Recorder, Row, Unit},
};

/// Pushes the disks one after the other; a row for each: bytes that the data directory grew by.
///
/// # Errors
/// A registry does not start, or a disk cannot be read.
pub(crate) fn run(
    disks: &[PathBuf],
    program: &Program,
    home: &Path,
    recorder: &mut Recorder,
) -> Result<()> {
    let server = program.start(home)?;
    machine::settle();
    let mut before = machine::disk_usage(&server.data_dir())?;
    for (number, disk) in disks.iter().enumerate() {
        let blob =
            Blob::of(std::fs::read(disk).with_context(|| format!("read {}", disk.display()))?);
        let name = disk
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let row = Row::new(
            format!("disk {} ({name}) takes", number + 1),
            Unit::Mebibytes,
        );
        recorder.measure(row, &server, || {
            oci::push_blob(
                &mut server.client(),
                "disks",
                &blob.digest,
                Body::Slices(&[&blob.bytes]),
                Upload::Streamed,
            )?;
            machine::settle();
            let after = machine::disk_usage(&server.data_dir())?;
            let grown = after.saturating_sub(before) as f64 / f64::from(1 << 20);
            before = after;
            Ok(grown)
        });
        oci::verify_blob(&mut server.client(), "disks", &blob.digest, &blob.bytes)?;
    }
    server.stop()
}
