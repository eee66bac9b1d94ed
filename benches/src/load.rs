//! Many clients at once.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};

use crate::{http::Client, row::Measured};

/// Clients of every row that has several, as in the published runs of zot's zb.
pub(crate) const CLIENTS: usize = 8;

/// Runs `requests` requests from [`CLIENTS`] threads with a connection each; whoever is free takes the next number.
/// The value is requests a second.
///
/// # Errors
/// The first failure, after all clients stopped.
pub(crate) fn run(
    addr: SocketAddr,
    requests: usize,
    request: impl Fn(&mut Client, usize) -> Result<()> + Sync,
) -> Result<Measured> {
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let client = || -> Result<Vec<f64>> {
        let mut client = Client::new(addr);
        let mut latencies = Vec::with_capacity(requests / CLIENTS * 2);
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= requests {
                return Ok(latencies);
            }
            let begin = Instant::now();
            request(&mut client, number)
                .inspect_err(|_| next.store(requests, Relaxed))
                .with_context(|| format!("request {number}"))?;
            latencies.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    };
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a client panicked")))
            })
            .collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let latencies = outcomes.into_iter().collect::<Result<Vec<_>>>()?.concat();
    Ok(Measured {
        value: requests as f64 / seconds,
        latencies,
    })
}
