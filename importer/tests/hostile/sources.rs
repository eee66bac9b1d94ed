//! What images come in: archives, streams and text. Each row gets its error both where it lies and as a stream, for few bytes
//! read and allocated. What is wrong inside of images is in the modules of their formats.

use std::{io::Cursor, sync::Arc};

use dvcr_importer::input::Input;

use crate::{
    corpora::targets::Counted,
    counting::peak,
    support::{
        Random,
        repository::{gzip, spool, zstd},
        tar::{Member, set_sum, tar},
    },
};

use Member::{Directory, File, HardLink, Special, Symlink};

/// Most bytes read of a source, beside what it has, once to find the disk and once to unwrap it.
const READ_FREE_BYTES: u64 = 1 << 20;

/// Most memory: a map of a million holes while it grows, and buffers.
const MEMORY_MAX: usize = 40 << 20;

/// The rows: name, bytes, what the error says.
type Rows = Vec<(&'static str, Vec<u8>, &'static str)>;

fn check(rows: Rows) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, expected) in rows {
        let source = Arc::new(Counted::new(bytes.clone()));
        let (at_random, memory) = peak(|| Input::open(source.clone(), None, spool(dir.path())));
        let (streamed, more_memory) =
            peak(|| Input::open_stream(Cursor::new(bytes.clone()), None, spool(dir.path())));
        for (result, how) in [(at_random, "at random"), (streamed, "streamed")] {
            let Err(error) = result else {
                panic!("{name} is read {how}");
            };
            let error = error.to_string();
            assert!(error.contains(expected), "{name}, {how}: {error:?}");
        }
        let len = bytes.len() as u64;
        assert!(
            source.bytes() <= 2 * len + READ_FREE_BYTES,
            "{name}: {}",
            source.bytes()
        );
        // The source itself was allocated, too.
        let memory = memory.max(more_memory.saturating_sub(bytes.len()));
        assert!(memory < MEMORY_MAX, "{name}: {memory}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// An archive whose first header has this in place of something.
fn bent(mut archive: Vec<u8>, at: usize, field: &[u8]) -> Vec<u8> {
    archive[at..at + field.len()].copy_from_slice(field);
    set_sum(&mut archive[..512]);
    archive
}

/// A number that does not fit eleven octal digits.
fn big(value: u64) -> Vec<u8> {
    [&[0x80, 0, 0, 0][..], &value.to_be_bytes()].concat()
}

/// A file with holes in GNU's old format, its map without an end.
fn endless_map(blocks: usize) -> Vec<u8> {
    let mut archive = bent(tar(&[File("disk", &[1; 512])]), 156, b"S");
    archive = bent(archive, 482, &[1]);
    archive = bent(archive, 483, &big(1 << 62));
    let map = (0..blocks as u64).flat_map(|block| {
        let entries = (0..21).flat_map(move |i| [big((block * 21 + i) * 1024), big(1)].concat());
        entries.chain([1]).chain([0; 7])
    });
    let map: Vec<u8> = map.collect();
    archive.splice(512..512, map);
    archive
}

/// An extended header with this body, then a file of 512 bytes.
fn with_pax(body: &[u8]) -> Vec<u8> {
    let header = bent(tar(&[File("pax", body)]), 156, b"x");
    let file = tar(&[File("disk", &[1; 512])]);
    [&header[..header.len() - 1024], &file].concat()
}

/// What archives hold that no archive of a disk does.
pub(crate) fn hostile_archives() -> Rows {
    let disk = Random::new(9).bytes(1024);
    let file = |name| tar(&[File(name, &disk)]);
    vec![
        (
            "a name with dots",
            file("../../etc/passwd"),
            "outside of itself",
        ),
        ("dots inside", file("a/../../b"), "outside of itself"),
        (
            "a link only",
            tar(&[Symlink("disk", "/etc/passwd")]),
            "holds no disk",
        ),
        (
            "links only",
            tar(&[HardLink("disk", "/etc/passwd"), Directory("disk")]),
            "holds no disk",
        ),
        (
            "text only",
            tar(&[File("disk.vmdk", DESCRIPTOR.as_bytes())]),
            "holds no disk",
        ),
        (
            "a device",
            tar(&[Special("sda", b'4'), File("disk", &disk)]),
            "device node or a FIFO",
        ),
        (
            "a FIFO",
            tar(&[Special("disk", b'6')]),
            "device node or a FIFO",
        ),
        (
            "two disks",
            tar(&[File("a", &disk), File("b", &disk)]),
            "choose one with --file: a, b",
        ),
        (
            "a long file",
            bent(file("disk"), 124, &big(1 << 62)),
            "it ends early",
        ),
        (
            "a longer file",
            bent(file("disk"), 124, &big(u64::MAX)),
            "an entry of 18446744073709551615 bytes",
        ),
        ("a cut file", file("disk")[..1000].to_vec(), "it ends early"),
        (
            "a huge extended header",
            bent(with_pax(b""), 124, b"77777777777"),
            "an extended header of 8589934591 bytes",
        ),
        (
            "a garbled extended header",
            with_pax(b"12 size=1\n"),
            "an extended header is garbled",
        ),
        (
            "headers without end",
            bent(tar(&[File("pax", b"")]), 156, b"x")[..512].repeat(20),
            "too many headers",
        ),
        (
            "a map that overlaps",
            with_pax(
                b"22 GNU.sparse.size=9\n26 GNU.sparse.numblocks=2\n25 GNU.sparse.map=0,5,4,5\n",
            ),
            "",
        ),
        (
            "a map of other parts",
            with_pax(
                b"22 GNU.sparse.major=0\n24 GNU.sparse.size=4096\n26 GNU.sparse.numblocks=3\n",
            ),
            "a map of holes is garbled",
        ),
        (
            "a newer map",
            with_pax(b"22 GNU.sparse.major=9\n"),
            "make it with `tar --sparse-version=1.0`",
        ),
        (
            "a map without end",
            with_pax(b"22 GNU.sparse.major=1\n32 GNU.sparse.realsize=4294967296\n"),
            "garbled",
        ),
    ]
}

#[test]
fn archives() {
    check(hostile_archives());
    check(vec![
        (
            "a huge map",
            endless_map(51_000),
            "a file has too many holes",
        ),
        ("an endless map", endless_map(3), "garbled"),
        (
            "no end of directories",
            tar(&[Directory("d")])[..512].repeat(10_001),
            "no disk among its first 10000 entries",
        ),
    ]);
}

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
    RW 204800 FLAT \"/etc/passwd\" 0\n";

#[test]
fn wrappings_and_text() {
    let disk = Random::new(9).bytes(4096);
    let times = |count: usize, wrap: fn(&[u8]) -> Vec<u8>| {
        (0..count).fold(disk.clone(), |bytes, _| wrap(&bytes))
    };
    let in_tar = |bytes: &[u8]| tar(&[File("disk", bytes)]);
    // In memory: what comes out of each layer is counted as it comes.
    let zeros = zstd(&zstd(&vec![0; 512 << 20]));
    check(vec![
        (
            "five times gzip",
            times(5, gzip),
            "wrapped more than 4 times",
        ),
        (
            "five times zstd",
            times(5, zstd),
            "wrapped more than 4 times",
        ),
        (
            "five times tar",
            times(5, in_tar),
            "wrapped more than 4 times",
        ),
        ("a bomb", zeros, "no disk compresses so well"),
        (
            "half a gzip",
            gzip(&disk)[..2000].to_vec(),
            "broken gzip: it ends early",
        ),
        ("half a zstd", zstd(&disk)[..2000].to_vec(), "broken zstd"),
        (
            "a descriptor",
            DESCRIPTOR.as_bytes().to_vec(),
            "convert it with `qemu-img convert -O qcow2` first",
        ),
        (
            "a packed descriptor",
            gzip(DESCRIPTOR.as_bytes()),
            "convert it with `qemu-img convert -O qcow2` first",
        ),
        (
            "a zip",
            [&b"PK\x03\x04"[..], &disk].concat(),
            "unpack it first",
        ),
        (
            "a page",
            gzip(b"<!DOCTYPE html><title>Not found</title>"),
            "leads to a page, not to an image",
        ),
        ("nothing", vec![], "no bytes"),
    ]);
}

/// A disk with a chain of extended partitions that names none and has no end.
pub(crate) fn extended_loop() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    let entry = |disk: &mut [u8], sector: usize, slot: usize, start: u32| {
        let at = sector * 512 + 446 + 16 * slot;
        disk[at + 4] = 5;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&1u32.to_le_bytes());
        disk[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xAA]);
    };
    entry(&mut disk, 0, 0, 1);
    for sector in 1..2047 {
        entry(&mut disk, sector, 1, sector as u32);
    }
    disk
}

#[test]
fn chains_of_partitions_end() {
    let source = Arc::new(Counted::new(extended_loop()));
    let image = dvcr_importer::format::DiskImage::open(source.clone()).unwrap();
    let before = source.bytes();
    let table = dvcr_importer::inspect::partition_table(&image)
        .unwrap()
        .unwrap();
    assert_eq!(table.partitions.len(), 1);
    assert!(source.bytes() - before < 300 << 10, "{}", source.bytes());
}
