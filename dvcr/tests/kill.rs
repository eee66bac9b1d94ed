//! A large disk is pushed while the server is killed with SIGKILL again and again. The client asks where the upload stands
//! and goes on from there; in the end every byte is right, and little was sent twice. What was acknowledged before a kill
//! reads back after it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};

use support::{
    disk::Disk,
    http::{Client, Request, Response},
    process::Process,
    random::Random,
    server::{Server, serve},
    stored::Stored,
    stream,
};

const MIB: u64 = 1 << 20;
/// Large enough that recipes have many parts and data goes to several packs.
const DISK_BYTES: u64 = 2 << 30;
/// Kills while pieces are sent, and further ones around the closing request.
const KILLS_IN_PIECES: u64 = 12;
const KILLS_AT_THE_END: u64 = 4;
/// A kill costs at most what came after the last checkpoint, which the server makes every 64 MiB: 12 of 2 GiB are 0.38 of it.
const SENT_MAX: f64 = 1.5;
/// Pieces are longer and shorter than the distance of checkpoints.
const PIECES: [u64; 5] = [MIB, 9 * MIB + 1, 30 * MIB, 80 * MIB + 4_097, 200 * MIB];
/// The closing request brings the last bytes.
const CLOSING_BYTES: u64 = 40 * MIB + 77;
/// The killer strikes within this time after the moment it waited for.
const AIM: Duration = Duration::from_millis(150);
const END_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_disk_arrives_whole_though_the_server_is_killed_all_the_time() {
    let random = &mut Random::new();
    let disk = Arc::new(Disk::new(random.next(), DISK_BYTES + 12_345));
    let digest = {
        // Only the closing request needs it.
        let disk = Arc::clone(&disk);
        thread::spawn(move || disk.digest())
    };
    let directory = tempfile::Builder::new()
        .prefix("dvcr-kill-")
        .tempdir()
        .unwrap();
    let mut world = World::new(&directory.path().join("data"));
    world.push_image(random);

    let mut session = world.start_upload();
    let slice = (disk.len() - CLOSING_BYTES) / KILLS_IN_PIECES;
    let mut kills = (0..KILLS_IN_PIECES)
        .map(|kill| kill * slice + random.next() % slice)
        .collect::<Vec<_>>()
        .into_iter();
    let mut sent = Sent::new();
    let mut offset = 0;
    world.arm(kills.next(), random);
    while offset < disk.len() - CLOSING_BYTES {
        let piece = PIECES[(random.next() % PIECES.len() as u64) as usize];
        let piece = piece.min(disk.len() - CLOSING_BYTES - offset);
        let head = format!(
            "PATCH {session} HTTP/1.1\r\nContent-Type: application/octet-stream\r\nContent-Range: {offset}-{}\r\n",
            offset + piece - 1
        );
        match sent.send(&world, &disk, &head, offset, piece) {
            Ok(response) => {
                assert_eq!(response.status, 202, "{}", response.text());
                offset += piece;
                assert_eq!(response.get("Range"), Some(&*format!("0-{}", offset - 1)));
            }
            Err(error) => {
                let before = world.reached();
                world.restart(random);
                // A piece that was acknowledged is durable, and what was not sent cannot be there.
                let acknowledged = offset;
                offset = world.offset(&session).unwrap_or_else(|| {
                    assert_eq!(acknowledged, 0, "the session is forgotten");
                    session = world.start_upload();
                    0
                });
                assert!(
                    acknowledged <= offset && offset <= before,
                    "{offset} bytes are said to be here, {acknowledged} were acknowledged, {before} sent"
                );
                println!(
                    "{:6.1} s: kill {:2} at {:5} MiB ({error}); going on from {:5} MiB",
                    world.began.elapsed().as_secs_f64(),
                    world.kills,
                    before / MIB,
                    offset / MIB
                );
                world.verify_images();
                world.push_image(random);
                world.reached.store(offset, SeqCst);
                world.arm(kills.next(), random);
            }
        }
    }
    // The killer may come when the last piece has been acknowledged.
    while world.killer.is_some() {
        world.restart(random);
        world.arm(kills.next(), random);
    }
    let digest = digest.join().unwrap();
    world.close(&mut sent, &disk, &digest, &session, random);

    assert!(world.kills > KILLS_IN_PIECES, "{} kills", world.kills);
    let ratio = sent.bytes as f64 / disk.len() as f64;
    println!(
        "{:6.1} s: {} MiB sent for {} MiB, {ratio:.2} times; {} kills",
        world.began.elapsed().as_secs_f64(),
        sent.bytes / MIB,
        disk.len() / MIB,
        world.kills
    );
    assert!(ratio < SENT_MAX, "{ratio} times the disk was sent");

    // Once more, to read what is on disk and not what is in memory.
    world.kill();
    world.restart(random);
    let mut hasher = Sha256::new();
    let path = format!("/v2/vi/disk/blobs/{digest}");
    let len = stream::get(world.server().address(), &path, |bytes| {
        hasher.update(bytes);
    })
    .unwrap();
    assert_eq!(len, disk.len());
    assert_eq!(format!("sha256:{}", hex::encode(hasher.finalize())), digest);
    world.verify_images();
    println!("{:6.1} s: read back", world.began.elapsed().as_secs_f64());
}

/// Counts what a client sends.
struct Sent {
    bytes: u64,
}

impl Sent {
    fn new() -> Self {
        Self { bytes: 0 }
    }

    /// Sends `len` bytes of the disk from `offset` on.
    fn send(
        &mut self,
        world: &World,
        disk: &Disk,
        head: &str,
        offset: u64,
        len: u64,
    ) -> Result<Response, String> {
        stream::send(world.server().address(), head, len, |before, buffer| {
            disk.read(offset + before, buffer);
            self.bytes += buffer.len() as u64;
            world
                .reached
                .store(offset + before + buffer.len() as u64, SeqCst);
        })
    }
}

/// A data directory, the server on it, and whoever kills it.
struct World {
    data: std::path::PathBuf,
    server: Option<Server>,
    killer: Option<JoinHandle<()>>,
    /// How far into the disk the client has come.
    reached: Arc<AtomicU64>,
    kills: u64,
    /// Small images whose push was acknowledged.
    stored: Stored,
    images: u64,
    began: Instant,
}

impl World {
    fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            server: Some(Server::start_on(data, &[])),
            killer: None,
            reached: Arc::default(),
            kills: 0,
            stored: Stored::default(),
            images: 0,
            began: Instant::now(),
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a server runs")
    }

    fn client(&self) -> Client {
        Client::new(&self.server().url())
    }

    fn reached(&self) -> u64 {
        self.reached.load(SeqCst)
    }

    fn pid(&mut self) -> Pid {
        let process = self.server.as_mut().expect("a server runs").process();
        Pid::from_raw(process.pid().try_into().unwrap()).unwrap()
    }

    /// Lets the server be killed when the client has come to `moment`, or a little later.
    fn arm(&mut self, moment: Option<u64>, random: &mut Random) {
        let Some(moment) = moment else { return };
        let delay = AIM.mul_f64((random.next() % 1_000) as f64 / 1_000.0);
        let (pid, reached) = (self.pid(), Arc::clone(&self.reached));
        self.killer = Some(thread::spawn(move || {
            while reached.load(SeqCst) < moment {
                thread::sleep(Duration::from_millis(1));
            }
            // No wait for anything: the moment shall be any, in the middle of whatever the server does.
            thread::sleep(delay);
            // Not reaped before this thread is joined, so the process id is still that of our child.
            kill_process(pid, Signal::KILL).unwrap();
        }));
    }

    fn kill(&mut self) {
        let pid = self.pid();
        kill_process(pid, Signal::KILL).unwrap();
    }

    /// Waits for the end of the server that was killed, and starts the next one; some are killed while they start.
    fn restart(&mut self, random: &mut Random) {
        if let Some(killer) = self.killer.take() {
            killer.join().unwrap();
        }
        let mut server = self.server.take().expect("a server ran");
        let success = server.process().wait(END_LIMIT);
        assert!(!success, "the server ended by itself:\n{}", server.log());
        assert!(!server.log().contains("panicked"), "{}", server.log());
        self.kills += 1;
        drop(server);
        if random.next().is_multiple_of(4) {
            let mut starting = Process::start(serve(&self.data, &[]));
            thread::sleep(AIM.mul_f64((random.next() % 1_000) as f64 / 1_000.0));
            starting.signal(Signal::KILL);
            starting.wait(END_LIMIT);
            self.kills += 1;
        }
        self.server = Some(Server::start_on(&self.data, &[]));
    }

    /// Begins an upload: the session's path.
    fn start_upload(&self) -> String {
        let request = Request::new("POST", "/v2/vi/disk/blobs/uploads/");
        let started = self.client().send(&request).unwrap();
        assert_eq!(started.status, 202, "{}", started.text());
        started.get("Location").unwrap().to_owned()
    }

    /// Where the upload stands; nothing if it is not known: a session lives in memory until its first checkpoint.
    fn offset(&self, session: &str) -> Option<u64> {
        let status = self.client().send(&Request::new("GET", session)).unwrap();
        if status.status == 404 {
            return None;
        }
        assert_eq!(status.status, 204, "{}", status.text());
        let range = status.get("Range").unwrap();
        let last: u64 = range.strip_prefix("0-").unwrap().parse().unwrap();
        // `0-0` says that nothing is there: a single byte is no piece of ours.
        Some(if last == 0 { 0 } else { last + 1 })
    }

    /// Sends the last bytes and closes the upload, killed in the middle and about the moment of the commit.
    fn close(
        &mut self,
        sent: &mut Sent,
        disk: &Disk,
        digest: &str,
        session: &str,
        random: &mut Random,
    ) {
        for round in 0.. {
            let offset = self.offset(session).expect("the session is known");
            if round < KILLS_AT_THE_END {
                // The first in the middle of the body, the others when all of it has been sent.
                let moment = if round == 0 {
                    disk.len() - CLOSING_BYTES / 2
                } else {
                    disk.len()
                };
                self.reached.store(offset, SeqCst);
                self.arm(Some(moment), random);
            }
            let head = format!(
                "PUT {session}?digest={digest} HTTP/1.1\r\nContent-Type: application/octet-stream\r\n"
            );
            let result = sent.send(self, disk, &head, offset, disk.len() - offset);
            let acknowledged = result.as_ref().is_ok_and(|response| response.status == 201);
            if let Ok(response) = &result {
                assert_eq!(response.status, 201, "{}", response.text());
            }
            if round < KILLS_AT_THE_END {
                self.restart(random);
            }
            let client = self.client();
            let head = client
                .send(&Request::new("HEAD", format!("/v2/vi/disk/blobs/{digest}")))
                .unwrap();
            let status = client.send(&Request::new("GET", session)).unwrap();
            println!(
                "{:6.1} s: closing: {}; the blob is {}, the session {}",
                self.began.elapsed().as_secs_f64(),
                result.map_or_else(|error| error, |response| response.status.to_string()),
                head.status,
                status.status
            );
            match (head.status, status.status) {
                (200, 404) => return,
                (404, 204) if !acknowledged => self.verify_images(),
                found => panic!("acknowledged: {acknowledged}; blob and session: {found:?}"),
            }
        }
    }

    /// Pushes an image, which must be acknowledged.
    fn push_image(&mut self, random: &mut Random) {
        let (client, repository) = (self.client(), format!("small/{}", self.images));
        let pushed = self.stored.push(&client, &repository, 3 << 20, random);
        pushed.unwrap_or_else(|refusal| panic!("{}: {}", refusal.status, refusal.text()));
        self.images += 1;
    }

    /// Reads every image that was acknowledged.
    fn verify_images(&self) {
        self.stored.verify(&self.server().url());
    }
}
