//! How long the registry takes to start when much is stored, cleanly and after SIGKILL.
//!
//! The metadata are synthetic: chunk, pack, recipe, blob and repository rows as the store writes them, for chunks of 64 KiB in
//! packs of 256 MiB and blobs of 1 GiB. The packs themselves are left out; starting does not look at sealed ones.

use std::{fmt::Write as _, path::PathBuf, time::Instant};

use anyhow::{Context, Result, ensure};
use dvcr::{
    backend::PackId,
    data_dir::DataDir,
    meta::{
        Commit, Key, MetaStore as _, Txn, Value, key,
        record::{
            self, BlobBody, BlobRecord, ChunkRecord, HoldRecord, PackRecord, PackState,
            Record as _, RepositoryRecord,
        },
        redb::{RedbMeta, RedbOptions},
    },
    store::recipe::{Piece, RecipePart},
};
use dvcr_core::{
    chunk::ChunkId,
    oci::{Digest, RepositoryName},
};

use crate::{
    compare::Places,
    data::{Blob, Rng},
    machine::{self, Machine},
    oci::{self, ImageDocs, Upload},
    registry::{Home, Kind, Program},
    report,
    stats::Summary,
};

const CHUNK_BYTES: u32 = 64 << 10;
const PACK_CHUNKS: u64 = 4096;
const PART_CHUNKS: u64 = 4096;
const BLOB_CHUNKS: u64 = 16_384;
/// Rows of one transaction: the two syncs of a commit vanish beside so many.
const TXN_ROWS: usize = 100_000;
/// While it is filled; the server has its own default.
const FILL_CACHE_BYTES: usize = 1 << 30;
/// Starts of each kind.
const STARTS: usize = 5;
/// Budget of DESIGN section 8, for 16.7 million chunks.
const READY_MAX_MS: f64 = 1000.0;

/// Measure the start of the registry with synthetic metadata.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Stored chunks of 64 KiB; several numbers are measured one after the other.
    #[arg(long, num_args = 1.., default_values_t = [1_000_000, 16_000_000])]
    chunks: Vec<u64>,
    /// The report is <results>/<date>-startup.md.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// Measures, writes the report, and fails where a start takes too long.
///
/// # Errors
/// The metadata cannot be written, the registry does not start, or starts too slowly.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = options.places.program(Kind::Dvcr)?;
    let machine = Machine::describe(&options.places.dir)?;
    let mut text = format!(
        "# Start with much stored, {}\n\n{}",
        machine::today(),
        report::machine_list(&machine)
    );
    let _ = write!(
        text,
        "- dvcr {}. From exec to the first 200 of /readyz, {STARTS} starts of each kind; synthetic metadata, keys inserted in order.\n\n\
         | chunks | metadata, MiB | start | p50, ms | min | max | memory idle, MiB |\n|---|---|---|---|---|---|---|\n",
        program.version
    );
    let mut slowest: f64 = 0.0;
    for &chunks in &options.chunks {
        slowest = slowest.max(measure(chunks, &program, options, &mut text)?);
    }
    let path = report::write(&options.results, "startup", &text)?;
    println!("{}", path.display());
    ensure!(
        slowest <= READY_MAX_MS,
        "a start took {slowest:.0} ms, more than {READY_MAX_MS:.0}"
    );
    Ok(())
}

/// Adds the lines of one number of chunks; returns the longest median in milliseconds.
fn measure(chunks: u64, program: &Program, options: &Options, text: &mut String) -> Result<f64> {
    let home = Home::new(&options.places.dir, Kind::Dvcr)?;
    let data = home.path().join("data");
    let begin = Instant::now();
    tokio::runtime::Runtime::new()?.block_on(fill(&data, chunks))?;
    eprintln!("{chunks} chunks written in {:.0?}", begin.elapsed());
    let size = machine::disk_usage(&data)? as f64 / f64::from(1 << 20);

    let mut slowest: f64 = 0.0;
    for (name, crash, cold) in [
        ("clean, cold file cache", false, true),
        ("clean", false, false),
        ("after SIGKILL", true, false),
    ] {
        let (mut times, mut resident) = (Vec::new(), 0.0);
        for start in 0..STARTS {
            if crash {
                // Something to recover: a push was just acknowledged and its pack is open.
                let server = program.start(home.path())?;
                push(&server, start as u64)?;
                server.kill()?;
            }
            if cold {
                machine::drop_page_cache(&data)?;
            }
            let server = program.start(home.path())?;
            times.push(server.ready_after.as_secs_f64() * 1e3);
            resident = server.memory()?.resident;
            if crash {
                pull(&server, start as u64)?;
            }
            server.stop()?;
        }
        let Summary { min, p50, max, .. } = Summary::of(&times).context("no starts")?;
        slowest = slowest.max(p50);
        eprintln!("{chunks} chunks, {name}: {p50:.1} ms ({min:.1} - {max:.1}), {resident:.1} MiB");
        let _ = writeln!(
            text,
            "| {chunks} | {size:.0} | {name} | {p50:.1} | {min:.1} | {max:.1} | {resident:.1} |"
        );
    }
    Ok(slowest)
}

fn image(number: u64) -> (Blob, ImageDocs) {
    let mut bytes = vec![0; 1 << 20];
    Rng::new(number).fill(&mut bytes);
    let layer = Blob::of(bytes);
    let docs = ImageDocs::new(number, &layer.digest, layer.len());
    (layer, docs)
}

fn push(server: &crate::registry::Server, number: u64) -> Result<()> {
    let (layer, docs) = image(number);
    oci::push_image(
        &mut server.client(),
        "crash",
        &format!("t{number}"),
        (&layer.digest, &layer.bytes),
        &docs,
        Upload::Monolith,
    )
}

/// What was acknowledged before the crash is there.
fn pull(server: &crate::registry::Server, number: u64) -> Result<()> {
    let (layer, docs) = image(number);
    oci::pull_image(
        &mut server.client(),
        "crash",
        &format!("t{number}"),
        (&layer.digest, &layer.bytes),
        &docs,
    )
}

/// Rows on their way to the database.
pub(crate) struct Filler {
    meta: RedbMeta,
    puts: Vec<(Key, Value)>,
}

impl Filler {
    /// The database of a new data directory.
    pub(crate) fn new(data: &std::path::Path) -> Result<Filler> {
        let dir = DataDir::open(data)?;
        let options = RedbOptions {
            cache_bytes: FILL_CACHE_BYTES,
        };
        Ok(Filler {
            meta: RedbMeta::open(dir.meta_path(), &options)?,
            puts: Vec::new(),
        })
    }

    /// Commits what is left, and closes the database.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.commit().await?;
        self.meta.close().await;
        Ok(())
    }

    pub(crate) async fn put(&mut self, key: Key, value: Value) -> Result<()> {
        self.puts.push((key, value));
        if self.puts.len() >= TXN_ROWS {
            self.commit().await
        } else {
            Ok(())
        }
    }

    async fn commit(&mut self) -> Result<()> {
        let txn = Txn {
            puts: std::mem::take(&mut self.puts),
            ..Txn::default()
        };
        ensure!(
            self.meta.commit(txn).await? == Commit::Done,
            "a transaction without checks was refused"
        );
        Ok(())
    }
}

/// Sets up a data directory and writes the rows of `chunks` chunks.
pub(crate) async fn fill(data: &std::path::Path, chunks: u64) -> Result<()> {
    let mut filler = Filler::new(data)?;
    let (packs, blobs) = (chunks.div_ceil(PACK_CHUNKS), chunks.div_ceil(BLOB_CHUNKS));

    let repository: RepositoryName = "synthetic/disks".parse()?;
    for blob in 0..blobs {
        let digest = Digest::sha256(&blob.to_le_bytes());
        let of_blob = BLOB_CHUNKS.min(chunks - blob * BLOB_CHUNKS);
        let parts = u32::try_from(of_blob.div_ceil(PART_CHUNKS))?;
        let len = of_blob * u64::from(CHUNK_BYTES);
        let body = BlobBody::Recipe {
            id: blob + 1,
            parts,
        };
        let row = BlobRecord {
            len,
            body,
            stored_len: len,
            created_ms: 1,
        };
        filler.put(key::blob(&digest), row.encode()).await?;
        filler
            .put(
                key::hold(&repository, &digest),
                HoldRecord {
                    linked_ms: 1,
                    lease_ms: 1,
                }
                .encode(),
            )
            .await?;
        filler
            .put(key::held_by(&digest, &repository), record::mark())
            .await?;
        let mut starts = Vec::new();
        for part in 0..parts {
            let first = blob * BLOB_CHUNKS + u64::from(part) * PART_CHUNKS;
            let end = (first + PART_CHUNKS).min(blob * BLOB_CHUNKS + of_blob);
            let start = (first - blob * BLOB_CHUNKS) * u64::from(CHUNK_BYTES);
            let pieces = (first..end)
                .map(|chunk| Piece::Chunk {
                    id: chunk_id(chunk, chunks),
                    len: CHUNK_BYTES,
                })
                .collect();
            filler
                .put(
                    key::recipe(blob + 1, part),
                    RecipePart { start, pieces }.encode(),
                )
                .await?;
            starts.push(start);
        }
        filler
            .put(
                key::recipe(blob + 1, key::RECIPE_STARTS),
                record::encode_numbers(&starts),
            )
            .await?;
    }
    for chunk in 0..chunks {
        let row = ChunkRecord {
            pack: PackId(chunk / PACK_CHUNKS + 1),
            offset: u32::try_from(chunk % PACK_CHUNKS)? * CHUNK_BYTES,
            stored_len: CHUNK_BYTES,
        };
        filler
            .put(key::chunk(&chunk_id(chunk, chunks)), row.encode())
            .await?;
    }
    for pack in 1..=packs {
        let row = PackRecord {
            state: PackState::Sealed,
            bytes: PACK_CHUNKS * u64::from(CHUNK_BYTES),
            entries: PACK_CHUNKS as u32,
        };
        filler.put(key::pack(PackId(pack)), row.encode()).await?;
    }
    filler
        .put(
            key::repository(repository.as_str()),
            RepositoryRecord { created_ms: 1 }.encode(),
        )
        .await?;
    filler
        .put(key::counter("pack"), record::encode_numbers(&[packs + 1]))
        .await?;
    filler
        .put(key::counter("recipe"), record::encode_numbers(&[blobs + 1]))
        .await?;
    filler.close().await
}

/// The ids spread evenly and grow with the number: a database filled in key order fills fast.
fn chunk_id(chunk: u64, chunks: u64) -> ChunkId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(u64::MAX / chunks * chunk).to_be_bytes());
    Rng::new(chunk).fill(&mut id[8..]);
    ChunkId(id)
}
