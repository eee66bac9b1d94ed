//! Frames that are kept while a disk comes, and sent when all of it has come.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use dvcr_core::disk::CanonicalQcow2;

use super::{Import, ImportError, Imported, Phase};
use crate::{
    format::{DiskImage, Format},
    layout::{
        Clusters, DataPieces, ImageClusters, LayoutError, StreamClusters, Surrounding, encode,
    },
    push::{Assembled, Compression, FrameSpool, Report, SourceFacts},
    source::{ReadAt as _, Reader, retry::SourceError},
};

impl Import<'_> {
    /// An image on a server, which is read once.
    pub(super) fn at_random(
        &self,
        image: &DiskImage,
        len: u64,
        dir: &Path,
    ) -> Result<Imported, ImportError> {
        let verbatim = image.format() == Format::Iso;
        let identity = format!("{} {}", image.format(), image.virtual_len());
        let spool = FrameSpool::open(dir, &identity, self.options.work_bytes_max);
        let mut spool = spool.map_err(|error| LayoutError::Io(error.into()))?;
        let from = spool.end();
        self.progress
            .begin(Phase::Receive, Some(image.virtual_len()));
        self.progress.reached(from);
        let file_len = if verbatim {
            let stream = Reader::starting_at(image.source().clone(), from);
            let mut pieces = DataPieces::verbatim(StreamClusters::verbatim(stream, from), from);
            self.keep(&mut pieces, &mut spool, true)?;
            image.source().len()
        } else {
            let clusters = ImageClusters::new(image, from);
            let mut pieces = DataPieces::resume(clusters, spool.map().clone(), from);
            self.keep(&mut pieces, &mut spool, true)?;
            image.virtual_len()
        };
        self.send_kept(&spool, verbatim, file_len, dir, self.facts_of(image, len))
    }

    /// Keeps the frames of a stream; also how long it was, and the stream itself, at its end.
    pub(super) fn keep_stream<R: Read + Send>(
        &self,
        stream: R,
        verbatim: bool,
        dir: &Path,
    ) -> Result<(FrameSpool, u64, R), ImportError> {
        let spool = FrameSpool::create(dir, self.options.work_bytes_max);
        let mut spool = spool.map_err(|error| LayoutError::Io(error.into()))?;
        if verbatim {
            let mut pieces = DataPieces::verbatim(StreamClusters::verbatim(stream, 0), 0);
            self.keep(&mut pieces, &mut spool, false)?;
            let clusters = pieces.into_parts().1;
            return Ok((spool, clusters.len(), clusters.into_stream()));
        }
        let mut pieces = DataPieces::disk(StreamClusters::disk(stream));
        self.keep(&mut pieces, &mut spool, false)?;
        let clusters = pieces.into_parts().1;
        Ok((spool, clusters.len(), clusters.into_stream()))
    }

    /// Compresses all pieces into the spool. What was made before an error stays there.
    fn keep<C: Clusters>(
        &self,
        pieces: &mut DataPieces<C>,
        spool: &mut FrameSpool,
        report: bool,
    ) -> Result<(), ImportError> {
        let named = pieces.map(|piece| piece.map(|piece| (piece.offset, piece.bytes)));
        let result = encode(named, self.options.threads, |offset, raw_len, frame| {
            if self.stop().is_cancelled() {
                return Err(io::Error::from(SourceError::Stopped).into());
            }
            if report {
                self.progress.reached(offset + raw_len as u64);
            }
            let kept = spool.push(offset, raw_len, frame);
            kept.map_err(|error| LayoutError::Io(error.into()))
        });
        let flushed = spool.flush();
        result?;
        flushed.map_err(|error| LayoutError::Io(error.into()))?;
        Ok(())
    }

    /// Sends what is in the spool: of a disk of `len` bytes, or a file.
    pub(super) fn send_kept(
        &self,
        spool: &FrameSpool,
        verbatim: bool,
        len: u64,
        dir: &Path,
        facts: SourceFacts,
    ) -> Result<Imported, ImportError> {
        let qcow2;
        let surrounding = if verbatim {
            Surrounding::Verbatim(len)
        } else {
            let map = spool.map().clone();
            qcow2 = CanonicalQcow2::new(facts.virtual_len, map).ok_or(LayoutError::TooLarge)?;
            Surrounding::Disk(&qcow2)
        };
        self.progress.begin(Phase::Scan, None);
        let layer = Assembled::new(dir, spool, surrounding, self.options.threads)?;
        let total = match self.options.compression {
            Compression::Zstd => layer.layer.len,
            Compression::None => layer.plain_len,
        };
        self.progress.begin(Phase::Send, Some(total));
        let (layer, sent) = self.destination.send(
            self.runtime,
            self.stop(),
            &layer,
            self.options.compression,
            dir,
            self.report(),
        )?;
        self.finish(layer, sent, facts)
    }

    fn report(&self) -> Report {
        let progress = self.progress.clone();
        Arc::new(move |offset| progress.reached(offset))
    }
}
