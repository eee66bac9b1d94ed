//! VHDX.

use std::{fs, path::Path, sync::Arc};

use dvcr_importer::format::{DiskImage, Format};

use crate::{
    sample::{BIG_LE, FF, check, read_all, sample},
    support::{Bench, Pattern, run, text},
};

const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
const REGIONS: [usize; 2] = [192 << 10, 256 << 10];

/// Sets the checksum of a VHDX's structure anew.
fn vhdx_sum(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn headers_and_tables() {
    let image = sample("vhdx", &["-o", "block_size=1M"]);
    let headers = |at: usize, patch: &[u8], expected: &str| {
        let mut image = image.clone();
        for header in HEADERS {
            image[header + at..header + at + patch.len()].copy_from_slice(patch);
            vhdx_sum(&mut image[header..header + 4096]);
        }
        check(&image, &[], expected);
    };
    headers(66, &[0], "version 0");
    headers(66, &[2], "version 2");
    headers(0, b"dead", "neither of its headers");
    check(
        &image,
        &[(HEADERS[0] + 9, &[1]), (HEADERS[1] + 9, &[1])],
        "neither of its headers",
    );

    let entry = |image: &[u8], first: u8| {
        let table = &image[REGIONS[0] + 16..];
        REGIONS[0]
            + 16
            + 32 * table
                .chunks(32)
                .position(|entry| entry[0] == first)
                .unwrap()
    };
    let (bat, metadata) = (entry(&image, 0x66), entry(&image, 0x06));
    let regions = |patches: &[(usize, &[u8])], expected: &str| {
        let mut image = image.clone();
        for (at, patch) in patches {
            image[*at..at + patch.len()].copy_from_slice(patch);
        }
        vhdx_sum(&mut image[REGIONS[0]..REGIONS[0] + 65_536]);
        image[REGIONS[1]] = 0;
        check(&image, &[], expected);
    };
    regions(&[(bat + 16, &BIG_LE)], "the BAT");
    regions(&[(bat + 24, &FF[..4])], "the BAT");
    regions(&[(bat + 24, &[0; 4])], "block table is too small");
    regions(&[(metadata + 16, &FF)], "the metadata");
    regions(&[(bat, &[0]), (bat + 28, &[1])], "unknown regions");
    regions(&[(REGIONS[0] + 8, &[1])], "no BAT or no metadata");
    regions(
        &[(REGIONS[0] + 8, &FF[..4])],
        "neither of its region tables",
    );

    let at = |offset: usize| u64::from_le_bytes(*image[offset..].first_chunk().unwrap()) as usize;
    let (bat, metadata) = (at(bat + 16), at(metadata + 16));
    let item = |first: u8| {
        let table = &image[metadata + 32..];
        let entry = 32
            * (1 + table
                .chunks(32)
                .position(|entry| entry[0] == first)
                .unwrap());
        let offset = &image[metadata + entry + 16..];
        (
            metadata + entry,
            metadata + u32::from_le_bytes(*offset.first_chunk().unwrap()) as usize,
        )
    };
    let (parameters_entry, parameters) = item(0x37);
    let (_, size) = item(0x24);
    let (_, sector) = item(0x1D);
    check(&image, &[(metadata, &[0])], "metadata table is invalid");
    check(
        &image,
        &[(metadata + 10, &FF[..2])],
        "metadata table is invalid",
    );
    check(&image, &[(metadata + 10, &[0, 0])], "lack the block");
    check(
        &image,
        &[(parameters_entry + 16, &FF[..4])],
        "lies beyond the end",
    );
    check(&image, &[(parameters_entry, &[0])], "unknown metadata");
    check(&image, &[(parameters + 4, &[2])], "differencing");
    check(&image, &[(parameters, &[0; 4])], "blocks of 0 bytes");
    check(
        &image,
        &[(parameters, &FF[..4])],
        "blocks of 4294967295 bytes",
    );
    check(&image, &[(size, &BIG_LE)], "block table is too small");
    check(&image, &[(size, &[0; 8])], "no bytes");
    check(&image, &[(sector, &[1, 1])], "sectors of 257 bytes");
    check(&image, &[(bat, &[7])], "a block in state 7");
    check(
        &image,
        &[(bat, &[6, 0, 0, 0, 0, 0, 0, 0])],
        "over the headers",
    );
    check(
        &image,
        &[(bat, &[6, 0, 0, 0, 0, 0, 0, 0xFF])],
        "lies beyond the end",
    );
}

/// Images as a writer leaves them that is killed at every step of its way: QEMU's writes up to the step.
fn killed(bench: &Bench) -> impl Iterator<Item = Vec<u8>> {
    let path = bench.image("vhdx", &["-o", "block_size=1M"]);
    let trace = bench.path("trace");
    let mut image = fs::read(&path).unwrap();
    let script = "strace -f -qq -xx -s 1048576 -o $1 -e signal=none -e trace=pwrite64,ftruncate \
                  qemu-io -f vhdx -c 'write -P 0x21 3M 100k' -c 'write -P 0x22 5M 4k' $2 >/dev/null";
    run("sh", &["-ec", script, "sh", text(&trace), text(&path)]);
    let trace = fs::read_to_string(&trace).unwrap();
    let calls = trace.lines().filter(|line| !line.contains(" resumed>"));
    let steps = calls.map(|line| Step::parse(line).expect(line));
    let images: Vec<_> = steps
        .map(|step| {
            step.apply(&mut image);
            image.clone()
        })
        .collect();
    assert!(
        image == fs::read(&path).unwrap(),
        "not all writes were seen"
    );
    images.into_iter()
}

/// What a writer does to its file.
enum Step {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Step {
    /// One line of strace, such as `17 pwrite64(4, "\x68\x65", 2, 65536) = 2`.
    fn parse(line: &str) -> Option<Self> {
        let (call, rest) = line.split_once('(')?;
        let args = rest.split([')', '<']).next()?;
        let at = args.rsplit(", ").next()?.trim().parse().ok()?;
        if call.ends_with("ftruncate") {
            return Some(Self::Truncate(at));
        }
        let bytes = args.split('"').nth(1)?.split("\\x").skip(1);
        let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).ok());
        Some(Self::Write(at, bytes.collect::<Option<_>>()?))
    }

    fn apply(self, image: &mut Vec<u8>) {
        match self {
            Self::Truncate(len) => image.resize(len, 0),
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                image.resize(image.len().max(end), 0);
                image[at..end].copy_from_slice(&bytes);
            }
        }
    }
}

/// Whether the newest header says that there is a log.
fn has_log(image: &[u8]) -> bool {
    let sequence = |at: usize| u64::from_le_bytes(*image[at + 8..].first_chunk().unwrap());
    let [a, b] = HEADERS;
    let newest = if sequence(a) > sequence(b) { a } else { b };
    image[newest + 48..newest + 64] != [0; 16]
}

/// An image whose last writer was killed after it had written its log.
pub(crate) fn dirty(bench: &Bench) -> Vec<u8> {
    let usable = |image: &Vec<u8>| has_log(image) && read_all(image).is_ok();
    killed(bench).find(usable).unwrap()
}

/// Where the BAT lies: offset and length.
fn bat(image: &[u8]) -> (usize, usize) {
    let table = &image[REGIONS[0] + 16..];
    let entry = table.chunks(32).find(|entry| entry[0] == 0x66).unwrap();
    let at = u64::from_le_bytes(*entry[16..].first_chunk().unwrap()) as usize;
    let len = u32::from_le_bytes(*entry[24..].first_chunk().unwrap()) as usize;
    (at, len)
}

/// What QEMU makes of an image after it replayed the log.
fn replayed_by_qemu(bench: &Bench, image: &[u8]) -> Vec<Option<Vec<u8>>> {
    let path = bench.path("replayed");
    fs::write(&path, image).unwrap();
    run(
        "qemu-img",
        &["check", "-q", "-f", "vhdx", "-r", "all", text(&path)],
    );
    read_raw(&bench.reference("vhdx", &path))
}

/// As [`read_all`] has it, holes or not.
fn read_raw(path: &Path) -> Vec<Option<Vec<u8>>> {
    let raw = fs::read(path).unwrap();
    raw.chunks(1 << 20)
        .map(|part| Some(part.to_vec()))
        .collect()
}

fn is_equal(found: &[u8], expected: &[Option<Vec<u8>>]) -> bool {
    let image = DiskImage::open(Arc::new(found.to_vec())).unwrap();
    assert_eq!(image.format(), Format::Vhdx);
    assert_eq!(image.virtual_len(), (expected.len() << 20) as u64);
    (0..).step_by(1 << 20).zip(expected).all(|(at, expected)| {
        let mut part = vec![1; 1 << 20];
        image.read_at(at, &mut part).unwrap();
        Some(part) == *expected
    })
}

fn assert_equal(found: &[u8], expected: &[Option<Vec<u8>>]) {
    assert!(is_equal(found, expected), "another disk");
    assert!(read_all(found).is_ok());
}

/// Writers were killed: their logs are replayed, as QEMU does.
#[test]
fn dirty_images() {
    let bench = Bench::new(Pattern::Empty, 8 << 20);
    let (mut logs, mut needed) = (0, 0);
    for image in killed(&bench) {
        if !has_log(&image) {
            assert_equal(&image, &replayed_by_qemu(&bench, &image));
            continue;
        }
        logs += 1;
        if let Err(error) = read_all(&image) {
            // Killed within the entry: nobody can tell that from one that was damaged.
            let error = error.to_string();
            assert!(error.contains("its log holds no valid entry"), "{error}");
            continue;
        }
        let expected = replayed_by_qemu(&bench, &image);
        assert_equal(&image, &expected);
        // Without the log some of them are other disks.
        let mut without = image;
        for header in HEADERS {
            without[header + 48..header + 64].fill(0);
            vhdx_sum(&mut without[header..header + 4096]);
        }
        needed += usize::from(!is_equal(&without, &expected));
    }
    assert!(logs > 2 && needed > 0, "{logs} logs, {needed} needed");
}

const LOG_AT: usize = 1 << 20;
const LOG_LEN: usize = 1 << 20;
const LOG_ID: [u8; 16] = [0x5A; 16];

/// Bytes to write to the file, or zeros of a length.
enum Change<'a> {
    Sector(usize, &'a [u8]),
    Zeros(usize, usize),
}

/// One entry of a log.
fn log_entry(image: &[u8], tail: usize, sequence: u64, changes: &[Change<'_>]) -> Vec<u8> {
    let mut entry = vec![0; (64 + 32 * changes.len()).next_multiple_of(4096)];
    for (change, at) in changes.iter().zip((64..).step_by(32)) {
        let descriptor = match change {
            Change::Sector(to, bytes) => {
                let mut sector = vec![0; 4096];
                sector[..4].copy_from_slice(b"data");
                sector[4..8].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
                sector[8..4092].copy_from_slice(&bytes[8..4092]);
                sector[4092..].copy_from_slice(&(sequence as u32).to_le_bytes());
                entry.extend(sector);
                [b"desc", &bytes[4092..], &bytes[..8], &to.to_le_bytes()].concat()
            }
            Change::Zeros(to, len) => {
                [b"zero", &[0; 4][..], &len.to_le_bytes(), &to.to_le_bytes()].concat()
            }
        };
        entry[at..at + 24].copy_from_slice(&descriptor);
        entry[at + 24..at + 32].copy_from_slice(&sequence.to_le_bytes());
    }
    let len = entry.len() as u32;
    let file_len = image.len() as u64;
    for (at, field) in [
        (0, &b"loge"[..]),
        (8, &len.to_le_bytes()),
        (12, &(tail as u32).to_le_bytes()),
        (16, &sequence.to_le_bytes()),
        (24, &(changes.len() as u32).to_le_bytes()),
        (32, &LOG_ID),
        (48, &file_len.to_le_bytes()),
        (56, &file_len.to_le_bytes()),
    ] {
        entry[at..at + field.len()].copy_from_slice(field);
    }
    vhdx_sum(&mut entry);
    entry
}

/// Puts entries into the log, each at its offset, round the end if need be.
fn with_log(image: &[u8], entries: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut image = image.to_vec();
    for (at, entry) in entries {
        for (i, byte) in entry.iter().enumerate() {
            image[LOG_AT + (at + i) % LOG_LEN] = *byte;
        }
    }
    for header in HEADERS {
        image[header + 48..header + 64].copy_from_slice(&LOG_ID);
        assert_eq!(
            image[header + 68..header + 72],
            (LOG_LEN as u32).to_le_bytes()
        );
        assert_eq!(
            image[header + 72..header + 80],
            (LOG_AT as u64).to_le_bytes()
        );
        vhdx_sum(&mut image[header..header + 4096]);
    }
    image
}

/// Entries of every kind beside older ones, also round the log's end.
#[test]
fn logs() {
    let bench = Bench::new(Pattern::Mixed, 4 << 20);
    let path = bench.image("vhdx", &["-o", "block_size=1M"]);
    let image = fs::read(path).unwrap();
    let (bat, _) = bat(&image);
    let block = |i: usize| {
        let entry = u64::from_le_bytes(*image[bat + 8 * i..].first_chunk().unwrap());
        (entry >> 20 << 20) as usize
    };
    let (first, second) = ([0x31; 4096], [0x32; 4096]);
    let mut unmapped = image[bat..bat + 4096].to_vec();
    unmapped[8..16].fill(0);
    // Two entries that belong together from `at` on, an old one elsewhere, and a third that is not complete.
    let logged = |at: usize| {
        let one = [
            Change::Sector(block(0), &first),
            Change::Sector(block(0) + 4096, &first),
            Change::Zeros(block(2), 16384),
            Change::Sector(bat, &unmapped),
        ];
        let two = [
            Change::Sector(block(0) + 4096, &second),
            Change::Sector(block(2) + 4096, &second),
            Change::Zeros(block(0), 4096),
        ];
        let one = log_entry(&image, at, 1 << 33, &one);
        let two = log_entry(&image, at, (1 << 33) + 1, &two);
        let wipe = [Change::Zeros(block(0), 1 << 20)];
        let old = log_entry(&image, 65_536, 7, &wipe);
        let mut torn = log_entry(&image, at, (1 << 33) + 2, &wipe);
        torn[100] ^= 1;
        let next = (at + one.len()) % LOG_LEN;
        let last = (next + two.len()) % LOG_LEN;
        with_log(
            &image,
            &[(at, one), (next, two), (65_536, old), (last, torn)],
        )
    };
    let dirty = logged(131_072);
    let expected = replayed_by_qemu(&bench, &dirty);
    let part = |i: usize| expected[i].as_deref().unwrap();
    assert!(part(0)[..4096] == [0; 4096] && part(0)[4096..8192] == second);
    assert!(part(1).iter().all(|byte| *byte == 0));
    assert!(part(2)[..4096] == [0; 4096] && part(2)[4096..8192] == second);
    assert_equal(&dirty, &expected);
    // QEMU 7.2 does not go round the end here.
    for at in [
        LOG_LEN - 4096,
        LOG_LEN - 8192,
        LOG_LEN - 16_384,
        LOG_LEN - 24_576,
    ] {
        assert_equal(&logged(at), &expected);
    }
}

#[test]
fn logs_that_lie() {
    let image = sample("vhdx", &["-o", "block_size=1M"]);
    let (bat, _) = bat(&image);
    let entry = |changes: &[Change<'_>]| log_entry(&image, 0, 5, changes);
    let bent = |at: usize, field: &[u8], expected: &str| {
        let mut entry = entry(&[Change::Sector(bat, &[7; 4096])]);
        entry[at..at + field.len()].copy_from_slice(field);
        vhdx_sum(&mut entry);
        check(&with_log(&image, &[(0, entry)]), &[], expected);
    };
    assert!(read_all(&with_log(&image, &[])).unwrap() == read_all(&image).unwrap());
    bent(8, &FF[..4], "no valid entry");
    bent(8, &[0; 4], "no valid entry");
    bent(12, &[0, 0x10], "no valid entry");
    bent(12, &FF[..4], "no valid entry");
    bent(16, &[0; 8], "no valid entry");
    bent(24, &FF[..4], "no valid entry");
    bent(48, &FF, "was it cut off?");
    bent(56, &BIG_LE, "a file of 9223372036854775808 bytes");
    bent(64, b"gone", "entry 5 is invalid");
    bent(80, &[1], "entry 5 is invalid");
    bent(80, &BIG_LE, "entry 5 is invalid");
    bent(
        80,
        &[0, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        "entry 5 is invalid",
    );
    bent(88, &[6], "entry 5 is invalid");
    bent(4096, b"dada", "entry 5 is invalid");
    bent(4100, &[1], "entry 5 is invalid");
    bent(8188, &[6], "entry 5 is invalid");
    let wipe = entry(&[Change::Zeros(bat, usize::MAX - 4095)]);
    check(&with_log(&image, &[(0, wipe)]), &[], "entry 5 is invalid");
    let odd = entry(&[Change::Zeros(bat, 4097)]);
    check(&with_log(&image, &[(0, odd)]), &[], "entry 5 is invalid");
    // Each sector begins an entry as long as the log, none of them whole: the sums have an end.
    let mut fake = entry(&[]);
    fake[8..12].copy_from_slice(&(LOG_LEN as u32).to_le_bytes());
    let many: Vec<_> = (0..LOG_LEN)
        .step_by(4096)
        .map(|at| (at, fake.clone()))
        .collect();
    check(&with_log(&image, &many), &[], "no valid entry");

    let mut dirty = with_log(&image, &[(0, entry(&[]))]);
    assert!(read_all(&dirty).is_ok());
    for (at, field, expected) in [
        (
            64,
            &[1, 0][..],
            "its log has version 1: attach and detach it once",
        ),
        (68, &FF[..4], "its log has 4294967295 bytes: attach"),
        (68, &[0; 4], "a log of 0 bytes"),
        (68, &[1, 0, 0, 0], "a log of 1 bytes"),
        (72, &[1], "a log of 1048576 bytes at 1048577"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 0x10], "lies beyond the end"),
    ] {
        let before = dirty.clone();
        for header in HEADERS {
            dirty[header + at..header + at + field.len()].copy_from_slice(field);
            vhdx_sum(&mut dirty[header..header + 4096]);
        }
        check(&dirty, &[], expected);
        dirty = before;
    }
}
