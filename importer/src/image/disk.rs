//! Opening the disk of an image.

use std::io::{self, Read};

use dvcr_core::oci::Descriptor;

use super::{
    Image, ImageError, Kind,
    container::find,
    verified::{Verdict, Verified},
};
use crate::{
    format::{DETECT_TAIL_BYTES, DiskImage, Format, WithoutFooter, detect, limits::SECTOR_BYTES},
    input::{Input, Spool},
    layout::{Archive, LayoutError},
    wrapping::Unwrapped,
};

/// Annotation of an artifact's layer: what the file is called (OCI image-spec, annotations.md).
const ANNOTATION_TITLE: &str = "org.opencontainers.image.title";
/// Annotation of a layer that KubeVirt exported: the disk's name.
const ANNOTATION_DISK_NAME: &str = "io.kubevirt.disk.name";
/// Annotation of a layer that KubeVirt exported: the disk's length in bytes.
const ANNOTATION_DISK_SIZE: &str = "io.kubevirt.disk.size";
/// Beginning of the types of layers that KubeVirt exports.
const DISK_TYPES: &str = "application/vnd.kubevirt.disk.";

/// The disk of an image, opened.
#[derive(Debug)]
pub struct Source {
    /// What it is read from.
    pub disk: Disk,
    /// What the file is called in the image.
    pub file: String,
    /// The layer that it is in.
    pub layer: Descriptor,
    /// Bytes of data that went to a temporary file; `None` if none was needed.
    pub spooled: Option<u64>,
}

/// A disk, in one of the two ways to read it.
#[derive(Debug)]
pub enum Disk {
    /// At random, everything verified.
    Image(DiskImage),
    /// Once, from start to end; verified only at its end.
    Stream(DiskStream),
}

impl Image {
    /// Opens the disk: the one that the image has, or the file or layer of this name. Without `streams` a disk that could be
    /// read once goes to a temporary file, too.
    pub fn open(
        &self,
        file: Option<&str>,
        spool: Spool<'_>,
        streams: bool,
    ) -> Result<Source, ImageError> {
        match self.kind() {
            Kind::Indexed => {
                if let Some(archive) = self.archive()? {
                    let (layer, _) = self.indexed_layer().ok_or(LayoutError::Other)?;
                    let name = archive.file_name()?;
                    if file.is_none_or(|wanted| wanted.trim_start_matches('/') == name) {
                        match archive.image() {
                            Ok(image) => {
                                return Ok(Source {
                                    disk: Disk::Image(image),
                                    file: name.to_owned(),
                                    layer: layer.clone(),
                                    spooled: None,
                                });
                            }
                            Err(LayoutError::Other) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                // Somebody made another layer of ours and kept its annotations, another file is wanted, or it is in a wrapping.
                self.open_container(file, spool, streams)
            }
            Kind::ContainerDisk => self.open_container(file, spool, streams),
            Kind::Artifact => self.open_artifact(file, spool, streams),
        }
    }

    /// The layer of our layout; `None` if it is none, or not what its annotations say.
    pub fn archive(&self) -> Result<Option<Archive>, ImageError> {
        let Some((layer, index_digest)) = self.indexed_layer() else {
            return Ok(None);
        };
        let layer = self.repository.blob(layer)?;
        match Archive::open(layer, Some(&index_digest)) {
            Ok(archive) => Ok(Some(archive)),
            Err(LayoutError::Other | LayoutError::Broken(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_container(
        &self,
        file: Option<&str>,
        spool: Spool<'_>,
        streams: bool,
    ) -> Result<Source, ImageError> {
        let found = find(self, file, spool.unwrapped_bytes_max)?;
        let stream = Unwrapped::new(found.file, spool.unwrapped_bytes_max)?;
        // What is compressed once more has another length.
        let len = stream.wrappings().is_empty().then_some(found.len);
        let (disk, spooled) = open(stream, len, found.verdict, spool, streams)?;
        Ok(Source {
            disk,
            file: found.name,
            layer: found.layer,
            spooled,
        })
    }

    fn open_artifact(
        &self,
        file: Option<&str>,
        spool: Spool<'_>,
        streams: bool,
    ) -> Result<Source, ImageError> {
        let layer = self.artifact_layer(file)?;
        let verified = Verified::new(self.repository.stream_from(layer, 0)?, layer);
        let verdict = verified.verdict();
        let stream = Unwrapped::new(verified, spool.unwrapped_bytes_max)?;
        let said = layer.annotations.get(ANNOTATION_DISK_SIZE);
        let len = if stream.wrappings().is_empty() {
            Some(layer.size)
        } else {
            said.and_then(|len| len.parse().ok())
        };
        let (disk, spooled) = open(stream, len, verdict, spool, streams)?;
        Ok(Source {
            disk,
            file: layer_name(layer).unwrap_or("layer").to_owned(),
            layer: layer.clone(),
            spooled,
        })
    }

    /// The layer that is the disk.
    fn artifact_layer(&self, wanted: Option<&str>) -> Result<&Descriptor, ImageError> {
        let layers = &self.manifest.layers;
        let mut fitting: Vec<_> = match wanted {
            Some(name) => layers
                .iter()
                .filter(|layer| layer_name(layer) == Some(name))
                .collect(),
            None => layers.iter().collect(),
        };
        if fitting.len() > 1 && wanted.is_none() {
            fitting.retain(|layer| layer.media_type.starts_with(DISK_TYPES));
        }
        match fitting[..] {
            [layer] => Ok(layer),
            _ if layers.is_empty() => Err(ImageError::refused("the artifact has no layers")),
            _ => {
                let names = layers
                    .iter()
                    .map(|layer| layer_name(layer).unwrap_or("(no name)"));
                Err(ImageError::refused(format!(
                    "the artifact has no one disk; choose a layer by its name with --file: {}",
                    names.collect::<Vec<_>>().join(", ")
                )))
            }
        }
    }
}

fn layer_name(layer: &Descriptor) -> Option<&str> {
    let annotation = |key| layer.annotations.get(key).map(String::as_str);
    annotation(ANNOTATION_DISK_NAME).or_else(|| annotation(ANNOTATION_TITLE))
}

/// Takes a stream as it is, if it is a disk from start to end and that is wanted; else by way of the temporary file.
fn open(
    stream: Unwrapped,
    len: Option<u64>,
    verdict: Verdict,
    spool: Spool<'_>,
    streams: bool,
) -> Result<(Disk, Option<u64>), ImageError> {
    let format = detect(stream.head(), None).map_err(crate::input::InputError::from)?;
    if streams && format.is_sequential() {
        let stream = DiskStream::new(format, stream, len, Some(verdict));
        return Ok((Disk::Stream(stream), None));
    }
    let input = Input::spool(stream, spool)?;
    verdict.check()?;
    Ok((Disk::Image(input.image), input.spooled))
}

/// Disks of Azure are whole MiB, and a fixed VHD has its footer behind.
const VHD_UNIT_BYTES: u64 = 1 << 20;

/// A raw disk or a fixed VHD that can be read once, from start to end, in whole sectors. A footer is left out.
///
/// Its end is an error if its bytes were not those that were promised.
pub struct DiskStream {
    stream: WithoutFooter<Unwrapped>,
    /// Length that was promised, not rounded, a footer included.
    promised: Option<u64>,
    /// Bytes given so far.
    given: u64,
    ended: bool,
    verdict: Option<Verdict>,
}

impl DiskStream {
    fn new(
        format: Format,
        stream: Unwrapped,
        promised: Option<u64>,
        verdict: Option<Verdict>,
    ) -> Self {
        Self {
            stream: WithoutFooter::new(stream, format),
            promised,
            given: 0,
            ended: false,
            verdict,
        }
    }

    /// A disk in a stream about which nothing is known, if it can be read once: else the stream comes back.
    pub fn unverified(stream: Unwrapped) -> Result<Result<Self, Unwrapped>, ImageError> {
        let format = detect(stream.head(), None).map_err(crate::input::InputError::from)?;
        Ok(if format.is_sequential() {
            Ok(Self::new(format, stream, None, None))
        } else {
            Err(stream)
        })
    }

    /// [`Format::Raw`] or [`Format::Iso`]; at the end perhaps [`Format::Vhd`].
    pub fn format(&self) -> Format {
        self.stream.format()
    }

    /// Length of the disk in bytes, a multiple of [`SECTOR_BYTES`]; `None` if only the end will tell, such as whether there is the footer
    /// of a VHD that the length leaves room for.
    pub fn virtual_len(&self) -> Option<u64> {
        let promised = self.promised?;
        (!self.may_be_vhd(promised)).then(|| promised.next_multiple_of(SECTOR_BYTES))
    }

    /// Bytes that the disk has at least.
    pub fn least_len(&self) -> u64 {
        match self.promised {
            Some(promised) if self.may_be_vhd(promised) => promised - DETECT_TAIL_BYTES as u64,
            promised => promised.unwrap_or(0),
        }
    }

    fn may_be_vhd(&self, promised: u64) -> bool {
        self.format() != Format::Iso && promised % VHD_UNIT_BYTES == DETECT_TAIL_BYTES as u64
    }

    /// Reads what is left, and makes sure that everything was compared.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        self.verdict.as_ref().map_or(Ok(()), Verdict::check)
    }
}

impl Read for DiskStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if buf.is_empty() {
            return Ok(0);
        }
        if !self.ended {
            let len = self.stream.read(buf)?;
            self.given += len as u64;
            let received = self.stream.received();
            if self.promised.is_some_and(|promised| received > promised) {
                return Err(wrong("the disk is longer than the image says"));
            }
            if len > 0 {
                return Ok(len);
            }
            if self.promised.is_some_and(|promised| received < promised) {
                return Err(wrong("the disk is shorter than the image says"));
            }
            self.ended = true;
        }
        let padding = self.given.next_multiple_of(SECTOR_BYTES) - self.given;
        let len = (padding as usize).min(buf.len());
        buf[..len].fill(0);
        self.given += len as u64;
        Ok(len)
    }
}

impl std::fmt::Debug for DiskStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStream")
            .field("format", &self.format())
            .field("promised", &self.promised)
            .finish_non_exhaustive()
    }
}
