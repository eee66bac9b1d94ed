//! What is wrong with settings.

use std::{fmt, ops::RangeInclusive, path::PathBuf};

use super::layers::FILE_BYTES_MAX;

/// Why there are no usable settings. The text says where, and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("read settings file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is too long to be one.
    #[error("settings file {} is longer than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// The file is not TOML, or has an unknown key or a value of the wrong kind.
    #[error("settings file {}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line and column, and what is wrong there.
        message: String,
    },
    /// A variable or flag cannot be used.
    #[error("{source_name}: {message}")]
    Override {
        /// The variable or flag.
        source_name: String,
        /// What is wrong with it.
        message: String,
    },
    /// Values that cannot work, each in one line.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// All that is wrong with some settings.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    /// Adds a fault.
    pub(super) fn tell(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }

    /// Adds faults.
    pub(super) fn extend(&mut self, faults: impl IntoIterator<Item = String>) {
        self.0.extend(faults);
    }

    /// Adds a fault where a value is out of bounds.
    pub(super) fn bound<T: PartialOrd + fmt::Display>(
        &mut self,
        key: &str,
        found: T,
        bounds: RangeInclusive<T>,
    ) {
        if !bounds.contains(&found) {
            let (min, max) = bounds.into_inner();
            self.tell(format!("{key} is {found}, but must be {min} to {max}"));
        }
    }

    /// An error if there is a fault.
    pub(super) fn end(self) -> Result<(), SettingsError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(SettingsError::Invalid(self.0))
        }
    }
}
