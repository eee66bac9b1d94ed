//! Replays the corpora of the fuzzers, so that what they found once stays fixed where no fuzzer runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

#[allow(unreachable_pub, reason = "the fuzzers call what is public there")]
#[path = "../../fuzz/dvcr_targets.rs"]
mod dvcr_targets;

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::read(&path).unwrap();
        eprintln!("{}", path.display());
        body(&data);
        // Near misses, which a fuzzer would try first.
        for len in 0..data.len().min(1_000) {
            body(&data[..len]);
        }
        for bit in 0..data.len().min(500) * 8 {
            let mut bent = data.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            body(&bent);
        }
        seeds += 1;
    }
    assert!(seeds > 0, "{target} has seeds");
}

#[test]
fn pack() {
    replay("pack", dvcr_targets::pack);
}

#[test]
fn recipe() {
    replay("recipe", dvcr_targets::recipe);
}

#[test]
fn checkpoint() {
    replay("checkpoint", dvcr_targets::checkpoint);
}

mod seeds {
    use bytes::Bytes;
    use dvcr::{
        backend::PackId,
        checkpoint::format::{CheckpointHeader, CheckpointWriter},
        store::{
            IngestState,
            pack::{Codec, PackBuilder, PackHeader, Record, RecordId},
            recipe::{Piece, RecipePart},
        },
    };
    use dvcr_core::{chunk::ChunkId, oci::Algorithm};

    use super::*;

    /// A small pack with a record of each kind, and where its footer begins.
    fn pack() -> (Vec<u8>, usize) {
        let header = PackHeader {
            pack: PackId(1),
            nonce: 0x0102_0304_0506_0708,
        };
        let mut slices = Vec::new();
        let mut builder = PackBuilder::new(header, &mut slices);
        let mut blob_head = vec![
            1, 1, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
        ];
        blob_head.extend([7; 8 + 32]);
        for (id, codec, raw_len, payload) in [
            (
                RecordId::RecipePart { recipe: 5, part: 0 },
                Codec::Raw,
                4,
                b"part".to_vec(),
            ),
            (
                RecordId::RecipePart { recipe: 5, part: 1 },
                Codec::Zstd,
                900,
                b"as if by zstd".to_vec(),
            ),
            (
                RecordId::BlobHead { recipe: 5 },
                Codec::Raw,
                blob_head.len(),
                blob_head,
            ),
        ] {
            builder
                .push(
                    Record::new(id, codec, raw_len, vec![Bytes::from(payload)]).unwrap(),
                    &mut slices,
                )
                .unwrap();
        }
        let start = builder.len() as usize;
        slices.push(builder.footer());
        (slices.concat(), start)
    }

    #[test]
    #[ignore = "writes the seeds anew, after a change of the format"]
    fn write_recipe() {
        let chunk = |byte, len| Piece::Chunk {
            id: ChunkId([byte; 32]),
            len,
        };
        let part = |start, pieces| RecipePart { start, pieces };
        let mut upload = IngestState::new(7, Algorithm::Sha256);
        upload.tail = Bytes::from_static(b"not cut yet");
        upload.starts = vec![0, 1 << 28];
        upload.part = part(1 << 28, vec![chunk(4, 5)]);
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/recipe");
        fs::create_dir_all(&corpus).unwrap();
        for (name, bytes) in [
            ("empty", part(0, vec![]).encode()),
            (
                "chunks",
                part(0, vec![chunk(1, 65_536), chunk(2, 1)]).encode(),
            ),
            (
                "zeros",
                part(
                    1 << 40,
                    vec![Piece::Zeros { len: 1 << 50 }, chunk(3, 1 << 20)],
                )
                .encode(),
            ),
            (
                "end-of-all",
                part(u64::MAX - 4, vec![Piece::Zeros { len: 4 }]).encode(),
            ),
            ("upload", upload.encode()),
            (
                "upload-begun",
                IngestState::new(8, Algorithm::Sha512).encode(),
            ),
        ] {
            fs::write(corpus.join(name), bytes).unwrap();
        }
    }

    #[test]
    #[ignore = "writes the seeds anew, after a change of the format"]
    fn write_checkpoint() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/checkpoint");
        fs::create_dir_all(&corpus).unwrap();
        let rows = |count: u8, len: usize| {
            let header = CheckpointHeader {
                number: 2,
                created_ms: 3,
            };
            let mut writer = CheckpointWriter::new(Vec::new(), &header).unwrap();
            for n in 0..count {
                writer.row(&[1, n], &vec![n; len]).unwrap();
            }
            writer.finish().unwrap().0
        };
        for (name, bytes) in [
            ("empty", rows(0, 0)),
            ("raw", rows(2, 1)),
            ("compressed", rows(20, 30)),
            ("cut", rows(20, 30)[..150].to_vec()),
        ] {
            fs::write(corpus.join(name), bytes).unwrap();
        }
    }

    #[test]
    #[ignore = "writes the seeds anew, after a change of the format"]
    fn write_pack() {
        let (sealed, start) = pack();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/pack");
        fs::create_dir_all(&corpus).unwrap();
        let mut torn = sealed[..start].to_vec();
        torn[start - 50..].fill(0);
        let mut no_records = sealed[..40].to_vec();
        no_records.extend(
            PackBuilder::new(PackHeader::decode(&sealed).unwrap(), &mut Vec::new()).footer(),
        );
        for (name, bytes) in [
            ("sealed", &sealed[..]),
            ("open", &sealed[..start]),
            ("torn", &torn),
            ("no_records", &no_records),
            ("record", &sealed[40..100]),
            ("blob_head", &sealed[start - 72..start]),
        ] {
            fs::write(corpus.join(name), bytes).unwrap();
        }
    }
}
