//! The place in a registry where an image goes.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use dvcr_client::{
    BlobSource, BlobStream, BoxError, Error, Pushed, RawManifest, RemoteBlob, Repository,
};
use dvcr_core::oci::{Algorithm, Descriptor, Digest, Reference, Tag};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    Assembled, Compression, LayerFacts, MANIFEST_MEDIA_TYPE, SourceFacts, config,
    image::CONFIG_MEDIA_TYPE, manifest, writer::UploadWriter,
};
use crate::{
    image::Image,
    layout::{Content, LayoutError, write_layer, write_plain},
    source::retry::SourceError,
};

/// Bytes that are read from a layer on disk at a time.
const READ_BYTES: usize = 256 << 10;

/// Where an upload notes its session.
const SESSION: &str = "upload";

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
    #[error(transparent)]
    Registry(#[from] Error),
    /// What was to be sent.
    #[error(transparent)]
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

/// Told how many bytes of a layer the registry has.
pub type Report = Arc<dyn Fn(u64) + Send + Sync>;

impl Destination {
    /// Whether we may push there, found out before anything is received for it.
    pub fn check(&self, runtime: &Handle, stop: &CancellationToken) -> Result<(), PushError> {
        let asking = async {
            let upload = self.repository.upload(Algorithm::Sha256).await?;
            upload.cancel().await;
            Ok::<_, Error>(())
        };
        stoppable(runtime, stop, asking)
    }

    /// Reads a disk that can be read twice and sends its layer while it is made. `dir`, if given, remembers the session, so that another
    /// process with the same disk goes on with it.
    pub fn stream(
        &self,
        runtime: &Handle,
        content: &Content<'_>,
        compression: Compression,
        threads: usize,
        dir: Option<&Path>,
    ) -> Result<(LayerFacts, u64), PushError> {
        let upload = runtime.block_on(self.session(dir))?;
        let begun = upload.offset();
        let mut out = UploadWriter::new(runtime, upload);
        let written = self.write(content, compression, threads, &mut out);
        let sent = out.finish();
        // A registry that fails makes writing fail: its error says why.
        let mut upload = match (sent, written.as_ref()) {
            (Err(Error::Source(_)), Err(_)) | (Ok(_), Err(_)) => {
                return Err(written.expect_err("it was just looked at"));
            }
            (Err(error), _) => return Err(error.into()),
            (Ok(upload), Ok(_)) => upload,
        };
        let layer = written?;
        runtime.block_on(upload.finish(&layer.digest))?;
        forget(dir);
        let sent = layer.len - begun.min(layer.len);
        Ok((layer, sent))
    }

    fn write(
        &self,
        content: &Content<'_>,
        compression: Compression,
        threads: usize,
        out: &mut dyn Write,
    ) -> Result<LayerFacts, PushError> {
        Ok(match compression {
            Compression::Zstd => {
                let layer = write_layer(content, threads, out)?;
                LayerFacts {
                    compression,
                    digest: layer.digest,
                    len: layer.len,
                    diff_id: layer.diff_id,
                    annotations: layer.annotations(),
                }
            }
            Compression::None => {
                let (digest, len) = write_plain(content, out)?;
                LayerFacts {
                    compression,
                    digest,
                    len,
                    diff_id: digest,
                    annotations: [].into(),
                }
            }
        })
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
            Compression::Zstd => LayerFacts {
                compression,
                digest: layer.layer.digest,
                len: layer.layer.len,
                diff_id: layer.layer.diff_id,
                annotations: layer.layer.annotations(),
            },
            Compression::None => LayerFacts {
                compression,
                digest: layer.layer.diff_id,
                len: layer.plain_len,
                diff_id: layer.layer.diff_id,
                annotations: [].into(),
            },
        };
        let source = OnDisk {
            layer: layer.clone(),
            compression,
            report,
        };
        let sending = async {
            if self.repository.blob_info(&facts.digest).await?.is_some() {
                return Ok(0);
            }
            let mut upload = self.session(Some(dir)).await?;
            let sent = upload.push(&source, facts.len).await?;
            upload.finish(&facts.digest).await?;
            Ok::<_, Error>(sent)
        };
        let sent = stoppable(runtime, stop, sending)?;
        forget(Some(dir));
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

    /// The upload that was begun in `dir`, or a new one.
    async fn session(&self, dir: Option<&Path>) -> Result<dvcr_client::Upload, Error> {
        let path = dir.map(|dir| dir.join(SESSION));
        let noted = path
            .as_deref()
            .and_then(|path| fs::read_to_string(path).ok());
        if let Some(location) = noted
            && let Some(upload) = self
                .repository
                .resume_upload(location.trim(), Algorithm::Sha256)
                .await?
        {
            return Ok(upload);
        }
        let upload = self.repository.upload(Algorithm::Sha256).await?;
        if let Some(path) = path {
            // Without it, another process begins anew: no reason to fail.
            let _ = fs::write(path, upload.location());
        }
        Ok(upload)
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

fn forget(dir: Option<&Path>) {
    if let Some(dir) = dir {
        // It is over: a session that is gone is as good as none.
        let _ = fs::remove_file(dir.join(SESSION));
    }
}

/// A layer on disk, as the client wants to read it.
struct OnDisk {
    layer: Assembled,
    compression: Compression,
    report: Report,
}

impl BlobSource for OnDisk {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>> {
        let (layer, compression) = (self.layer.clone(), self.compression);
        let report = self.report.clone();
        async move {
            let open = move || match compression {
                Compression::Zstd => layer.open(offset),
                Compression::None => layer.open_plain(offset),
            };
            let reader = tokio::task::spawn_blocking(open).await??;
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
