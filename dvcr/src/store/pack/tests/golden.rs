//! Bytes that must never change.

use super::*;

#[test]
fn golden_header() {
    check_hex(
        &HEADER.encode(),
        "445643525041434b 01000000 00000000 0201000000000000 8877665544332211 00000000 3bd8dd10",
    );
    assert_eq!(PackHeader::decode(&HEADER.encode()), Ok(HEADER));
}

#[test]
fn golden_record() {
    let record = Record::new(
        chunk_id(0xAB),
        Codec::Zstd,
        0x0102,
        vec![Bytes::from_static(b"payload")],
    )
    .unwrap();
    check_hex(
        &bytes_of(record),
        "44564372 01 01 0000 07000000 02010000
         abababababababababababababababababababababababababababababababab 7069e3f4 75ace34a 7061796c6f6164",
    );
    let part = RecordId::RecipePart {
        recipe: 0x0A0B,
        part: 0x0C,
    };
    check_hex(
        &part.encode(),
        "0b0a000000000000 0c000000 0000000000000000000000000000000000000000",
    );
    check_hex(
        &RecordId::BlobHead { recipe: 0x0A0B }.encode(),
        "0b0a000000000000 000000000000000000000000000000000000000000000000",
    );
}

#[test]
fn golden_footer() {
    let (_, builder) = pack_of(vec![
        raw(chunk_id(0xAB), b"payload"),
        raw(RecordId::BlobHead { recipe: 5 }, b"x"),
    ]);
    check_hex(
        &builder.footer(),
        "01 00 0000 28000000 07000000 07000000
         abababababababababababababababababababababababababababababababab 7069e3f4
         03 00 0000 67000000 01000000 01000000
         0500000000000000000000000000000000000000000000000000000000000000 935f3ca9
         0201000000000000 8877665544332211 02000000 68000000 75987413 4704dc43 44564352464f4f54",
    );
}

#[test]
fn golden_blob_head() {
    let digest = Digest::from_key(&[[1].as_slice(), &[0xCD; 32]].concat()).unwrap();
    let head = BlobHead {
        digest,
        len: 0x0102_0304,
        recipe: 0x0A,
        parts: 3,
        created_unix_ms: 0x0B,
    };
    let bytes = head.encode();
    check_hex(
        &bytes,
        "01 01 0000 03000000 0403020100000000 0a00000000000000 0b00000000000000
         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
    );
    assert_eq!(BlobHead::decode(&bytes), Ok(head));
    for len in 0..bytes.len() {
        assert!(BlobHead::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(BlobHead::decode(&[&bytes[..], &[0]].concat()).is_err());

    let digest = Digest::from_key(&[[2].as_slice(), &[0xCD; 64]].concat()).unwrap();
    let head = BlobHead {
        digest,
        len: u64::MAX,
        recipe: u64::MAX,
        parts: u32::MAX,
        created_unix_ms: u64::MAX,
    };
    assert_eq!(BlobHead::decode(&head.encode()), Ok(head.clone()));
    assert!(BlobHead::decode(&[&head.encode()[..], &[0]].concat()).is_err());
}

fn check_hex(bytes: &[u8], expected: &str) {
    let expected: String = expected.split_whitespace().collect();
    assert_eq!(hex::encode(bytes), expected);
}
