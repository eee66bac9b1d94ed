//! What the program refuses, and what it leaves behind: files that were there before are somebody's.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::{
    Bench, Pattern, run, text,
    volume::{LoopDevice, same_disk},
};

/// The program, with standard input from somewhere.
fn program(stdin: Stdio, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvcr-importer"));
    command.args(args).stdin(stdin);
    command
}

fn populate_from(stdin: Stdio, args: &[&str]) -> Output {
    let args = [&["populate"], args].concat();
    program(stdin, &args).output().unwrap()
}

fn populate(args: &[&str]) -> Output {
    populate_from(Stdio::null(), args)
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

#[test]
fn a_broken_image_cost_what_was_there() {
    let bench = Bench::new(Pattern::Incompressible, (5 << 20) + 512);
    let qcow2 = bench.image("qcow2", &[]);
    let whole = fs::metadata(&qcow2).unwrap().len();
    let volume = bench.path("volume");
    fs::create_dir(&volume).unwrap();
    let disk = volume.join("disk.img");
    for len in [whole - (1 << 20), whole / 2, 400 << 10] {
        let broken = bench.path("broken.qcow2");
        let bytes = fs::read(&qcow2).unwrap();
        fs::write(&broken, &bytes[..len as usize]).unwrap();
        for format in ["raw", "qcow2"] {
            let args = [text(&broken), text(&volume), "--format", format];
            check(&populate(&args), 1, "broken qcow2");
            assert_eq!(names(&volume), [""; 0], "{len}");
            fs::write(&disk, "good").unwrap();
            check(&populate(&args), 1, "broken qcow2");
            assert_eq!(names(&volume), ["disk.img"], "{len}");
            assert_eq!(fs::read(&disk).unwrap(), b"good");
            fs::remove_file(&disk).unwrap();
        }
    }
}

/// What only reading the data shows.
#[test]
fn a_broken_image_left_a_part_of_a_disk() {
    let bench = Bench::new(Pattern::Mixed, 8 << 20);
    let qcow2 = bench.image("qcow2", &["-c"]);
    let mut bytes = fs::read(&qcow2).unwrap();
    let len = bytes.len();
    // Behind the tables, all over the compressed data.
    bytes[len / 2..].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&qcow2, bytes).unwrap();
    let volume = bench.path("volume");
    fs::create_dir(&volume).unwrap();
    check(&populate(&[text(&qcow2), text(&volume)]), 1, "broken qcow2");
    assert_eq!(names(&volume), [""; 0]);
}

#[test]
fn a_state_that_was_none_was_emptied() {
    let bench = Bench::new(Pattern::Mixed, 8 << 20);
    let (notes, disk) = (bench.path("notes"), bench.path("disk.img"));
    fs::write(&notes, "somebody's").unwrap();
    let (raw, disk) = (text(&bench.raw), text(&disk));
    let before = fs::read(raw).unwrap();
    for (state, part) in [
        (text(&notes), "no state of a populate"),
        (raw, "is the source"),
        (disk, "is the target"),
    ] {
        check(&populate(&[raw, disk, "--state", state]), 1, part);
        assert_eq!(fs::read(&notes).unwrap(), b"somebody's");
        assert!(fs::read(raw).unwrap() == before);
        assert!(!Path::new(disk).exists());
    }
}

#[test]
fn a_link_was_taken_for_what_it_leads_to() {
    let bench = Bench::new(Pattern::Mixed, 8 << 20);
    let (volume, link) = (bench.path("volume"), bench.path("link"));
    fs::create_dir(&volume).unwrap();
    let disk = volume.join("disk.img");
    fs::write(&disk, "old").unwrap();
    symlink(&disk, &link).unwrap();
    check(&populate(&[text(&bench.raw), text(&link)]), 0, "");
    same_disk("raw", &disk, &bench.raw);
    assert!(link.is_symlink());
    // What turns out to be wrong is removed there, too.
    let gzip = Command::new("gzip").arg("-c").arg(&bench.raw).output();
    let mut bytes = gzip.unwrap().stdout;
    let crc = bytes.len() - 8;
    bytes[crc] ^= 1;
    let damaged = bench.path("raw.gz");
    fs::write(&damaged, bytes).unwrap();
    check(&populate(&[text(&damaged), text(&link)]), 1, "broken gzip");
    assert!(link.is_symlink());
    assert_eq!(names(&volume), [""; 0]);
    let nowhere = bench.path("nowhere");
    symlink(bench.path("absent/disk.img"), &nowhere).unwrap();
    let args = [text(&bench.raw), text(&nowhere)];
    check(&populate(&args), 1, "symbolic link");
}

#[test]
fn a_pipe_that_was_stopped_left_a_part_of_a_disk() {
    let bench = Bench::new(Pattern::Incompressible, (5 << 20) + 512);
    let disk = bench.path("disk.img");
    let mut command = program(Stdio::piped(), &["populate", "-", text(&disk)]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&fs::read(&bench.raw).unwrap()).unwrap();
    while fs::metadata(&disk).map_or(0, |metadata| metadata.len()) == 0 {
        std::thread::yield_now();
    }
    run("kill", &["-TERM", &child.id().to_string()]);
    // It reads on to see that it is to stop.
    let _ = stdin.write_all(&[1; 4 << 20]);
    drop(stdin);
    check(&child.wait_with_output().unwrap(), 130, "nothing is kept");
    assert!(!disk.exists());
}

#[test]
fn an_export_that_failed_left_an_empty_file() {
    let bench = Bench::new(Pattern::Incompressible, (5 << 20) + 512);
    let (qcow2, output) = (bench.image("qcow2", &[]), bench.path("out.qcow2"));
    let half = fs::metadata(&qcow2).unwrap().len() / 2;
    File::options()
        .write(true)
        .open(&qcow2)
        .unwrap()
        .set_len(half)
        .unwrap();
    for format in ["raw", "qcow2"] {
        let args = ["export", text(&qcow2), text(&output), "--format", format];
        let ended = program(Stdio::null(), &args).output().unwrap();
        check(&ended, 1, "broken qcow2");
        assert!(!output.exists(), "{format}");
    }
}

#[test]
fn a_registry_that_does_not_answer_was_waited_for_in_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("{}/vi/a:1", listener.local_addr().unwrap());
    drop(listener);
    let mut command = program(Stdio::null(), &["inspect", &place]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    log.read_line(&mut line).unwrap();
    run("kill", &["-TERM", &child.id().to_string()]);
    child.wait().unwrap();
    assert!(line.starts_with("dvcr-importer: GET "), "{line}");
    assert!(line.ends_with("trying again\n"), "{line}");
}

/// Each is told at once, and in words.
#[test]
fn arguments_that_cannot_be_meant() {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    let (empty, certificates) = (bench.path("empty.img"), bench.path("certificates"));
    File::create(&empty).unwrap();
    fs::create_dir(&certificates).unwrap();
    let (raw, empty, disk) = (text(&bench.raw), text(&empty), bench.path("disk.img"));
    let (place, disk) = ("127.0.0.1:9/vi/a:1", text(&disk));
    let cases: [(&[&str], i32, &str); 6] = [
        (&["import", raw, "vi/a:1"], 2, "docker.io/vi/a:1"),
        (&["import", raw, place, "--password", "x"], 2, "--user"),
        (
            &["populate", raw, disk, "--password", "x"],
            2,
            "--source-user",
        ),
        (&["populate", empty, disk], 1, empty),
        (&["export", empty, disk], 1, empty),
        (
            &["import", raw, place, "--ca", text(&certificates)],
            1,
            "has no certificate",
        ),
    ];
    for (args, code, part) in cases {
        let ended = program(Stdio::null(), args).output().unwrap();
        check(&ended, code, part);
        assert!(!Path::new(disk).exists());
    }
}
