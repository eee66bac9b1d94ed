//! Clients that push small images without pause, while something else goes on.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use crate::{
    data::{Blob, Rng},
    http::Client,
    oci::{self, ImageDocs, Upload},
    stats::Summary,
};

/// Clients at once.
pub(crate) const CLIENTS: usize = 4;
/// After a push that failed: a server that is not there fails a thousand times a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Where the server is; it has another port after each start.
pub(super) struct Address(Mutex<SocketAddr>);

impl Address {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self(Mutex::new(address))
    }

    pub(super) fn set(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    fn get(&self) -> SocketAddr {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image that no other is like.
pub(super) struct Image {
    pub(super) layer: Blob,
    pub(super) docs: ImageDocs,
}

impl Image {
    pub(super) fn new(number: u64, len: usize) -> Image {
        let mut bytes = vec![0; len];
        Rng::new(number).fill(&mut bytes);
        let layer = Blob::of(bytes);
        Image {
            docs: ImageDocs::new(number, &layer.digest, layer.len()),
            layer,
        }
    }

    pub(super) fn push(&self, client: &mut Client, repo: &str, tag: &str) -> Result<()> {
        let layer = (self.layer.digest.as_str(), self.layer.bytes.as_slice());
        oci::push_image(client, repo, tag, layer, &self.docs, Upload::Monolith)
    }
}

/// What pushes came to.
#[derive(Default)]
pub(super) struct Pushed {
    pub(super) millis: Vec<f64>,
    ends: Vec<Instant>,
    pub(super) failed: u64,
    begun: Option<Instant>,
    ended: Option<Instant>,
}

impl Pushed {
    pub(super) fn p50(&self) -> f64 {
        Summary::of(&self.millis).map_or(f64::NAN, |s| s.p50)
    }

    pub(super) fn p99(&self) -> f64 {
        Summary::of(&self.millis).map_or(f64::NAN, |s| s.p99)
    }

    /// Longest time in which no push ended well.
    pub(super) fn longest_stop(&self) -> Duration {
        let mut moments: Vec<_> = self
            .ends
            .iter()
            .copied()
            .chain(self.begun)
            .chain(self.ended)
            .collect();
        moments.sort();
        moments
            .windows(2)
            .map(|two| two[1] - two[0])
            .max()
            .unwrap_or_default()
    }
}

/// Number of the next image; none is ever pushed twice.
static NEXT: AtomicU64 = AtomicU64::new(1 << 40);

/// Pushes images of `len` bytes from all clients until `work` is done.
pub(super) fn while_pushing<T>(
    address: &Address,
    repo: &str,
    len: usize,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Pushed)> {
    let over = AtomicBool::new(false);
    let client = || {
        let mut pushed = Pushed::default();
        let mut client = Client::new(address.get());
        while !over.load(Relaxed) {
            let number = NEXT.fetch_add(1, Relaxed);
            let image = Image::new(number, len);
            let begun = Instant::now();
            match image.push(&mut client, repo, &format!("p{number}")) {
                Ok(()) => {
                    pushed.millis.push(begun.elapsed().as_secs_f64() * 1e3);
                    pushed.ends.push(Instant::now());
                }
                Err(_) => {
                    pushed.failed += 1;
                    thread::sleep(PAUSE);
                    client = Client::new(address.get());
                }
            }
        }
        pushed
    };
    let begun = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let result = work();
        let ended = Instant::now();
        over.store(true, Relaxed);
        let mut all = Pushed {
            begun: Some(begun),
            ended: Some(ended),
            ..Pushed::default()
        };
        for client in clients {
            let pushed = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.ends
                .extend(pushed.ends.iter().filter(|end| **end <= ended));
            all.millis.extend(pushed.millis);
            all.failed += pushed.failed;
        }
        Ok((result?, all))
    })
}
