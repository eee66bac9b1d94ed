//! Bytes to be pushed.

use bytes::Bytes;
use dvcr_core::oci::Descriptor;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};

use crate::{BoxError, Repository};

/// A blob's bytes on their way out. An error ends the push and is given back as [`crate::Error::Source`].
pub type BlobStream = BoxStream<'static, Result<Bytes, BoxError>>;

/// A blob that can be read again from any offset: what a push that resumes needs.
pub trait BlobSource: Send + Sync {
    /// The bytes from an offset, which lies within the blob, to the end.
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>>;
}

impl BlobSource for Bytes {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>> {
        let rest = usize::try_from(offset).map_or_else(
            |_| Bytes::new(),
            |offset| self.slice(offset.min(self.len())..),
        );
        let stream = futures::stream::iter([Ok(rest)]).boxed();
        async move { Ok(stream) }.boxed()
    }
}

/// A blob of another registry. From its begin it is verified while it is read; from elsewhere, whoever takes it must.
#[derive(Clone, Debug)]
pub struct RemoteBlob {
    /// Where it is.
    pub repository: Repository,
    /// Which one.
    pub blob: Descriptor,
}

impl BlobSource for RemoteBlob {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<BlobStream, BoxError>> {
        let Self { repository, blob } = self;
        async move {
            let reader = if offset == 0 {
                repository.blob(&blob.digest, Some(blob.size)).await?
            } else {
                repository
                    .blob_range(&blob.digest, offset..blob.size)
                    .await?
            };
            let stream = reader
                .into_stream()
                .map(|chunk| chunk.map_err(BoxError::from));
            Ok(stream.boxed())
        }
        .boxed()
    }
}
