//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that are no connections: up to 512 packs kept open for reading, those being written, the database, checkpoints, the log.
const OWN_FILES: u64 = 768;

/// Raises the limit as far as the process may, and tells how many connections fit beside the registry's own files. More of them
/// would leave it without files to write to: most shells and service managers begin with 1,024, for programs that use `select`.
pub(super) fn connections(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current, limit.maximum);
    limit.current = hard;
    let files = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let fitting = fitting(wanted, files);
    if fitting < wanted {
        tracing::warn!(
            limits.connections = wanted,
            open_files = files,
            "only {fitting} connections fit into the limit of open files: raise it (ulimit -Hn, LimitNOFILE=)"
        );
    }
    fitting
}

/// `files` is `None` where there is no limit.
fn fitting(wanted: usize, files: Option<u64>) -> usize {
    let Some(files) = files else {
        return wanted;
    };
    let free = files.saturating_sub(OWN_FILES).max(files / 4);
    wanted
        .min(usize::try_from(free).unwrap_or(usize::MAX))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_registry() {
        for (wanted, files, expected) in [
            (4096, None, 4096),
            (4096, Some(1 << 20), 4096),
            (4096, Some(4096), 3328),
            (4096, Some(1024), 256),
            (4096, Some(256), 64),
            (10, Some(1024), 10),
            (10, Some(0), 1),
        ] {
            assert_eq!(fitting(wanted, files), expected, "{wanted} {files:?}");
        }
    }
}
