//! What comes by once, from start to end.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use super::{
    Import, ImportError, Imported, Phase, open,
    plan::Unpacking,
    watch::{Watch, Watched},
};
use crate::{
    format::{Format, WithoutFooter, detect, limits::SECTOR_BYTES},
    input::{Input, InputError},
    layout::LayoutError,
    source::FileSource,
    wrapping::Unwrapped,
};

impl Import<'_> {
    /// A source that comes by once. `kept` is the file that has it as it was received.
    pub(super) fn stream(
        &self,
        stream: impl Read + Send + 'static,
        len: Option<u64>,
        dir: &Path,
        kept: Option<&Path>,
    ) -> Result<Imported, ImportError> {
        self.progress.begin(Phase::Receive, len);
        let watch = Watch::new(&self.options.checksums);
        let stream = self.watched(stream, &watch);
        if self.options.verbatim {
            return self.received(stream, &watch, dir, kept);
        }
        let bytes_max = self.spool(dir).unwrapped_bytes_max;
        let mut stream = Unwrapped::choose(stream, bytes_max, self.member())?;
        let format = detect(stream.head(), None)?;
        let (sequential, wrapped) = (format.is_sequential(), !stream.wrappings().is_empty());
        match (
            Unpacking::of(self.wish(), sequential, wrapped, kept.is_some()),
            kept,
        ) {
            (Unpacking::Frames, _) => self.sequential(stream, format, &watch, dir),
            (Unpacking::InPlace, Some(kept)) => {
                io::copy(&mut stream, &mut io::sink()).map_err(LayoutError::from)?;
                drop(stream);
                watch.verify()?;
                self.local(open(kept)?, &[], dir)
            }
            _ => {
                let input = Input::spool(stream, self.spool(dir))?;
                let facts = self.facts_of(&input.image, watch.verify()?);
                self.send_twice_read(&input.image, None, facts, dir)
            }
        }
    }

    /// A stream that is to be kept as it is.
    fn received(
        &self,
        mut stream: impl Read,
        watch: &Watch,
        dir: &Path,
        kept: Option<&Path>,
    ) -> Result<Imported, ImportError> {
        let source = match kept {
            Some(kept) => {
                io::copy(&mut stream, &mut io::sink()).map_err(LayoutError::from)?;
                open(kept)?
            }
            None => {
                let mut file = tempfile::tempfile_in(dir).map_err(InputError::Spool)?;
                let mut stream = stream.take(self.options.work_bytes_max + 1);
                let len = io::copy(&mut stream, &mut file).map_err(LayoutError::from)?;
                if len > self.options.work_bytes_max {
                    return Err(InputError::SpoolFull(self.options.work_bytes_max).into());
                }
                Arc::new(FileSource::new(file).map_err(InputError::Spool)?)
            }
        };
        watch.verify()?;
        self.local(source, &[], dir)
    }

    /// A raw disk or an optical disc that comes by once.
    fn sequential(
        &self,
        stream: Unwrapped,
        format: Format,
        watch: &Watch,
        dir: &Path,
    ) -> Result<Imported, ImportError> {
        let verbatim = format == Format::Iso;
        let stream = WithoutFooter::new(stream, format);
        let (spool, len, stream) = self.keep_stream(stream, verbatim, dir)?;
        let format = stream.format();
        if len == 0 {
            let error = crate::format::FormatError::Broken {
                format,
                reason: "the disk in it has no bytes".to_owned(),
            };
            return Err(error.into());
        }
        let virtual_len = len.next_multiple_of(SECTOR_BYTES);
        let facts = self.facts(format, watch.verify()?, virtual_len);
        self.send_kept(&spool, verbatim, len, dir, facts)
    }

    pub(super) fn watched<R: Read>(&self, stream: R, watch: &Watch) -> Watched<R> {
        let (stop, progress) = (self.stop().clone(), self.progress.clone());
        Watched::new(stream, watch.clone(), stop, progress)
    }
}
