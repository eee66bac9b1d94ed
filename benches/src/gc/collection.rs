//! A collection that has much to move: what it costs pushes beside it, and how fast it is alone.

use std::{
    fmt::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Scale,
    pushers::{Address, Image, Pushed, while_pushing},
};
use crate::{
    data::digest_of,
    http::{Body, Sink},
    machine,
    registry::{Home, Kind, Program, Server},
};

const LARGE_BYTES: usize = 1 << 20;
const PUSHED_BYTES: usize = 16 << 10;
const REPOSITORY: &str = "gc/large";
/// How long what was just pushed is protected; see [`settings`].
const LEASE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
const COLLECTION_MAX: Duration = Duration::from_secs(600);

/// No grace, a short lease, and nothing that collects but who is told to.
pub(super) fn settings(program: &Program) -> Program {
    program.with(
        &[],
        &[
            ("DVCR_GC_GRACE", "0s"),
            ("DVCR_LEASE", "2s"),
            ("DVCR_GC_INTERVAL", "7d"),
        ],
    )
}

/// What a collection came to.
pub(super) struct Run {
    pub(super) took: Duration,
    pub(super) reviews: u64,
    pub(super) packs: u64,
    pub(super) freed_bytes: u64,
    pub(super) moved_bytes: u64,
}

/// Sends a request of the management API and reads its JSON.
pub(super) fn ask(server: &Server, method: &str, path: &str, body: &[u8]) -> Result<Value> {
    let mut answer = Vec::new();
    let headers = [("Content-Type", "application/json")];
    let response = server.client().request(
        method,
        path,
        &headers,
        Body::Slices(&[body]),
        Sink::Collect(&mut answer),
    )?;
    ensure!(
        response.status / 100 == 2,
        "{method} {path}: status {}",
        response.status
    );
    Ok(serde_json::from_slice(&answer)?)
}

/// Collects all garbage of our own registry, and waits for the end.
pub(super) fn collect(server: &Server) -> Result<Run> {
    let begun = Instant::now();
    let run = ask(server, "POST", "/api/v1/gc/runs", br#"{"force":true}"#)?;
    let path = format!("/api/v1/gc/runs/{}", run["id"]);
    loop {
        let run = ask(server, "GET", &path, b"")?;
        let figure = |level: &str, name: &str| {
            run[level][name]
                .as_u64()
                .with_context(|| format!("no {level}.{name} in {run}"))
        };
        match run["state"].as_str() {
            Some("done") => {
                return Ok(Run {
                    took: begun.elapsed(),
                    reviews: figure("reviewed", "reviews")?,
                    packs: figure("swept", "packs")?,
                    freed_bytes: figure("swept", "freed_bytes")?,
                    moved_bytes: figure("swept", "moved_bytes")?,
                });
            }
            Some("waiting" | "reviewing" | "sweeping") => thread::sleep(POLL),
            _ => anyhow::bail!("a collection failed: {run}"),
        }
        ensure!(
            begun.elapsed() < COLLECTION_MAX,
            "a collection takes more than {COLLECTION_MAX:?}"
        );
    }
}

/// Figures for the report.
pub(super) struct Measured {
    pub(super) text: String,
    /// p99 of pushes while collecting, over that of pushes alone; the median of the rounds.
    pub(super) ratio: f64,
}

pub(super) fn measure(program: &Program, dir: &Path, scale: &Scale) -> Result<Measured> {
    let mut text = String::from(
        "\n## Pushes while much is moved\n\nImages of 1 MiB of random bytes, every other one deleted: half of each pack is copied. \
         Pushes are of images of 16 KiB. Each round has a server of its own.\n\n\
         | round | push idle, ms p50 / p99 | while collecting | p50, times | p99, times | stop, s | failed | collection, s | packs | freed, MiB | moved, MiB |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut ratios = Vec::new();
    for round in 0..scale.rounds {
        let home = Home::new(dir, Kind::Dvcr)?;
        let server = settings(program).start(home.path())?;
        garbage(&server, scale.large)?;
        let address = Address::new(server.addr);
        let idle = idle(&address, scale)?;
        let (run, during) = while_pushing(&address, REPOSITORY, PUSHED_BYTES, || collect(&server))?;
        let ratio = during.p99() / idle.p99();
        ratios.push(ratio);
        let _ = writeln!(
            text,
            "| {round} | {:.1} / {:.1} | {:.1} / {:.1} | {:.2} | {ratio:.2} | {:.2} | {} | {:.1} | {} | {} | {} |",
            idle.p50(),
            idle.p99(),
            during.p50(),
            during.p99(),
            during.p50() / idle.p50(),
            during.longest_stop().as_secs_f64(),
            during.failed,
            run.took.as_secs_f64(),
            run.packs,
            run.freed_bytes >> 20,
            run.moved_bytes >> 20,
        );
        server.stop()?;
    }
    text += "\nThe same without pushes:\n\n| collection, s | freed, MiB | moved, MiB | reclaimed, GB/s | read and written, GB/s |\n|---|---|---|---|---|\n";
    for _ in 0..scale.rounds {
        let home = Home::new(dir, Kind::Dvcr)?;
        let server = settings(program).start(home.path())?;
        garbage(&server, scale.large)?;
        machine::settle();
        let run = collect(&server)?;
        let rate = |bytes: u64| bytes as f64 / 1e9 / run.took.as_secs_f64();
        let _ = writeln!(
            text,
            "| {:.2} | {} | {} | {:.2} | {:.2} |",
            run.took.as_secs_f64(),
            run.freed_bytes >> 20,
            run.moved_bytes >> 20,
            rate(run.freed_bytes),
            rate(2 * run.moved_bytes),
        );
        server.stop()?;
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Measured {
        text,
        ratio: ratios[ratios.len() / 2],
    })
}

/// Pushes images, deletes every other one, and waits until no lease protects them.
fn garbage(server: &Server, images: usize) -> Result<()> {
    let mut client = server.client();
    for number in 0..images {
        let image = Image::new(number as u64, LARGE_BYTES);
        image.push(&mut client, REPOSITORY, &format!("t{number}"))?;
        if number % 2 == 0 {
            let digest = digest_of(&image.docs.manifest);
            let path = format!("/v2/{REPOSITORY}/manifests/{digest}");
            client
                .simple("DELETE", &path, &[])?
                .expect(202, "delete manifest")?;
        }
    }
    thread::sleep(LEASE);
    machine::settle();
    Ok(())
}

fn idle(address: &Address, scale: &Scale) -> Result<Pushed> {
    let seconds = Duration::from_secs(scale.idle_seconds);
    let ((), idle) = while_pushing(address, REPOSITORY, PUSHED_BYTES, || {
        thread::sleep(seconds);
        Ok(())
    })?;
    Ok(idle)
}
