//! Synthetic metadata: how many reviews a second, and what a mark over millions of chunks takes.

use std::{fmt::Write as _, path::Path, time::Instant};

use anyhow::Result;
use dvcr::meta::{
    key,
    record::{self, BlobBody, BlobRecord, HoldRecord, Record as _, RepositoryRecord},
};
use dvcr_core::oci::{Digest, RepositoryName};

use super::{
    Scale,
    collection::{ask, collect, settings},
};
use crate::{
    registry::{Home, Kind, Program},
    startup::{self, Filler},
};

/// Figures for the report.
pub(super) struct Measured {
    pub(super) text: String,
    pub(super) reviews_a_second: f64,
}

pub(super) fn measure(program: &Program, dir: &Path, scale: &Scale) -> Result<Measured> {
    let runtime = tokio::runtime::Runtime::new()?;
    let program = settings(program);
    let mut text =
        String::from("\n## Reviews and marks\n\nSynthetic metadata, as the store writes it.\n\n");

    let home = Home::new(dir, Kind::Dvcr)?;
    runtime.block_on(fill_reviews(&home.path().join("data"), scale.reviews))?;
    let server = program.start(home.path())?;
    let run = collect(&server)?;
    let reviews_a_second = run.reviews as f64 / run.took.as_secs_f64();
    let _ = writeln!(
        text,
        "- {} small blobs that nothing needs any more, each taken from its repository and removed: {:.2} s, {reviews_a_second:.0} reviews a second. Memory at most {:.0} MiB.",
        run.reviews,
        run.took.as_secs_f64(),
        server.memory()?.peak,
    );
    server.stop()?;
    drop(home);

    let home = Home::new(dir, Kind::Dvcr)?;
    let data = home.path().join("data");
    runtime.block_on(startup::fill(&data, scale.chunks))?;
    let server = program.start(home.path())?;
    let idle = server.memory()?.resident;
    let cpu = server.cpu_seconds()?;
    let begun = Instant::now();
    ask(&server, "GET", "/api/v1/gc/plan", b"")?;
    let took = begun.elapsed();
    let _ = writeln!(
        text,
        "- A mark over {} chunks of 64 KiB ({:.2} TiB): {:.1} s, {:.1} s of processor time; memory {:.0} MiB at most, {idle:.0} MiB before.",
        scale.chunks,
        scale.chunks as f64 / f64::from(1 << 24),
        took.as_secs_f64(),
        server.cpu_seconds()? - cpu,
        server.memory()?.peak,
    );
    server.stop()?;
    Ok(Measured {
        text,
        reviews_a_second,
    })
}

/// Blobs that one repository holds, no manifest refers to, and whose lease is over.
async fn fill_reviews(data: &Path, reviews: u64) -> Result<()> {
    let mut filler = Filler::new(data)?;
    let repository: RepositoryName = "synthetic/reviews".parse()?;
    for number in 0..reviews {
        let bytes = number.to_le_bytes();
        let digest = Digest::sha256(&bytes);
        let blob = BlobRecord {
            len: bytes.len() as u64,
            body: BlobBody::Inline,
            stored_len: bytes.len() as u64,
            created_ms: 1,
        };
        let hold = HoldRecord {
            linked_ms: 1,
            lease_ms: 1,
        };
        let rows = [
            (key::blob(&digest), blob.encode()),
            (key::inline(&digest), bytes.to_vec().into()),
            (key::hold(&repository, &digest), hold.encode()),
            (key::held_by(&digest, &repository), record::mark()),
            (
                key::review_blob(1 + number / 1000, &repository, &digest),
                record::mark(),
            ),
        ];
        for (key, value) in rows {
            filler.put(key, value).await?;
        }
    }
    let row = RepositoryRecord { created_ms: 1 };
    filler
        .put(key::repository(repository.as_str()), row.encode())
        .await?;
    filler.close().await
}
