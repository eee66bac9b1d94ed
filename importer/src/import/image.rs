//! Images of registries: ours as they are, of others the disk in them.

use super::{Import, ImportError, Imported, Nature, Phase, Way};
use crate::{
    format::{Format, limits::SECTOR_BYTES},
    image::{Disk, Image, Kind},
    kept::{KeptLayers, WorkDir},
    layout::LayoutError,
    push::{
        Compression, LABEL_FORMAT, LABEL_SOURCE_FORMAT, LABEL_SOURCE_SIZE, LABEL_VIRTUAL_SIZE,
        LayerFacts, Sent, SourceFacts,
    },
};

impl Import<'_> {
    pub(super) fn image(
        &self,
        image: Image,
        repository: Option<&dvcr_client::Repository>,
        file: Option<&str>,
        dir: &WorkDir,
    ) -> Result<Imported, ImportError> {
        let nature = Nature::Image {
            ours: image.kind() == Kind::Indexed,
        };
        let mut wish = self.wish();
        wish.file = file.is_some();
        if let (Way::Copy, Some(repository)) = (Way::of(nature, wish), repository) {
            return self.copy(&image, repository);
        }
        self.progress.begin(Phase::Receive, None);
        let kept = KeptLayers::of_image(image, dir, self.options.work_bytes_max);
        let dir = dir.path();
        let image = kept.map_err(|error| ImportError::WorkDir {
            path: dir.to_owned(),
            error,
        })?;
        let opened = image.open(file, self.spool(dir), true)?;
        let len = opened.layer.size;
        match opened.disk {
            Disk::Image(image) => {
                let facts = self.facts_of(&image, len);
                self.send_twice_read(&image, None, facts, dir)
            }
            Disk::Stream(stream) => {
                let verbatim = stream.format() == Format::Iso;
                let (spool, disk_len, stream) = self.keep_stream(stream, verbatim, dir)?;
                // The footer of a VHD shows at the end only.
                let format = stream.format();
                // Only now is it known that the registry gave the right bytes.
                stream.finish().map_err(LayoutError::from)?;
                let facts = self.facts(format, len, disk_len.next_multiple_of(SECTOR_BYTES));
                self.send_kept(&spool, verbatim, disk_len, dir, facts)
            }
        }
    }

    /// Copies an image of our layout; what the registry has, or can mount, is not sent.
    fn copy(
        &self,
        image: &Image,
        repository: &dvcr_client::Repository,
    ) -> Result<Imported, ImportError> {
        let layer = image.manifest().layers.first();
        let layer = layer.cloned().ok_or(LayoutError::Other)?;
        self.progress.begin(Phase::Send, Some(layer.size));
        let (manifest, sent) =
            self.destination
                .copy(self.runtime, self.stop(), image, repository)?;
        let labels = image.labels()?;
        let number = |label| labels.get(label).and_then(|text| text.parse().ok());
        let formats = [
            Format::Raw,
            Format::Iso,
            Format::Qcow2,
            Format::Vmdk,
            Format::Vdi,
            Format::Vhd,
            Format::Vhdx,
        ];
        let named = |label| {
            let name: &String = labels.get(label)?;
            let format = formats.into_iter().find(|format| format.name() == name)?;
            Some(format.name())
        };
        let stored = named(LABEL_FORMAT).unwrap_or(Format::Qcow2.name());
        Ok(Imported {
            image: Sent {
                manifest,
                layer: LayerFacts {
                    compression: Compression::Zstd,
                    digest: layer.digest,
                    len: layer.size,
                    // Whoever made the image has compared it.
                    diff_id: layer.digest,
                    annotations: layer.annotations,
                },
                sent,
            },
            source: SourceFacts {
                len: number(LABEL_SOURCE_SIZE).unwrap_or(layer.size),
                virtual_len: number(LABEL_VIRTUAL_SIZE).unwrap_or(0),
                format: named(LABEL_SOURCE_FORMAT).unwrap_or(stored),
                stored,
            },
        })
    }
}
