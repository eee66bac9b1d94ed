//! Populates that are killed at any moment.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    importer::{command, json, text},
    registry::{push, write_disk},
    site::Site,
    support::process::Process,
    volume::{LoopDevice, same_disk},
};

/// Large enough that several checkpoints are made.
const LEN: u64 = 512 << 20;

/// Killed again and again, each run goes on where the last one was; the disk is whole, and less than an eighth was written twice.
#[test]
fn what_was_durable_is_not_fetched_again() {
    let site = Site::new();
    let raw = site.path("raw");
    write_disk(&raw, 9, LEN);
    push(&site, &raw, "vi/disk:1");
    let reference = site.reference("vi/disk:1");
    let file = site.path("disk.img");
    let state = site.path(".disk.img.populate");
    run_and_kill(&reference, &file, &state, &[]);
    same_disk("raw", &file, &raw);
    fs::remove_file(&file).unwrap();

    let device = LoopDevice::new(&site.path("."), LEN, 0xAA);
    let state = site.path("state");
    run_and_kill(
        &reference,
        device.path(),
        &state,
        &["--state", text(&state)],
    );
    same_disk("raw", device.path(), &raw);
}

fn run_and_kill(reference: &str, target: &Path, state: &Path, options: &[&str]) {
    let arguments = [
        &["populate", reference, text(target), "--threads=2"],
        options,
    ]
    .concat();
    let mut kills = 0;
    let signals = [Signal::KILL, Signal::TERM];
    let mut noted = 0;
    let begin = Instant::now();
    while kills < 3 {
        assert!(
            begin.elapsed() < Duration::from_secs(200),
            "killed {kills} times only"
        );
        let mut process = Process::start(command(&arguments));
        // Until it has noted something new, or is done.
        let len = || fs::metadata(state).map_or(0, |metadata| metadata.len());
        let limit = Duration::from_secs(120);
        let more = process_until(&mut process, limit, || len() > noted + 200);
        if !more {
            break;
        }
        process.signal(signals[kills % 2]);
        process_until(&mut process, limit, || false);
        noted = len();
        kills += 1;
    }
    assert!(kills > 0, "it was done before it could be killed");
    let summary = json(&arguments);
    let kept = summary["kept_bytes"].as_u64().unwrap();
    assert!(kept >= 32 << 20, "{summary}");
    assert!(!state.exists());
}

/// Waits for a condition; false if the process ended before.
fn process_until(process: &mut Process, limit: Duration, condition: impl Fn() -> bool) -> bool {
    process.wait_for(limit, |process| {
        if condition() {
            return Some(true);
        }
        process.has_ended().then_some(false)
    })
}
