//! What is at hand, and can be read again.

use std::{fs::File, io, path::Path, sync::Arc};

use super::{
    Import, ImportError, Imported, Phase,
    watch::{Stoppable, Watch},
};
use crate::{
    checksum::Checksum,
    format::{DiskImage, Format},
    input::Input,
    layout::{Content, LayoutError},
    push::{LayerPlan, SourceFacts},
    source::{FileSource, ReadAt, Reader},
};

impl Import<'_> {
    pub(super) fn file(&self, path: &Path, dir: &Path) -> Result<Imported, ImportError> {
        let failed = |error| ImportError::File {
            path: path.to_owned(),
            error,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let source = FileSource::new(file);
        let Ok(source) = source else {
            // A pipe has a name, too.
            let pipe = File::open(path).map_err(failed)?;
            return self.stream(pipe, None, dir, None);
        };
        let source: Arc<dyn ReadAt> = Arc::new(source);
        let imported = self.local(source, &self.options.checksums, dir);
        imported.map_err(|error| match error {
            ImportError::Input(error) => ImportError::NoDisk {
                path: path.to_owned(),
                error,
            },
            error => error,
        })
    }

    /// A source that can be read again.
    pub(super) fn local(
        &self,
        source: Arc<dyn ReadAt>,
        checksums: &[Checksum],
        dir: &Path,
    ) -> Result<Imported, ImportError> {
        let len = source.len();
        if !checksums.is_empty() {
            self.progress.begin(Phase::Check, Some(len));
            let watch = Watch::new(checksums);
            let mut stream = self.watched(Reader::new(source.clone()), &watch);
            io::copy(&mut stream, &mut io::sink()).map_err(LayoutError::from)?;
            watch.verify()?;
        }
        self.progress.begin(Phase::Unpack, Some(len));
        let source: Arc<dyn ReadAt> = Arc::new(Stoppable {
            inner: source,
            stop: self.stop().clone(),
            progress: self.progress.clone(),
        });
        let input = Input::open(source.clone(), self.member(), self.spool(dir))?;
        let facts = self.facts_of(&input.image, len);
        let verbatim = self.options.verbatim.then_some(source);
        self.send_twice_read(&input.image, verbatim, facts, dir)
    }

    /// An image that is read twice, or the `verbatim` file that it is in.
    pub(super) fn send_twice_read(
        &self,
        image: &DiskImage,
        verbatim: Option<Arc<dyn ReadAt>>,
        facts: SourceFacts,
        dir: &Path,
    ) -> Result<Imported, ImportError> {
        let len = image.source().len();
        let content = match verbatim {
            Some(source) => Content::Verbatim(source),
            None if image.format() == Format::Iso => Content::Verbatim(image.source().clone()),
            None => {
                self.progress.begin(Phase::Scan, Some(len));
                Content::disk(image)?
            }
        };
        self.progress.begin(Phase::Send, Some(len));
        let plan = LayerPlan {
            content: &content,
            compression: self.options.compression,
            threads: self.options.threads,
            dir,
        };
        let (layer, sent) = self.destination.stream(self.runtime, self.stop(), plan)?;
        self.finish(layer, sent, facts)
    }
}
