//! Populating a volume from a registry, beside the ways that others take: a copy of the layer, an archive unpacked into a scratch
//! volume, `qemu-img convert`.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::{fs::FileExt, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    compare::Places,
    data::{Kind as Data, PIECE_BYTES},
    http::{Body, Sink},
    machine::{self, Machine},
    registry::{Home, Kind},
    report,
    stats::Summary,
};

/// Memory that a populate may take: the budget of a pod.
const MEMORY_MIB_MAX: f64 = 256.0;
/// Ours must take at most this share of the wall time of the copying way.
const WALL_SHARE_MAX: f64 = 1.0 / 3.0;
/// The disk: runs of so many pieces with data, so many pieces apart.
const RUN_PIECES: u64 = 16;
const STRIDE_PIECES: u64 = 64;

/// Write a disk from this registry to a file and compare with copying, unpacking and converting it.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The program under test [default: dvcr-importer beside this one].
    #[arg(long)]
    importer: Option<PathBuf>,
    /// MiB of data on the disk, which is four times as long.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    data_mib: u64,
    /// How often each way is taken; they take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// The report is <results>/<date>-populate.md.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// A way from the registry to a raw file.
struct Way {
    name: &'static str,
    /// A shell script; `$REFERENCE`, `$LAYER` (its URL), `$HEX` (its digest), `$OUT`, `$SCRATCH` and `$IMPORTER` are set.
    script: &'static str,
}

/// Ours, then the ones it is held against. Each ends with its target durable.
const WAYS: [Way; 3] = [
    Way {
        name: "dvcr-importer populate",
        script: "exec \"$IMPORTER\" populate \"$REFERENCE\" \"$OUT\"",
    },
    Way {
        name: "skopeo copy, tar, qemu-img convert",
        script: "skopeo --insecure-policy copy -q --src-tls-verify=false docker://$REFERENCE dir:$SCRATCH/copy && \
                 zstd -q -dc $SCRATCH/copy/$HEX | tar -x -C $SCRATCH && \
                 qemu-img convert -O raw $SCRATCH/disk/disk.qcow2 $OUT && sync $OUT",
    },
    Way {
        name: "stream into scratch, qemu-img convert (CDI's way)",
        script: "curl -sf $LAYER | zstd -q -dc | tar -x -C $SCRATCH && \
                 qemu-img convert -O raw $SCRATCH/disk/disk.qcow2 $OUT && sync $OUT",
    },
];

/// What one run took.
#[derive(Copy, Clone, Debug)]
struct Cost {
    wall_s: f64,
    cpu_s: f64,
    written_mib: f64,
    memory_mib: f64,
}

/// Measures, writes the report, and fails if ours breaks its budget.
///
/// # Errors
/// A program is missing or fails, a disk comes out wrong, or a budget is broken.
pub(crate) fn run(options: &Options) -> Result<()> {
    let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("dvcr-importer"));
    let importer = options.importer.clone().map_or_else(beside, Ok)?;
    ensure!(
        importer.is_file(),
        "{} is not there: cargo build --release",
        importer.display()
    );
    let program = options.places.program(Kind::Dvcr)?;
    let machine = Machine::describe(&options.places.dir)?;
    let home = Home::new(&options.places.dir, Kind::Dvcr)?;
    let server = program.start(home.path())?;
    let disk = home.path().join("disk.raw");
    write_disk(&disk, options.data_mib)?;
    let reference = format!("{}/bench/disk:1", server.addr);
    let import = Command::new(&importer)
        .args(["import", "--json"])
        .arg(&disk)
        .arg(&reference)
        .stdout(Stdio::null())
        .status()?;
    ensure!(import.success(), "the import failed");

    let mut manifest = Vec::new();
    server
        .client()
        .request(
            "GET",
            "/v2/bench/disk/manifests/1",
            &[],
            Body::None,
            Sink::Collect(&mut manifest),
        )?
        .expect(200, "the manifest of the image")?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
    let layer = &manifest["layers"][0];
    let digest = layer["digest"].as_str().context("the image has a layer")?;
    let hex = digest.strip_prefix("sha256:").context("a SHA-256")?;
    let url = format!("http://{}/v2/bench/disk/blobs/{digest}", server.addr);
    let (out, scratch) = (home.path().join("out.raw"), home.path().join("scratch"));

    let mut costs = WAYS.map(|_| Vec::new());
    for turn in 0..options.runs as usize {
        for place in 0..WAYS.len() {
            let number = (turn + place) % WAYS.len();
            fs::create_dir_all(&scratch)?;
            machine::settle();
            let mut command = Command::new("bash");
            command
                .args(["-eo", "pipefail", "-c", WAYS[number].script])
                .env("REFERENCE", &reference)
                .env("LAYER", &url)
                .env("HEX", hex)
                .env("OUT", &out)
                .env("SCRATCH", &scratch)
                .env("IMPORTER", &importer);
            let cost = measure(&mut command).with_context(|| WAYS[number].name)?;
            costs[number].push(cost);
            if turn == 0 {
                let args = ["compare", "-q", "-f", "raw", "-F", "raw"];
                let same = Command::new("qemu-img")
                    .args(args)
                    .args([&out, &disk])
                    .status()?;
                ensure!(
                    same.success(),
                    "{}: another disk came out",
                    WAYS[number].name
                );
            }
            fs::remove_file(&out)?;
            fs::remove_dir_all(&scratch)?;
        }
    }
    server.stop()?;
    let size = layer["size"].as_u64().unwrap_or(0);
    let text = text(&machine, &program.version, options, size, &costs);
    let path = report::write(&options.results, "populate", &text)?;
    println!("{}", path.display());

    let median = |way: &[Cost], field: fn(&Cost) -> f64| summary(way, field).p50;
    let share = median(&costs[0], |c| c.wall_s) / median(&costs[1], |c| c.wall_s);
    let memory = median(&costs[0], |c| c.memory_mib);
    ensure!(
        memory < MEMORY_MIB_MAX,
        "a populate took {memory:.0} MiB, not less than {MEMORY_MIB_MAX}"
    );
    ensure!(
        share <= WALL_SHARE_MAX,
        "a populate took {share:.2} of the time of copying and converting, more than {WALL_SHARE_MAX:.2}"
    );
    Ok(())
}

fn write_disk(path: &Path, data_mib: u64) -> Result<()> {
    let file = File::create(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let place = |number: u64| number / RUN_PIECES * STRIDE_PIECES + number % RUN_PIECES;
    for number in 0..data_mib {
        Data::Disk.fill(1, number, &mut piece);
        file.write_all_at(&piece, place(number) * PIECE_BYTES as u64)?;
    }
    file.set_len(place(data_mib).next_multiple_of(STRIDE_PIECES) * PIECE_BYTES as u64)?;
    file.sync_all()?;
    Ok(())
}

/// Runs a command to its end; what it and all that it waited for took.
fn measure(command: &mut Command) -> Result<Cost> {
    let begin = Instant::now();
    // A group of its own, so that a Ctrl-C does not leave half of a pipeline.
    let child = command.stdout(Stdio::null()).process_group(0).spawn()?;
    let (status, usage) = wait(child.id())?;
    let wall_s = begin.elapsed().as_secs_f64();
    ensure!(status == 0, "it ended with status {status:#x}");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Cost {
        wall_s,
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        // In blocks of 512 bytes (getrusage(2), Linux).
        written_mib: usage.ru_oublock as f64 * 512.0 / f64::from(1 << 20),
        memory_mib: usage.ru_maxrss as f64 / 1024.0,
    })
}

/// The standard library's wait does not tell what a child used.
fn wait(pid: u32) -> Result<(libc::c_int, libc::rusage)> {
    let mut status = 0;
    // SAFETY: all zeros are a valid rusage: it consists of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the right types; the child is ours and nobody else waits for it.
        let found = unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage) };
        if found >= 0 {
            return Ok((status, usage));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
}

fn summary(way: &[Cost], field: fn(&Cost) -> f64) -> Summary {
    let samples: Vec<_> = way.iter().map(field).collect();
    Summary::of(&samples).expect("each way was taken")
}

type Field = fn(&Cost) -> f64;

fn text(
    machine: &Machine,
    version: &str,
    options: &Options,
    layer_bytes: u64,
    costs: &[Vec<Cost>],
) -> String {
    let mut text = format!(
        "# From the registry to a raw file, {}\n\n",
        machine::today()
    );
    text += &report::machine_list(machine);
    let _ = writeln!(
        text,
        "- dvcr {version}; a disk of {} MiB with {} MiB of disk-like data in runs of {RUN_PIECES} MiB, a layer of {:.0} MiB, written to a new file.\n\
         - {} runs of each way, in turn; median, least and most. Processor time and memory are those of the programs, without the server's; \
         memory is the largest of a way's programs. Written counts what reached the file system, scratch included. Every target was synced, \
         and compared with the disk in the first turn.\n",
        4 * options.data_mib,
        options.data_mib,
        layer_bytes as f64 / f64::from(1 << 20),
        options.runs
    );
    text += "| way | wall, s | processor, s | written, MiB | peak memory, MiB |\n|---|---|---|---|---|\n";
    let fields: [Field; 4] = [
        |c| c.wall_s,
        |c| c.cpu_s,
        |c| c.written_mib,
        |c| c.memory_mib,
    ];
    for (way, costs) in WAYS.iter().zip(costs) {
        let _ = write!(text, "| {} |", way.name);
        for field in fields {
            let Summary { p50, min, max, .. } = summary(costs, field);
            let _ = write!(text, " {p50:.1} ({min:.1}-{max:.1}) |");
        }
        text.push('\n');
    }
    text += "\nHow many times more than ours:\n\n| way | wall | processor | written | peak memory |\n|---|---|---|---|---|\n";
    for (way, others) in WAYS.iter().zip(costs).skip(1) {
        let _ = write!(text, "| {} |", way.name);
        for field in fields {
            let ratio = summary(others, field).p50 / summary(&costs[0], field).p50;
            let _ = write!(text, " {ratio:.2} |");
        }
        text.push('\n');
    }
    text
}
