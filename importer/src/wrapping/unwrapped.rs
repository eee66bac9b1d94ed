//! Peels layer after layer off a stream.

use std::io::{self, Read};

use super::{
    Wrapping, WrappingError,
    bounds::{Bounded, Counter, Source},
    decoder::decoder,
    peek::Peek,
    tar,
};
use crate::format::DETECT_HEAD_BYTES;

/// Most layers: `disk.raw.xz` in a `.tar.gz` has three.
pub const WRAPPINGS_MAX: usize = 4;

/// The image inside a stream, as a stream.
///
/// Its errors are the source's own, or [`io::ErrorKind::InvalidData`] with a [`WrappingError`] inside.
pub struct Unwrapped {
    wrappings: Vec<Wrapping>,
    stream: Peek<Box<dyn Read + Send>>,
}

impl Unwrapped {
    /// Reads as much of `source` as tells what it is. More than `bytes_max` bytes out of any layer are an error.
    pub fn new(source: impl Read + Send + 'static, bytes_max: u64) -> Result<Self, WrappingError> {
        Self::choose(source, bytes_max, None)
    }

    /// The same; of the outermost archive the file of this name is taken.
    pub fn choose(
        source: impl Read + Send + 'static,
        bytes_max: u64,
        file: Option<&str>,
    ) -> Result<Self, WrappingError> {
        let stream = Self::peel(source, bytes_max, Archives::Opened { file })?;
        match file {
            Some(file) if !stream.wrappings.contains(&Wrapping::Tar) => Err(no_archive(file)),
            _ => Ok(stream),
        }
    }

    /// Takes off compression only: what is in an archive is left in it.
    pub(crate) fn decoded(
        source: impl Read + Send + 'static,
        bytes_max: u64,
    ) -> Result<Self, WrappingError> {
        Self::peel(source, bytes_max, Archives::Left)
    }

    fn peel(
        source: impl Read + Send + 'static,
        bytes_max: u64,
        mut archives: Archives<'_>,
    ) -> Result<Self, WrappingError> {
        let count = Counter::default();
        let source = Source {
            inner: source,
            count: count.clone(),
        };
        let mut wrappings = vec![];
        let mut stream = peek(Wrapping::Tar, Box::new(source))?;
        while let Some(wrapping) = Wrapping::detect(stream.head()) {
            if (wrapping, archives) == (Wrapping::Tar, Archives::Left) {
                break;
            }
            if wrappings.len() == WRAPPINGS_MAX {
                return Err(too_deep(wrapping));
            }
            wrappings.push(wrapping);
            let source = Box::new(stream);
            let inner = match decoder(wrapping, source) {
                Ok(Ok(decoder)) => decoder,
                Ok(Err(source)) => {
                    let opened = Archives::Opened { file: None };
                    let file = std::mem::replace(&mut archives, opened).file();
                    Box::new(tar::Disk::find(source, file)?)
                }
                Err(error) => return Err(WrappingError::from_io(wrapping, error)),
            };
            let bounded = Bounded {
                inner,
                wrapping,
                source: count.clone(),
                bytes_max,
                bytes: 0,
            };
            stream = peek(wrapping, Box::new(bounded))?;
        }
        Ok(Self { wrappings, stream })
    }

    /// The layers that were peeled off, outermost first.
    pub fn wrappings(&self) -> &[Wrapping] {
        &self.wrappings
    }

    /// The image's first [`DETECT_HEAD_BYTES`], or all of it: what [`format::detect`](crate::format::detect) wants to see.
    pub fn head(&self) -> &[u8] {
        self.stream.head()
    }
}

/// What becomes of archives.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Archives<'a> {
    /// They are what is wanted.
    Left,
    /// The disk in them is; of the first one, the file of this name.
    Opened { file: Option<&'a str> },
}

impl<'a> Archives<'a> {
    fn file(self) -> Option<&'a str> {
        match self {
            Self::Left => None,
            Self::Opened { file } => file,
        }
    }
}

/// It is wrapped once more than [`WRAPPINGS_MAX`] times.
pub(crate) fn too_deep(wrapping: Wrapping) -> WrappingError {
    let reason = format!("it is wrapped more than {WRAPPINGS_MAX} times; unpack it first");
    WrappingError::broken(wrapping, reason)
}

/// Somebody named a file of an archive that is none.
pub(crate) fn no_archive(file: &str) -> WrappingError {
    WrappingError::refused(format!(
        "a file {file} is wanted, but the source is no archive; leave out --file"
    ))
}

fn peek(
    wrapping: Wrapping,
    stream: Box<dyn Read + Send>,
) -> Result<Peek<Box<dyn Read + Send>>, WrappingError> {
    Peek::new(stream, DETECT_HEAD_BYTES).map_err(|error| WrappingError::from_io(wrapping, error))
}

impl Read for Unwrapped {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let innermost = self.wrappings.last().copied().unwrap_or(Wrapping::Tar);
            WrappingError::from_io(innermost, error).into()
        })
    }
}

impl std::fmt::Debug for Unwrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwrapped")
            .field("wrappings", &self.wrappings)
            .finish_non_exhaustive()
    }
}
