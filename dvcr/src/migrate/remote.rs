//! Reading a running registry.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use dvcr_client::{Client, RawManifest, RemoteBlob};
use dvcr_core::oci::{Descriptor, Digest, Reference, RepositoryName, Tag};

use super::source::{Contents, SourceError};

/// A running registry.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    /// Whether it has turned out to have no referrers API: distribution, for example. Then its referrers are under tags, and
    /// come over like all tags.
    without_referrers: AtomicBool,
}

impl Remote {
    /// The registry that a client talks to.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            without_referrers: AtomicBool::new(false),
        }
    }

    pub(super) async fn ping(&self) -> Result<(), SourceError> {
        Ok(self.client.ping().await?)
    }

    pub(super) async fn repositories(&self) -> Result<Vec<String>, SourceError> {
        let mut names = self.client.catalog()?.all().await?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    pub(super) async fn contents(
        &self,
        repository: &RepositoryName,
    ) -> Result<Contents, SourceError> {
        let repository = self.client.repository(repository);
        let mut contents = Contents {
            tags: BTreeMap::new(),
            ..Contents::default()
        };
        for name in repository.tags()?.all().await? {
            let tag: Tag = match name.parse() {
                Ok(tag) => tag,
                Err(error) => {
                    contents.broken.push((name, format!("{error}")));
                    continue;
                }
            };
            let reference = Reference::Tag(tag.clone());
            match repository.manifest_digest(&reference).await {
                Ok(Some(digest)) => {
                    contents.tags.insert(tag, digest);
                }
                Ok(None) => {
                    let reason = "is listed there but leads to nothing".to_owned();
                    contents.broken.push((tag.to_string(), reason));
                }
                Err(error) => {
                    let error = SourceError::from(error);
                    if error.is_fatal() {
                        return Err(error);
                    }
                    contents.broken.push((tag.to_string(), error.to_string()));
                }
            }
        }
        Ok(contents)
    }

    pub(super) async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<RawManifest, SourceError> {
        let repository = self.client.repository(repository);
        Ok(repository.manifest(&Reference::Digest(*digest)).await?)
    }

    pub(super) async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Digest>, SourceError> {
        if self.without_referrers.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let repository = self.client.repository(repository);
        match repository.referrers_api(digest, None).await? {
            Some(entries) => Ok(entries.into_iter().map(|entry| entry.digest).collect()),
            None => {
                self.without_referrers.store(true, Ordering::Relaxed);
                Ok(Vec::new())
            }
        }
    }

    pub(super) fn blob(&self, repository: &RepositoryName, blob: &Descriptor) -> RemoteBlob {
        RemoteBlob {
            repository: self.client.repository(repository),
            blob: blob.clone(),
        }
    }
}
