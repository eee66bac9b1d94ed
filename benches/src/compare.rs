//! The comparison: groups of rows, each on every registry in turn, several times over.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{
    data::Kind as Data,
    machine::Machine,
    registry::{Home, Kind, Program},
    report::{self, Facts},
    row::Recorder,
    rows::{memory::Memory, small::Small, stored, stream::Stream, tags, zb::Zb},
};

/// Rows that are measured on one server, in a fixed order.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// One stream of random bytes.
    Incompressible,
    /// One stream of disk-like bytes.
    Disk,
    /// What zot's benchmark measures.
    Zb,
    /// Small images.
    Small,
    /// Memory at rest and under load.
    Memory,
    /// Tag lists.
    Tags,
    /// Disk space of the builds given with --disk.
    Stored,
}

/// Compare registries, row by row, in one run.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// A tenth of everything, once: does it run, and roughly how fast?
    #[arg(long)]
    quick: bool,
    /// Groups of rows to measure [default: all].
    #[arg(long, value_enum, num_args = 1..)]
    only: Vec<Group>,
    /// Registries to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "dvcr,distribution3,distribution2,olareg"
    )]
    registries: Vec<Kind>,
    /// How often each group runs on each registry [default: 3, quick: 1].
    #[arg(long)]
    repetitions: Option<usize>,
    /// Raw disk images, in the order in which they are pushed, for the group "stored"; benches/disks.sh makes some.
    #[arg(long, num_args = 1..)]
    disk: Vec<PathBuf>,
    /// The report is <results>/<date>-<name>.md.
    #[arg(long, default_value = "compare")]
    name: String,
    /// Where the report goes.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    #[command(flatten)]
    pub(crate) places: Places,
}

/// Where programs and data are.
#[derive(clap::Args, Debug)]
pub(crate) struct Places {
    /// Our own program [default: dvcr beside this one].
    #[arg(long)]
    dvcr: Option<PathBuf>,
    /// Where tools/install.sh put the peers [default: ~/.cache/dvcr-tools/bin].
    #[arg(long)]
    tools: Option<PathBuf>,
    /// Where the registries keep their data while they run; must not be a tmpfs if durability is to cost what it costs.
    #[arg(long, default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
}

impl Places {
    /// Finds the program of a registry.
    ///
    /// # Errors
    /// It is not installed.
    pub(crate) fn program(&self, kind: Kind) -> Result<Program> {
        let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("dvcr"));
        let dvcr = self.dvcr.clone().map_or_else(beside, Ok)?;
        Program::find(kind, &self.tools()?, &dvcr)
    }

    /// Where tools/install.sh puts programs.
    ///
    /// # Errors
    /// It was not said, and there is no home directory.
    pub(crate) fn tools(&self) -> Result<PathBuf> {
        let home =
            || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/dvcr-tools/bin"));
        self.tools
            .clone()
            .or_else(home)
            .context("--tools is needed where HOME is not set")
    }
}

/// Amounts of a full run and of a quick one.
struct Scale {
    stream_mib: usize,
    ranges: usize,
    zb_divisor: usize,
    images: usize,
    tags: usize,
}

const FULL: Scale = Scale {
    stream_mib: 1024,
    ranges: 2000,
    zb_divisor: 1,
    images: 10_000,
    tags: 100_000,
};
const QUICK: Scale = Scale {
    stream_mib: 256,
    ranges: 200,
    zb_divisor: 10,
    images: 1_000,
    tags: 2_000,
};

/// Runs the comparison and writes the report.
///
/// # Errors
/// A program is missing, or ours failed in some row: the report is written even so.
pub(crate) fn run(options: &Options) -> Result<()> {
    let programs = options
        .registries
        .iter()
        .map(|&kind| options.places.program(kind))
        .collect::<Result<Vec<_>>>()?;
    let scale = if options.quick { &QUICK } else { &FULL };
    let all = [
        Group::Incompressible,
        Group::Disk,
        Group::Zb,
        Group::Small,
        Group::Memory,
        Group::Tags,
        Group::Stored,
    ];
    let groups: Vec<_> = all
        .into_iter()
        .filter(|group| options.only.is_empty() || options.only.contains(group))
        .collect();
    ensure!(
        !groups.contains(&Group::Stored) || !options.disk.is_empty(),
        "the group \"stored\" needs --disk FILE... (benches/disks.sh makes some); or choose other groups with --only"
    );
    let machine = Machine::describe(&options.places.dir)?;
    let repetitions = options
        .repetitions
        .unwrap_or(if options.quick { 1 } else { 3 });
    let mut runner = Runner {
        programs: &programs,
        dir: &options.places.dir,
        repetitions,
        recorder: Recorder::default(),
    };
    for group in &groups {
        match group {
            Group::Incompressible | Group::Disk => {
                let data = if *group == Group::Disk {
                    Data::Disk
                } else {
                    Data::Incompressible
                };
                let stream = Stream::new(data, scale.stream_mib, scale.ranges);
                runner.group(*group, |program, home, recorder| {
                    stream.run(program, home, recorder)
                });
            }
            Group::Zb => {
                let zb = Zb::new(scale.zb_divisor);
                runner.group(*group, |program, home, recorder| {
                    zb.run(program, home, recorder)
                });
            }
            Group::Small => {
                let small = Small::new(scale.images);
                runner.group(*group, |program, home, recorder| {
                    small.run(program, home, recorder)
                });
            }
            Group::Memory => {
                let memory = Memory::new(scale.stream_mib as u64);
                runner.group(*group, |program, home, recorder| {
                    memory.run(program, home, recorder)
                });
            }
            Group::Tags => {
                // Making the tags takes most of the time, and the lists are timed many times over: once is enough.
                let repetitions = std::mem::replace(&mut runner.repetitions, 1);
                runner.group(*group, |program, home, recorder| {
                    tags::run(scale.tags, program, home, recorder)
                });
                runner.repetitions = repetitions;
            }
            Group::Stored => {
                // Exact, so once.
                let repetitions = std::mem::replace(&mut runner.repetitions, 1);
                runner.group(*group, |program, home, recorder| {
                    stored::run(&options.disk, program, home, recorder)
                });
                runner.repetitions = repetitions;
            }
        }
    }
    let lines = runner.recorder.lines;
    let facts = Facts {
        machine: &machine,
        programs: &programs,
        repetitions,
        quick: options.quick,
    };
    let path = report::write(
        &options.results,
        &options.name,
        &report::comparison(&facts, &lines),
    )?;
    println!("{}", path.display());
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line.failures.iter().any(|(kind, _)| *kind == Kind::Dvcr))
        .map(|line| line.row.name.as_str())
        .collect();
    ensure!(failed.is_empty(), "dvcr failed in: {}", failed.join("; "));
    Ok(())
}

struct Runner<'a> {
    programs: &'a [Program],
    dir: &'a Path,
    repetitions: usize,
    recorder: Recorder,
}

impl Runner<'_> {
    /// A, B, C, then B, C, A, ...: whatever else the machine does meets every registry, and nobody is always the first.
    fn group(&mut self, group: Group, run: impl Fn(&Program, &Path, &mut Recorder) -> Result<()>) {
        for repetition in 0..self.repetitions {
            let mut programs: Vec<_> = self.programs.iter().collect();
            programs.rotate_left(repetition % self.programs.len());
            for program in programs {
                let outcome = Home::new(self.dir, program.kind)
                    .and_then(|home| run(program, home.path(), &mut self.recorder));
                if let Err(error) = outcome {
                    self.recorder
                        .fail(&format!("{group:?}"), program.kind, error);
                }
            }
        }
    }
}
