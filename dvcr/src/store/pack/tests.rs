#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::backend::PackId;

const HEADER: PackHeader = PackHeader {
    pack: PackId(0x0102),
    nonce: 0x1122_3344_5566_7788,
};

mod golden;

fn chunk_id(byte: u8) -> RecordId {
    RecordId::Chunk(ChunkId([byte; 32]))
}

fn raw(id: RecordId, payload: &[u8]) -> Record {
    Record::new(
        id,
        Codec::Raw,
        payload.len(),
        vec![Bytes::copy_from_slice(payload)],
    )
    .unwrap()
}

fn bytes_of(record: Record) -> Vec<u8> {
    let mut slices = Vec::new();
    record.gather(&mut slices);
    slices.concat()
}

/// A pack of these records with its footer, and the books.
fn pack_of(records: Vec<Record>) -> (Vec<u8>, PackBuilder) {
    let mut slices = Vec::new();
    let mut builder = PackBuilder::new(HEADER, &mut slices);
    for record in records {
        builder.push(record, &mut slices).unwrap();
    }
    assert_eq!(
        slices.iter().map(Bytes::len).sum::<usize>() as u64,
        builder.len()
    );
    slices.push(builder.footer());
    (slices.concat(), builder)
}

fn three_records() -> Vec<Record> {
    let part = RecordId::RecipePart { recipe: 7, part: 1 };
    vec![
        raw(chunk_id(0xAB), b"first"),
        Record::new(
            part,
            Codec::Zstd,
            1000,
            vec![Bytes::from_static(b"sec"), Bytes::from_static(b"ond")],
        )
        .unwrap(),
        raw(RecordId::BlobHead { recipe: 7 }, &[0; 300]),
    ]
}

fn walk(pack: &[u8]) -> (Vec<Walked>, WalkEnd, u64) {
    let bytes = Bytes::copy_from_slice(pack);
    let mut walk = RecordWalk::new(pack.len() as u64, |offset, len| {
        Ok(bytes.slice(offset as usize..offset as usize + len))
    });
    let walked = walk.by_ref().map(Result::unwrap).collect();
    (walked, walk.end().unwrap().clone(), walk.walked_to())
}

#[test]
fn every_bit_flip_of_a_record_is_detected() {
    let record = bytes_of(raw(chunk_id(0x5A), b"some bytes of a chunk"));
    assert!(open_record(&record.clone().into()).is_ok());
    for bit in 0..record.len() * 8 {
        let mut bent = record.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(open_record(&bent.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn every_bit_flip_of_header_and_footer_is_detected() {
    let (pack, builder) = pack_of(three_records());
    for bit in 0..PACK_HEADER_LEN * 8 {
        let mut bent = HEADER.encode();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(PackHeader::decode(&bent).is_err(), "bit {bit}");
    }
    for bit in builder.len() as usize * 8..pack.len() * 8 {
        let mut bent = pack.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Footer::decode(&HEADER, bent.len() as u64, &bent).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn a_record_is_exactly_as_long_as_it_says() {
    let record = bytes_of(raw(chunk_id(1), b"payload"));
    for len in 0..record.len() {
        assert!(
            open_record(&Bytes::copy_from_slice(&record[..len])).is_err(),
            "{len} bytes"
        );
    }
    assert!(open_record(&[&record[..], &[0]].concat().into()).is_err());
}

#[test]
fn records_have_bounds() {
    let new = |codec, raw_len, stored_len| {
        Record::new(
            chunk_id(1),
            codec,
            raw_len,
            vec![Bytes::from(vec![0; stored_len])],
        )
        .map(drop)
    };
    assert!(new(Codec::Raw, 1, 1).is_ok());
    assert!(new(Codec::Raw, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX).is_ok());
    assert!(new(Codec::Zstd, PAYLOAD_BYTES_MAX, 1).is_ok());
    assert!(new(Codec::Raw, 0, 0).is_err());
    assert!(new(Codec::Zstd, 0, 1).is_err());
    assert!(new(Codec::Raw, 2, 1).is_err());
    assert!(new(Codec::Zstd, PAYLOAD_BYTES_MAX + 1, 1).is_err());
    assert!(new(Codec::Zstd, 1, PAYLOAD_BYTES_MAX + 1).is_err());
}

/// Replaces some bytes of a header and makes its checksum fit again.
fn forge(header: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    header[at..at + bytes.len()].copy_from_slice(bytes);
    let end = header.len() - 4;
    let crc = crc32c::crc32c(&header[..end]);
    header[end..].copy_from_slice(&crc.to_le_bytes());
    header
}

#[test]
fn what_is_never_written_is_refused_even_with_a_good_checksum() {
    let header = raw(RecordId::RecipePart { recipe: 1, part: 2 }, b"x")
        .header()
        .encode();
    let field = |at, bytes: &[u8]| match RecordHeader::decode(&forge(&header, at, bytes)) {
        Err(LayoutError::Field { what }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(4, &[0]), "unknown kind of record");
    assert_eq!(field(4, &[4]), "unknown kind of record");
    assert_eq!(field(5, &[2]), "unknown codec");
    assert_eq!(field(6, &[1]), "unknown flags of a record");
    assert_eq!(
        field(8, &[0, 0, 0, 0, 0, 0, 0, 0]),
        "length of a record is out of bounds"
    );
    assert_eq!(field(8, &[0xFF; 8]), "length of a record is out of bounds");
    assert_eq!(field(12, &[2]), "a raw record has two lengths");
    assert_eq!(
        field(16 + 12, &[1]),
        "unused bytes of a record id are not zero"
    );

    assert_eq!(
        PackHeader::decode(&forge(&HEADER.encode(), 8, &[2])),
        Err(LayoutError::Version { found: 2 })
    );
    assert!(PackHeader::decode(&forge(&HEADER.encode(), 12, &[1])).is_err());
    assert!(PackHeader::decode(&forge(&HEADER.encode(), 32, &[1])).is_err());
}

#[test]
fn a_footer_is_found_from_the_end() {
    let (pack, builder) = pack_of(three_records());
    let pack_len = pack.len() as u64;
    let footer_len = pack.len() - builder.len() as usize;
    for len in 0..pack.len() {
        let tail = &pack[pack.len() - len..];
        let need = if len < TRAILER_LEN {
            TRAILER_LEN
        } else {
            footer_len
        };
        match Footer::decode(&HEADER, pack_len, tail) {
            Err(error) => assert_eq!(
                error,
                LayoutError::Short {
                    what: "footer",
                    need
                }
            ),
            Ok(footer) => {
                assert!(len >= footer_len);
                assert_eq!(
                    footer,
                    Footer {
                        entries: builder.entries().to_vec(),
                        start: builder.len()
                    }
                );
            }
        }
    }
    // An entry leads to its record, and its header is the record's own.
    for entry in builder.entries() {
        let record = Bytes::copy_from_slice(&pack[entry.offset as usize..entry.end() as usize]);
        assert_eq!(open_record(&record).unwrap().0, entry.header);
    }
}

#[test]
fn an_empty_pack_has_a_footer() {
    let (pack, _) = pack_of(Vec::new());
    let footer = Footer::decode(&HEADER, pack.len() as u64, &pack).unwrap();
    assert_eq!(
        footer,
        Footer {
            entries: Vec::new(),
            start: PACK_HEADER_LEN as u64
        }
    );
}

#[test]
fn a_payload_shaped_like_a_footer_is_not_believed() {
    // What a client can know is the layout and perhaps the number of the pack, not the nonce.
    let guess = PackHeader { nonce: 0, ..HEADER };
    let payload = Footer::encode(&guess, &[]);
    let (pack, builder) = pack_of(vec![raw(chunk_id(1), &payload)]);
    let unsealed = &pack[..builder.len() as usize];
    let error = Footer::decode(&HEADER, unsealed.len() as u64, unsealed).unwrap_err();
    assert_eq!(
        error,
        LayoutError::Magic {
            what: "footer of this pack"
        }
    );
    // Walking finds what was written.
    let (walked, end, _) = walk(unsealed);
    assert_eq!(
        (walked.len(), walked[0].payload.as_deref().unwrap(), end),
        (1, &payload[..], WalkEnd::Complete)
    );
}

#[test]
fn a_footer_whose_table_does_not_fit_is_refused() {
    let (pack, builder) = pack_of(three_records());
    let decode = |entries: &[Entry], pack_len: u64| {
        Footer::decode(&HEADER, pack_len, &Footer::encode(&HEADER, entries)).map(drop)
    };
    let pack_len = pack.len() as u64;
    let entries = builder.entries();
    assert_eq!(decode(entries, pack_len), Ok(()));

    let swapped = [entries[1], entries[0], entries[2]];
    let overlap = Err(LayoutError::Field {
        what: "records of an entry table overlap",
    });
    assert_eq!(decode(&swapped, pack_len), overlap);
    let in_header = [Entry {
        offset: PACK_HEADER_LEN as u32 - 1,
        ..entries[0]
    }];
    assert_eq!(decode(&in_header, pack_len), overlap);
    let beyond = [Entry {
        offset: u32::MAX,
        ..entries[0]
    }];
    assert_eq!(decode(&beyond, pack_len), overlap);
    assert_eq!(decode(entries, pack_len - 1), overlap);

    let no_fit = Err(LayoutError::Field {
        what: "a footer does not fit into its pack",
    });
    assert_eq!(decode(entries, 0), no_fit);
    assert_eq!(
        decode(
            entries,
            (3 * ENTRY_LEN + TRAILER_LEN + PACK_HEADER_LEN - 1) as u64
        ),
        no_fit
    );
    assert_eq!(decode(entries, PACK_BYTES_MAX + 1), no_fit);
}

#[test]
fn a_trailer_cannot_claim_a_huge_table() {
    let mut footer = Footer::encode(&HEADER, &[]);
    for (count, table_len) in [
        (u32::MAX, u32::MAX),
        (PACK_ENTRIES_MAX as u32 + 1, 0),
        (1, 0),
        (0, 1),
    ] {
        footer[16..20].copy_from_slice(&count.to_le_bytes());
        footer[20..24].copy_from_slice(&table_len.to_le_bytes());
        let crc = crc32c::crc32c(&footer[..28]);
        footer[28..32].copy_from_slice(&crc.to_le_bytes());
        let error = Footer::decode(&HEADER, PACK_BYTES_MAX, &footer).unwrap_err();
        assert_eq!(
            error,
            LayoutError::Field {
                what: "length of an entry table is out of bounds"
            }
        );
    }
}

#[test]
fn a_walk_sees_the_valid_prefix_of_a_cut_pack() {
    let (pack, builder) = pack_of(three_records());
    let ends: Vec<u64> = std::iter::once(PACK_HEADER_LEN as u64)
        .chain(builder.entries().iter().map(Entry::end))
        .collect();
    for len in PACK_HEADER_LEN..=builder.len() as usize {
        let (walked, end, walked_to) = walk(&pack[..len]);
        let whole = ends.iter().filter(|end| **end <= len as u64).count() - 1;
        assert_eq!(
            walked.iter().map(|walked| walked.entry).collect::<Vec<_>>(),
            builder.entries()[..whole]
        );
        assert_eq!(walked_to, ends[whole]);
        assert_eq!(
            end,
            if ends.contains(&(len as u64)) {
                WalkEnd::Complete
            } else {
                WalkEnd::Cut
            }
        );
    }
    // Past the records comes the footer, which is no record.
    let (walked, end, walked_to) = walk(&pack);
    assert_eq!((walked.len(), walked_to), (3, builder.len()));
    assert_eq!(
        end,
        WalkEnd::Invalid(LayoutError::Magic {
            what: "record header"
        })
    );
}

#[test]
fn a_walk_stops_at_a_damaged_header_and_steps_over_a_damaged_payload() {
    let (pack, builder) = pack_of(three_records());
    let second = builder.entries()[1];
    let payload = second.offset as usize + RECORD_HEADER_LEN;
    for at in second.offset as usize..second.end() as usize {
        let mut bent = pack.clone();
        bent[at] ^= 0x10;
        let (walked, end, walked_to) = walk(&bent);
        assert!(matches!(end, WalkEnd::Invalid(_)), "byte {at}: {end:?}");
        if at < payload {
            let found = (walked.len(), walked_to);
            assert_eq!(found, (1, u64::from(second.offset)), "byte {at}");
            continue;
        }
        let whole: Vec<bool> = walked.iter().map(|walked| walked.payload.is_ok()).collect();
        assert_eq!(whole, [true, false, true], "byte {at}");
        assert_eq!(walked_to, builder.len(), "byte {at}");
    }
    // A page that was never written reads as zeros.
    let mut torn = pack.clone();
    torn[second.offset as usize..].fill(0);
    assert_eq!(walk(&torn).2, u64::from(second.offset));
}

#[test]
fn a_walk_reads_twice_what_looks_wrong() {
    let (pack, builder) = pack_of(three_records());
    let second = builder.entries()[1];
    for at in [second.offset, second.offset + RECORD_HEADER_LEN as u32] {
        let mut misreads = 1;
        let mut walk = RecordWalk::new(builder.len(), |offset, len| {
            let mut bytes = pack[offset as usize..offset as usize + len].to_vec();
            if offset <= u64::from(at) && misreads > 0 {
                misreads -= 1;
                bytes[at as usize - offset as usize] ^= 1;
            }
            Ok(bytes.into())
        });
        assert!(walk.by_ref().all(|walked| walked.unwrap().payload.is_ok()));
        assert_eq!(walk.end(), Some(&WalkEnd::Complete));
    }
}

#[test]
fn a_walk_reads_in_windows() {
    let payload = vec![7; 1 << 20];
    let records = (0..9)
        .map(|number| raw(chunk_id(number), &payload))
        .collect();
    let (pack, builder) = pack_of(records);
    let bytes = Bytes::from(pack);
    let mut reads = 0;
    let mut walk = RecordWalk::new(builder.len(), |offset, len| {
        reads += 1;
        Ok(bytes.slice(offset as usize..offset as usize + len))
    });
    assert_eq!(
        walk.by_ref()
            .map(|walked| walked.unwrap().entry)
            .collect::<Vec<_>>(),
        builder.entries()
    );
    assert_eq!(walk.end(), Some(&WalkEnd::Complete));
    assert_eq!(
        reads, 3,
        "9 MiB in windows of 4 MiB, of which each wastes less than a record"
    );
}

#[test]
fn a_walk_passes_on_what_the_device_says() {
    let (pack, _) = pack_of(three_records());
    let mut broken = RecordWalk::new(
        pack.len() as u64,
        |_, _| Err(io::ErrorKind::TimedOut.into()),
    );
    assert_eq!(
        broken.next().unwrap().unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
    assert!(broken.next().is_none());
    assert_eq!(broken.end(), None);

    let mut shrunk = RecordWalk::new(pack.len() as u64, |_, _| Ok(Bytes::new()));
    assert_eq!(
        shrunk.next().unwrap().unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );

    // Shorter than its header, or absurdly long.
    assert_eq!(RecordWalk::new(3, |_, _| unreachable!()).count(), 0);
    assert_eq!(
        RecordWalk::new(u64::MAX, |_, len| Ok(vec![0; len].into())).count(),
        0
    );
}

#[test]
fn a_builder_seals_at_the_last_good_offset() {
    let (pack, mut builder) = pack_of(three_records());
    let second = builder.entries()[1];
    assert_eq!(builder.truncate(second.end() + 5), second.end());
    assert_eq!((builder.entries().len(), builder.len()), (2, second.end()));
    let mut sealed = pack[..second.end() as usize].to_vec();
    sealed.extend_from_slice(&builder.footer());
    assert_eq!(
        Footer::decode(&HEADER, sealed.len() as u64, &sealed)
            .unwrap()
            .entries,
        builder.entries()
    );
    assert_eq!(builder.truncate(0), PACK_HEADER_LEN as u64);
    assert_eq!(builder.entries(), []);
}

#[test]
fn a_pack_is_full_by_bytes_or_by_records() {
    let mut slices = Vec::new();
    let mut builder = PackBuilder::new(HEADER, &mut slices);
    let tiny = raw(chunk_id(1), b"x");
    for _ in 0..PACK_ENTRIES_MAX {
        assert!(!builder.is_full());
        builder.push(tiny.clone(), &mut slices).unwrap();
        slices.clear();
    }
    assert!(builder.is_full());
    assert!(builder.push(tiny, &mut slices).is_err());
    assert_eq!(builder.footer().len(), FOOTER_BYTES_MAX);

    let mut builder = PackBuilder::new(HEADER, &mut slices);
    let long = raw(chunk_id(1), &vec![0; PAYLOAD_BYTES_MAX]);
    while !builder.is_full() {
        builder.push(long.clone(), &mut slices).unwrap();
    }
    assert!(builder.len() < PACK_BYTES_TARGET + (PAYLOAD_BYTES_MAX + RECORD_HEADER_LEN) as u64);
    while builder.push(long.clone(), &mut slices).is_ok() {
        slices.clear();
    }
    assert!(builder.len() + builder.footer().len() as u64 <= PACK_BYTES_MAX);
}

fn any_id() -> impl Strategy<Value = RecordId> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|id| RecordId::Chunk(ChunkId(id))),
        any::<(u64, u32)>().prop_map(|(recipe, part)| RecordId::RecipePart { recipe, part }),
        any::<u64>().prop_map(|recipe| RecordId::BlobHead { recipe }),
    ]
}

prop_compose! {
    fn any_record()(
        id in any_id(),
        zstd_len in proptest::option::of(1..=PAYLOAD_BYTES_MAX),
        payload in proptest::collection::vec(any::<u8>(), 1..2000),
        cut in any::<prop::sample::Index>(),
    ) -> Record {
        let payload = Bytes::from(payload);
        let (codec, raw_len) = zstd_len.map_or((Codec::Raw, payload.len()), |len| (Codec::Zstd, len));
        let cut = cut.index(payload.len());
        Record::new(id, codec, raw_len, vec![payload.slice(..cut), payload.slice(cut..)]).unwrap()
    }
}

proptest! {
    #[test]
    fn records_come_back(record in any_record()) {
        let header = *record.header();
        let bytes = Bytes::from(bytes_of(record));
        prop_assert_eq!(header.record_len(), bytes.len());
        let (found, payload) = open_record(&bytes).unwrap();
        prop_assert_eq!(found, header);
        prop_assert_eq!(&payload[..], &bytes[RECORD_HEADER_LEN..]);
    }

    #[test]
    fn packs_come_back(records in proptest::collection::vec(any_record(), 0..20), header in any::<(u64, u64)>()) {
        let header = PackHeader { pack: PackId(header.0), nonce: header.1 };
        prop_assert_eq!(PackHeader::decode(&header.encode()), Ok(header));
        let (pack, builder) = pack_of(records);
        let footer = Footer::decode(&HEADER, pack.len() as u64, &pack).unwrap();
        prop_assert_eq!(&footer.entries[..], builder.entries());
        prop_assert_eq!(footer.start, builder.len());
        let (walked, _, walked_to) = walk(&pack);
        prop_assert_eq!(walked.into_iter().map(|walked| walked.entry).collect::<Vec<_>>(), footer.entries);
        prop_assert_eq!(walked_to, footer.start);
    }

    #[test]
    fn blob_heads_come_back(
        key in prop_oneof![proptest::collection::vec(any::<u8>(), 32), proptest::collection::vec(any::<u8>(), 64)],
        numbers in any::<(u64, u64, u32, u64)>(),
    ) {
        let algorithm = if key.len() == 32 { 1 } else { 2 };
        let digest = Digest::from_key(&[&[algorithm], &key[..]].concat()).unwrap();
        let (len, recipe, parts, created_unix_ms) = numbers;
        let head = BlobHead { digest, len, recipe, parts, created_unix_ms };
        prop_assert_eq!(BlobHead::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn decoders_take_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = PackHeader::decode(&bytes);
        let _ = open_record(&Bytes::copy_from_slice(&bytes));
        let _ = Footer::decode(&HEADER, bytes.len() as u64, &bytes);
        let _ = BlobHead::decode(&bytes);
        let _ = walk(&[&[0; PACK_HEADER_LEN], &bytes[..]].concat());
    }
}
