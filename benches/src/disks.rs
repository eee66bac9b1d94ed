//! Disks on their way: from a web server into a registry or to a raw file, from the registry to a raw file; by `dvcr-importer`, and by the copies,
//! scratch volumes and conversions that others make.

mod cost;
mod way;

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use self::{
    cost::{Cost, measure},
    way::{ROUTES, Route, Way},
};
use crate::{
    compare::Places,
    data::{Blob, Kind as Data, PIECE_BYTES},
    http::{Body, Sink},
    machine::{self, Machine},
    oci::{self, Upload},
    registry::{Home, Kind, Program, Server},
    report,
    stats::Summary,
};

/// Memory that an import or a populate may take: the budget of a pod.
const MEMORY_MIB_MAX: f64 = 256.0;
/// A populate from the registry must take at most this share of the wall time of the copying way.
const WALL_SHARE_MAX: f64 = 1.0 / 3.0;
/// The disk: runs of so many pieces with data, so many pieces apart.
const RUN_PIECES: u64 = 16;
const STRIDE_PIECES: u64 = 64;

/// Import and populate a disk, and compare with copying, unpacking and converting it.
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
    /// The report is <results>/<date>-disks.md.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    #[command(flatten)]
    places: Places,
}

/// What a run of a way took, and what the registry that it filled stores, in MiB.
type Run = (Cost, Option<f64>);

/// Measures, writes the report, and fails if ours breaks its budget.
///
/// # Errors
/// A program is missing or fails, a disk comes out wrong, or a budget is broken.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&options.places.dir)?;
    let bench = Bench::set_up(options)?;
    let mut text = bench.head(&machine, options);
    let mut broken = Vec::new();
    for route in &ROUTES {
        let runs = bench.take(route, options.runs as usize)?;
        let table = table(route, &runs);
        eprint!("{table}");
        text += &table;
        let memory = median(&runs[0], |(cost, _)| cost.memory_mib);
        if memory >= MEMORY_MIB_MAX {
            broken.push(format!("{}: {memory:.0} MiB of memory", route.title));
        }
        let share =
            median(&runs[0], |(cost, _)| cost.wall_s) / median(&runs[1], |(cost, _)| cost.wall_s);
        if route.ways[0].script.contains("$REFERENCE") && share > WALL_SHARE_MAX {
            broken.push(format!("{}: {share:.2} of the copying way", route.title));
        }
    }
    bench.server.stop()?;
    bench.web.stop()?;
    let path = report::write(&options.results, "disks", &text)?;
    println!("{}", path.display());
    ensure!(broken.is_empty(), "over budget: {}", broken.join("; "));
    Ok(())
}

/// The disk, where it lies, and who serves it.
struct Bench {
    importer: PathBuf,
    programs: [Program; 2],
    tools: PathBuf,
    disk: PathBuf,
    /// The disk as a compressed qcow2: its URL, its size.
    url: String,
    web_bytes: u64,
    /// The disk as an image: its name, the URL and digest of its layer, the layer's size.
    reference: String,
    layer: String,
    hex: String,
    layer_bytes: u64,
    server: Server,
    web: Server,
    home: Home,
    _web_home: Home,
}

impl Bench {
    fn set_up(options: &Options) -> Result<Bench> {
        let places = &options.places;
        let beside =
            || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("dvcr-importer"));
        let importer = options.importer.clone().map_or_else(beside, Ok)?;
        ensure!(
            importer.is_file(),
            "{} is not there: cargo build --release",
            importer.display()
        );
        let programs = [
            places.program(Kind::Dvcr)?,
            places.program(Kind::Distribution3)?,
        ];
        let home = Home::new(&places.dir, Kind::Dvcr)?;
        let web_home = Home::new(&places.dir, Kind::Distribution3)?;
        let server = programs[0].start(home.path())?;
        let web = programs[1].start(web_home.path())?;

        let disk = home.path().join("disk.raw");
        write_disk(&disk, options.data_mib)?;
        let packed = home.path().join("disk.qcow2");
        let args = ["convert", "-c", "-W", "-m", "4", "-O", "qcow2"];
        succeed(Command::new("qemu-img").args(args).args([&disk, &packed]))?;
        let blob = Blob::of(fs::read(&packed)?);
        fs::remove_file(&packed)?;
        oci::push_blob(
            &mut web.client(),
            "bench/web",
            &blob.digest,
            Body::Slices(&[&blob.bytes]),
            Upload::Monolith,
        )?;
        let reference = format!("{}/bench/disk:1", server.addr);
        succeed(
            Command::new(&importer)
                .args(["import", "--json"])
                .arg(&disk)
                .arg(&reference),
        )?;

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
        Ok(Bench {
            tools: places.tools()?,
            url: format!("http://{}/v2/bench/web/blobs/{}", web.addr, blob.digest),
            web_bytes: blob.len(),
            layer: format!("http://{}/v2/bench/disk/blobs/{digest}", server.addr),
            hex: hex.to_owned(),
            layer_bytes: layer["size"].as_u64().context("the layer has a size")?,
            importer,
            programs,
            disk,
            reference,
            server,
            web,
            home,
            _web_home: web_home,
        })
    }

    /// All ways of a route, in turn.
    fn take(&self, route: &Route, runs: usize) -> Result<Vec<Vec<Run>>> {
        let ways = route.ways.len();
        let mut taken = vec![Vec::new(); ways];
        for turn in 0..runs {
            for place in 0..ways {
                let number = (turn + place) % ways;
                let way = &route.ways[number];
                taken[number].push(self.go(way, turn == 0).with_context(|| way.name)?);
            }
        }
        Ok(taken)
    }

    fn go(&self, way: &Way, check: bool) -> Result<Run> {
        let place = |name| self.home.path().join(name);
        let (out, scratch, fresh) = (place("out.raw"), place("scratch"), place("fresh"));
        fs::create_dir_all(&scratch)?;
        let filled = match self
            .programs
            .iter()
            .find(|program| Some(program.kind) == way.fills)
        {
            Some(program) => {
                fs::create_dir_all(&fresh)?;
                Some(program.start(&fresh)?)
            }
            None => None,
        };
        let registry = filled.as_ref().map(|server| server.addr.to_string());
        let mut path = self.tools.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        machine::settle();
        let mut cost = measure(
            Command::new("bash")
                .args(["-eo", "pipefail", "-c", way.script])
                .env("PATH", path)
                .env("REGISTRY", registry.as_deref().unwrap_or_default())
                .env("URL", &self.url)
                .env("REFERENCE", &self.reference)
                .env("LAYER", &self.layer)
                .env("HEX", &self.hex)
                .env("OUT", &out)
                .env("SCRATCH", &scratch)
                .env("IMPORTER", &self.importer),
        )?;
        let mut stored = None;
        if let Some(server) = filled {
            cost.cpu_s += server.cpu_seconds()?;
            if check && way.fills == Some(Kind::Dvcr) {
                let image = format!("{}/bench/disk:1", server.addr);
                succeed(
                    Command::new(&self.importer)
                        .args(["populate", &image])
                        .arg(&out),
                )?;
            }
            let data = server.data_dir();
            server.stop()?;
            machine::settle();
            stored = Some(machine::disk_usage(&data)? as f64 / f64::from(1 << 20));
            fs::remove_dir_all(&fresh)?;
        }
        if out.exists() {
            if check {
                let args = ["compare", "-q", "-f", "raw", "-F", "raw"];
                succeed(Command::new("qemu-img").args(args).args([&out, &self.disk]))?;
            }
            fs::remove_file(&out)?;
        }
        fs::remove_dir_all(&scratch)?;
        Ok((cost, stored))
    }

    fn head(&self, machine: &Machine, options: &Options) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut text = format!(
            "# Import and populate, {}\n\n{}",
            machine::today(),
            report::machine_list(machine)
        );
        let _ = writeln!(
            text,
            "- dvcr {}, distribution {}. A disk of {} MiB with {} MiB of disk-like data in runs of {RUN_PIECES} MiB. On the web server (distribution's, \
             which serves a blob as the file that it is) it is a compressed qcow2 of {:.0} MiB, in our registry a layer of {:.0} MiB; raw files are new.\n\
             - {} runs of each way, in turn; median, least and most. Processor time and memory are those of the programs, without the servers they \
             read from; memory is the largest of a way's programs. Written counts what the programs wrote, scratch included. Every target was synced, and \
             compared with the disk in the first turn.",
            self.programs[0].version,
            self.programs[1].version,
            4 * options.data_mib,
            options.data_mib,
            mib(self.web_bytes),
            mib(self.layer_bytes),
            options.runs
        );
        text
    }
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

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

type Field = fn(&Run) -> f64;

/// Columns: name, figure.
const FIELDS: [(&str, Field); 5] = [
    ("wall, s", |(cost, _)| cost.wall_s),
    ("processor, s", |(cost, _)| cost.cpu_s),
    ("written, MiB", |(cost, _)| cost.written_mib),
    ("peak memory, MiB", |(cost, _)| cost.memory_mib),
    ("registry stores, MiB", |(_, stored)| {
        stored.unwrap_or_default()
    }),
];

fn summary(runs: &[Run], field: Field) -> Summary {
    let samples: Vec<_> = runs.iter().map(field).collect();
    Summary::of(&samples).expect("each way was taken")
}

fn median(runs: &[Run], field: Field) -> f64 {
    summary(runs, field).p50
}

fn table(route: &Route, runs: &[Vec<Run>]) -> String {
    let stored = usize::from(route.ways[0].fills.is_some());
    let fields = &FIELDS[..FIELDS.len() - 1 + stored];
    let mut text = format!("\n## {}\n\n", route.title);
    if !route.note.is_empty() {
        let _ = writeln!(text, "{}\n", route.note);
    }
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    let rule = "---|".repeat(fields.len() + 1);
    let _ = writeln!(text, "| way | {} |\n|{rule}", names.join(" | "));
    for (way, runs) in route.ways.iter().zip(runs) {
        let _ = write!(text, "| {} |", way.name);
        for (_, field) in fields {
            let Summary { p50, min, max, .. } = summary(runs, *field);
            let _ = write!(text, " {p50:.1} ({min:.1}-{max:.1}) |");
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "\nHow many times more than ours:\n\n| way | {} |\n|{rule}",
        names.join(" | ")
    );
    for (way, others) in route.ways.iter().zip(runs).skip(1) {
        let _ = write!(text, "| {} |", way.name);
        for (_, field) in fields {
            let ratio = median(others, *field) / median(&runs[0], *field);
            let _ = write!(text, " {ratio:.2} |");
        }
        text.push('\n');
    }
    text
}
