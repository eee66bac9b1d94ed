//! From a source to the disk in it, whatever it is wrapped in.
//!
//! An image that lies in the source as it is, or in an archive that is not compressed, is read where it lies. What comes out
//! of a decoder can be read only once, from start to end, and goes to a temporary file first.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use dvcr_core::{chunk::is_zero, disk::CLUSTER_BYTES};

use crate::{
    format::{DETECT_HEAD_BYTES, DiskImage, FormatError},
    source::{FileSource, ReadAt, Reader},
    wrapping::{Unwrapped, WRAPPINGS_MAX, Wrapping, WrappingError, no_archive, tar, too_deep},
};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Where and how much may be written on the way.
#[derive(Copy, Clone, Debug)]
pub struct Spool<'a> {
    /// Directory of the temporary file, which has no name there. Made if it is not there.
    pub dir: &'a Path,
    /// Most bytes of data in it; zeros take none.
    pub bytes_max: u64,
    /// Most bytes that may come out of a wrapping, zeros included.
    pub unwrapped_bytes_max: u64,
}

/// A disk, opened.
#[derive(Debug)]
pub struct Input {
    /// What it was wrapped in, outermost first.
    pub wrappings: Vec<Wrapping>,
    /// Bytes of data that went to the temporary file; `None` if none was needed.
    pub spooled: Option<u64>,
    /// The disk.
    pub image: DiskImage,
}

/// What there is in a source.
pub enum Located {
    /// The disk lies in it as it is.
    Disk(Box<Input>),
    /// It has to come out of a decoder: what to decode, and what was taken off before.
    Packed(Arc<dyn ReadAt>, Vec<Wrapping>),
}

/// Why there is no disk to be had from a source.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The image is broken or refused, or its source failed.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// What it is wrapped in is broken or refused, or the source failed.
    #[error("{0}")]
    Wrapping(#[from] WrappingError),
    /// The temporary file cannot be written.
    #[error("write the image to a temporary file")]
    Spool(#[source] io::Error),
    /// The temporary file would become larger than it may.
    #[error(
        "the image unpacks to more than {0} bytes of data, the limit of the temporary file: raise it with --work-max, or unpack the image first"
    )]
    SpoolFull(u64),
}

impl Input {
    /// Opens the disk in a source that can be read at random. `file` is its name in the archive that it is in, if that has
    /// several.
    pub fn open(
        source: Arc<dyn ReadAt>,
        file: Option<&str>,
        spool: Spool<'_>,
    ) -> Result<Self, InputError> {
        match Self::at_random(source, file)? {
            Located::Disk(input) => Ok(*input),
            Located::Packed(source, mut wrappings) => {
                // What was taken off is the archive that the name was for.
                let file = file.filter(|_| wrappings.is_empty());
                let bytes_max = spool.unwrapped_bytes_max;
                let stream = Unwrapped::choose(Reader::new(source), bytes_max, file)?;
                wrappings.extend(stream.wrappings());
                if let Some(wrapping) = wrappings.get(WRAPPINGS_MAX) {
                    return Err(too_deep(*wrapping).into());
                }
                let input = Self::spool(stream, spool)?;
                Ok(Self { wrappings, ..input })
            }
        }
    }

    /// Opens the disk in a source that can be read at random, if it lies there as it is.
    pub fn at_random(
        mut source: Arc<dyn ReadAt>,
        file: Option<&str>,
    ) -> Result<Located, InputError> {
        let mut wrappings = vec![];
        loop {
            let mut head = vec![0; source.len().min(DETECT_HEAD_BYTES as u64) as usize];
            source.read_at(0, &mut head).map_err(FormatError::from)?;
            match Wrapping::detect(&head) {
                None => {
                    if let Some(file) = file.filter(|_| wrappings.is_empty()) {
                        return Err(no_archive(file).into());
                    }
                    return Ok(Located::Disk(Box::new(Self {
                        wrappings,
                        spooled: None,
                        image: DiskImage::open(source)?,
                    })));
                }
                Some(wrapping) if wrappings.len() == WRAPPINGS_MAX => {
                    return Err(too_deep(wrapping).into());
                }
                Some(Wrapping::Tar) => {
                    let wanted = file.filter(|_| wrappings.is_empty());
                    let Some(disk) = tar::member(&source, wanted)? else {
                        return Ok(Located::Packed(source, wrappings));
                    };
                    wrappings.push(Wrapping::Tar);
                    source = Arc::new(disk);
                }
                Some(_) => return Ok(Located::Packed(source, wrappings)),
            }
        }
    }

    /// Opens the disk in a stream, by way of the temporary file.
    pub fn open_stream(
        stream: impl Read + Send + 'static,
        file: Option<&str>,
        spool: Spool<'_>,
    ) -> Result<Self, InputError> {
        let stream = Unwrapped::choose(stream, spool.unwrapped_bytes_max, file)?;
        Self::spool(stream, spool)
    }

    /// Opens the disk in a stream that was unwrapped, by way of the temporary file.
    pub fn spool(mut stream: Unwrapped, spool: Spool<'_>) -> Result<Self, InputError> {
        let made = std::fs::create_dir_all(spool.dir);
        let file = made.and_then(|()| tempfile::tempfile_in(spool.dir));
        let file = file.map_err(InputError::Spool)?;
        let spooled = fill(&file, &mut stream, spool.bytes_max)?;
        let source = FileSource::new(file).map_err(InputError::Spool)?;
        Ok(Self {
            wrappings: stream.wrappings().to_vec(),
            spooled: Some(spooled),
            image: DiskImage::open(Arc::new(source))?,
        })
    }
}

/// Writes all of a stream, clusters of zeros as holes: the layout looks no closer either. Returns how many bytes of data that made.
fn fill(file: &File, stream: &mut Unwrapped, bytes_max: u64) -> Result<u64, InputError> {
    let mut buf = vec![];
    let (mut len, mut written) = (0, 0);
    loop {
        buf.clear();
        stream
            .by_ref()
            .take(READ_BYTES as u64)
            .read_to_end(&mut buf)
            .map_err(WrappingError::from)?;
        if buf.is_empty() {
            file.set_len(len).map_err(InputError::Spool)?;
            return Ok(written);
        }
        for block in buf.chunks(CLUSTER_BYTES) {
            if !is_zero(block) {
                written += block.len() as u64;
                if written > bytes_max {
                    return Err(InputError::SpoolFull(bytes_max));
                }
                file.write_all_at(block, len).map_err(InputError::Spool)?;
            }
            len += block.len() as u64;
        }
    }
}
