//! What a path stands for.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use super::TargetError;

/// Name of the disk in a volume, as KubeVirt looks for it.
const VOLUME_FILE: &str = "disk.img";

/// Where a disk is to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A file, whether or not it is there.
    File(PathBuf),
    /// A block device.
    Device(PathBuf),
}

impl Place {
    /// A block device is one, a directory is a volume and means `disk.img` in it, anything else is a file. Of a symbolic link what it
    /// leads to counts: that is written, measured and removed, never the link.
    pub fn of(path: &Path) -> Result<Self, TargetError> {
        let place = Self::as_named(path)?;
        let Self::File(path) = &place else {
            return Ok(place);
        };
        if !path.is_symlink() {
            return Ok(place);
        }
        match fs::canonicalize(path) {
            Ok(resolved) => Self::as_named(&resolved),
            Err(source) => Err(TargetError::Io {
                what: "follow the symbolic link",
                path: path.clone(),
                source,
            }),
        }
    }

    fn as_named(path: &Path) -> Result<Self, TargetError> {
        let unfit = |reason| TargetError::Unfit {
            path: path.to_owned(),
            reason,
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::File(path.join(VOLUME_FILE))),
            Ok(metadata) if metadata.file_type().is_block_device() => {
                Ok(Self::Device(path.to_owned()))
            }
            Ok(metadata) if metadata.is_file() => Ok(Self::File(path.to_owned())),
            Ok(_) => Err(unfit("neither a file, nor a directory, nor a block device")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.starts_with("/dev") {
                    return Err(unfit("there is no such device"));
                }
                Ok(Self::File(path.to_owned()))
            }
            Err(source) => Err(TargetError::Io {
                what: "look at",
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// The path of the file or device itself.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Device(path) => path,
        }
    }
}
