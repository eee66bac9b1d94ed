//! What the fuzzers of the registry's decoders run, and what the corpus is replayed through by an ordinary test.

use bytes::Bytes;
use dvcr::{
    backend::PackId,
    checkpoint::format::{CheckpointReader, CheckpointWriter},
    store::{
        IngestState,
        pack::{
            BlobHead, Entry, Footer, LayoutError, PACK_HEADER_LEN, PackHeader, RECORD_HEADER_LEN,
            RecordHeader, RecordId, RecordWalk, TRAILER_LEN, verify,
        },
        recipe::{PART_PIECES_MAX, Piece, RecipePart},
    },
};
use dvcr_core::chunk::CHUNK_BYTES_MAX;
use sha2::{Digest as _, Sha256};

/// A pack: no decoder panics, and whatever one accepts is what the encoder writes.
pub fn pack(data: &[u8]) {
    check_pack(data);
    // Nearly no input gets past a checksum by chance.
    check_pack(&mend_pack(data));
}

fn check_pack(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let len = data.len() as u64;
    let header = PackHeader::decode(data);
    if let Ok(header) = header {
        assert_eq!(header.encode()[..], data[..PACK_HEADER_LEN]);
    }
    let header = header.unwrap_or(PackHeader {
        pack: PackId(0),
        nonce: 0,
    });

    match Footer::decode(&header, len, data) {
        Ok(footer) => {
            assert_eq!(
                Footer::encode(&header, &footer.entries),
                data[footer.start as usize..]
            );
            check_order(&footer.entries, footer.start);
            // A shorter tail leads to the same.
            let Err(LayoutError::Short { need, .. }) =
                Footer::decode(&header, len, &data[1 + footer.start as usize..])
            else {
                panic!("a footer needs all its bytes");
            };
            assert_eq!(
                Footer::decode(&header, len, &data[data.len() - need..]),
                Ok(footer)
            );
        }
        Err(LayoutError::Short { need, .. }) => assert!(need > data.len() && need == TRAILER_LEN),
        Err(_) => {}
    }

    let mut walk = RecordWalk::new(len, |offset, len| {
        Ok(bytes.slice(offset as usize..offset as usize + len))
    });
    let mut entries = Vec::new();
    for walked in walk.by_ref() {
        let walked = walked.expect("reading memory does not fail");
        let at = walked.entry.offset as usize;
        assert_eq!(
            walked.entry.header.encode()[..],
            data[at..at + RECORD_HEADER_LEN]
        );
        let behind = &data[at + RECORD_HEADER_LEN..walked.entry.end() as usize];
        let found = verify(&walked.entry.header, behind);
        assert_eq!(walked.payload.as_ref().map(drop), found.as_ref().map(drop));
        if let Ok(payload) = &walked.payload {
            assert_eq!(payload[..], *behind);
            if let RecordId::BlobHead { .. } = walked.entry.header.id() {
                check_blob_head(payload);
            }
        }
        entries.push(walked.entry);
    }
    assert!(walk.end().is_some());
    assert!(walk.walked_to() <= len.max(PACK_HEADER_LEN as u64));
    check_order(&entries, walk.walked_to());

    check_blob_head(data);
    if let Ok(header) = RecordHeader::decode(data) {
        assert_eq!(header.encode()[..], data[..RECORD_HEADER_LEN]);
    }
}

fn check_order(entries: &[Entry], end: u64) {
    let mut at = PACK_HEADER_LEN as u64;
    for entry in entries {
        assert!(u64::from(entry.offset) >= at);
        at = entry.end();
    }
    assert!(at <= end);
}

fn check_blob_head(payload: &[u8]) {
    if let Ok(head) = BlobHead::decode(payload) {
        assert_eq!(head.encode(), payload);
    }
}

/// Puts magic numbers, lengths that fit and checksums where they belong, so that what is between them is looked at.
fn mend_pack(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    if data.len() < PACK_HEADER_LEN + TRAILER_LEN {
        return data;
    }
    let put = |data: &mut [u8], at: usize, bytes: &[u8]| {
        data[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let crc = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();

    put(&mut data, 0, b"DVCRPACK\x01\0\0\0");
    let sum = crc(&data[..PACK_HEADER_LEN - 4]);
    put(&mut data, PACK_HEADER_LEN - 4, &sum);

    let end = data.len() - TRAILER_LEN;
    let mut at = PACK_HEADER_LEN;
    while at + RECORD_HEADER_LEN < end {
        let stored_len = 1 + usize::from(u16::from_le_bytes([data[at + 8], data[at + 9]])) % 512;
        let payload = at + RECORD_HEADER_LEN;
        if payload + stored_len > end {
            break;
        }
        put(&mut data, at, b"DVCr");
        put(&mut data, at + 8, &(stored_len as u32).to_le_bytes());
        let sum = crc(&data[payload..payload + stored_len]);
        put(&mut data, at + 48, &sum);
        let sum = crc(&data[at..at + 52]);
        put(&mut data, at + 52, &sum);
        at = payload + stored_len;
    }

    let names: [u8; 16] = data[16..32].try_into().expect("16 bytes");
    put(&mut data, end, &names);
    let table_len =
        u32::from_le_bytes(data[end + 20..end + 24].try_into().expect("4 bytes")) as usize;
    if let Some(start) = end.checked_sub(table_len) {
        let sum = crc(&data[start..end]);
        put(&mut data, end + 24, &sum);
    }
    let sum = crc(&data[end..end + 28]);
    put(&mut data, end + 28, &sum);
    put(&mut data, end + 32, b"DVCRFOOT");
    data
}

/// A part of a recipe, and the state of an upload, which holds one: what is accepted is within bounds, and is what the
/// encoder writes.
pub fn recipe(data: &[u8]) {
    if let Ok(part) = RecipePart::parse(data) {
        assert_eq!(part.encode(), data);
        assert!(part.pieces.len() <= PART_PIECES_MAX);
        for piece in &part.pieces {
            assert!(!piece.is_empty());
            if let Piece::Chunk { len, .. } = piece {
                assert!(*len as usize <= CHUNK_BYTES_MAX);
            }
        }
        let len: u128 = part
            .pieces
            .iter()
            .map(|piece| u128::from(piece.len()))
            .sum();
        assert_eq!(u128::from(part.start) + len, u128::from(part.end()));
    }
    if let Ok(state) = IngestState::parse(&Bytes::copy_from_slice(data)) {
        assert_eq!(state.encode(), data);
    }
}

/// A checkpoint: no panic, keys that ascend, and rows that are written are read back.
pub fn checkpoint(data: &[u8]) {
    check_checkpoint(data);
    check_checkpoint(&mend_checkpoint(data));
}

fn check_checkpoint(data: &[u8]) {
    let Ok(mut reader) = CheckpointReader::new(data) else {
        return;
    };
    let header = *reader.header();
    let mut writer = CheckpointWriter::new(Vec::new(), &header).expect("writing memory");
    let mut rows = Vec::new();
    loop {
        match reader.next_row() {
            Ok(Some((key, value))) => {
                writer
                    .row(&key, &value)
                    .expect("rows of a block fit a block");
                rows.push((key, value));
            }
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let (again, _) = writer.finish().expect("writing memory");
    let mut reader = CheckpointReader::new(&again[..]).expect("what was written");
    assert_eq!(*reader.header(), header);
    for row in rows {
        assert_eq!(reader.next_row().expect("what was written"), Some(row));
    }
    assert_eq!(reader.next_row().expect("what was written"), None);
}

/// Puts checksums where they belong: of the header, of one block that fills the file, and of the trailer.
fn mend_checkpoint(data: &[u8]) -> Vec<u8> {
    const HEADER: usize = 40;
    const BLOCK: usize = 28;
    const TRAILER: usize = 60;
    let mut data = data.to_vec();
    if data.len() <= HEADER + BLOCK + TRAILER {
        return data;
    }
    let crc = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();
    let put = |data: &mut [u8], at: usize, bytes: &[u8]| {
        data[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let end = data.len() - TRAILER;
    put(&mut data, 0, b"DVCRCKPT\x01\0\0\0\0\0\0\0");
    put(&mut data, 32, &[0; 4]);
    let sum = crc(&data[..36]);
    put(&mut data, 36, &sum);
    let stored = (end - HEADER - BLOCK) as u32;
    let codec = data[HEADER + 4] & 1;
    put(&mut data, HEADER, b"DVCb");
    put(&mut data, HEADER + 4, &[codec, 0, 0, 0]);
    put(&mut data, HEADER + 8, &stored.to_le_bytes());
    if codec == 0 {
        put(&mut data, HEADER + 12, &stored.to_le_bytes());
    }
    let sum = crc(&data[HEADER + BLOCK..end]);
    put(&mut data, HEADER + 20, &sum);
    let sum = crc(&data[HEADER..HEADER + 24]);
    put(&mut data, HEADER + 24, &sum);
    let rows = u64::from(u32::from_le_bytes(
        data[HEADER + 16..HEADER + 20].try_into().expect("4 bytes"),
    ));
    let hash = Sha256::digest(&data[..end]);
    put(&mut data, end, b"DVCRCEND");
    put(&mut data, end + 8, &1u64.to_le_bytes());
    put(&mut data, end + 16, &rows.to_le_bytes());
    put(&mut data, end + 24, &hash);
    let sum = crc(&data[end..end + 56]);
    put(&mut data, end + 56, &sum);
    data
}
