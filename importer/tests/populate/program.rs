//! What the program refuses, and what it leaves behind: files that were there before are somebody's.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::{Bench, Pattern, text, volume::LoopDevice};

/// Runs `populate` with standard input from a file.
fn populate_from(stdin: Stdio, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvcr-importer"));
    command.arg("populate").args(args).stdin(stdin);
    command.output().unwrap()
}

/// It ended with this code, and said this.
fn check(output: &Output, code: i32, part: &str) {
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{log}");
    assert!(log.contains(part), "{part:?} is not in: {log}");
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_source_that_is_its_own_target_was_emptied() {
    let bench = Bench::new(Pattern::Mixed, 8 << 20);
    let qcow2 = bench.image("qcow2", &[]);
    let volume = bench.path("volume");
    fs::create_dir(&volume).unwrap();
    let disk = volume.join("disk.img");
    fs::copy(&bench.raw, &disk).unwrap();
    let (hard, soft) = (bench.path("hard"), bench.path("soft"));
    fs::hard_link(&disk, &hard).unwrap();
    symlink(&disk, &soft).unwrap();
    let device = LoopDevice::on(disk.clone());
    let (disk, volume) = (text(&disk), text(&volume));
    let cases: [(&[&str], &Path); 9] = [
        (&[disk, disk], Path::new(disk)),
        (&[disk, volume, "--size", "20Mi"], Path::new(disk)),
        (&[disk, disk, "--format", "qcow2"], Path::new(disk)),
        (&[disk, text(&hard)], Path::new(disk)),
        (&[text(&soft), disk], Path::new(disk)),
        (&[disk, text(device.path())], Path::new(disk)),
        (&[text(device.path()), disk], Path::new(disk)),
        (&[text(&qcow2), text(&qcow2)], &qcow2),
        (&["-", disk], Path::new(disk)),
    ];
    for (args, source) in cases {
        let before = fs::read(source).unwrap();
        let stdin = Stdio::from(File::open(disk).unwrap());
        check(&populate_from(stdin, args), 1, "is the source itself");
        assert!(fs::read(source).unwrap() == before, "{args:?}");
        assert_eq!(names(Path::new(volume)), ["disk.img"], "{args:?}");
    }
}
