//! Blobs: whether they are there, and how they get there.

use std::ops::Range;

use dvcr_core::oci::{Descriptor, Digest, RepositoryName};
use reqwest::{Method, StatusCode, header};

use crate::{BlobReader, BlobSource, Error, Repository, Upload, fields};

/// Longest answer to a request that only reports.
pub(crate) const REPORT_BYTES_MAX: u64 = 64 << 10;

/// What a registry says of a blob.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BlobInfo {
    /// Its length, if the registry tells.
    pub size: Option<u64>,
}

/// What a registry made of a request to take a blob over.
#[derive(Debug)]
pub enum Begun {
    /// It is there.
    Mounted,
    /// It must be sent.
    Upload(Upload),
}

/// How a blob came to be in a repository.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// Another repository of the registry had it.
    Mounted,
    /// So many bytes were sent for it.
    Sent(u64),
}

impl Repository {
    /// Whether the repository has a blob.
    pub async fn blob_info(&self, digest: &Digest) -> Result<Option<BlobInfo>, Error> {
        let request = self.pull(Method::HEAD, &format!("blobs/{digest}"))?;
        match self.client.fetch(&request, REPORT_BYTES_MAX).await {
            Ok(fetched) => {
                let len = fields::text(&fetched.headers, header::CONTENT_LENGTH);
                Ok(Some(BlobInfo {
                    size: len.and_then(|len| len.parse().ok()),
                }))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a blob from begin to end. Its digest, and its length where one is given, are verified: the last
    /// [`BlobReader::chunk`] is an error where they do not fit.
    pub async fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<BlobReader, Error> {
        BlobReader::whole(self.clone(), *digest, size).await
    }

    /// Reads a part of a blob, which must lie within it. Only the length is verified, as there is no digest of a part.
    pub async fn blob_range(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<BlobReader, Error> {
        BlobReader::range(self.clone(), *digest, range).await
    }

    /// Takes a blob over from another repository of the same registry, or from whichever has it where none is named (only some
    /// registries look for that). What the registry does not have, or not for us, begins an upload instead.
    pub async fn mount_or_upload(
        &self,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Begun, Error> {
        let mut request = self.push(Method::POST, "blobs/uploads/")?;
        {
            let mut query = request.url.query_pairs_mut();
            query.append_pair("mount", &digest.to_string());
            if let Some(from) = from {
                query.append_pair("from", from.as_str());
            }
        }
        Upload::announce(&mut request, digest.algorithm());
        if let Some(from) = from {
            request.scopes.insert(format!("repository:{from}:pull"));
        }
        match self.client.fetch(&request, REPORT_BYTES_MAX).await {
            Ok(fetched) if fetched.status == StatusCode::CREATED => Ok(Begun::Mounted),
            Ok(fetched) => {
                let upload = Upload::begun(self.clone(), digest.algorithm(), &fetched)?;
                Ok(Begun::Upload(upload))
            }
            // A repository that is not there, or may not be read, mounts nothing; nor does an old registry.
            Err(error)
                if matches!(
                    error.status(),
                    Some(
                        StatusCode::BAD_REQUEST
                            | StatusCode::NOT_FOUND
                            | StatusCode::FORBIDDEN
                            | StatusCode::UNAUTHORIZED
                            | StatusCode::METHOD_NOT_ALLOWED
                    )
                ) =>
            {
                self.upload(digest.algorithm()).await.map(Begun::Upload)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a blob over from another repository of the same registry. False if the registry will not, or does not have it there:
    /// then it must be pushed.
    pub async fn mount(&self, digest: &Digest, from: &RepositoryName) -> Result<bool, Error> {
        match self.mount_or_upload(digest, Some(from)).await? {
            Begun::Mounted => Ok(true),
            Begun::Upload(upload) => {
                upload.cancel().await;
                Ok(false)
            }
        }
    }

    /// Brings a blob into the repository: not at all if it is there, by mounting it from another one that has it, else by sending it,
    /// resumed after breaks at the offset that the registry has.
    pub async fn push_blob(
        &self,
        blob: &Descriptor,
        source: &dyn BlobSource,
        from: Option<&RepositoryName>,
    ) -> Result<Pushed, Error> {
        if self.blob_info(&blob.digest).await?.is_some() {
            return Ok(Pushed::Existed);
        }
        let mut upload = match self.mount_or_upload(&blob.digest, from).await? {
            Begun::Mounted => return Ok(Pushed::Mounted),
            Begun::Upload(upload) => upload,
        };
        let sent = upload.push(source, blob.size).await?;
        upload.finish(&blob.digest).await?;
        Ok(Pushed::Sent(sent))
    }
}
