//! A device that fills up: pushes are refused in words that a client understands, everything that was acknowledged reads on,
//! and as soon as there is room, pushes go on without a restart.
//!
//! The device is a small tmpfs in a mount namespace of the test.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    device::Device,
    digest::sha256,
    http::{Client, Request, Response},
    namespace,
    random::Random,
    server::Server,
    stored::Stored,
    stream,
};

/// Room on the device.
const DEVICE_MIB: u64 = 160;
/// What the server leaves free, in the tests that let it.
const RESERVE: (&str, &str) = ("DVCR_RESERVE_BYTES", "32MiB");
const NO_RESERVE: (&str, &str) = ("DVCR_RESERVE_BYTES", "0");
/// A layer of this length is pushed again and again.
const LAYER_BYTES: usize = 6 << 20;
/// Time that the server has to notice that there is room again, and to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server on a device.
struct World {
    device: Device,
    server: Option<Server>,
    settings: Vec<(&'static str, &'static str)>,
    random: Random,
    stored: Stored,
}

impl World {
    fn new(reserve: (&'static str, &'static str)) -> Self {
        Self::with(vec![reserve])
    }

    fn with(settings: Vec<(&'static str, &'static str)>) -> Self {
        let device = Device::new(DEVICE_MIB);
        let server = Server::start_on(&device.path().join("data"), &settings);
        Self {
            device,
            server: Some(server),
            settings,
            random: Random::new(),
            stored: Stored::default(),
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a server runs")
    }

    fn client(&self) -> Client {
        Client::new(&self.server().url())
    }

    fn verify(&self) {
        self.stored.verify(&self.server().url());
    }

    fn push(&mut self, repository: &str) -> Result<(), Response> {
        let client = self.client();
        self.stored
            .push(&client, repository, LAYER_BYTES, &mut self.random)
    }

    /// Pushes again and again until the server takes it, which must be soon.
    fn push_soon(&mut self, repository: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(refusal) = self.push(repository) {
            assert!(refusal.status >= 500, "{}", refusal.text());
            let in_time = Instant::now() < deadline;
            assert!(
                in_time,
                "{}\nstill: {}",
                self.server().log(),
                refusal.text()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the server by a signal and starts another one on the same directory.
    fn restart(&mut self, signal: Signal) {
        let mut server = self.server.take().expect("a server runs");
        server.process().signal(signal);
        let success = server.process().wait(PATIENCE);
        assert_eq!(success, signal == Signal::TERM, "{}", server.log());
        drop(server);
        self.start();
    }

    fn start(&mut self) {
        let data = self.device.path().join("data");
        self.server = Some(Server::start_on(&data, &self.settings));
    }
}

/// Pushes until a push is refused; the refusal.
fn push_until_full(
    stored: &mut Stored,
    client: &Client,
    name: &str,
    random: &mut Random,
) -> Response {
    for number in 0..DEVICE_MIB {
        let repository = format!("{name}/{number}");
        if let Err(refusal) = stored.push(client, &repository, LAYER_BYTES, random) {
            assert!(number > 0, "full from the start: {}", refusal.text());
            println!("{name}: {number} images, then {}", refusal.status);
            return refusal;
        }
    }
    panic!("the device never fills up");
}

/// A refusal says what to do: the status, and an error body as the specification has it.
fn assert_full(refusal: &Response) {
    assert_eq!(refusal.status, 507, "{}", refusal.text());
    let body = refusal.json().unwrap();
    let error = &body["errors"][0];
    assert_eq!(error["code"], "UNAVAILABLE", "{body}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("full"), "{body}");
}

/// Sends a range of a disk to an upload session.
fn send_piece(server: &Server, session: &str, disk: &[u8], from: usize) -> Response {
    let head = format!(
        "PATCH {session} HTTP/1.1\r\nContent-Type: application/octet-stream\r\nContent-Range: {from}-{}\r\n",
        disk.len() - 1
    );
    let len = (disk.len() - from) as u64;
    let response = stream::send(server.address(), &head, len, |before, buffer| {
        let at = from + before as usize;
        buffer.copy_from_slice(&disk[at..at + buffer.len()]);
    });
    response.unwrap()
}

fn status_of(client: &Client, request: &Request) -> u16 {
    client.send(request).unwrap().status
}

/// With its reserve, the server can do on a full device whatever takes no room for data.
#[test]
fn a_full_device_refuses_data_and_nothing_else() {
    if !namespace::entered("a_full_device_refuses_data_and_nothing_else") {
        return;
    }
    let mut world = World::new(RESERVE);
    let client = world.client();
    // An upload under way has an acknowledged piece, and meets the full device with the next one.
    let start = Request::new("POST", "/v2/resumed/blobs/uploads/");
    let session = client.send(&start).unwrap();
    let session = session.get("Location").unwrap().to_owned();
    let disk = world.random.bytes(80 << 20);
    let first = 20 << 20;
    let piece = send_piece(world.server(), &session, &disk[..first], 0);
    assert_eq!(piece.status, 202, "{}", piece.text());
    let refusal = push_until_full(&mut world.stored, &client, "fill", &mut world.random);
    assert_full(&refusal);
    assert_full(&send_piece(world.server(), &session, &disk, first));
    for round in 0..20 {
        assert_full(&world.push(&format!("refused/{round}")).unwrap_err());
    }
    world.verify();

    without_room(&mut world);
    world.verify();
    // It stops and starts on a full device.
    world.restart(Signal::TERM);
    world.verify();
    assert_full(&world.push("refused/after").unwrap_err());

    // With room, pushes go on, and so does the upload that was under way.
    world.device.grow(2 * DEVICE_MIB);
    world.push_soon("grown");
    let client = world.client();
    let status = client.send(&Request::new("GET", session.clone())).unwrap();
    assert_eq!(status.status, 204, "{}", status.text());
    let last = status.get("Range").unwrap().strip_prefix("0-").unwrap();
    let offset = last.parse::<usize>().unwrap() + 1;
    assert!(offset >= first, "{offset}, but {first} were acknowledged");
    let piece = send_piece(world.server(), &session, &disk, offset);
    assert_eq!(piece.status, 202, "{}", piece.text());
    let digest = sha256(&disk);
    let closed = client
        .send(&Request::new("PUT", session).query("digest", &digest))
        .unwrap();
    assert_eq!(closed.status, 201, "{}", closed.text());
    world
        .stored
        .add(format!("/v2/resumed/blobs/{digest}"), disk);
    world.verify();
    world.restart(Signal::TERM);
    world.verify();
}

/// Tags, mounts, blobs that are there already, small blobs and deletions need no room for data.
fn without_room(world: &mut World) {
    let client = world.client();
    let (path, manifest) = world.stored.newest("/manifests/v1");
    let tagged = path.replace("/manifests/v1", "/manifests/v2");
    let put = world
        .stored
        .put_manifest(&client, &tagged, manifest.clone());
    assert!(put.is_ok(), "a tag");

    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let from = path.strip_prefix("/v2/").unwrap();
    let from = from.strip_suffix("/manifests/v1").unwrap();
    let mount = Request::new("POST", "/v2/mounted/blobs/uploads/")
        .query("mount", layer)
        .query("from", from);
    assert_eq!(status_of(&client, &mount), 201, "a mount");

    let upload = Request::new("POST", "/v2/elsewhere/blobs/uploads/");
    let (_, known) = world.stored.newest(layer);
    let known = upload.clone().query("digest", layer).octets(&known);
    assert_eq!(status_of(&client, &known), 201, "a known blob");

    let small = world.random.bytes(1_000);
    let small = upload.query("digest", &sha256(&small)).octets(&small);
    assert_eq!(status_of(&client, &small), 201, "a small blob");

    let (gone, _) = world.stored.newest("/fill/0/manifests/v1");
    let delete = Request::new("DELETE", gone.clone());
    assert_eq!(status_of(&client, &delete), 202, "a deletion");
    world.stored.forget(&gone);
    assert_eq!(status_of(&client, &Request::new("GET", gone)), 404);
}

/// What is deleted on a full device makes room, though all of it lies in one pack with what stays, and though there is no room
/// for copies of that: nobody restarts anything, or asks for a collection.
#[test]
fn a_full_device_is_emptied_by_deleting() {
    if !namespace::entered("a_full_device_is_emptied_by_deleting") {
        return;
    }
    // A collection comes when the device is full, long before its time.
    let collected = vec![
        RESERVE,
        ("DVCR_LEASE", "20s"),
        ("DVCR_GC_GRACE", "0s"),
        ("DVCR_GC_INTERVAL", "1h"),
    ];
    let mut world = World::with(collected);
    for round in 0..3 {
        let (client, name) = (world.client(), format!("round/{round}"));
        let refusal = push_until_full(&mut world.stored, &client, &name, &mut world.random);
        assert_full(&refusal);
        // Every third image stays.
        let images = world.stored.paths("/manifests/v1");
        let gone: Vec<_> = images
            .chunks(3)
            .flat_map(|three| three[1..].to_vec())
            .collect();
        assert!(!gone.is_empty(), "{images:?}");
        for path in gone {
            // By tag, only the tag would go.
            let repository = path.strip_suffix("/manifests/v1").unwrap();
            let digest = sha256(&world.stored.newest(&path).1);
            let delete = Request::new("DELETE", format!("{repository}/manifests/{digest}"));
            assert_eq!(status_of(&client, &delete), 202, "{path}");
            world.stored.forget_all(&format!("{repository}/"));
        }
        world.push_soon(&format!("after/{round}"));
        world.verify();
        println!("round {round}: {} images stay", images.len().div_ceil(3));
    }
    world.restart(Signal::KILL);
    world.verify();
    world.push_soon("after/restart");
    let server = world.server.as_mut().expect("a server runs");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Several clients fill the device at once; each learns why it is refused.
#[test]
fn many_clients_fill_a_device_together() {
    if !namespace::entered("many_clients_fill_a_device_together") {
        return;
    }
    let mut world = World::new(RESERVE);
    let url = world.server().url();
    let all: Vec<Stored> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let (url, mut random) = (&url, Random::from_seed(world.random.next()));
                scope.spawn(move || {
                    let mut stored = Stored::default();
                    let (client, name) = (Client::new(url), format!("client/{number}"));
                    assert_full(&push_until_full(&mut stored, &client, &name, &mut random));
                    stored
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    for round in 0..2 {
        for stored in &all {
            stored.verify(&world.server().url());
        }
        if round == 0 {
            world.restart(Signal::KILL);
        }
    }
}

/// Others took all room, the reserve included: not even metadata can grow.
#[test]
fn a_device_that_others_filled_is_read_only_until_there_is_room() {
    if !namespace::entered("a_device_that_others_filled_is_read_only_until_there_is_room") {
        return;
    }
    let mut world = World::new(RESERVE);
    for number in 0..4 {
        world.push(&format!("before/{number}")).unwrap();
    }
    let filler = world.device.fill();
    let (path, manifest) = world.stored.newest("/manifests/v1");
    for round in 0..4 {
        assert_full(&world.push(&format!("full/{round}")).unwrap_err());
        // A tag takes metadata alone, for which there may be room inside its file.
        let tag = path.replace("/v1", &format!("/t{round}"));
        let client = world.client();
        if let Err(refusal) = world.stored.put_manifest(&client, &tag, manifest.clone()) {
            assert_full(&refusal);
        }
        world.verify();
    }
    fs::remove_file(&filler).unwrap();
    world.push_soon("after");
    world.verify();
    world.restart(Signal::TERM);
    world.verify();
}

/// Without a reserve every byte is taken, and packs and metadata run out of room at any point.
#[test]
fn without_a_reserve_nothing_acknowledged_is_lost() {
    if !namespace::entered("without_a_reserve_nothing_acknowledged_is_lost") {
        return;
    }
    let mut world = World::new(NO_RESERVE);
    let client = world.client();
    let refusal = push_until_full(&mut world.stored, &client, "fill", &mut world.random);
    assert_full(&refusal);
    for round in 0..4 {
        assert_full(&world.push(&format!("refused/{round}")).unwrap_err());
        world.verify();
    }
    // Killed while it cannot write, and started where it still cannot.
    world.restart(Signal::KILL);
    world.verify();
    assert_full(&world.push("refused/after").unwrap_err());
    world.device.grow(2 * DEVICE_MIB);
    world.push_soon("grown");
    world.verify();
    world.restart(Signal::TERM);
    world.verify();
}

/// A server that is started where nothing can be written does not destroy what is there.
#[test]
fn a_server_starts_and_reads_on_a_device_without_any_room() {
    if !namespace::entered("a_server_starts_and_reads_on_a_device_without_any_room") {
        return;
    }
    let mut world = World::new(RESERVE);
    for number in 0..3 {
        world.push(&format!("before/{number}")).unwrap();
    }
    let filler = world.device.fill();
    for _ in 0..2 {
        world.restart(Signal::KILL);
        world.verify();
        assert_full(&world.push("full").unwrap_err());
    }
    fs::remove_file(filler).unwrap();
    world.push_soon("after");
    world.verify();
}
