//! A migration that is killed, and run again.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    compare::{Reader, assert_same},
    fill::layout,
    image::Image,
    migration::{command, migrate_to},
    reply::{self, Reply},
    site::Site,
    support::{
        distribution::{Distribution, Version},
        process::Process,
        random::Random,
    },
};

/// Bytes of the one large layer.
const LAYER_BYTES: usize = 64 << 20;
/// Bytes after which the network stands still. More than the server keeps in memory before it makes a checkpoint is not needed: it
/// keeps what has arrived when a connection breaks.
const STOP_BYTES: u64 = 24 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// A network in front of a server that carries `limit` bytes there, and no more.
struct Network {
    address: String,
    carried: Arc<AtomicU64>,
    limit: Arc<AtomicU64>,
}

impl Network {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self {
            address: listener.local_addr().unwrap().to_string(),
            carried: Arc::default(),
            limit: Arc::new(AtomicU64::new(STOP_BYTES)),
        };
        let (carried, limit) = (Arc::clone(&network.carried), Arc::clone(&network.limit));
        let server = server.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&server).unwrap();
                let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    carry(back, forth, &AtomicU64::new(0), &AtomicU64::new(u64::MAX));
                });
                let (carried, limit) = (Arc::clone(&carried), Arc::clone(&limit));
                thread::spawn(move || carry(client, server, &carried, &limit));
            }
        });
        network
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, carried: &AtomicU64, limit: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len) = from.read(&mut buffer) {
        if len == 0 || to.write_all(&buffer[..len]).is_err() {
            break;
        }
        let sum = carried.fetch_add(len as u64, Ordering::SeqCst) + len as u64;
        if sum >= limit.load(Ordering::SeqCst) {
            // It stands still until the test has killed who is sending.
            while sum >= limit.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn interrupt(source: impl Fn(&Distribution) -> Vec<String>) {
    let (site, peer) = (Site::new(), Distribution::start(Version::V3, ""));
    let disk = site.write("disk.raw", &Random::new().bytes(LAYER_BYTES));
    site.ok(
        "tar",
        &["--create", "--file=layer.tar", "--directory=.", "disk.raw"],
    );
    let tag = format!("{}/vd/ns/big:v1", peer.address());
    site.ok(
        "crane",
        &[
            "append",
            "--insecure",
            "--new_layer=layer.tar",
            &format!("--new_tag={tag}"),
        ],
    );
    std::fs::remove_file(disk).unwrap();

    let network = Network::before(site.registry());
    let server = format!("http://{}", network.address);
    let arguments = source(&peer);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut process = Process::start(command(&site, &server, &arguments));
    process.wait_for(LIMIT, |_| {
        (network.carried.load(Ordering::SeqCst) >= STOP_BYTES).then_some(())
    });
    process.signal(rustix::process::Signal::KILL);
    process.wait(LIMIT);
    network.limit.store(u64::MAX, Ordering::SeqCst);
    let state = site.path("state/dvcr/migrate.json");
    assert!(state.is_file(), "the upload under way is noted");

    let done = migrate_to(&site, &server, &arguments);
    assert!(done.complete, "{}", done.log);
    let size = done.figure("source_bytes");
    assert!(size > LAYER_BYTES as u64);
    // It went on where it was: a good part of what the network had carried was not read again.
    let read = done.figure("bytes_read");
    assert!(read < size - STOP_BYTES / 2, "{read} of {size} read again");
    assert!(!state.exists(), "nothing is under way any more");
    let target = Reader::new(&format!("http://{}", site.registry()));
    assert_same(&Reader::new(&peer.url()), &target);
}

/// A registry drops blobs that no manifest refers to for a while; an image's largest layer may take longer than that.
#[test]
fn blobs_that_the_server_has_dropped_are_sent_again() {
    let (site, peer) = (Site::new(), Distribution::start(Version::V3, ""));
    let image = Image::new(&mut Random::new(), "amd64");
    let from = layout(&site, "image", &image);
    let to = format!("docker://{}/a:v1", peer.address());
    let copy = [
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &to,
    ];
    site.ok("skopeo", &copy);
    let digest = image.digest().to_owned();
    let puts = AtomicU64::new(0);
    let server = reply::Server::start(move |request, _| {
        let manifest = request.target.contains("/manifests/");
        match request.method.as_str() {
            "GET" => Reply::new(200),
            "HEAD" if manifest && puts.load(Ordering::SeqCst) > 1 => {
                Reply::new(200).with("Docker-Content-Digest", digest.clone())
            }
            "HEAD" => Reply::new(404),
            // Somebody else had it.
            "POST" => Reply::new(201),
            "PUT" if puts.fetch_add(1, Ordering::SeqCst) == 0 => {
                Reply::new(404).body(r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#)
            }
            _ => Reply::new(201),
        }
    });
    let data = peer.data().display().to_string();
    let done = migrate_to(&site, &server.url(), &["distribution", &data]);
    assert!(done.complete, "{}", done.log);
    let requests = server.received();
    let asked = requests.iter().filter(|request| request.method == "POST");
    assert_eq!(asked.count() as u64, 2 * done.figure("blobs"));
}

#[test]
fn a_killed_migration_of_a_directory_goes_on() {
    interrupt(|peer| vec!["distribution".to_owned(), peer.data().display().to_string()]);
}

#[test]
fn a_killed_migration_of_a_running_registry_goes_on() {
    interrupt(|peer| vec!["registry".to_owned(), peer.url()]);
}
