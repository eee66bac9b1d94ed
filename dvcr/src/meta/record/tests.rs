//! Records read back as they were written.

use dvcr_core::oci::Digest;

use super::*;
use crate::backend::PackId;

fn check<R: Record + PartialEq + std::fmt::Debug>(record: R) {
    let bytes = check_open(record);
    for len in 0..bytes.len() {
        assert!(R::parse(&bytes.slice(..len)).is_err(), "cut to {len}");
    }
}

/// Of a record whose last field goes up to the end of the value: cut, it is an error or a shorter record; never a panic.
fn check_open<R: Record + PartialEq + std::fmt::Debug>(record: R) -> Bytes {
    let bytes = record.encode();
    assert_eq!(R::parse(&bytes).unwrap(), record);
    for len in 0..bytes.len() {
        let _ = R::parse(&bytes.slice(..len));
    }
    let mut newer = bytes.to_vec();
    newer[0] = 99;
    assert!(
        R::parse(&newer.into()).is_err(),
        "a newer schema is refused"
    );
    bytes
}

#[test]
fn records_read_back_as_they_were_written() {
    let digest = Digest::sha256(b"x");
    check(BlobRecord {
        len: 5,
        body: BlobBody::Inline,
        stored_len: 5,
        created_ms: 7,
    });
    check(BlobRecord {
        len: 5,
        body: BlobBody::Recipe { id: 9, parts: 2 },
        stored_len: 5,
        created_ms: 7,
    });
    check(HoldRecord {
        linked_ms: 1,
        lease_ms: 2,
    });
    check(ChunkRecord {
        pack: PackId(3),
        offset: 4,
        stored_len: 5,
    });
    for state in [PackState::Open, PackState::Sealed, PackState::Condemned] {
        check(PackRecord {
            state,
            bytes: 6,
            entries: 7,
        });
    }
    for subject in [None, Some(digest)] {
        check_open(ManifestRecord {
            media_type: "a/b".into(),
            subject,
            created_ms: 8,
            bytes: Bytes::from_static(b"{}"),
        });
    }
    check(TagRecord {
        digest,
        created_ms: 1,
        pushed_ms: 2,
    });
    for let_go in [false, true] {
        check(UntaggedRecord {
            since_ms: 1,
            let_go,
        });
    }
    check(RepositoryRecord { created_ms: 1 });
    check_open(UploadRecord {
        repository: "a".into(),
        principal: "p".into(),
        expires_ms: 3,
        ingest: Bytes::from_static(b"i"),
    });
    check(UsageRecord {
        blobs: 1,
        logical_bytes: 2,
        stored_bytes: 3,
        chunks: 4,
    });
    for (requested, grace_ms) in [(true, None), (false, Some(0)), (false, Some(7))] {
        check_open(GcRunRecord {
            requested,
            full: !requested,
            force: !requested,
            refused: requested,
            grace_ms,
            started_ms: 1,
            finished_ms: 2,
            reviews: 3,
            unlinked: 4,
            removed: 5,
            removed_bytes: 6,
            chosen_packs: 7,
            packs: 8,
            freed_bytes: 9,
            moved_bytes: 10,
            damaged: 11,
            error: "full".to_owned(),
        });
    }
    let numbers = vec![1, u64::MAX];
    assert_eq!(
        decode_numbers(b"", &encode_numbers(&numbers)).unwrap(),
        numbers
    );
    let at = Some(ChunkRecord {
        pack: PackId(3),
        offset: 4,
        stored_len: 5,
    });
    for at in [None, at] {
        check(FindingRecord {
            found_ms: 9,
            at,
            what: "checksum".into(),
        });
    }
    for sampled in [None, Some(Digest::sha256(b""))] {
        check(ScrubRecord {
            last_pack: 1,
            pass_began_ms: 2,
            pass_bytes: 3,
            full_pass_ms: 4,
            bytes: 5,
            sample_bytes: 6,
            sampled,
        });
    }
}
