//! Images to bend, and what may become of them.

use std::{fs, sync::Arc};

use dvcr_importer::format::{DiskImage, ExtentKind, FormatError};

use crate::{
    corpora::targets::Counted,
    counting::peak,
    support::{Bench, Pattern},
};

/// Most bytes read of a source, beside what it has: pages around its headers, twice.
const READ_FREE_BYTES: u64 = 1 << 20;

/// Most memory: tables and decoded clusters in cache (`format::limits`), and the disk that was read.
const MEMORY_MAX: usize = 8 << 20;

/// Reads the whole disk; `None` for zeros.
pub(crate) fn read_all(bytes: &[u8]) -> Result<Vec<Option<Vec<u8>>>, FormatError> {
    let source = Arc::new(Counted::new(bytes.to_vec()));
    let (result, memory) = peak(|| read_source(&source));
    assert!(
        source.bytes() <= 2 * bytes.len() as u64 + READ_FREE_BYTES,
        "{} bytes were read of {}",
        source.bytes(),
        bytes.len()
    );
    assert!(memory < MEMORY_MAX, "{memory} bytes of memory");
    result
}

fn read_source(source: &Arc<Counted<Vec<u8>>>) -> Result<Vec<Option<Vec<u8>>>, FormatError> {
    let image = DiskImage::open(source.clone())?;
    let mut parts = vec![];
    for extent in image.extents() {
        let extent = extent?;
        let mut offset = extent.offset;
        // Zeros of any length are one part, data is cut by the offset: comparable whatever the extents.
        while offset < extent.offset + extent.len {
            let len = (extent.offset + extent.len - offset).min((1 << 20) - offset % (1 << 20));
            if extent.kind == ExtentKind::Data {
                let mut part = vec![0; len as usize];
                image.read_at(offset, &mut part)?;
                parts.push(Some(part));
            } else {
                parts.push(None);
            }
            offset += len;
        }
    }
    Ok(parts)
}

pub(crate) fn sample(format: &str, options: &[&str]) -> Vec<u8> {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    fs::read(bench.image(format, options)).unwrap()
}

/// Applies the patches, then expects an error that says this.
pub(crate) fn check(sample: &[u8], patches: &[(usize, &[u8])], expected: &str) {
    let mut bytes = sample.to_vec();
    for (at, patch) in patches {
        bytes[*at..at + patch.len()].copy_from_slice(patch);
    }
    let Err(error) = read_all(&bytes) else {
        panic!("was read, in spite of {expected:?}");
    };
    let error = error.to_string();
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

pub(crate) const BIG: [u8; 8] = (1u64 << 63).to_be_bytes();
pub(crate) const BIG_LE: [u8; 8] = (1u64 << 63).to_le_bytes();
pub(crate) const FF: [u8; 8] = [0xFF; 8];

pub(crate) fn be(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}
