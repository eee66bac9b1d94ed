//! Archives into directories: honest ones come out as they went in, hostile ones never leave the directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{fs, io::Cursor, os::unix::fs::PermissionsExt, path::Path, sync::atomic::AtomicBool};

use dvcr_importer::populate::{ExtractError, Extracted, extract};
use support::{
    Bench, Pattern,
    repository::{gzip, zstd},
    run,
    tar::{Member, tar},
    text,
    volume::allocated,
};

use Member::{Directory, File, HardLink, Special, Symlink};

static GO_ON: AtomicBool = AtomicBool::new(false);

fn unpack(bytes: Vec<u8>, directory: &Path) -> Result<Extracted, ExtractError> {
    extract(Cursor::new(bytes), directory, 1 << 32, &GO_ON)
}

/// A directory with a volume in it, and something beside the volume that nobody may touch.
struct Beside {
    dir: tempfile::TempDir,
}

impl Beside {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("volume")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), b"untouched").unwrap();
        Self { dir }
    }

    fn volume(&self) -> std::path::PathBuf {
        self.dir.path().join("volume")
    }

    fn assert_untouched(&self, what: &str) {
        let outside = self.dir.path().join("outside");
        assert_eq!(
            fs::read(outside.join("file")).unwrap(),
            b"untouched",
            "{what}"
        );
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{what}");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2, "{what}");
    }
}

#[test]
fn hostile_archives() {
    let absolute = |beside: &Beside| text(&beside.dir.path().join("outside")).to_owned();
    let long = "x/".repeat(40);
    type Members = fn(&str) -> Vec<u8>;
    type Case = (&'static str, Members, &'static str);
    let cases: [Case; 16] = [
        (
            "..",
            |_| tar(&[File("../outside/file", b"x")]),
            "outside of itself",
        ),
        (
            ".. inside",
            |_| tar(&[File("a/../../outside/file", b"x")]),
            "outside of itself",
        ),
        (
            "absolute",
            |outside| tar(&[File(&format!("{outside}/file"), b"x")]),
            "absolute",
        ),
        (
            "through a link",
            |outside| tar(&[Symlink("link", outside), File("link/file", b"x")]),
            "leads out",
        ),
        (
            "through a relative link",
            |_| tar(&[Symlink("link", "../outside"), File("link/file", b"x")]),
            "leads out",
        ),
        (
            "through a link that stays",
            |_| {
                tar(&[
                    Directory("a"),
                    Symlink("link", "a"),
                    File("link/file", b"x"),
                ])
            },
            "through a link",
        ),
        (
            "two links",
            |_| {
                tar(&[
                    Directory("d"),
                    Symlink("d/x", ".."),
                    Symlink("y", "d/x/../outside"),
                    File("y/file", b"x"),
                ])
            },
            "leads out",
        ),
        (
            "over a link",
            |_| tar(&[Symlink("a", "b"), Directory("a")]),
            "through a link",
        ),
        (
            "hard link",
            |outside| tar(&[HardLink("a", &format!("{outside}/file"))]),
            "leads out",
        ),
        (
            "relative hard link",
            |_| tar(&[HardLink("a", "../outside/file")]),
            "leads out",
        ),
        (
            "hard link to a link",
            |_| tar(&[Symlink("l", "a"), HardLink("b", "l")]),
            "no file",
        ),
        ("device", |_| tar(&[Special("null", b'3')]), "device"),
        ("block device", |_| tar(&[Special("sda", b'4')]), "device"),
        ("FIFO", |_| tar(&[Special("fifo", b'6')]), "device"),
        (
            "a file over a directory",
            |_| tar(&[Directory("a"), File("a", b"x")]),
            "directory already",
        ),
        ("no archive", |_| b"not an archive".to_vec(), "no tar"),
    ];
    for (what, members, expected) in cases {
        let beside = Beside::new();
        let bytes = members(&absolute(&beside));
        for bytes in [bytes.clone(), gzip(&bytes)] {
            let error = unpack(bytes, &beside.volume()).unwrap_err().to_string();
            assert!(error.contains(expected), "{what}: {error}");
            beside.assert_untouched(what);
        }
    }
    // What somebody put into the volume before does not lead out either.
    let beside = Beside::new();
    std::os::unix::fs::symlink("../outside", beside.volume().join("a")).unwrap();
    assert!(unpack(tar(&[File("a/file", b"x")]), &beside.volume()).is_err());
    std::os::unix::fs::symlink("../outside/file", beside.volume().join("b")).unwrap();
    unpack(tar(&[File("b", b"new")]), &beside.volume()).unwrap();
    assert_eq!(fs::read(beside.volume().join("b")).unwrap(), b"new");
    beside.assert_untouched("links in the volume");
    // Deep, but not deeper than paths are.
    unpack(tar(&[File(&format!("{long}f"), b"x")]), &beside.volume()).unwrap();
    // Cut anywhere it is an error.
    let archive = tar(&[File("one", &[1; 2000]), File("two", &[2; 2000])]);
    for len in (1..archive.len() - 1024).step_by(100) {
        assert!(unpack(archive[..len].to_vec(), &beside.volume()).is_err());
    }
}

#[test]
fn what_tar_packed_comes_out() {
    let bench = Bench::new(Pattern::Islands, 64 << 20);
    let from = bench.path("from");
    let script = format!(
        "mkdir -p {f}/a/b && cp --sparse=always {raw} {f}/a/sparse && echo one > {f}/a/b/one && chmod 640 {f}/a/b/one &&
         ln {f}/a/b/one {f}/two && ln -s a/b/one {f}/link && ln -s ../b {f}/a/up && mkdir {f}/empty && chmod 4755 {f}/a/b/one &&
         printf x > {f}/$(printf 'n%.0s' $(seq 200))",
        f = text(&from),
        raw = text(&bench.raw)
    );
    run("sh", &["-c", &script]);
    // A link that would lead out is not in there: a/up leads to "b" beside a.
    fs::remove_file(from.join("a/up")).unwrap();
    std::os::unix::fs::symlink("b/one", from.join("a/up")).unwrap();
    for format in ["--format=pax", "--format=gnu", "--format=oldgnu"] {
        for sparse in [&["-S"][..], &[]] {
            let archive = bench.path("archive");
            let fixed = ["-cf", text(&archive), format, "-C", text(&from), "."];
            run("tar", &[sparse, &fixed].concat());
            let bytes = fs::read(&archive).unwrap();
            for bytes in [bytes.clone(), zstd(&bytes)] {
                let into = tempfile::tempdir().unwrap();
                let done = unpack(bytes, into.path()).unwrap();
                assert_eq!((done.files, done.directories), (6, 3), "{format}");
                run(
                    "diff",
                    &["-r", "--no-dereference", text(&from), text(into.path())],
                );
                let sparse = into.path().join("a/sparse");
                assert!(allocated(&sparse) <= allocated(&bench.raw) + (4 << 20));
                let mode = |name: &str| {
                    fs::metadata(into.path().join(name))
                        .unwrap()
                        .permissions()
                        .mode()
                        & 0o7777
                };
                // Not set-user-ID.
                assert_eq!(mode("a/b/one") & !0o022, 0o755 & !0o022);
                assert_eq!(
                    fs::read_link(into.path().join("link")).unwrap(),
                    Path::new("a/b/one")
                );
            }
        }
    }
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        unpack(tar(&[]), empty.path()).unwrap(),
        Extracted::default()
    );
}

#[test]
fn it_stops_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = Cursor::new(tar(&[File("a", b"x")]));
    let result = extract(bytes, dir.path(), 1 << 20, &AtomicBool::new(true));
    assert!(matches!(result, Err(ExtractError::Cancelled)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
