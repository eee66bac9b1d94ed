//! How the program starts, stops and refuses: `dvcr serve` and the commands beside it, as whoever runs them sees them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    digest::sha256,
    http::{Client, Request, Response},
    process::{Finished, Process, run},
    random::Random,
    server::{Server, program, serve},
    stored::Stored,
    stream,
};

/// Whatever starts, ends or refuses does so within this time.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of an upload under way, and where in it something happens.
const UPLOAD_BYTES: u64 = 16 << 20;
const MIDDLE: u64 = 8 << 20;

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("dvcr-serve-")
        .tempdir()
        .unwrap()
}

/// `dvcr` with arguments, without settings of whoever runs the tests.
fn dvcr(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DVCR_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

fn succeed(command: Command) -> String {
    let finished = run(command, LIMIT);
    assert!(finished.success, "{}", finished.log);
    String::from_utf8(finished.stdout).unwrap()
}

/// Runs a server that must refuse to start; it says each of `words`, and nothing of a panic.
fn refused(command: Command, words: &[&str]) -> Finished {
    let finished = run(command, LIMIT);
    assert!(!finished.success, "it should refuse:\n{}", finished.log);
    for word in words {
        assert!(
            finished.log.contains(word),
            "{word:?} in:\n{}",
            finished.log
        );
    }
    assert!(!finished.log.contains("panicked"), "{}", finished.log);
    finished
}

/// Starts an upload, and calls `middle` when half of its bytes are sent.
fn upload(
    server: &Server,
    bytes: &[u8],
    mut middle: impl FnMut(),
) -> (String, Result<Response, String>) {
    let client = Client::new(&server.url());
    let start = Request::new("POST", "/v2/slow/blobs/uploads/");
    let started = client.send(&start).unwrap();
    let session = started.get("Location").unwrap().to_owned();
    let head = format!(
        "PUT {session}?digest={} HTTP/1.1\r\nContent-Type: application/octet-stream\r\n",
        sha256(bytes)
    );
    let result = stream::send(server.address(), &head, UPLOAD_BYTES, |before, buffer| {
        if before == MIDDLE {
            middle();
        }
        let at = before as usize;
        buffer.copy_from_slice(&bytes[at..at + buffer.len()]);
    });
    (session, result)
}

fn signal(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn poll(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_lets_a_running_upload_finish() {
    for stop in [Signal::TERM, Signal::INT] {
        let directory = directory();
        let data = directory.path().join("data");
        let mut server = Server::start_on(&data, &[]);
        let bytes = Random::new().bytes(UPLOAD_BYTES as usize);
        let (pid, url) = (server.process().pid(), server.url());
        let (_, result) = upload(&server, &bytes, || {
            signal(pid, stop);
            // Whoever sends requests here learns that it should not, before connections are refused.
            let ready = Request::new("GET", "/readyz");
            poll("draining shows", || {
                Client::new(&url)
                    .send(&ready)
                    .is_ok_and(|r| r.status == 503)
            });
        });
        let response = result.unwrap();
        assert_eq!(response.status, 201, "{}", response.text());
        assert!(server.process().wait(LIMIT), "{}", server.log());
        assert!(server.log().contains("stopped"), "{}", server.log());

        let mut stored = Stored::default();
        stored.add(format!("/v2/slow/blobs/{}", sha256(&bytes)), bytes);
        stored.verify(&Server::start_on(&data, &[]).url());
    }
}

/// To a browser, a name that its owner lets point here is another site, and so is every other page.
#[test]
fn a_web_page_reaches_nothing_here() {
    let directory = directory();
    let data = directory.path().join("data");
    let start = "/v2/a/blobs/uploads/";
    for (hosts, name, expected) in [
        ("[]", "evil.example", 421),
        ("[]", "localhost", 200),
        ("[\"registry.example\"]", "registry.example:5000", 200),
        ("[\"registry.example\"]", "registry.evil", 421),
    ] {
        let server = Server::start_on(&data, &[("DVCR_HOSTS", hosts)]);
        let client = Client::new(&server.url());
        let asked = Request::new("GET", "/v2/").header("Host", name);
        let answer = client.send(&asked).unwrap();
        assert_eq!(answer.status, expected, "{name}: {}", answer.text());
        let asked = Request::new("POST", start).header("Origin", "https://evil.example");
        let answer = client.send(&asked).unwrap();
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(
            client.send(&Request::new("POST", start)).unwrap().status,
            202
        );
    }
}

/// An upload that does not end in time, or that a second signal cuts, goes on after the restart.
#[test]
fn an_upload_that_was_cut_goes_on_after_the_restart() {
    for (drain, signals) in [("1s", 1), ("1h", 2)] {
        let directory = directory();
        let data = directory.path().join("data");
        let mut server = Server::start_on(&data, &[("DVCR_DRAIN", drain)]);
        let bytes = Random::new().bytes(UPLOAD_BYTES as usize);
        let (session, result) = {
            let (pid, url) = (server.process().pid(), server.url());
            upload(&server, &bytes, || {
                signal(pid, Signal::TERM);
                let ready = Request::new("GET", "/readyz");
                poll("draining shows", || {
                    // Where this thread comes late, the time for draining is over.
                    let answer = Client::new(&url).send(&ready);
                    answer.map_or(true, |r| r.status == 503)
                });
                for _ in 1..signals {
                    signal(pid, Signal::TERM);
                }
                // The client stands still until it is cut off.
                poll("the port closes", || {
                    Client::new(&url).send(&ready).is_err()
                });
                poll("the process ends", || {
                    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
                    // A child that has ended and was not waited for is a zombie.
                    stat.is_ok_and(|stat| stat.contains(") Z "))
                });
            })
        };
        assert!(result.is_err(), "the connection was cut: {result:?}");
        assert!(server.process().wait(LIMIT), "{}", server.log());

        let server = Server::start_on(&data, &[]);
        let client = Client::new(&server.url());
        let status = client.send(&Request::new("GET", session.clone())).unwrap();
        assert_eq!(status.status, 204, "drain {drain}: {}", status.text());
        let last = status.get("Range").unwrap().strip_prefix("0-").unwrap();
        let offset = last.parse::<usize>().unwrap() + 1;
        assert!(offset > 1 && offset <= MIDDLE as usize, "{offset}");
        let close = Request::new("PUT", session).query("digest", &sha256(&bytes));
        let closed = client.send(&close.octets(&bytes[offset..])).unwrap();
        assert_eq!(closed.status, 201, "{}", closed.text());
        let mut stored = Stored::default();
        stored.add(format!("/v2/slow/blobs/{}", sha256(&bytes)), bytes);
        stored.verify(&server.url());
    }
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let directory = directory();
    let data = directory.path().join("data");
    let mut first = Server::start_on(&data, &[]);
    let pid = first.process().pid().to_string();
    refused(
        serve(&data, &[]),
        &["in use by process", &pid, "another directory"],
    );
    let mut stored = Stored::default();
    let client = Client::new(&first.url());
    let pushed = stored.push(&client, "after", 100_000, &mut Random::new());
    assert!(pushed.is_ok(), "the first server goes on");
    // The lock goes with the process, however that ends.
    first.process().signal(Signal::KILL);
    first.process().wait(LIMIT);
    stored.verify(&Server::start_on(&data, &[]).url());
}

#[test]
fn listening_beyond_loopback_must_be_asked_for_in_words() {
    let directory = directory();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let open = ["serve", "--listen", "0.0.0.0:0", "--data", data];
    let words = "everyone-may-read-and-write";
    refused(
        dvcr(&open),
        &["refusing to listen", "--allow-anonymous", words],
    );
    assert!(!Path::new(data).exists(), "nothing is touched before");

    let mut command = dvcr(&open);
    command.args(["--allow-anonymous", words]);
    let mut server = Process::start(command);
    let port = server.wait_for(LIMIT, |server| {
        let log = server.log();
        let line = log
            .lines()
            .find_map(|line| line.strip_prefix("dvcr listens on http://0.0.0.0:"))?;
        Some(line.split(',').next().unwrap_or(line).to_owned())
    });
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    let answer = client.send(&Request::new("GET", "/v2/")).unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        server.log().contains("everyone who reaches"),
        "{}",
        server.log()
    );
}

#[test]
fn the_address_is_announced_on_standard_output() {
    let directory = directory();
    let server = Server::start_on(&directory.path().join("data"), &[]);
    let line = format!("dvcr listens on {}", server.url());
    let log = server.log();
    let announced = log.lines().find(|found| found.starts_with(&line));
    assert!(announced.is_some(), "{line:?} begins no line of:\n{log}");
    // Log lines do not mix with it.
    let mut command = serve(&directory.path().join("other"), &[]);
    let log = fs::File::create(directory.path().join("out")).unwrap();
    command.args(["--log-format", "json"]);
    let mut child = command
        .stdout(log)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    poll("a line is printed", || {
        let out = fs::read_to_string(directory.path().join("out"));
        out.is_ok_and(|out| out.ends_with('\n'))
    });
    signal(child.id(), Signal::TERM);
    assert!(child.wait().unwrap().success());
    let out = fs::read_to_string(directory.path().join("out")).unwrap();
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(
        out.starts_with("dvcr listens on http://127.0.0.1:"),
        "{out}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let server = Server::start(&[]);
    let directory = directory();
    let data = directory.path().join("data");
    let arguments = [
        "serve",
        "--listen",
        server.address(),
        "--data",
        data.to_str().unwrap(),
    ];
    refused(dvcr(&arguments), &[server.address(), "--listen"]);
    assert!(!data.exists(), "nothing is touched before");
}

#[test]
fn directories_that_are_not_ours_are_left_alone() {
    let directory = directory();
    let data = directory.path();
    fs::write(data.join("holiday.jpg"), b"x").unwrap();
    refused(serve(data, &[]), &["holiday.jpg", "not"]);
    let names: Vec<_> = fs::read_dir(data)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["holiday.jpg"], "nothing was added");

    // A directory of a later version, and one whose packs are missing.
    let data = data.join("data");
    drop(Server::start_on(&data, &[]));
    let format = fs::read_to_string(data.join("FORMAT")).unwrap();
    fs::write(data.join("FORMAT"), "dvcr data directory, format 4000\n").unwrap();
    refused(serve(&data, &[]), &["format 4000", "later"]);
    fs::write(data.join("FORMAT"), format).unwrap();
    fs::rename(data.join("packs"), data.join("moved")).unwrap();
    refused(serve(&data, &[]), &["packs"]);
    fs::rename(data.join("moved"), data.join("packs")).unwrap();
    drop(Server::start_on(&data, &[]));
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let directory = directory();
    let data = directory.path().join("data");
    let file = directory.path().join("dvcr.toml");
    let check = |text: &str, words: &[&str]| {
        fs::write(&file, text).unwrap();
        let mut command = serve(&data, &[]);
        command.arg("--config").arg(&file);
        refused(command, words);
        let mut command = dvcr(&["check-config", "--config"]);
        command.arg(&file);
        refused(command, words);
    };
    check("cash_bytes = \"1GiB\"", &["dvcr.toml", "cash_bytes"]);
    check("lease = \"1 fortnight\"", &["lease"]);
    check("drain = \"2h\"", &["drain"]);
    check(
        "[limits]\nrequests = 0\nconnections = 0",
        &["limits.requests", "limits.connections"],
    );
    check("not toml", &["dvcr.toml"]);
    refused(
        serve(&data, &[("DVCR_CACHE_BYTES", "lots")]),
        &["DVCR_CACHE_BYTES"],
    );
    let mut command = serve(&data, &[]);
    command.args(["--set", "no.such=1"]);
    refused(command, &["no.such"]);
    assert!(!data.exists(), "nothing is touched before");
    // Kubernetes sets such variables for a service called dvcr.
    let variables = [
        ("DVCR_SERVICE_HOST", "10.0.0.1"),
        ("DVCR_PORT_5000_TCP", "tcp://10.0.0.1"),
    ];
    drop(Server::start_on(&data, &variables));
}

#[test]
fn a_printed_configuration_is_one_that_the_server_takes() {
    let directory = directory();
    let file = directory.path().join("dvcr.toml");
    let printed = succeed(dvcr(&["check-config", "--set", "drain=7s"]));
    assert!(printed.contains("drain"), "{printed}");
    fs::write(&file, &printed).unwrap();
    let again = succeed(dvcr(&["check-config", "--config", file.to_str().unwrap()]));
    assert_eq!(again, printed);
    let settings = [("DVCR_CONFIG", file.to_str().unwrap())];
    drop(Server::start_on(&directory.path().join("data"), &settings));
}

#[test]
fn what_is_stored_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start_on(&data, &[]);
    let client = Client::new(&server.url());
    let pushed = Stored::default().push(&client, "a", 100_000, &mut Random::new());
    assert!(pushed.is_ok());
    let mut left = vec![data];
    while let Some(path) = left.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
}

/// SIGHUP reloads certificates; without any there is nothing to do, and it must not kill.
#[test]
fn a_hangup_does_not_end_the_server() {
    let directory = directory();
    let mut server = Server::start_on(&directory.path().join("data"), &[]);
    server.process().signal(Signal::HUP);
    let client = Client::new(&server.url());
    let answer = client.send(&Request::new("GET", "/healthz")).unwrap();
    assert_eq!(answer.status, 200);
    server.process().signal(Signal::TERM);
    assert!(server.process().wait(LIMIT), "{}", server.log());
}

#[test]
fn images_are_listed_counted_and_removed_from_the_command_line() {
    let server = Server::start(&[]);
    let client = Client::new(&server.url());
    let (mut stored, random) = (Stored::default(), &mut Random::new());
    for repository in ["vi/debian", "vi/alpine"] {
        assert!(stored.push(&client, repository, 3 << 20, random).is_ok());
    }
    let command = |arguments: &[&str]| {
        let mut command = dvcr(arguments);
        command.env("DVCR_SERVER", server.url());
        command
    };
    let ls = succeed(command(&["ls"]));
    assert!(ls.contains("vi/alpine") && ls.contains("vi/debian"), "{ls}");
    let ls = succeed(command(&["ls", "vi/debian", "--json"]));
    let ls: serde_json::Value = serde_json::from_str(&ls).unwrap();
    let (_, manifest) = stored.newest("vi/debian/manifests/v1");
    assert_eq!(ls["tags"][0]["tag"], "v1");
    assert_eq!(ls["tags"][0]["digest"], sha256(&manifest));
    let stats = succeed(command(&["stats", "--json"]));
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let logical = stats["logical_bytes"].as_u64().unwrap();
    assert!((6 << 20..7 << 20).contains(&logical), "{stats}");

    let rm = succeed(command(&["rm", "vi/debian:v1"]));
    assert!(rm.contains("removed 1 tag and 1 manifest"), "{rm}");
    assert!(rm.contains("3.00 MiB, which become free"), "{rm}");
    let gone = Request::new("GET", "/v2/vi/debian/manifests/v1");
    assert_eq!(client.send(&gone).unwrap().status, 404);
    let other = Request::new("GET", "/v2/vi/alpine/manifests/v1");
    assert_eq!(client.send(&other).unwrap().status, 200);
    refused(command(&["rm", "vi/debian:v1"]), &["v1"]);
    refused(command(&["ls", "vi/none"]), &["vi/none", "not known"]);
    // Nobody is asked where nobody can answer.
    refused(command(&["rm", "vi/alpine"]), &["--all"]);
    refused(command(&["rm", "--all", "vi/alpine"]), &["--yes"]);
    let planned = succeed(command(&["rm", "vi/al*", "--dry-run"]));
    assert!(planned.contains("would remove vi/alpine:v1"), "{planned}");
    assert_eq!(client.send(&other).unwrap().status, 200);
    succeed(command(&["rm", "--all", "vi/alpine", "--yes"]));
    assert_eq!(client.send(&other).unwrap().status, 404);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let mut command = dvcr(&["ls"]);
    // A privileged port that nobody uses.
    command.env("DVCR_SERVER", "http://127.0.0.1:1");
    refused(command, &["127.0.0.1:1"]);
}
