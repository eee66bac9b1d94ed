//! Streams and archives made by the usual tools, what comes out of them, and those that lie.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod archives;
mod damage;
mod tools;

use std::{
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
};

use dvcr_importer::wrapping::{Unwrapped, Wrapping, WrappingError};
use support::{run, text};

use Wrapping::{Bzip2, Gzip, Tar, Xz, Zstd};

const BYTES_MAX: u64 = 1 << 40;

/// Reads to the end.
fn unwrap(bytes: &[u8]) -> Result<(Vec<Wrapping>, Vec<u8>), WrappingError> {
    unwrap_within(bytes, BYTES_MAX)
}

fn unwrap_within(bytes: &[u8], max: u64) -> Result<(Vec<Wrapping>, Vec<u8>), WrappingError> {
    let mut stream = Unwrapped::new(Cursor::new(bytes.to_vec()), max)?;
    let mut content = vec![];
    stream.read_to_end(&mut content).map_err(|error| {
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        *error
            .into_inner()
            .unwrap()
            .downcast::<WrappingError>()
            .unwrap()
    })?;
    assert!(content.starts_with(stream.head()));
    Ok((stream.wrappings().to_vec(), content))
}

/// Expects an error that says this.
fn check(bytes: &[u8], expected: &str) {
    let error = match unwrap(bytes) {
        Ok((wrappings, content)) => {
            panic!(
                "{wrappings:?}, {} bytes, in spite of {expected:?}",
                content.len()
            )
        }
        Err(error) => error.to_string(),
    };
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

/// One layer more around a file, made by the tool for it. Returns the new file.
fn wrap(path: &Path, wrapping: Wrapping) -> PathBuf {
    let dir = path.parent().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let file = text(path);
    let (new, args): (_, &[&str]) = match wrapping {
        Gzip => ("gz", &["gzip", "-k", "-1", file]),
        Xz => ("xz", &["xz", "-k", "-1", file]),
        Zstd => ("zst", &["zstd", "-q", "-k", file]),
        Bzip2 => ("bz2", &["bzip2", "-k", file]),
        Tar => {
            let tar = format!("{file}.tar");
            run("tar", &["-cf", &tar, "-C", text(dir), name]);
            return tar.into();
        }
    };
    run(args[0], &args[1..]);
    format!("{file}.{new}").into()
}
