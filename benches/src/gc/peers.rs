//! The same on several registries: small images, half of them deleted and collected, while others are pushed.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    Scale,
    collection::{collect, settings},
    pushers::{Address, Image, Pushed, while_pushing},
};
use crate::{
    machine,
    registry::{Home, Kind, Program, Server},
};

/// Length of a layer.
const LAYER_BYTES: usize = 16 << 10;
const REPOSITORY: &str = "gc/images";
/// A collection that is not over by then is called that.
const COLLECTION_MAX: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

pub(super) const HEAD: &str = "\n## Beside other registries\n\n\
Small images (16 KiB and a config) in one repository; half of them are deleted by digest, then collected, while clients push others to \
the same repository. docker-registry has to be stopped for that (its documentation asks for no writes while it collects); olareg collects \
by itself, as often as it can be told to. *Stop* is the longest time in which no push ended well.\n\n\
| registry | push idle, ms p50 / p99 | while collecting | p99, times | pushes that failed | stop, s | collection, s | disk before, MiB | after |\n\
|---|---|---|---|---|---|---|---|---|\n";

/// One line of the table.
pub(super) fn measure(program: &Program, dir: &Path, scale: &Scale) -> Result<String> {
    let kind = program.kind;
    // Nothing is collected before it is time to.
    let idle = match kind {
        Kind::Olareg => program.with(&["--gc-frequency", "-1s"], &[]),
        Kind::Dvcr => settings(program),
        _ => program.clone(),
    };
    let home = Home::new(dir, kind)?;
    let mut server = idle.start(home.path())?;
    let images: Vec<_> = (0..scale.images)
        .map(|n| Image::new(n as u64, LAYER_BYTES))
        .collect();
    let mut client = server.client();
    for (number, image) in images.iter().enumerate() {
        image.push(&mut client, REPOSITORY, &format!("t{number}"))?;
    }
    machine::settle();
    let address = Address::new(server.addr);
    let seconds = Duration::from_secs(scale.idle_seconds);
    let ((), before) = while_pushing(&address, REPOSITORY, LAYER_BYTES, || {
        thread::sleep(seconds);
        Ok(())
    })?;
    for image in images.iter().step_by(2) {
        let digest = crate::data::digest_of(&image.docs.manifest);
        let path = format!("/v2/{REPOSITORY}/manifests/{digest}");
        client
            .simple("DELETE", &path, &[])?
            .expect(202, "delete manifest")?;
    }
    machine::settle();
    let full = machine::disk_usage(&server.data_dir())?;

    let (took, during) = match kind {
        Kind::Dvcr => {
            let (run, during) =
                while_pushing(&address, REPOSITORY, LAYER_BYTES, || collect(&server))?;
            (run.took, during)
        }
        Kind::Distribution2 | Kind::Distribution3 => {
            let begun = Instant::now();
            let (restarted, during) = while_pushing(&address, REPOSITORY, LAYER_BYTES, || {
                let restarted = server.restart(|_| program.garbage_collect(home.path()))?;
                address.set(restarted.addr);
                Ok(restarted)
            })?;
            server = restarted;
            (begun.elapsed(), during)
        }
        Kind::Olareg => {
            // Its collector is set when it starts, which is not what is measured here.
            let often = program.with(&["--gc-frequency", "1s", "--gc-grace-period", "1s"], &[]);
            server.stop()?;
            server = often.start(home.path())?;
            address.set(server.addr);
            while_pushing(&address, REPOSITORY, LAYER_BYTES, || {
                wait_for_files(&server, &images)
            })?
        }
    };
    let left = machine::disk_usage(&server.data_dir())?;
    check(&server, &images)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(line(kind, &before, &during, took, mib(full), mib(left)))
}

fn line(
    kind: Kind,
    before: &Pushed,
    during: &Pushed,
    took: Duration,
    full: f64,
    left: f64,
) -> String {
    format!(
        "| {} | {:.1} / {:.1} | {} | {} of {} | {:.2} | {:.2} | {full:.0} | {left:.0}, with {} more images |\n",
        kind.name(),
        before.p50(),
        before.p99(),
        if during.millis.is_empty() {
            "none ended | -".to_owned()
        } else {
            let ratio = during.p99() / before.p99();
            format!("{:.1} / {:.1} | {ratio:.2}", during.p50(), during.p99())
        },
        during.failed,
        during.failed + during.millis.len() as u64,
        during.longest_stop().as_secs_f64(),
        took.as_secs_f64(),
        during.millis.len(),
    )
}

/// Waits until the layers of the deleted images are gone from olareg's directory: one file a blob.
fn wait_for_files(server: &Server, images: &[Image]) -> Result<Duration> {
    let begun = Instant::now();
    let blobs = server.data_dir().join(REPOSITORY).join("blobs/sha256");
    ensure!(
        blobs.is_dir(),
        "olareg keeps blobs elsewhere than in {}",
        blobs.display()
    );
    let there = |image: &Image| {
        let (_, hex) = image.layer.digest.split_once(':').unwrap_or_default();
        blobs.join(hex).exists()
    };
    while images.iter().step_by(2).any(there) {
        if begun.elapsed() > COLLECTION_MAX {
            bail!("olareg has not collected after {COLLECTION_MAX:?}");
        }
        thread::sleep(POLL);
    }
    Ok(begun.elapsed())
}

/// What was not deleted is there, what was is not.
fn check(server: &Server, images: &[Image]) -> Result<()> {
    let mut client = server.client();
    for (number, image) in images.iter().enumerate() {
        let layer = &image.layer;
        if number % 2 == 1 {
            crate::oci::pull_blob(&mut client, REPOSITORY, &layer.digest, &layer.bytes)?;
        } else {
            let path = format!("/v2/{REPOSITORY}/blobs/{}", layer.digest);
            client
                .simple("HEAD", &path, &[])?
                .expect(404, "a collected blob")?;
        }
    }
    Ok(())
}
