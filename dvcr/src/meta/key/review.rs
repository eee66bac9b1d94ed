//! Keys of what garbage collection is to look at, and when.

use dvcr_core::oci::{Digest, RepositoryName};

use super::{REVIEW, key};
use crate::meta::{Key, KeyRange};

/// A blob of a repository to be looked at again at `due_ms`: does anything still refer to it?
#[must_use]
pub fn review_blob(due_ms: u64, repository: &RepositoryName, digest: &Digest) -> Key {
    review(b'b', due_ms, repository, digest)
}

fn review(kind: u8, due_ms: u64, repository: &RepositoryName, digest: &Digest) -> Key {
    key(
        REVIEW,
        &[
            &due_ms.to_be_bytes(),
            &[kind],
            repository.as_str().as_bytes(),
            &[0],
            &digest.to_key(),
        ],
    )
}

/// All reviews that are due at `now_ms`.
#[must_use]
pub fn reviews_due(now_ms: u64) -> KeyRange {
    KeyRange {
        from: vec![REVIEW],
        to: key(REVIEW, &[&now_ms.saturating_add(1).to_be_bytes()]),
    }
}

/// What a row among the reviews is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// When it is due, milliseconds since 1970.
    pub due_ms: u64,
    /// The repository.
    pub repository: RepositoryName,
    /// The blob or manifest.
    pub digest: Digest,
    /// Whether it is a manifest. No longer written: [`super::untagged`] took its place.
    pub manifest: bool,
}

/// Reads the key of a review.
#[must_use]
pub fn review_of(key: &[u8]) -> Option<Review> {
    let (due, rest) = key.strip_prefix(&[REVIEW])?.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(Review {
        due_ms: u64::from_be_bytes(*due),
        repository: std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?,
        digest: Digest::from_key(&rest[end + 1..]).ok()?,
        manifest: match kind {
            b'b' => false,
            b'm' => true,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_read_back_in_the_order_of_their_time() {
        let repository: RepositoryName = "a/b".parse().unwrap();
        let digest = Digest::sha256(b"");
        let read = |due_ms, manifest| Review {
            due_ms,
            repository: repository.clone(),
            digest,
            manifest,
        };
        let blob = review_blob(5, &repository, &digest);
        assert_eq!(review_of(&blob), Some(read(5, false)));
        let manifest = review(b'm', 6, &repository, &digest);
        assert_eq!(review_of(&manifest), Some(read(6, true)));
        let due = reviews_due(5);
        assert!(due.from < blob && blob < due.to && manifest >= due.to);
        assert_eq!(review_of(&due.from), None);
    }
}
