//! Disks out of whatever they are wrapped in, by the shortest way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use dvcr_importer::{
    format::Format,
    input::{Input, InputError, Spool},
    source::FileSource,
    wrapping::Wrapping::{self, Gzip, Tar, Xz, Zstd},
};
use support::{Bench, Pattern, assert_same, run, text};

const MIB: u64 = 1 << 20;

fn spool(dir: &Path, bytes_max: u64) -> Spool<'_> {
    Spool {
        dir,
        bytes_max,
        unwrapped_bytes_max: 1 << 40,
    }
}

fn open(bench: &Bench, path: &Path, bytes_max: u64) -> Result<Input, InputError> {
    let source = FileSource::new(File::open(path).unwrap()).unwrap();
    Input::open(Arc::new(source), None, spool(bench.dir.path(), bytes_max))
}

/// The file after a shell command that gets it as `$1` and writes `$2`.
fn shell(bench: &Bench, path: &Path, name: &str, command: &str) -> PathBuf {
    let out = bench.path(name);
    run("sh", &["-ec", command, "sh", text(path), text(&out)]);
    out
}

fn tar(bench: &Bench, path: &Path, option: &str) -> PathBuf {
    let command = format!("cd $(dirname $1) && tar {option} -cf $2 $(basename $1)");
    shell(bench, path, "archive.tar", &command)
}

fn check(bench: &Bench, path: &Path, wrappings: &[Wrapping], format: Format, spooled: bool) {
    let input = open(bench, path, 64 * MIB).unwrap();
    assert_eq!(input.wrappings, wrappings);
    assert_eq!(input.image.format(), format);
    assert_eq!(input.spooled.is_some(), spooled, "{wrappings:?}");
    assert_same(&input.image, &bench.raw);
}

#[test]
fn the_shortest_way() {
    let bench = Bench::new(Pattern::Islands, 64 * MIB);
    let raw = bench.raw.clone();
    let qcow2 = bench.image("qcow2", &["-c"]);
    check(&bench, &raw, &[], Format::Raw, false);
    check(&bench, &qcow2, &[], Format::Qcow2, false);
    // Read where they lie.
    check(&bench, &tar(&bench, &raw, ""), &[Tar], Format::Raw, false);
    check(
        &bench,
        &tar(&bench, &qcow2, ""),
        &[Tar],
        Format::Qcow2,
        false,
    );
    let twice = shell(
        &bench,
        &tar(&bench, &qcow2, ""),
        "outer.tar",
        "tar -P -cf $2 $1",
    );
    check(&bench, &twice, &[Tar, Tar], Format::Qcow2, false);
    // By way of a file.
    let sparse = tar(&bench, &raw, "-S");
    check(&bench, &sparse, &[Tar], Format::Raw, true);
    let gzip = shell(&bench, &qcow2, "gz", "gzip -1 <$1 >$2");
    check(&bench, &gzip, &[Gzip], Format::Qcow2, true);
    let xz = shell(&bench, &raw, "xz", "xz -1 <$1 >$2");
    check(&bench, &xz, &[Xz], Format::Raw, true);
    check(&bench, &tar(&bench, &xz, ""), &[Tar, Xz], Format::Raw, true);
    let zstd = shell(&bench, &tar(&bench, &qcow2, ""), "zst", "zstd -q <$1 >$2");
    check(&bench, &zstd, &[Zstd, Tar], Format::Qcow2, true);
    // Some forty islands of at most two clusters each.
    let spooled = open(&bench, &xz, 64 * MIB).unwrap().spooled.unwrap();
    assert!(spooled < 6 * MIB, "{spooled}");
}

#[test]
fn a_stream() {
    let bench = Bench::new(Pattern::Mixed, 3 * MIB + 512);
    let vmdk = bench.image("vmdk", &["-o", "subformat=streamOptimized"]);
    for (path, wrappings) in [
        (vmdk.clone(), &[][..]),
        (shell(&bench, &vmdk, "gz", "gzip -1 <$1 >$2"), &[Gzip]),
    ] {
        let file = File::open(path).unwrap();
        let input = Input::open_stream(file, None, spool(bench.dir.path(), 64 * MIB)).unwrap();
        assert_eq!(input.wrappings, wrappings);
        assert_eq!(input.image.format(), Format::Vmdk);
        assert_same(&input.image, &bench.raw);
    }
}

#[test]
fn the_temporary_file_is_bounded_and_leaves_nothing() {
    let bench = Bench::new(Pattern::Incompressible, 3 * MIB);
    let xz = shell(&bench, &bench.raw, "xz", "xz -1 <$1 >$2");
    let error = open(&bench, &xz, 2 * MIB).unwrap_err();
    assert!(matches!(error, InputError::SpoolFull(max) if max == 2 * MIB));
    assert_eq!(open(&bench, &xz, 3 * MIB).unwrap().spooled, Some(3 * MIB));
    let mut names: Vec<_> = std::fs::read_dir(bench.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["raw", "xz"]);
}

#[test]
fn errors_keep_their_kind() {
    let bench = Bench::new(Pattern::Mixed, MIB);
    let gzip = shell(&bench, &bench.raw, "gz", "gzip <$1 | head -c 100000 >$2");
    let error = open(&bench, &gzip, 64 * MIB).unwrap_err();
    assert!(matches!(error, InputError::Wrapping(_)), "{error:?}");
    assert_eq!(error.to_string(), "broken gzip: it ends early");
    let archive = shell(
        &bench,
        &tar(&bench, &bench.raw, ""),
        "short",
        "head -c 100000 <$1 >$2",
    );
    assert_eq!(
        open(&bench, &archive, 64 * MIB).unwrap_err().to_string(),
        "broken tar: it ends early"
    );
    let zip = shell(
        &bench,
        &bench.raw,
        "zip",
        "{ printf 'PK\\003\\004'; cat $1; } | gzip >$2",
    );
    let error = open(&bench, &zip, 64 * MIB).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a zip archive cannot be imported: unpack it first"
    );

    struct Reset;
    impl Read for Reset {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let error = Input::open_stream(Reset, None, spool(bench.dir.path(), MIB)).unwrap_err();
    let InputError::Wrapping(dvcr_importer::wrapping::WrappingError::Source(error)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
