//! Where content comes from.

use std::collections::{BTreeMap, BTreeSet};

use dvcr_client::{BlobSource, BoxError, RawManifest};
use dvcr_core::oci::{Descriptor, Digest, RepositoryName, Tag};

use super::{Directory, Remote};

/// What is wrong with something in the source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A directory that no registry has.
    #[error(
        "{0} is no data directory of a CNCF Distribution registry: it has no docker/registry/v2 (name what the registry's \
         configuration has as storage.filesystem.rootdirectory)"
    )]
    NoRegistry(String),
    /// Bytes that are not what their name says.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another registry that will not, or cannot.
    #[error(transparent)]
    Client(#[from] dvcr_client::Error),
}

impl SourceError {
    /// Whether the source as a whole is away, so that going on makes no sense. What is denied may be one repository.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Client(error) if super::execute::is_away(error))
    }
}

/// What a repository has.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// By tag.
    pub(super) tags: BTreeMap<Tag, Digest>,
    /// Manifests that are known without a tag. All of them where the source can list them, else none.
    pub(super) revisions: BTreeSet<Digest>,
    /// Tags that lead to nothing, and why.
    pub(super) broken: Vec<(String, String)>,
}

/// Another registry, at rest or running.
#[derive(Debug)]
pub enum Source {
    /// The data directory of a CNCF Distribution registry.
    Directory(Directory),
    /// A running registry.
    Remote(Remote),
}

impl Source {
    /// Fails where nobody answers. What is refused may be this question alone: repositories tell.
    pub(super) async fn ping(&self) -> Result<(), SourceError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Remote(remote) => match remote.ping().await {
                Err(error) if error.is_fatal() => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Names of all repositories, sorted; some may be such that this registry cannot have them.
    pub(super) async fn repositories(&self) -> Result<Vec<String>, SourceError> {
        match self {
            Self::Directory(directory) => directory.repositories().await,
            Self::Remote(remote) => remote.repositories().await,
        }
    }

    pub(super) async fn contents(
        &self,
        repository: &RepositoryName,
    ) -> Result<Contents, SourceError> {
        match self {
            Self::Directory(directory) => directory.contents(repository).await,
            Self::Remote(remote) => remote.contents(repository).await,
        }
    }

    /// A manifest, verified.
    pub(super) async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<RawManifest, SourceError> {
        match self {
            Self::Directory(directory) => directory.manifest(digest).await,
            Self::Remote(remote) => remote.manifest(repository, digest).await,
        }
    }

    /// Digests of the manifests that refer to one, as far as they are not in [`Contents`] anyway.
    pub(super) async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Digest>, SourceError> {
        match self {
            // Every revision is known: referrers are among them.
            Self::Directory(_) => Ok(Vec::new()),
            Self::Remote(remote) => remote.referrers(repository, digest).await,
        }
    }

    /// A blob's bytes, verified as they are read from the begin.
    pub(super) async fn blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<Box<dyn BlobSource>, BoxError> {
        match self {
            Self::Directory(directory) => Ok(Box::new(directory.blob(blob).await?)),
            Self::Remote(remote) => Ok(Box::new(remote.blob(repository, blob))),
        }
    }
}
