//! A device that fills up: pushes are refused in words that a client understands, everything that was acknowledged reads on,
//! and as soon as there is room, pushes go on without a restart.
//!
//! The device is a small tmpfs; for errors at the moment of writing back, a file system in a file on such a tmpfs, so that a
//! write which the kernel took cannot be written.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use support::{
    digest::sha256,
    http::{Body, Client, Request, Response},
    namespace,
    process::run,
    random::Random,
    server::Server,
    stream,
};

const MIB: u64 = 1 << 20;
/// Room on the device.
const DEVICE_MIB: u64 = 160;
/// What the server leaves free, in the tests that let it.
const RESERVE: (&str, &str) = ("DVCR_RESERVE_BYTES", "32MiB");
const NO_RESERVE: (&str, &str) = ("DVCR_RESERVE_BYTES", "0");
/// A disk of this length is pushed again and again.
const LAYER_BYTES: usize = 6 << 20;
/// Time that the server has to notice that there is room again.
const PATIENCE: Duration = Duration::from_secs(30);
const MOUNT_LIMIT: Duration = Duration::from_secs(60);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn command(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments);
    let finished = run(command, MOUNT_LIMIT);
    assert!(
        finished.success,
        "{program} {arguments:?}:\n{}",
        finished.log
    );
}

/// A tmpfs that can be given more room.
struct Device(tempfile::TempDir);

impl Device {
    fn new(mib: u64) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("dvcr-full-")
            .tempdir()
            .unwrap();
        let device = Self(directory);
        command(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mib}m"),
                "tmpfs",
                device.text(),
            ],
        );
        device
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    fn grow(&self, mib: u64) {
        command(
            "mount",
            &["-o", &format!("remount,size={mib}m"), self.text()],
        );
    }

    /// Fills what is left with a file of somebody else; its path.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let mut piece = vec![1; MIB as usize];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        path
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // If it is still in use, it ends with the namespace.
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(self.path());
        run(command, MOUNT_LIMIT);
    }
}

/// What was acknowledged: paths, and the bytes that they must answer with.
#[derive(Default)]
struct Stored(Vec<(String, Vec<u8>)>);

impl Stored {
    /// Reads everything.
    fn verify(&self, server: &Server) {
        let client = Client::new(&server.url());
        for (path, bytes) in &self.0 {
            let response = client.send(&Request::new("GET", path.clone())).unwrap();
            assert_eq!(response.status, 200, "GET {path}: {}", response.text());
            assert!(response.body == *bytes, "{path} has other bytes");
        }
    }

    /// Pushes an image with a layer of random bytes; the refusal if a step is refused.
    fn push(
        &mut self,
        client: &Client,
        repository: &str,
        random: &mut Random,
    ) -> Result<(), Response> {
        let mut blob = |bytes: Vec<u8>| {
            let digest = sha256(&bytes);
            let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let response = client
                .send(&Request::new("POST", path).octets(&bytes))
                .unwrap();
            if response.status != 201 {
                return Err(response);
            }
            let size = bytes.len();
            self.0
                .push((format!("/v2/{repository}/blobs/{digest}"), bytes));
            Ok(json!({"mediaType": "application/octet-stream", "digest": digest, "size": size}))
        };
        let layer = blob(random.bytes(LAYER_BYTES))?;
        let config = blob(random.bytes(300))?;
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let manifest = manifest.to_string().into_bytes();
        let path = format!("/v2/{repository}/manifests/v1");
        let response = put_manifest(client, &path, &manifest);
        if response.status != 201 {
            return Err(response);
        }
        self.0.push((path, manifest));
        Ok(())
    }

    /// Pushes until a push is refused; the refusal.
    fn push_until_full(&mut self, client: &Client, name: &str, random: &mut Random) -> Response {
        for number in 0..4 * DEVICE_MIB {
            if let Err(refusal) = self.push(client, &format!("{name}/{number}"), random) {
                assert!(
                    number > 0,
                    "the device is full from the start: {}",
                    refusal.text()
                );
                println!(
                    "{name}: {number} images, then {}: {}",
                    refusal.status,
                    refusal.text()
                );
                return refusal;
            }
        }
        panic!("the device never fills up");
    }
}

fn put_manifest(client: &Client, path: &str, manifest: &[u8]) -> Response {
    let put = Request::new("PUT", path)
        .header("Content-Type", MANIFEST)
        .body(Body::Sized(manifest.to_vec()));
    client.send(&put).unwrap()
}

/// A refusal says what to do: the status, and an error body as the specification has it.
fn assert_full(refusal: &Response) {
    assert_eq!(refusal.status, 507, "{}", refusal.text());
    assert_error_body(refusal);
    assert!(refusal.text().contains("full"), "{}", refusal.text());
}

fn assert_error_body(refusal: &Response) {
    let body = refusal.json().unwrap();
    let error = &body["errors"][0];
    assert!(
        error["code"].as_str().is_some_and(|code| !code.is_empty()),
        "{body}"
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{body}"
    );
}

/// Pushes an image again and again until the server takes it, which must be soon.
fn push_soon(stored: &mut Stored, client: &Client, repository: &str, random: &mut Random) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(refusal) = stored.push(client, repository, random) {
        assert!(
            refusal.status >= 500,
            "{}: {}",
            refusal.status,
            refusal.text()
        );
        assert!(
            Instant::now() < deadline,
            "there is room, but: {}",
            refusal.text()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn restart(mut server: Server, data: &Path, settings: &[(&str, &str)]) -> Server {
    server.process().signal(rustix::process::Signal::TERM);
    assert!(
        server.process().wait(MOUNT_LIMIT),
        "a clean end:\n{}",
        server.log()
    );
    Server::start_on(data, settings)
}

/// With its reserve, the server can do on a full device whatever takes no room for data.
#[test]
fn a_full_device_refuses_data_and_nothing_else() {
    if !namespace::entered("a_full_device_refuses_data_and_nothing_else") {
        return;
    }
    let random = &mut Random::new();
    let device = Device::new(DEVICE_MIB);
    let data = device.path().join("data");
    let server = Server::start_on(&data, &[RESERVE]);
    let client = Client::new(&server.url());
    let mut stored = Stored::default();

    // An upload that is under way meets the full device in its middle.
    let session = client
        .send(&Request::new("POST", "/v2/resumed/blobs/uploads/"))
        .unwrap();
    let session = session.get("Location").unwrap().to_owned();
    let disk = random.bytes(80 << 20);
    let first = 20 << 20;
    let patched = client
        .send(&Request::new("PATCH", session.clone()).octets(&disk[..first]))
        .unwrap();
    assert_eq!(patched.status, 202, "{}", patched.text());
    assert_full(&stored.push_until_full(&client, "fill", random));
    let refused = send_piece(&server, &session, &disk, first, disk.len());
    assert_full(&refused);

    // Refused again and again, and never anything but refused.
    for round in 0..20 {
        let refused = stored.push(&client, &format!("refused/{round}"), random);
        assert_full(&refused.unwrap_err());
    }
    stored.verify(&server);

    // Whatever takes no room for data: tags, mounts, blobs that are there already, small blobs, deletions.
    let (path, manifest) = stored.0.last().cloned().unwrap();
    let (path, manifest) = match path.ends_with("/manifests/v1") {
        true => (path, manifest),
        false => stored
            .0
            .iter()
            .rfind(|(path, _)| path.ends_with("/manifests/v1"))
            .cloned()
            .unwrap(),
    };
    let tagged = path.replace("/manifests/v1", "/manifests/v2");
    assert_eq!(put_manifest(&client, &tagged, &manifest).status, 201);
    stored.0.push((tagged, manifest.clone()));
    let layer =
        serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()["layers"][0]["digest"]
            .clone();
    let layer = layer.as_str().unwrap();
    let from = path
        .strip_prefix("/v2/")
        .unwrap()
        .strip_suffix("/manifests/v1")
        .unwrap();
    let mount = format!("/v2/mounted/blobs/uploads/?mount={layer}&from={from}");
    assert_eq!(
        client.send(&Request::new("POST", mount)).unwrap().status,
        201
    );
    let known = stored
        .0
        .iter()
        .find(|(path, _)| path.ends_with(layer))
        .unwrap()
        .1
        .clone();
    let again = format!("/v2/known/blobs/uploads/?digest={layer}");
    let again = client
        .send(&Request::new("POST", again).octets(&known))
        .unwrap();
    assert_eq!(
        again.status,
        201,
        "content that is stored already: {}",
        again.text()
    );
    let small = random.bytes(1_000);
    let digest = sha256(&small);
    let put = format!("/v2/small/blobs/uploads/?digest={digest}");
    let put = client
        .send(&Request::new("POST", put).octets(&small))
        .unwrap();
    assert_eq!(put.status, 201, "a small blob: {}", put.text());
    let (gone, _) = stored
        .0
        .iter()
        .find(|(path, _)| path.ends_with("/manifests/v1"))
        .cloned()
        .unwrap();
    let deleted = client.send(&Request::new("DELETE", gone.clone())).unwrap();
    assert_eq!(deleted.status, 202, "{}", deleted.text());
    stored.0.retain(|(path, _)| *path != gone);
    stored.verify(&server);

    // It starts on a full device.
    let server = restart(server, &data, &[RESERVE]);
    let client = Client::new(&server.url());
    stored.verify(&server);
    assert_full(&stored.push(&client, "refused/after", random).unwrap_err());

    // With room, pushes go on, and so does the upload that was under way.
    device.grow(2 * DEVICE_MIB);
    push_soon(&mut stored, &client, "grown", random);
    let status = client.send(&Request::new("GET", session.clone())).unwrap();
    assert_eq!(status.status, 204, "{}", status.text());
    let last: usize = status
        .get("Range")
        .unwrap()
        .strip_prefix("0-")
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        last + 1 >= first,
        "{last}: the first piece was acknowledged"
    );
    let patched = send_piece(&server, &session, &disk, last + 1, disk.len());
    assert_eq!(patched.status, 202, "{}", patched.text());
    let digest = sha256(&disk);
    let closed = Request::new("PUT", session).query("digest", &digest);
    let closed = client.send(&closed).unwrap();
    assert_eq!(closed.status, 201, "{}", closed.text());
    stored.0.push((format!("/v2/resumed/blobs/{digest}"), disk));
    stored.verify(&server);
    stored.verify(&restart(server, &data, &[RESERVE]));
}

/// Sends a range of a disk to an upload session.
fn send_piece(server: &Server, session: &str, disk: &[u8], from: usize, to: usize) -> Response {
    let head = format!(
        "PATCH {session} HTTP/1.1\r\nContent-Type: application/octet-stream\r\nContent-Range: {from}-{}\r\n",
        to - 1
    );
    let len = (to - from) as u64;
    let response = stream::send(server.address(), &head, len, |before, buffer| {
        let at = from + before as usize;
        buffer.copy_from_slice(&disk[at..at + buffer.len()]);
    });
    response.unwrap()
}

/// Several clients fill the device at once; each learns why it is refused.
#[test]
fn many_clients_fill_a_device_together() {
    if !namespace::entered("many_clients_fill_a_device_together") {
        return;
    }
    let device = Device::new(DEVICE_MIB);
    let data = device.path().join("data");
    let server = Server::start_on(&data, &[RESERVE]);
    let mut seeds = Random::new();
    let stored: Vec<Stored> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let (url, mut random) = (server.url(), Random::from_seed(seeds.next()));
                scope.spawn(move || {
                    let mut stored = Stored::default();
                    let name = format!("client/{number}");
                    assert_full(&stored.push_until_full(&Client::new(&url), &name, &mut random));
                    stored
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    for stored in &stored {
        stored.verify(&server);
    }
    let server = restart(server, &data, &[RESERVE]);
    for stored in &stored {
        stored.verify(&server);
    }
}

/// Others took all room, the reserve included: not even metadata can be written.
#[test]
fn a_device_that_others_filled_is_read_only_until_there_is_room() {
    if !namespace::entered("a_device_that_others_filled_is_read_only_until_there_is_room") {
        return;
    }
    let random = &mut Random::new();
    let device = Device::new(DEVICE_MIB);
    let data = device.path().join("data");
    let server = Server::start_on(&data, &[RESERVE]);
    let client = Client::new(&server.url());
    let mut stored = Stored::default();
    for number in 0..4 {
        stored
            .push(&client, &format!("before/{number}"), random)
            .unwrap();
    }
    let filler = device.fill();
    for round in 0..10 {
        let refused = stored.push(&client, &format!("full/{round}"), random);
        assert_full(&refused.unwrap_err());
        // A tag takes metadata alone.
        let (path, manifest) = stored
            .0
            .iter()
            .rfind(|(path, _)| path.ends_with("/v1"))
            .cloned()
            .unwrap();
        let response = put_manifest(
            &client,
            &path.replace("/v1", &format!("/t{round}")),
            &manifest,
        );
        if response.status == 201 {
            // The database had room within its file.
            stored
                .0
                .push((path.replace("/v1", &format!("/t{round}")), manifest));
        } else {
            assert_full(&response);
        }
        stored.verify(&server);
    }
    fs::remove_file(&filler).unwrap();
    push_soon(&mut stored, &client, "after/0", random);
    stored.verify(&server);
    stored.verify(&restart(server, &data, &[RESERVE]));
}

/// Without a reserve every byte is taken, and metadata and packs run out of room at any point.
#[test]
fn without_a_reserve_nothing_acknowledged_is_lost() {
    if !namespace::entered("without_a_reserve_nothing_acknowledged_is_lost") {
        return;
    }
    let random = &mut Random::new();
    let device = Device::new(DEVICE_MIB);
    let data = device.path().join("data");
    let mut server = Server::start_on(&data, &[NO_RESERVE]);
    let client = Client::new(&server.url());
    let mut stored = Stored::default();
    assert_full(&stored.push_until_full(&client, "fill", random));
    for round in 0..10 {
        let refused = stored.push(&client, &format!("refused/{round}"), random);
        if let Err(refusal) = refused {
            assert!(matches!(refusal.status, 503 | 507), "{}", refusal.text());
            assert_error_body(&refusal);
        }
        stored.verify(&server);
    }
    // The end of a process that could not write: killed, and started where there is room.
    server.process().signal(rustix::process::Signal::KILL);
    server.process().wait(MOUNT_LIMIT);
    device.grow(2 * DEVICE_MIB);
    let server = Server::start_on(&data, &[NO_RESERVE]);
    let client = Client::new(&server.url());
    stored.verify(&server);
    push_soon(&mut stored, &client, "grown", random);
    stored.verify(&restart(server, &data, &[NO_RESERVE]));
}
