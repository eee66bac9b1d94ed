//! What goes between an importer and a registry, counted.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Passes every connection on to an address that stays, whoever listens there at the moment.
pub(super) struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
}

struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    /// Bytes to the registry after which it stands still.
    held_at: AtomicU64,
    over: AtomicBool,
}

impl Proxy {
    pub(super) fn new(registry: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            held_at: AtomicU64::new(u64::MAX),
            over: AtomicBool::new(false),
        });
        let shared = counts.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.over.load(Relaxed) {
                    return;
                }
                // A registry that is away refuses, and so does this: by closing.
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(&registry)) {
                    let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                    let counts = shared.clone();
                    thread::spawn(move || {
                        pass(from, to, |len| {
                            let up = counts.up.fetch_add(len, Relaxed) + len;
                            while up > counts.held_at.load(Relaxed) {
                                thread::sleep(Duration::from_millis(1));
                            }
                        });
                    });
                    let counts = shared.clone();
                    thread::spawn(move || {
                        pass(server, client, |len| {
                            counts.down.fetch_add(len, Relaxed);
                        });
                    });
                }
            }
        });
        Self { address, counts }
    }

    /// `127.0.0.1:port`.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Bytes that went to the registry, heads of requests included.
    pub(super) fn up(&self) -> u64 {
        self.counts.up.load(Relaxed)
    }

    /// Stands still once more than so many bytes went to the registry.
    pub(super) fn hold_at(&self, bytes: u64) {
        self.counts.held_at.store(bytes, Relaxed);
    }

    /// Bytes that came from the registry, heads of answers included.
    pub(super) fn down(&self) -> u64 {
        self.counts.down.load(Relaxed)
    }
}

/// One direction of a connection, until either side ends it.
fn pass(mut from: TcpStream, mut to: TcpStream, count: impl Fn(u64)) {
    let mut buf = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buf) {
        count(len as u64);
        if to.write_all(&buf[..len]).is_err() {
            break;
        }
    }
    // Both: a process that was killed is gone in both directions.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.counts.over.store(true, Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}
