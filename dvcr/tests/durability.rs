//! What is stored survives damage of packs and the loss of the metadata: the real program, its own commands, `cp`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use support::{
    digest::sha256,
    http::{Client, Request},
    over::Over,
    process::{self, Finished},
    random::Random,
    server::{Server, program},
    stored::Stored,
};

/// No command of these tests takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `dvcr` with these arguments against a server.
fn dvcr(server: Option<&Server>, arguments: &[&str]) -> Finished {
    let mut command = Command::new(program());
    command.args(arguments).env_remove("DVCR_DATA");
    if let Some(server) = server {
        command.env("DVCR_SERVER", server.url());
    }
    process::run(command, LIMIT)
}

fn json(finished: &Finished) -> serde_json::Value {
    serde_json::from_slice(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", finished.log))
}

/// The files of a directory, ascending.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn stop(mut server: Server) {
    server.process().signal(Signal::TERM);
    assert!(server.process().wait(LIMIT), "{}", server.log());
}

#[test]
fn a_flipped_bit_is_found_named_and_healed_by_a_push() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (mut stored, mut random) = (Stored::default(), Random::new());
    let server = Server::start_on(&data, &[]);
    let client = Client::new(&server.url());
    stored
        .push(&client, "vi/disk", 3 << 20, &mut random)
        .unwrap();
    // A stop seals the packs and empties all caches.
    stop(server);
    let pack = files(&data.join("packs")).remove(0);
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pack)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1 << 20).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1 << 20).unwrap();
    drop(file);

    let server = Server::start_on(&data, &[]);
    let client = Client::new(&server.url());
    assert!(dvcr(Some(&server), &["scrub", "--status"]).success);
    let scrub = dvcr(Some(&server), &["scrub", "--wait", "--json"]);
    assert!(!scrub.success, "the exit code tells: {}", scrub.log);
    let found = json(&scrub);
    let findings = found["findings"].as_array().unwrap();
    let blob = findings.iter().find(|found| found["kind"] == "blob");
    let blob = blob.unwrap_or_else(|| panic!("a blob is named: {found}"));
    let (path, bytes) = stored.newest(blob["name"].as_str().unwrap());
    assert_eq!(blob["repositories"], serde_json::json!(["vi/disk"]));
    let shown = dvcr(Some(&server), &["scrub", "--status"]);
    assert!(shown.log.contains("vi/disk"), "{}", shown.log);
    let metrics = client.send(&Request::new("GET", "/metrics")).unwrap();
    let counted = metrics.text().contains("dvcr_scrub_damaged_blobs 1");
    assert!(counted, "{}", metrics.text());

    let get = client.send(&Request::new("GET", path.clone())).unwrap();
    assert_eq!(get.status, 500, "{}", get.text());
    assert!(get.text().contains("push"), "{}", get.text());
    // What clients ask before they push.
    let head = client.send(&Request::new("HEAD", path.clone())).unwrap();
    assert_eq!(head.status, 404);
    let digest = sha256(&bytes);
    let push = format!("/v2/vi/disk/blobs/uploads/?digest={digest}");
    let push = Request::new("POST", push).octets(&bytes);
    assert_eq!(client.send(&push).unwrap().status, 201);
    stored.verify(&server.url());
    let healed = dvcr(
        Some(&server),
        &["scrub", "--repository", "vi/disk", "--wait"],
    );
    assert!(healed.success, "{}", healed.log);
    stop(server);
}

/// Pushes images that stay and blobs that go, all the time.
struct Pusher<'a> {
    url: String,
    /// What must be there later.
    stored: &'a Mutex<Stored>,
    is_over: &'a AtomicBool,
}

impl Pusher<'_> {
    fn run(&self) {
        let client = Client::new(&self.url);
        let mut random = Random::new();
        for n in 0.. {
            if self.is_over.load(Relaxed) {
                return;
            }
            let mut stored = self.stored.lock().unwrap();
            let pushed = stored.push(&client, &format!("r{n}"), 300_000, &mut random);
            pushed.unwrap_or_else(|refusal| panic!("{}", refusal.text()));
            drop(stored);
            // Garbage, so that packs are emptied and removed meanwhile.
            let junk = random.bytes(700_000);
            let digest = sha256(&junk);
            let push = format!("/v2/junk/blobs/uploads/?digest={digest}");
            let pushed = client.send(&Request::new("POST", push).octets(&junk));
            assert_eq!(pushed.unwrap().status, 201);
            let gone = format!("/v2/junk/blobs/{digest}");
            let gone = client.send(&Request::new("DELETE", gone)).unwrap();
            assert_eq!(gone.status, 202);
            client.clear_transcript();
        }
    }
}

#[test]
fn a_copy_of_a_running_server_restores() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let settings = [
        ("DVCR_GC_INTERVAL", "1s"),
        ("DVCR_GC_GRACE", "0s"),
        ("DVCR_GC_UNUSED_PERCENT", "1"),
    ];
    let server = Server::start_on(&data, &settings);
    let (stored, is_over) = (Mutex::new(Stored::default()), AtomicBool::new(false));
    let pusher = Pusher {
        url: server.url(),
        stored: &stored,
        is_over: &is_over,
    };
    let before = thread::scope(|scope| {
        let pushing = scope.spawn(|| pusher.run());
        let until_here = Over(&is_over);
        // Until garbage collection has removed packs that were copied from, and some.
        let client = Client::new(&server.url());
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            assert!(std::time::Instant::now() < deadline, "{}", server.log());
            let metrics = client.send(&Request::new("GET", "/metrics")).unwrap();
            let text = metrics.text();
            let moved = text.lines().find_map(|line| {
                let value = line.strip_prefix("dvcr_gc_moved_bytes_total ")?;
                value.parse::<f64>().ok()
            });
            if moved.is_some_and(|moved| moved > 0.0) {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        // What was acknowledged so far is what the copy must have.
        let before = stored.lock().unwrap().clone();
        let held = dvcr(Some(&server), &["checkpoint", "--hold", "10m", "--json"]);
        assert!(held.success, "{}", held.log);
        assert!(json(&held)["packs_held_until"].is_string());
        // docs/backup.md has this order.
        fs::create_dir(&copy).unwrap();
        for part in ["FORMAT", "checkpoints", "packs"] {
            let mut cp = Command::new("cp");
            cp.arg("-a").arg(data.join(part)).arg(&copy);
            let copied = process::run(cp, LIMIT);
            assert!(copied.success, "{}", copied.log);
        }
        let released = dvcr(Some(&server), &["checkpoint", "--hold", "0s"]);
        assert!(released.success, "{}", released.log);
        assert!(!released.log.contains("no pack is removed"));
        drop(until_here);
        pushing.join().unwrap();
        before
    });
    stop(server);

    let mut refused = support::server::serve(&copy, &[]);
    refused.env("DVCR_DRAIN", "0s");
    let refused = process::run(refused, LIMIT);
    assert!(!refused.success);
    assert!(refused.log.contains("dvcr repair"), "{}", refused.log);
    let copy_path = copy.to_str().unwrap();
    let dry = dvcr(None, &["repair", "--data", copy_path, "--dry-run"]);
    assert!(dry.success, "{}", dry.log);
    let repair = dvcr(None, &["repair", "--data", copy_path, "--json"]);
    assert!(repair.success, "{}", repair.log);
    let report = json(&repair);
    assert_eq!(report["lost_blobs"], serde_json::json!([]), "{report}");
    assert!(report["manifests"].as_u64() > Some(0), "{report}");
    let restored = Server::start_on(&copy, &[]);
    before.verify(&restored.url());
    stop(restored);

    // The one that was copied from lacks nothing, and has a checkpoint from its stop.
    fs::remove_file(data.join("meta.redb")).unwrap();
    let repair = dvcr(None, &["repair", "--data", data.to_str().unwrap()]);
    assert!(repair.success, "{}", repair.log);
    let server = Server::start_on(&data, &[]);
    stored.lock().unwrap().verify(&server.url());
    stop(server);
}
