//! The registries under test: where their programs are, how they start, what their process uses.
//!
//! All of them listen on loopback without TLS and without access control, write to the same file system, and log errors only
//! where they can be told to. What each does before it acknowledges a push is in [`Kind::durability`].

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{http::Client, machine};

/// A start with millions of chunks may take this long before it counts as failed.
const START_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(30);
/// Between two looks at a server that starts or stops: far below the times reported.
const POLL: Duration = Duration::from_millis(2);

/// The registries that are compared.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Debian's docker-registry 2.8.2.
    Distribution2,
    /// CNCF distribution 3.1.1, which the ratios refer to.
    Distribution3,
    /// olareg 0.2.2.
    Olareg,
    /// This project's.
    Dvcr,
}

impl Kind {
    /// Name in tables and keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Distribution2 => "distribution 2.8.2",
            Kind::Distribution3 => "distribution 3.1.1",
            Kind::Olareg => "olareg 0.2.2",
            Kind::Dvcr => "dvcr",
        }
    }

    fn program_name(self) -> &'static str {
        match self {
            Kind::Distribution2 => "docker-registry",
            Kind::Distribution3 => "registry",
            Kind::Olareg => "olareg",
            Kind::Dvcr => "dvcr",
        }
    }

    /// What has reached the disk when a push is acknowledged (seen with strace).
    pub(crate) fn durability(self) -> &'static str {
        match self {
            Kind::Distribution2 => "fsync of every file (blob, links, tags); of no directory",
            Kind::Distribution3 => {
                "fsync of every file (blob, links, tags) and of the directories of manifests, links and tags; \
                 not of the one that the blob is moved to"
            }
            Kind::Olareg => "no fsync at all",
            Kind::Dvcr => "fdatasync of the pack, then a durable metadata transaction",
        }
    }

    fn ready_path(self) -> &'static str {
        match self {
            Kind::Dvcr => "/readyz",
            _ => "/v2/",
        }
    }
}

/// A registry's program, found and asked for its version.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    path: PathBuf,
    pub(crate) version: String,
    /// Further arguments and variables.
    arguments: Vec<&'static str>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Program {
    /// Looks in `tools`, then in the PATH's usual places; `dvcr` is the path of our own.
    ///
    /// # Errors
    /// It is nowhere, or does not start.
    pub(crate) fn find(kind: Kind, tools: &Path, dvcr: &Path) -> Result<Program> {
        let name = kind.program_name();
        let candidates = match kind {
            Kind::Dvcr => vec![dvcr.to_owned()],
            _ => vec![
                tools.join(name),
                Path::new("/usr/bin").join(name),
                Path::new("/usr/local/bin").join(name),
            ],
        };
        let path = candidates
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| match kind {
                Kind::Dvcr => format!("{} is not there: cargo build --release", dvcr.display()),
                _ => format!("{name} is not installed: tools/install.sh peers"),
            })?;
        let arg = if kind == Kind::Olareg {
            "version"
        } else {
            "--version"
        };
        let output = Command::new(&path)
            .arg(arg)
            .output()
            .with_context(|| format!("run {}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().next().unwrap_or_default();
        let version = line
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned();
        Ok(Program {
            kind,
            path,
            version,
            arguments: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// The same with further arguments and variables.
    pub(crate) fn with(
        &self,
        arguments: &[&'static str],
        environment: &[(&'static str, &'static str)],
    ) -> Program {
        Program {
            arguments: arguments.to_vec(),
            environment: environment.to_vec(),
            ..self.clone()
        }
    }

    /// Runs distribution's collector on the data of a server that does not run.
    pub(crate) fn garbage_collect(&self, home: &Path) -> Result<()> {
        let output = Command::new(&self.path)
            .args(["garbage-collect", "--delete-untagged"])
            .arg(home.join("config.yml"))
            .output()
            .context("run garbage-collect")?;
        ensure!(
            output.status.success(),
            "garbage-collect: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Starts it on `home/data`, which is kept if it is there, and waits until it is ready.
    pub(crate) fn start(&self, home: &Path) -> Result<Server> {
        let data = home.join("data");
        fs::create_dir_all(&data)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(home.join("log"))?;
        let mut command = self.command(home, &data, addr)?;
        command
            .args(&self.arguments)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let begin = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("start {}", self.path.display()))?;
        let mut server = Server {
            child,
            addr,
            home: home.to_owned(),
            program: self.clone(),
            ready_after: Duration::ZERO,
        };
        loop {
            let answer = Client::new(addr).simple("GET", self.kind.ready_path(), &[]);
            if answer.is_ok_and(|response| response.status == 200) {
                server.ready_after = begin.elapsed();
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!(
                    "{} ended at once ({status}): {}",
                    self.kind.name(),
                    server.last_words()
                );
            }
            ensure!(
                begin.elapsed() < START_MAX,
                "{} is not ready after {START_MAX:?}: {}",
                self.kind.name(),
                server.last_words()
            );
            thread::sleep(POLL);
        }
    }

    fn command(&self, home: &Path, data: &Path, addr: SocketAddr) -> Result<Command> {
        let mut command = Command::new(&self.path);
        match self.kind {
            Kind::Distribution2 | Kind::Distribution3 => {
                let config = home.join("config.yml");
                fs::write(&config, distribution_config(data, addr))?;
                command
                    .arg("serve")
                    .arg(config)
                    .env("OTEL_TRACES_EXPORTER", "none");
            }
            Kind::Olareg => {
                command.arg("serve").arg("--dir").arg(data);
                command.args([
                    "--addr",
                    &addr.ip().to_string(),
                    "--port",
                    &addr.port().to_string(),
                    "--api-delete",
                ]);
            }
            Kind::Dvcr => {
                command
                    .arg("serve")
                    .arg("--listen")
                    .arg(addr.to_string())
                    .arg("--data")
                    .arg(data);
                command.env("DVCR_LOG_FILTER", "warn");
            }
        }
        Ok(command)
    }
}

fn distribution_config(data: &Path, addr: SocketAddr) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
         http: {{addr: \"{addr}\", secret: benchmark}}\n",
        data.display()
    )
}

/// Memory of a server's process, in MiB.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) peak: f64,
}

/// A running registry; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    home: PathBuf,
    program: Program,
    /// From the start of the process to its first 200.
    pub(crate) ready_after: Duration,
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.addr)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.program.kind
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.child.id());
        let mib = |name| {
            machine::proc_kib(&path, name)
                .map(|kib| kib / 1024.0)
                .with_context(|| format!("{name} in {path}"))
        };
        Ok(Memory {
            resident: mib("VmRSS")?,
            peak: mib("VmHWM")?,
        })
    }

    /// Processor time used so far, user and system, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the program's name in parentheses and may hold spaces.
        let after = stat
            .rsplit_once(") ")
            .context("no name in /proc/PID/stat")?
            .1;
        let mut fields = after.split(' ').skip(11);
        let mut ticks = || {
            fields
                .next()
                .and_then(|f| f.parse::<f64>().ok())
                .context("short /proc/PID/stat")
        };
        let total = ticks()? + ticks()?;
        Ok(total / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Asks it to end (SIGTERM), waits, and kills it if it does not.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("SIGTERM")?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(
                begin.elapsed() < STOP_MAX,
                "{} ignores SIGTERM",
                self.program.kind.name()
            );
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Kills it as a power cut would (SIGKILL), and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it, runs `between`, and starts it on the same data.
    pub(crate) fn restart(self, between: impl FnOnce(&Path) -> Result<()>) -> Result<Server> {
        let (program, home) = (self.program.clone(), self.home.clone());
        self.stop()?;
        between(&home.join("data"))?;
        program.start(&home)
    }

    /// The end of its log, for error messages.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `stop`; then neither call does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that is removed when dropped, whatever happened in it.
pub(crate) struct Home(PathBuf);

impl Home {
    /// An empty directory for one registry's data under `dir`.
    pub(crate) fn new(dir: &Path, kind: Kind) -> Result<Home> {
        let path = dir.join(format!(
            "dvcr-bench-{}-{}",
            std::process::id(),
            kind.program_name()
        ));
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Home(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
