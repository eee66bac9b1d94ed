//! What a key is about, for who looks at rows of several kinds.

use dvcr_core::oci::{Digest, RepositoryName};

use super::{
    BLOB, CHUNK, COUNTER, EDGE, FINDING, Finding, HELD_BY, HOLD, MANIFEST, PACK, RECIPE,
    REPOSITORY, SCRUB, TAG, UPLOAD, finding_of, key, last_field, prefix,
};
use crate::meta::KeyRange;

/// What a row is about, for who looks at rows of several kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row<'a> {
    /// A blob.
    Blob(Digest),
    /// A repository has a blob.
    Hold(RepositoryName, Digest),
    /// The same the other way round.
    HeldBy(Digest),
    /// A manifest.
    Manifest,
    /// A tag.
    Tag,
    /// A repository.
    Repository,
    /// A counter, by name.
    Counter(&'a [u8]),
    /// Damage.
    Finding(Finding),
    /// Anything else, also what this program does not know.
    Other,
}

/// What a row is about.
#[must_use]
pub fn row_of(key: &[u8]) -> Row<'_> {
    let Some((space, rest)) = key.split_first() else {
        return Row::Other;
    };
    let row = match *space {
        BLOB => Digest::from_key(rest).ok().map(Row::Blob),
        HOLD => named(rest).map(|(name, digest)| Row::Hold(name, digest)),
        HELD_BY => leading_digest(rest).map(|(digest, _)| Row::HeldBy(digest)),
        MANIFEST => Some(Row::Manifest),
        TAG => Some(Row::Tag),
        REPOSITORY => Some(Row::Repository),
        COUNTER => Some(Row::Counter(rest)),
        FINDING => finding_of(key).map(Row::Finding),
        _ => None,
    };
    row.unwrap_or(Row::Other)
}

/// A repository name, its zero byte, and a digest.
fn named(bytes: &[u8]) -> Option<(RepositoryName, Digest)> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((name, Digest::from_key(&bytes[end + 1..]).ok()?))
}

/// A digest, and what follows it.
fn leading_digest(bytes: &[u8]) -> Option<(Digest, &[u8])> {
    let len = match bytes.first()? {
        1 => 33,
        2 => 65,
        _ => return None,
    };
    let (digest, rest) = bytes.split_at_checked(len)?;
    Some((Digest::from_key(digest).ok()?, rest))
}

/// All manifests of all repositories that refer to a digest.
#[must_use]
pub fn edges_to(child: &Digest) -> KeyRange {
    prefix(key(EDGE, &[&child.to_key()]))
}

/// The repository and the manifest of a row among [`edges_to`].
#[must_use]
pub fn parent_of(range: &KeyRange, key: &[u8]) -> Option<(RepositoryName, Digest)> {
    named(last_field(range, key))
}

/// The recipe of a row among [`recipes`].
#[must_use]
pub fn recipe_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.first_chunk()?))
}

/// The digest of a row among [`blobs`].
#[must_use]
pub fn blob_of(key: &[u8]) -> Option<Digest> {
    Digest::from_key(key.strip_prefix(&[BLOB])?).ok()
}

/// The rows that a checkpoint holds, ascending: all but those of recipes, chunks and packs, which the packs tell, of upload
/// sessions, which are begun anew, and of a scrub under way.
#[must_use]
pub fn checkpointed() -> Vec<KeyRange> {
    let mut ranges = Vec::new();
    let mut from = vec![BLOB];
    for left_out in [RECIPE, CHUNK, PACK, UPLOAD, SCRUB] {
        let to = vec![left_out];
        if from < to {
            ranges.push(KeyRange { from, to });
        }
        from = vec![left_out + 1];
    }
    // Those of later versions as well.
    ranges.push(KeyRange {
        from,
        to: vec![u8::MAX],
    });
    ranges
}

#[cfg(test)]
mod tests {
    use dvcr_core::{chunk::ChunkId, oci::Algorithm};

    use super::{super::*, *};

    #[test]
    fn rows_tell_what_they_are_about() {
        let repository: RepositoryName = "a/b".parse().unwrap();
        for digest in [Digest::sha256(b""), Digest::of(Algorithm::Sha512, b"")] {
            assert_eq!(row_of(&blob(&digest)), Row::Blob(digest));
            assert_eq!(blob_of(&blob(&digest)), Some(digest));
            let held = Row::Hold(repository.clone(), digest);
            assert_eq!(row_of(&hold(&repository, &digest)), held);
            let held_by = held_by(&digest, &repository);
            assert_eq!(row_of(&held_by), Row::HeldBy(digest));
            let parent = Digest::sha256(b"parent");
            let edge = edge(&digest, &repository, &parent);
            let range = edges_to(&digest);
            assert!(range.from < edge && edge < range.to);
            let expected = Some((repository.clone(), parent));
            assert_eq!(parent_of(&range, &edge), expected);
            for found in [
                Finding::Blob(digest),
                Finding::Chunk(ChunkId([3; 32])),
                Finding::Pack(PackId(9)),
            ] {
                assert_eq!(finding_of(&finding(&found)), Some(found));
                assert_eq!(row_of(&finding(&found)), Row::Finding(found));
            }
        }
        assert_eq!(row_of(&counter("pack")), Row::Counter(b"pack"));
        assert_eq!(recipe_of(&recipe(7, RECIPE_STARTS)), Some(7));
        for space in 0..=u8::MAX {
            for len in 0..70 {
                // Nothing panics, whatever a damaged key is.
                let _ = row_of(&[&[space][..], &vec![1; len]].concat());
            }
        }
    }
}
