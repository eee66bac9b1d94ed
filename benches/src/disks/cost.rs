//! What a command took, by `wait4(2)`.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Result, ensure};

/// What one run took.
#[derive(Copy, Clone, Debug)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    pub(super) cpu_s: f64,
    /// What reached the file system.
    pub(super) written_mib: f64,
    /// The largest of the command's programs.
    pub(super) memory_mib: f64,
}

/// Runs a command to its end; what it and all that it waited for took.
///
/// # Errors
/// It cannot be started, or fails.
pub(super) fn measure(command: &mut Command) -> Result<Cost> {
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
