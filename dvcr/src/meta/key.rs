//! Keys of the metadata: one byte of keyspace, then fields in the order in which they are listed and compared.
//!
//! Integers are big-endian so that key order is number order. A repository name is followed by a zero byte, which no
//! name contains, so that the rows of `a` do not run into those of `ab`. Digests are an algorithm byte (1 sha256,
//! 2 sha512) and the raw bytes. `docs/format.md` has the table.

mod finding;
mod review;
mod row;

pub use finding::{Finding, finding, finding_of, findings, found_blobs, pack_hold, scrub_state};
pub use review::{Review, review_blob, review_of, reviews_due};
pub use row::{Row, blob_of, checkpointed, edges_to, parent_of, recipe_of, row_of};

use dvcr_core::{
    chunk::ChunkId,
    oci::{Digest, RepositoryName, Tag},
};

use super::{Key, KeyRange};
use crate::backend::PackId;

/// Part number of the row that lists where the parts of a long recipe start.
pub const RECIPE_STARTS: u32 = u32::MAX;

const BLOB: u8 = 1;
const HOLD: u8 = 2;
const HELD_BY: u8 = 3;
const INLINE: u8 = 4;
const RECIPE: u8 = 5;
const CHUNK: u8 = 6;
const PACK: u8 = 7;
const MANIFEST: u8 = 8;
const EDGE: u8 = 9;
const REFERRER: u8 = 10;
const TAG: u8 = 11;
const TAGGED: u8 = 12;
const UPLOAD: u8 = 13;
const REVIEW: u8 = 14;
const REPOSITORY: u8 = 15;
const COUNTER: u8 = 16;
const FINDING: u8 = 17;
const SCRUB: u8 = 18;
const USAGE: u8 = 19;
const GC_RUN: u8 = 20;
const UNTAGGED: u8 = 21;

fn key(space: u8, fields: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(1 + fields.iter().map(|f| f.len()).sum::<usize>());
    key.push(space);
    for field in fields {
        key.extend_from_slice(field);
    }
    key
}

/// All keys that start with `prefix`.
#[must_use]
pub fn prefix(prefix: Key) -> KeyRange {
    let mut to = prefix.clone();
    while let Some(last) = to.pop() {
        if last < u8::MAX {
            to.push(last + 1);
            break;
        }
    }
    KeyRange { from: prefix, to }
}

/// The part of `range` after `last`; all of it where `last` lies before.
#[must_use]
pub fn after(range: KeyRange, last: &[u8]) -> KeyRange {
    let mut from = last.to_vec();
    from.push(0);
    KeyRange {
        from: from.max(range.from),
        to: range.to,
    }
}

/// Blob by digest.
#[must_use]
pub fn blob(digest: &Digest) -> Key {
    key(BLOB, &[&digest.to_key()])
}

/// All blobs.
#[must_use]
pub fn blobs() -> KeyRange {
    prefix(vec![BLOB])
}

/// A repository holds a blob.
#[must_use]
pub fn hold(repository: &RepositoryName, digest: &Digest) -> Key {
    key(
        HOLD,
        &[repository.as_str().as_bytes(), &[0], &digest.to_key()],
    )
}

/// All blobs that a repository holds.
#[must_use]
pub fn holds(repository: &RepositoryName) -> KeyRange {
    prefix(key(HOLD, &[repository.as_str().as_bytes(), &[0]]))
}

/// A blob is held by a repository.
#[must_use]
pub fn held_by(digest: &Digest, repository: &RepositoryName) -> Key {
    key(HELD_BY, &[&digest.to_key(), repository.as_str().as_bytes()])
}

/// All repositories that hold a blob.
#[must_use]
pub fn holders(digest: &Digest) -> KeyRange {
    prefix(key(HELD_BY, &[&digest.to_key()]))
}

/// Bytes of a small blob.
#[must_use]
pub fn inline(digest: &Digest) -> Key {
    key(INLINE, &[&digest.to_key()])
}

/// One part of a recipe.
#[must_use]
pub fn recipe(id: u64, part: u32) -> Key {
    key(RECIPE, &[&id.to_be_bytes(), &part.to_be_bytes()])
}

/// Keys of all rows of one recipe with so many parts.
pub fn recipe_rows(id: u64, parts: u32) -> impl Iterator<Item = Key> {
    (0..parts)
        .chain([RECIPE_STARTS])
        .map(move |part| recipe(id, part))
}

/// The same, however many parts it has.
#[must_use]
pub fn recipe_parts(id: u64) -> KeyRange {
    prefix(key(RECIPE, &[&id.to_be_bytes()]))
}

/// All parts of all recipes, and the rows that list where they start.
#[must_use]
pub fn recipes() -> KeyRange {
    prefix(vec![RECIPE])
}

/// Whether a row among [`recipes`] is a part, rather than a list of starts.
#[must_use]
pub fn is_recipe_part(key: &[u8]) -> bool {
    !key.ends_with(&RECIPE_STARTS.to_be_bytes())
}

/// Where a chunk lies.
#[must_use]
pub fn chunk(id: &ChunkId) -> Key {
    key(CHUNK, &[&id.0])
}

/// All chunks.
#[must_use]
pub fn chunks() -> KeyRange {
    prefix(vec![CHUNK])
}

/// The chunks whose ids begin with the lowest `bits` bits of `part`; all of them for 0 bits. At most 16 bits.
#[must_use]
pub fn chunks_of_part(part: u64, bits: u32) -> KeyRange {
    let bound = |part: u64| {
        let first = (part << (16 - bits)) as u16;
        key(CHUNK, &[&first.to_be_bytes()])
    };
    let all = chunks();
    KeyRange {
        from: if part == 0 { all.from } else { bound(part) },
        to: if part + 1 == 1 << bits {
            all.to
        } else {
            bound(part + 1)
        },
    }
}

/// The chunk of a row among [`chunks`].
#[must_use]
pub fn chunk_of(key: &[u8]) -> Option<ChunkId> {
    Some(ChunkId(key.get(1..)?.try_into().ok()?))
}

/// A pack.
#[must_use]
pub fn pack(id: PackId) -> Key {
    key(PACK, &[&id.0.to_be_bytes()])
}

/// All packs.
#[must_use]
pub fn packs() -> KeyRange {
    prefix(vec![PACK])
}

/// The pack of a row among [`packs`].
#[must_use]
pub fn pack_of(key: &[u8]) -> Option<PackId> {
    Some(PackId(u64::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

/// A manifest in a repository.
#[must_use]
pub fn manifest(repository: &RepositoryName, digest: &Digest) -> Key {
    key(
        MANIFEST,
        &[repository.as_str().as_bytes(), &[0], &digest.to_key()],
    )
}

/// All manifests of a repository.
#[must_use]
pub fn manifests(repository: &RepositoryName) -> KeyRange {
    prefix(key(MANIFEST, &[repository.as_str().as_bytes(), &[0]]))
}

/// A manifest refers to a blob or to another manifest.
#[must_use]
pub fn edge(child: &Digest, repository: &RepositoryName, parent: &Digest) -> Key {
    key(
        EDGE,
        &[
            &child.to_key(),
            repository.as_str().as_bytes(),
            &[0],
            &parent.to_key(),
        ],
    )
}

/// All manifests of a repository that refer to a digest.
#[must_use]
pub fn edges(child: &Digest, repository: &RepositoryName) -> KeyRange {
    prefix(key(
        EDGE,
        &[&child.to_key(), repository.as_str().as_bytes(), &[0]],
    ))
}

/// A manifest whose subject is another.
#[must_use]
pub fn referrer(repository: &RepositoryName, subject: &Digest, manifest: &Digest) -> Key {
    key(
        REFERRER,
        &[
            repository.as_str().as_bytes(),
            &[0],
            &subject.to_key(),
            &manifest.to_key(),
        ],
    )
}

/// All manifests with this subject.
#[must_use]
pub fn referrers(repository: &RepositoryName, subject: &Digest) -> KeyRange {
    prefix(key(
        REFERRER,
        &[repository.as_str().as_bytes(), &[0], &subject.to_key()],
    ))
}

/// A tag.
#[must_use]
pub fn tag(repository: &RepositoryName, tag: &str) -> Key {
    key(TAG, &[repository.as_str().as_bytes(), &[0], tag.as_bytes()])
}

/// All tags of a repository.
#[must_use]
pub fn tags(repository: &RepositoryName) -> KeyRange {
    prefix(key(TAG, &[repository.as_str().as_bytes(), &[0]]))
}

/// A manifest has a tag.
#[must_use]
pub fn tagged(repository: &RepositoryName, digest: &Digest, tag: &Tag) -> Key {
    key(
        TAGGED,
        &[
            repository.as_str().as_bytes(),
            &[0],
            &digest.to_key(),
            tag.as_str().as_bytes(),
        ],
    )
}

/// All tags of a manifest.
#[must_use]
pub fn tags_of(repository: &RepositoryName, digest: &Digest) -> KeyRange {
    prefix(key(
        TAGGED,
        &[repository.as_str().as_bytes(), &[0], &digest.to_key()],
    ))
}

/// An upload session.
#[must_use]
pub fn upload(session: &[u8; 16]) -> Key {
    key(UPLOAD, &[session])
}

/// All upload sessions.
#[must_use]
pub fn uploads() -> KeyRange {
    prefix(vec![UPLOAD])
}

/// A repository.
#[must_use]
pub fn repository(name: &str) -> Key {
    key(REPOSITORY, &[name.as_bytes()])
}

/// All repositories.
#[must_use]
pub fn repositories() -> KeyRange {
    prefix(vec![REPOSITORY])
}

/// A manifest that perhaps nothing needs any more.
#[must_use]
pub fn untagged(repository: &RepositoryName, digest: &Digest) -> Key {
    key(
        UNTAGGED,
        &[repository.as_str().as_bytes(), &[0], &digest.to_key()],
    )
}

/// All manifests of all repositories that perhaps nothing needs any more.
#[must_use]
pub fn all_untagged() -> KeyRange {
    prefix(vec![UNTAGGED])
}

/// All manifests of a repository that perhaps nothing needs any more.
#[must_use]
pub fn untagged_in(repository: &RepositoryName) -> KeyRange {
    prefix(key(UNTAGGED, &[repository.as_str().as_bytes(), &[0]]))
}

/// Repository and manifest of a row among [`all_untagged`].
#[must_use]
pub fn untagged_of(key: &[u8]) -> Option<(RepositoryName, Digest)> {
    let rest = key.strip_prefix(&[UNTAGGED])?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let repository = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((repository, Digest::from_key(&rest[end + 1..]).ok()?))
}

/// The next free number of a sequence.
#[must_use]
pub fn counter(name: &str) -> Key {
    key(COUNTER, &[name.as_bytes()])
}

/// What was stored at a time, milliseconds since 1970.
#[must_use]
pub fn usage(at_ms: u64) -> Key {
    key(USAGE, &[&at_ms.to_be_bytes()])
}

/// What was stored, at all times.
#[must_use]
pub fn usages() -> KeyRange {
    prefix(vec![USAGE])
}

/// The time of a row among [`usages`].
#[must_use]
pub fn usage_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// A collection of garbage that is over.
#[must_use]
pub fn gc_run(id: u64) -> Key {
    key(GC_RUN, &[&id.to_be_bytes()])
}

/// All collections of garbage that are remembered.
#[must_use]
pub fn gc_runs() -> KeyRange {
    prefix(vec![GC_RUN])
}

/// The number of a row among [`gc_runs`].
#[must_use]
pub fn gc_run_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// The bytes of `key` after the fixed part `range.from`: the last field of a listing's rows.
#[must_use]
pub fn last_field<'a>(prefix_range: &KeyRange, key: &'a [u8]) -> &'a [u8] {
    key.get(prefix_range.from.len()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_repository_do_not_run_into_those_of_another() {
        let (a, ab): (RepositoryName, RepositoryName) =
            ("a".parse().unwrap(), "ab".parse().unwrap());
        let nested: RepositoryName = "a/b".parse().unwrap();
        let range = tags(&a);
        assert!(range.from <= tag(&a, "x") && tag(&a, "x") < range.to);
        for other in [ab, nested] {
            let key = tag(&other, "x");
            assert!(key < range.from || key >= range.to, "{other}");
        }
    }

    #[test]
    fn the_parts_of_all_chunks_lie_side_by_side() {
        for bits in [0, 1, 3, 16] {
            let mut from = chunks().from;
            for part in 0..1u64 << bits {
                let range = chunks_of_part(part, bits);
                assert_eq!(range.from, from);
                assert!(range.from < range.to);
                from = range.to;
            }
            assert_eq!(from, chunks().to);
        }
        let id = ChunkId([0xa5; 32]);
        assert_eq!(chunk_of(&chunk(&id)), Some(id));
        let range = chunks_of_part(0b101, 3);
        assert!(range.from <= chunk(&id) && chunk(&id) < range.to);
    }

    #[test]
    fn a_prefix_of_all_ones_ends_at_the_next_shorter_one() {
        assert_eq!(prefix(vec![1, 255, 255]).to, vec![2]);
    }

    #[test]
    fn after_starts_just_past_the_key_and_never_before_the_range() {
        let range = KeyRange {
            from: vec![5],
            to: vec![6],
        };
        assert_eq!(after(range.clone(), &[5, 9]).from, vec![5, 9, 0]);
        assert_eq!(after(range, &[4]).from, vec![5]);
    }
}
