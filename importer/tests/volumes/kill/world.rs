//! A registry and an importer that do not live long.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{Scale, proxy::Proxy};
use crate::{
    importer::{command, text},
    support::{
        http::{Client, Request},
        process::Process,
        random::Random,
        server::Server,
    },
};

/// The killer strikes within this time after the moment it waited for.
const AIM_MS: u64 = 40;

/// How often it looks: some MiB at the speed of this.
const POLL: Duration = Duration::from_millis(2);

/// Between two bytes, a killed importer's decoding again included.
const STALL: Duration = Duration::from_secs(240);

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Importer(Signal),
    Registry,
}

/// A registry behind a counting proxy, and directories of the importer.
pub(super) struct World {
    server: Option<Server>,
    data: PathBuf,
    address: String,
    pub(super) proxy: Proxy,
    directory: tempfile::TempDir,
    random: Random,
}

/// What happened to one command.
pub(super) struct Ordeal {
    pub(super) importer_kills: usize,
    pub(super) registry_kills: usize,
    pub(super) seconds: f64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("dvcr-kill-")
            .tempdir()
            .unwrap();
        let data = directory.path().join("data");
        let server = Server::start_on(&data, &[]);
        for name in ["work", "tmp"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let address = server.address().to_owned();
        Self {
            proxy: Proxy::new(address.clone()),
            server: Some(server),
            data,
            address,
            directory,
            random: Random::from_seed(seed),
        }
    }

    /// `rest` in this registry, by way of the proxy.
    pub(super) fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.proxy.address())
    }

    /// The registry's own address.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The importer, with directories of its own.
    pub(super) fn importer(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command
            .env("DVCR_WORK_DIR", self.path("work"))
            .env("TMPDIR", self.path("tmp"));
        command
    }

    /// Runs a command to its end, killing it and the registry at random while it moves `total` bytes, which `moved` counts.
    pub(super) fn run(
        &mut self,
        scale: Scale,
        total: u64,
        moved: impl Fn(&Self) -> u64,
        arguments: &[&str],
    ) -> Ordeal {
        let begin = Instant::now();
        let start = moved(self);
        let mut ordeal = Ordeal {
            importer_kills: 0,
            registry_kills: 0,
            seconds: 0.0,
        };
        let mut process = Process::start(self.importer(arguments));
        for (at, victim) in self.fate(scale, total) {
            if !self.until(&mut process, arguments, || moved(self) >= start + at) {
                break;
            }
            let aim = self.random.next() % AIM_MS;
            thread::sleep(Duration::from_millis(aim));
            match victim {
                Victim::Importer(signal) => {
                    process.signal(signal);
                    if process.wait(STALL) {
                        // It was faster.
                        break;
                    }
                    process = Process::start(self.importer(arguments));
                    ordeal.importer_kills += 1;
                }
                Victim::Registry => {
                    // Dropped, it is killed.
                    self.server = None;
                    self.server = Some(Server::start_at(&self.data, &self.address, &[]));
                    ordeal.registry_kills += 1;
                }
            }
        }
        let over = self.until(&mut process, arguments, || false);
        assert!(!over, "{}", process.log());
        let kills = ordeal.importer_kills.min(ordeal.registry_kills);
        assert!(kills + 1 >= scale.kills, "it was killed {kills} times only");
        ordeal.seconds = begin.elapsed().as_secs_f64();
        ordeal
    }

    /// When who is killed.
    fn fate(&mut self, scale: Scale, total: u64) -> Vec<(u64, Victim)> {
        let mut fate = vec![];
        for number in 0..scale.kills {
            let signal = [Signal::KILL, Signal::TERM][number % 2];
            for victim in [Victim::Importer(signal), Victim::Registry] {
                fate.push((total / 50 + self.random.next() % (total * 23 / 25), victim));
            }
        }
        fate.sort_by_key(|(at, _)| *at);
        fate
    }

    /// Waits for a condition; false if the command succeeded before. One that gave up because the registry was away too long is run
    /// again, as whoever uses it would.
    fn until(
        &self,
        process: &mut Process,
        arguments: &[&str],
        condition: impl Fn() -> bool,
    ) -> bool {
        let deadline = Instant::now() + STALL;
        while !condition() {
            if process.has_ended() {
                if process.wait(STALL) {
                    return false;
                }
                let log = process.log();
                assert!(log.contains("run the same command again"), "{log}");
                *process = Process::start(self.importer(arguments));
            }
            assert!(Instant::now() < deadline, "no end:\n{}", process.log());
            thread::sleep(POLL);
        }
        true
    }

    /// Nothing is left of what was interrupted.
    pub(super) fn assert_clean(&self) {
        for name in ["work", "tmp"] {
            let left: Vec<_> = fs::read_dir(self.path(name)).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let uploads = Client::new(&self.url()).send(&Request::new("GET", "/api/v1/uploads"));
        let uploads = uploads.unwrap().json().unwrap();
        assert_eq!(
            uploads["items"].as_array().map(Vec::len),
            Some(0),
            "{uploads}"
        );
    }

    /// Digest of the layer under a tag.
    pub(super) fn layer(&self, repository: &str, tag: &str) -> String {
        let layer = self.descriptor(repository, tag);
        layer["digest"].as_str().unwrap().to_owned()
    }

    /// Its length.
    pub(super) fn layer_len(&self, repository: &str, tag: &str) -> u64 {
        self.descriptor(repository, tag)["size"].as_u64().unwrap()
    }

    fn descriptor(&self, repository: &str, tag: &str) -> serde_json::Value {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let manifest = Client::new(&self.url()).send(&Request::new("GET", path));
        manifest.unwrap().json().unwrap()["layers"][0].clone()
    }
}

/// Tells what it cost.
pub(super) fn tell(what: &str, ordeal: &Ordeal, twice: &[(&str, u64, u64)]) {
    let Ordeal {
        importer_kills,
        registry_kills,
        seconds,
    } = ordeal;
    print!("{what}: {importer_kills} and {registry_kills} kills, {seconds:.0} s");
    for (name, twice, of) in twice {
        let percent = 100.0 * *twice as f64 / *of as f64;
        let (twice, of) = (*twice as f64 / 1e6, *of as f64 / 1e6);
        print!("; {name} {twice:.1} of {of:.0} MB twice ({percent:.2} %)");
    }
    println!();
}

pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| text(&entry.unwrap().path()).to_owned())
        .collect()
}
