//! Where commands keep what does not fit into memory.

use std::{env, path::PathBuf};

use clap::Args;
use dvcr_importer::import::WORK_BYTES_MAX;

use super::size::parse_size;

/// What our directory is called where it is beside others'.
const NAME: &str = "dvcr-importer";

/// A directory for what has to be kept for a while.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct WorkArgs {
    /// Directory of temporary files, and of what was received, so that the same command goes on after a failure [default:
    /// dvcr-importer in the user's cache directory]
    #[arg(long, value_name = "DIR", env = "DVCR_WORK_DIR")]
    pub(crate) work_dir: Option<PathBuf>,

    /// Most bytes that a command has in there [default: 256Gi]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) work_max: Option<u64>,

    /// In a pod. There nothing is kept unless somebody says where, and the root file system may be read-only, but for an emptyDir
    /// where temporary files usually are.
    #[arg(skip)]
    pub(crate) pod: bool,
}

impl WorkArgs {
    /// The directory, which need not be there.
    pub(crate) fn dir(&self) -> PathBuf {
        match (&self.work_dir, self.pod) {
            (Some(dir), _) => dir.clone(),
            (None, true) => env::temp_dir().join(NAME),
            (None, false) => default_dir(),
        }
    }

    /// Where a later try finds what this one has, if anywhere.
    pub(crate) fn keep_dir(&self) -> Option<PathBuf> {
        (self.work_dir.is_some() || !self.pod).then(|| self.dir())
    }

    /// Most bytes in there.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.work_max.unwrap_or(WORK_BYTES_MAX)
    }
}

/// Not /tmp, which may be memory, and is not there after a restart.
fn default_dir() -> PathBuf {
    let dir = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    dir("XDG_CACHE_HOME")
        .or_else(|| Some(dir("HOME")?.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join(NAME)
}
