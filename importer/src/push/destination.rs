//! The place in a registry where an image goes.

use std::{
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use dvcr_client::{
    BlobSource, BlobStream, BoxError, Error, Pushed, RawManifest, RemoteBlob, Repository, Upload,
};
use dvcr_core::oci::{Algorithm, Descriptor, Digest, Reference, Tag};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    Assembled, Compression, LayerFacts, MANIFEST_MEDIA_TYPE, SourceFacts, config,
    image::CONFIG_MEDIA_TYPE,
    manifest,
    session::{Blocks, Session},
    writer::{REQUEST_BYTES, UploadWriter, Written},
};
use crate::{
    image::Image,
    layout::{Content, LayoutError, write_layer_in, write_plain},
    source::retry::SourceError,
};

/// Bytes that are read from a layer on disk at a time.
const READ_BYTES: usize = 256 << 10;

/// A repository, and what the image is to be called there.
#[derive(Clone)]
pub struct Destination {
    /// The repository.
    pub repository: Repository,
    /// Its tags; none: it is there by its digest only.
    pub tags: Vec<Tag>,
    /// The processor that the configuration names.
    pub architecture: String,
}

/// Why an image is not in a registry.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry.
    #[error("{0}")]
    Registry(#[from] Error),
    /// What was to be sent.
    #[error("{0}")]
    Layer(#[from] LayoutError),
}

/// An image that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Digest of the manifest.
    pub manifest: Digest,
    /// The layer.
    pub layer: LayerFacts,
    /// Bytes of the layer that were sent; 0 if the registry had it.
    pub sent: u64,
}

/// A layer that is made of a disk that is at hand.
#[derive(Copy, Clone)]
pub struct LayerPlan<'a> {
    /// What is in it.
    pub content: &'a Content<'a>,
    /// How it is stored.
    pub compression: Compression,
    /// Threads that compress.
    pub threads: usize,
    /// Where notes and the index of a large disk are.
    pub dir: &'a Path,
}

impl LayerPlan<'_> {
    fn write(&self, out: &mut dyn Write) -> Result<LayerFacts, PushError> {
        Ok(match self.compression {
            Compression::Zstd => {
                let layer = write_layer_in(self.content, self.threads, self.dir, out)?;
                LayerFacts::zstd(&layer)
            }
            Compression::None => {
                let (digest, len) = write_plain(self.content, out)?;
                LayerFacts::plain(digest, len)
            }
        })
    }
}

/// Told how many bytes of a layer the registry has.
pub type Report = Arc<dyn Fn(u64) + Send + Sync>;

impl Destination {
    /// Whether we may push there, found out before anything is received for it: an upload is begun, or the one goes on that is noted
    /// in `dir`.
    pub fn check(
        &self,
        runtime: &Handle,
        stop: &CancellationToken,
        dir: &Path,
    ) -> Result<(), PushError> {
        let asking = async {
            Session::in_dir(dir).open(&self.repository).await?;
            Ok::<_, Error>(())
        };
        stoppable(runtime, stop, asking)
    }

    /// Tells the registry to forget the upload that is noted in `dir`, if there is one. That it cannot be told is no error.
    pub fn abandon(&self, runtime: &Handle, dir: &Path) {
        runtime.block_on(Session::in_dir(dir).cancel(&self.repository));
    }

    /// Reads a disk that can be read twice and sends its layer while it is made. The plan's directory remembers the upload: another
    /// process with the same disk goes on with it. What the registry has is made again then, and compared with what was noted of it; if it
    /// was another disk, the upload begins anew.
    pub fn stream(
        &self,
        runtime: &Handle,
        stop: &CancellationToken,
        plan: LayerPlan<'_>,
    ) -> Result<(LayerFacts, u64), PushError> {
        let session = Session::in_dir(plan.dir);
        if let Some(layer) = self.whole(runtime, stop, plan, session)? {
            return Ok((layer, 0));
        }
        let mut upload = stoppable(runtime, stop, session.open(&self.repository))?;
        loop {
            let begun = upload.offset();
            // Without notes there is nothing that the registry's bytes could be compared with.
            let blocks = Blocks::open(&session.blocks()).ok();
            let mut out = UploadWriter::new(runtime, stop, upload, blocks);
            let written = plan.write(&mut out);
            let sent = out.finish();
            // A registry that fails makes writing fail: its error says why.
            upload = match (sent, written.as_ref()) {
                (Ok(Written::Other(upload)), _) => {
                    let anew = session.begin_anew(&self.repository, upload);
                    stoppable(runtime, stop, anew)?
                }
                (Err(Error::Source(_)), Err(_)) | (Ok(_), Err(_)) => {
                    return Err(written.expect_err("it was just looked at"));
                }
                (Err(error), _) => return Err(error.into()),
                (Ok(Written::Whole(upload)), Ok(layer)) => {
                    let sent = layer.len - begun.min(layer.len);
                    // Whatever happens from here on, the next try need not send anything.
                    session.note_whole(&layer.digest);
                    self.finish(runtime, session, upload, &layer.digest)?;
                    return written.map(|layer| (layer, sent));
                }
            };
        }
    }

    /// The layer, if an earlier try has sent all of it: then it is made, but not sent.
    fn whole(
        &self,
        runtime: &Handle,
        stop: &CancellationToken,
        plan: LayerPlan<'_>,
        session: Session<'_>,
    ) -> Result<Option<LayerFacts>, PushError> {
        let Some(noted) = session.whole() else {
            return Ok(None);
        };
        let known = stoppable(runtime, stop, self.repository.blob_info(&noted))?;
        if known.is_none() {
            return Ok(None);
        }
        let layer = plan.write(&mut io::sink())?;
        Ok((layer.digest == noted).then_some(layer))
    }

    fn finish(
        &self,
        runtime: &Handle,
        session: Session<'_>,
        mut upload: Upload,
        layer: &Digest,
    ) -> Result<(), PushError> {
        let result = runtime.block_on(upload.finish(layer));
        // What the registry refuses for good, it has forgotten.
        if !result.as_ref().is_err_and(Error::is_retryable) {
            session.forget();
        }
        Ok(result?)
    }

    /// Sends a layer that is on disk, unless the registry has it.
    pub fn send(
        &self,
        runtime: &Handle,
        stop: &CancellationToken,
        layer: &Assembled,
        compression: Compression,
        dir: &Path,
        report: Report,
    ) -> Result<(LayerFacts, u64), PushError> {
        let facts = match compression {
            Compression::Zstd => LayerFacts::zstd(&layer.layer),
            Compression::None => LayerFacts::plain(layer.layer.diff_id, layer.plain_len),
        };
        let source = |end| OnDisk {
            layer: layer.clone(),
            compression,
            report: report.clone(),
            end,
        };
        let session = Session::in_dir(dir);
        let sending = async {
            if self.repository.blob_info(&facts.digest).await?.is_some() {
                return Ok(0);
            }
            let mut upload = session.open_for(&self.repository, &facts.digest).await?;
            let mut sent = 0;
            // A request's end makes its bytes durable: no more than one request is lost if the registry fails.
            while upload.offset() < facts.len {
                let end = facts.len.min(upload.offset() + REQUEST_BYTES as u64);
                sent += upload.push(&source(end), end).await?;
            }
            upload.finish(&facts.digest).await?;
            session.forget();
            Ok::<_, Error>(sent)
        };
        let sent = stoppable(runtime, stop, sending)?;
        Ok((facts, sent))
    }

    /// Copies an image of another repository, as it is; its digest, and how many bytes were sent.
    pub fn copy(
        &self,
        runtime: &Handle,
        stop: &CancellationToken,
        image: &Image,
        from: &Repository,
    ) -> Result<(Digest, u64), PushError> {
        let copying = async {
            let reference = Reference::Digest(image.digest());
            let raw = from.manifest(&reference).await?;
            let same = from.client().url() == self.repository.client().url();
            let mount = same.then(|| from.name());
            let mut sent = 0;
            for blob in image.manifest().blobs() {
                let source = RemoteBlob {
                    repository: from.clone(),
                    blob: blob.clone(),
                };
                if let Pushed::Sent(bytes) = self.repository.push_blob(blob, &source, mount).await?
                {
                    sent += bytes;
                }
            }
            self.repository.push_manifest(&raw, &self.tags).await?;
            Ok::<_, Error>((*raw.digest(), sent))
        };
        stoppable(runtime, stop, copying)
    }

    /// Puts configuration and manifest around a layer that the registry has.
    pub fn tag(
        &self,
        runtime: &Handle,
        layer: &LayerFacts,
        source: &SourceFacts,
    ) -> Result<Digest, PushError> {
        let config = config(layer, source, &self.architecture);
        let raw = RawManifest::new(
            Algorithm::Sha256,
            MANIFEST_MEDIA_TYPE,
            manifest(layer, &config),
        );
        let descriptor = Descriptor {
            media_type: CONFIG_MEDIA_TYPE.to_owned(),
            digest: Digest::sha256(&config),
            size: config.len() as u64,
            urls: vec![],
            annotations: [].into(),
            artifact_type: None,
            platform: None,
            data: None,
        };
        let config = Bytes::from(config);
        runtime.block_on(async {
            let _: Pushed = self
                .repository
                .push_blob(&descriptor, &config, None)
                .await?;
            self.repository.push_manifest(&raw, &self.tags).await
        })?;
        Ok(*raw.digest())
    }
}

/// Waits for work on the network, unless somebody wants it to stop.
fn stoppable<T>(
    runtime: &Handle,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, PushError> {
    runtime.block_on(async {
        tokio::select! {
            () = stop.cancelled() => {
                Err(PushError::Layer(io::Error::from(SourceError::Stopped).into()))
            }
            result = work => Ok(result?),
        }
    })
}

/// A layer on disk, as the client wants to read it.
struct OnDisk {
    layer: Assembled,
    compression: Compression,
    report: Report,
    /// Where it is to end, in bytes.
    end: u64,
}

impl BlobSource for OnDisk {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>> {
        let (layer, compression) = (self.layer.clone(), self.compression);
        let (report, end) = (self.report.clone(), self.end);
        async move {
            let open = move || match compression {
                Compression::Zstd => layer.open(offset),
                Compression::None => layer.open_plain(offset),
            };
            let reader = tokio::task::spawn_blocking(open).await??;
            let reader = reader.take(end.saturating_sub(offset));
            let chunks = stream::try_unfold((reader, offset), move |(mut reader, at)| {
                let report = report.clone();
                async move {
                    let read = move || {
                        let mut bytes = vec![];
                        let part = reader.by_ref().take(READ_BYTES as u64);
                        { part }.read_to_end(&mut bytes)?;
                        Ok::<_, io::Error>((bytes, reader))
                    };
                    let (bytes, reader) = tokio::task::spawn_blocking(read).await??;
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let at = at + bytes.len() as u64;
                    report(at);
                    Ok::<_, BoxError>(Some((Bytes::from(bytes), (reader, at))))
                }
            });
            Ok(chunks.boxed())
        }
        .boxed()
    }
}
