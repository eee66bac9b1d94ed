//! The directory of a CNCF Distribution registry: which path means what. No I/O.
//!
//! ```text
//! docker/registry/v2/blobs/sha256/ab/ab12.../data
//! docker/registry/v2/repositories/NAME/_manifests/revisions/sha256/ab12.../link
//! docker/registry/v2/repositories/NAME/_manifests/tags/TAG/current/link
//! docker/registry/v2/repositories/NAME/_manifests/tags/TAG/index/sha256/ab12.../link
//! docker/registry/v2/repositories/NAME/_layers/sha256/ab12.../link
//! docker/registry/v2/repositories/NAME/_uploads/...
//! ```
//!
//! A link is a file with a digest as text. A manifest is there if its revision has a link, whatever its blob says.
//! Source: distribution, `registry/storage/paths.go`.

use std::path::{Path, PathBuf};

use dvcr_core::oci::{Algorithm, Digest, RepositoryName, Tag};

/// From what people name to the tree itself.
pub(super) const ROOT: &str = "docker/registry/v2";

/// Longest link file in bytes: a SHA-512 digest, with room for a line's end.
pub(super) const LINK_BYTES_MAX: u64 = 256;

/// Where a blob's bytes are, below the root.
pub(super) fn blob(digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    Path::new("blobs")
        .join(digest.algorithm().as_str())
        .join(&hex[..2])
        .join(&hex)
        .join("data")
}

/// Where all repositories are.
pub(super) const REPOSITORIES: &str = "repositories";

/// Where a repository's manifests of an algorithm are listed, below the root.
pub(super) fn revisions(repository: &RepositoryName, algorithm: Algorithm) -> PathBuf {
    manifests(repository)
        .join("revisions")
        .join(algorithm.as_str())
}

/// Where a repository's tags are listed.
pub(super) fn tags(repository: &RepositoryName) -> PathBuf {
    manifests(repository).join("tags")
}

/// Where a tag's digest is.
pub(super) fn current(repository: &RepositoryName, tag: &Tag) -> PathBuf {
    tags(repository).join(tag.as_str()).join("current/link")
}

fn manifests(repository: &RepositoryName) -> PathBuf {
    Path::new(REPOSITORIES)
        .join(repository.as_str())
        .join("_manifests")
}

/// What a directory below `repositories` is, by its name.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// `_manifests`: the directory that holds it is a repository.
    Manifests,
    /// `_layers`, `_uploads` and whatever else a registry keeps for itself.
    Internal,
    /// The next part of a name.
    Segment,
}

/// Reads the name of a directory below `repositories`. No repository's segment begins with `_`.
pub(super) fn entry(name: &str) -> Entry {
    match name {
        "_manifests" => Entry::Manifests,
        name if name.starts_with('_') => Entry::Internal,
        _ => Entry::Segment,
    }
}

/// Reads a link file.
pub(super) fn link(content: &[u8]) -> Option<Digest> {
    std::str::from_utf8(content).ok()?.trim_ascii().parse().ok()
}

/// The digest of a directory below [`revisions`].
pub(super) fn revision(algorithm: Algorithm, name: &str) -> Option<Digest> {
    format!("{algorithm}:{name}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn paths_are_those_of_distribution() {
        let digest = Digest::sha256(b"");
        let repository: RepositoryName = "vi/ns/debian".parse().unwrap();
        let tag: Tag = "12".parse().unwrap();
        let check = |path: PathBuf, expected: String| assert_eq!(path, PathBuf::from(expected));
        check(blob(&digest), format!("blobs/sha256/e3/{HEX}/data"));
        check(
            revisions(&repository, Algorithm::Sha512),
            "repositories/vi/ns/debian/_manifests/revisions/sha512".to_owned(),
        );
        check(
            current(&repository, &tag),
            "repositories/vi/ns/debian/_manifests/tags/12/current/link".to_owned(),
        );
    }

    #[test]
    fn links_are_read_strictly() {
        fn check(content: &str, expected: bool) {
            let digest = link(content.as_bytes());
            assert_eq!(digest, expected.then(|| Digest::sha256(b"")), "{content:?}");
        }
        check(&format!("sha256:{HEX}"), true);
        check(&format!("sha256:{HEX}\n"), true);
        check(HEX, false);
        check("", false);
        check("sha256:../../etc", false);
        assert_eq!(link(&[0xff]), None);
    }

    #[test]
    fn directories_are_told_apart() {
        assert_eq!(entry("_manifests"), Entry::Manifests);
        assert_eq!(entry("_layers"), Entry::Internal);
        assert_eq!(entry("_whatever"), Entry::Internal);
        assert_eq!(entry("debian"), Entry::Segment);
    }

    #[test]
    fn revisions_are_digests() {
        assert_eq!(revision(Algorithm::Sha256, HEX), Some(Digest::sha256(b"")));
        assert_eq!(revision(Algorithm::Sha512, HEX), None);
        assert_eq!(revision(Algorithm::Sha256, ".."), None);
    }
}
