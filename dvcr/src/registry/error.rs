//! What can go wrong in a use case, sorted by what the caller does about it. HTTP-agnostic.

use dvcr_core::oci::{Digest, ManifestError, RepositoryName};

use crate::{meta::MetaError, store::StoreError};

/// Failure of a use case.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The repository does not exist, or the principal may not know that it does.
    #[error("repository {0} not known to registry")]
    NameUnknown(RepositoryName),
    /// No such blob in this repository.
    #[error("blob {0} not known to this repository")]
    BlobUnknown(Digest),
    /// No such manifest or tag in this repository.
    #[error("manifest {0} not known to this repository")]
    ManifestUnknown(String),
    /// A manifest names a blob or child manifest that this repository does not hold.
    #[error("manifest refers to {0}, which this repository does not hold; push it first")]
    ManifestBlobUnknown(Digest),
    /// A manifest names a blob with another size than it has.
    #[error(
        "manifest says that {digest} has {said} bytes, but it has {len}; push the manifest with that size"
    )]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// What the manifest says.
        said: u64,
        /// What is stored.
        len: u64,
    },
    /// The manifest cannot be accepted.
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// The content does not hash to the digest that the client named.
    #[error("content has digest {found}, not {expected}")]
    DigestMismatch {
        /// What the client named.
        expected: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// No such upload session for this principal in this repository.
    #[error("upload session unknown, finished, cancelled or expired; start a new upload")]
    UploadUnknown,
    /// The chunk does not start where the session stands. The session is unharmed.
    #[error("chunk starts at {found}, but the upload stands at {expected}")]
    RangeMismatch {
        /// The session's offset.
        expected: u64,
        /// Where the chunk claimed to start.
        found: u64,
    },
    /// The body ended early, was longer than announced, or broke off. What arrived in whole blocks is kept.
    #[error("request body broke off: {0}")]
    Body(String),
    /// The client sent nothing for too long.
    #[error("request body stalled for too long")]
    BodyTimeout,
    /// More than a limit allows.
    #[error("{what} exceeds the limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// Too much at once; try again after so many seconds.
    #[error("too many {what}; try again later")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// When to try again.
        retry_after_seconds: u32,
    },
    /// The principal may not do this, and may know that the thing exists.
    #[error("access denied")]
    Denied,
    /// Nobody is logged in, and somebody must be.
    #[error("authentication required")]
    Unauthorized,
    /// What cannot be removed while a manifest of the repository refers to it.
    #[error("a manifest of this repository refers to {0}; delete that first")]
    InUse(Digest),
    /// An immutable tag would have been moved or deleted.
    #[error("tag {tag} of {repository} is immutable and names {digest}: it cannot be {refused}")]
    TagImmutable {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: String,
        /// The manifest that it names.
        digest: Digest,
        /// What was refused: it cannot be ...
        refused: &'static str,
    },
    /// A part of the blob is known to be damaged.
    #[error(
        "blob {0} is damaged on this server; pushing it again heals it, and a range of it may still be read"
    )]
    Damaged(Digest),
    /// The request contradicts itself or the specification.
    #[error("{0}")]
    Invalid(String),
    /// Another request changed the same rows again and again; trying again is fine.
    #[error("too many concurrent changes to the same object; try again")]
    Conflict,
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}
