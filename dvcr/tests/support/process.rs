//! Child processes with a time limit, killed with everything they started.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How often a child is asked whether it has ended: a bounded wait for a condition of another process, not a guess.
const POLL: Duration = Duration::from_millis(20);

/// A child in a process group of its own; the whole group is killed when this is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: File,
}

/// What a child left.
pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    /// Standard error, and standard output where it is text: for messages.
    pub(crate) log: String,
}

impl Process {
    /// Starts a program whose output goes to one log.
    pub(crate) fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = tempfile::tempfile().expect("a temporary file");
        let clone = || Stdio::from(output.try_clone().expect("another handle of the log"));
        command
            .stdin(Stdio::null())
            .stdout(clone())
            .stderr(clone())
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self {
            name,
            child,
            output,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far.
    pub(crate) fn log(&self) -> String {
        read_all(&self.output)
    }

    /// Waits until `condition` gives a value; panics with the log when the process ends first or time is up.
    pub(crate) fn wait_for<T>(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            let ended = self
                .child
                .try_wait()
                .expect("the state of a child")
                .is_some();
            if ended || Instant::now() > deadline {
                let what = if ended {
                    "ended"
                } else {
                    "is not ready in time"
                };
                panic!("{} {what}:\n{}", self.name, self.log());
            }
            thread::sleep(POLL);
        }
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the state of a child")
            .is_some()
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for the end and tells whether it was a success.
    pub(crate) fn wait(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the state of a child") {
                return status.success();
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {limit:?}:\n{}",
                self.name,
                self.log()
            );
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_group(&mut self.child);
    }
}

fn kill_group(child: &mut Child) {
    // An unreaped child keeps its process id, so this cannot hit a stranger.
    if let Some(pid) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

fn read_all(file: &File) -> String {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 64 << 10]);
    // The child writes through a clone of this handle, which shares its position: that must not move.
    while let Ok(len @ 1..) = file.read_at(&mut part, bytes.len() as u64) {
        bytes.extend_from_slice(&part[..len]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a program to its end, killing it and all it started after `limit`.
pub(crate) fn run(mut command: Command, limit: Duration) -> Finished {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let stderr = tempfile::tempfile().expect("a temporary file");
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("another handle of the log"))
        .stderr(stderr.try_clone().expect("another handle of the log"))
        .process_group(0);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("start {name}: {error}"));
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait().expect("the state of a child") {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                kill_group(&mut child);
                break None;
            }
            None => thread::sleep(POLL),
        }
    };
    let mut bytes = Vec::new();
    stdout
        .seek(SeekFrom::Start(0))
        .and_then(|_| stdout.read_to_end(&mut bytes))
        .expect("the output of a child");
    let mut log = read_all(&stderr);
    if let Ok(text) = std::str::from_utf8(&bytes) {
        log.push_str(text);
    }
    if status.is_none() {
        log.push_str(&format!(
            "\n({name} did not end within {limit:?} and was killed)"
        ));
    }
    Finished {
        success: status.is_some_and(|status| status.success()),
        stdout: bytes,
        log,
    }
}

/// Where a program is: in the tool cache that `tools/install.sh` fills, in PATH, or where administrators' programs live.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("DVCR_TOOLS_DIR")
        .map(PathBuf::from)
        .or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let base = base.or_else(|| {
                std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"))
            });
            base.map(|base| base.join("dvcr-tools"))
        });
    let path = std::env::var_os("PATH").unwrap_or_default();
    cache
        .map(|cache| cache.join("bin"))
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// A command for a tool of `tools/install.sh`; panics with what to do when it is missing.
pub(crate) fn tool(program: &str) -> Command {
    match find(program) {
        Some(path) => Command::new(path),
        None => panic!("{program} is not installed: run tools/install.sh clients"),
    }
}

/// `program` with `arguments`, ready to run.
pub(crate) fn tool_with<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = tool(program);
    command.args(arguments);
    command
}
