//! Streams and archives made by the usual tools, what comes out of them, and those that lie.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dvcr_importer::wrapping::{RATIO_FREE_BYTES, Unwrapped, Wrapping, WrappingError};
use support::{Bench, Pattern, Random, run, text};

use Wrapping::{Bzip2, Gzip, Tar, Xz, Zstd};

const BYTES_MAX: u64 = 1 << 40;

/// Reads to the end.
fn unwrap(bytes: &[u8]) -> Result<(Vec<Wrapping>, Vec<u8>), WrappingError> {
    unwrap_within(bytes, BYTES_MAX)
}

fn unwrap_within(bytes: &[u8], max: u64) -> Result<(Vec<Wrapping>, Vec<u8>), WrappingError> {
    let mut stream = Unwrapped::new(Cursor::new(bytes.to_vec()), max)?;
    let mut content = vec![];
    stream.read_to_end(&mut content).map_err(|error| {
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        *error
            .into_inner()
            .unwrap()
            .downcast::<WrappingError>()
            .unwrap()
    })?;
    assert!(content.starts_with(stream.head()));
    Ok((stream.wrappings().to_vec(), content))
}

/// Expects an error that says this.
fn check(bytes: &[u8], expected: &str) {
    let start = Instant::now();
    let error = match unwrap(bytes) {
        Ok((wrappings, content)) => {
            panic!(
                "{wrappings:?}, {} bytes, in spite of {expected:?}",
                content.len()
            )
        }
        Err(error) => error.to_string(),
    };
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(20), "{expected}");
}

/// One layer more around a file, made by the tool for it. Returns the new file.
fn wrap(path: &Path, wrapping: Wrapping) -> PathBuf {
    let dir = path.parent().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let file = text(path);
    let (new, args): (_, &[&str]) = match wrapping {
        Gzip => ("gz", &["gzip", "-k", "-1", file]),
        Xz => ("xz", &["xz", "-k", "-1", file]),
        Zstd => ("zst", &["zstd", "-q", "-k", file]),
        Bzip2 => ("bz2", &["bzip2", "-k", file]),
        Tar => {
            let tar = format!("{file}.tar");
            run("tar", &["-cf", &tar, "-C", text(dir), name]);
            return tar.into();
        }
    };
    run(args[0], &args[1..]);
    format!("{file}.{new}").into()
}

#[test]
fn layers_by_the_usual_tools() {
    for layers in [
        &[][..],
        &[Gzip],
        &[Xz],
        &[Zstd],
        &[Bzip2],
        &[Tar],
        &[Tar, Gzip],
        &[Tar, Xz],
        &[Xz, Tar],
        &[Zstd, Tar, Bzip2],
        &[Gzip, Xz, Zstd, Bzip2],
        &[Xz, Tar, Gzip, Tar],
    ] {
        for (pattern, len) in [(Pattern::Mixed, (2 << 20) + 512), (Pattern::Empty, 1 << 20)] {
            let bench = Bench::new(pattern, len);
            let path = layers
                .iter()
                .fold(bench.raw.clone(), |path, layer| wrap(&path, *layer));
            let (wrappings, content) = unwrap(&fs::read(path).unwrap()).unwrap();
            assert!(wrappings.iter().eq(layers.iter().rev()), "{wrappings:?}");
            assert!(content == fs::read(&bench.raw).unwrap(), "{layers:?}");
        }
    }
}

#[test]
fn one_layer_too_many() {
    let bench = Bench::new(Pattern::Compressible, 4096);
    let path = [Gzip; 5].iter().fold(bench.raw.clone(), |path, layer| {
        let inner = wrap(&path, *layer);
        let next = bench.path("next");
        fs::rename(inner, &next).unwrap();
        next
    });
    check(&fs::read(path).unwrap(), "wrapped more than 4 times");
}

#[test]
fn several_members() {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    for wrapping in [Gzip, Xz, Zstd, Bzip2] {
        let parts: Vec<u8> = raw
            .chunks(300_001)
            .enumerate()
            .flat_map(|(i, part)| {
                let path = bench.path(&format!("{wrapping}{i}"));
                fs::write(&path, part).unwrap();
                fs::read(wrap(&path, wrapping)).unwrap()
            })
            .collect();
        assert!(unwrap(&parts).unwrap().1 == raw, "{wrapping}");
    }
    // Parallel tools: a skippable frame first, many blocks.
    let zstd = fs::read(wrap(&bench.raw, Zstd)).unwrap();
    let skippable = [
        &b"\x50\x2A\x4D\x18\x04\x00\x00\x00\x2A\x00\x00\x00"[..],
        &zstd,
    ]
    .concat();
    assert!(unwrap(&skippable).unwrap().1 == raw);
    let blocks = bench.path("blocks.xz");
    let script = format!(
        "xz -T2 --block-size=100000 -c {} > {}",
        text(&bench.raw),
        text(&blocks)
    );
    run("sh", &["-c", &script]);
    assert!(unwrap(&fs::read(blocks).unwrap()).unwrap().1 == raw);
}

#[test]
fn archives_of_every_format() {
    let bench = Bench::new(Pattern::Islands, 3 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    let long = "d".repeat(120) + "/" + &"f".repeat(120);
    fs::create_dir(bench.path(&"d".repeat(120))).unwrap();
    // With its holes.
    run(
        "cp",
        &[
            "--sparse=always",
            text(&bench.raw),
            text(&bench.path(&long)),
        ],
    );
    fs::write(bench.path("README"), "about this disk\n".repeat(200)).unwrap();
    fs::write(bench.path("small"), [0, 1, 2]).unwrap();
    fs::write(
        bench.path("._disk"),
        [&[0, 5, 0x16, 7][..], &[0; 4096]].concat(),
    )
    .unwrap();
    fs::create_dir(bench.path("dir")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.path("link")).unwrap();
    let tar = bench.path("tar");
    for format in ["ustar", "pax", "gnu", "oldgnu"] {
        for (names, sparse) in [
            (&["raw"][..], false),
            (&["raw"], true),
            (
                &["README", "small", "._disk", "dir", "link", "raw", "README"],
                false,
            ),
            (&["README", "link", "raw", "README"], true),
            (&[&long], false),
            (&[&long], true),
        ] {
            // ustar has no room for such names and none for holes.
            if format == "ustar" && (sparse || names[0].len() > 200) {
                continue;
            }
            let option = format!("--format={format}");
            let mut args = vec!["-cf", text(&tar), &option, "-C", text(bench.dir.path())];
            args.extend(sparse.then_some("--hole-detection=raw"));
            args.extend(names);
            run("tar", &args);
            let bytes = fs::read(&tar).unwrap();
            assert_eq!(
                sparse,
                bytes.len() < raw.len(),
                "{format} {names:?}: {}",
                bytes.len()
            );
            let (wrappings, content) = unwrap(&bytes).unwrap();
            assert_eq!(wrappings, [Tar]);
            assert!(content == raw, "{format} {names:?} {sparse}");
        }
    }
    let option = ["--format=pax", "--sparse-version=0.1", "-S"];
    let args = [
        &["-cf", text(&tar)],
        &option[..],
        &["-C", text(bench.dir.path()), "raw"],
    ]
    .concat();
    run("tar", &args);
    check(&fs::read(&tar).unwrap(), "old format for files with holes");
}

/// As `qemu-img` and a virtualisation product would make it.
#[test]
fn ova() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let vmdk = bench.path("vm-disk1.vmdk");
    let options = ["-O", "vmdk", "-o", "subformat=streamOptimized"];
    run(
        "qemu-img",
        &[&["convert"], &options[..], &[text(&bench.raw), text(&vmdk)]].concat(),
    );
    let descriptor = "<?xml version=\"1.0\"?>\n<Envelope>".to_owned() + &"<File/>\n".repeat(500);
    fs::write(bench.path("vm.ovf"), descriptor).unwrap();
    fs::write(bench.path("vm.mf"), "SHA256(vm.ovf)= 00\n".repeat(40)).unwrap();
    let ova = bench.path("vm.ova");
    let dir = text(bench.dir.path());
    let names = ["vm.ovf", "vm.mf", "vm-disk1.vmdk"];
    run(
        "tar",
        &[
            &["-cf", text(&ova), "--format=ustar", "-C", dir],
            &names[..],
        ]
        .concat(),
    );
    let (wrappings, content) = unwrap(&fs::read(&ova).unwrap()).unwrap();
    assert_eq!(wrappings, [Tar]);
    assert!(content == fs::read(&vmdk).unwrap());
}

#[test]
fn archives_that_are_refused() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let dir = text(bench.dir.path());
    let tar = bench.path("tar");
    let archive = |args: &[&str]| {
        let all = [&["-cf", text(&tar), "-C", dir, "--hard-dereference"], args].concat();
        run("tar", &all);
        fs::read(&tar).unwrap()
    };
    fs::write(bench.path("notes"), "text\n".repeat(1000)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.path("link")).unwrap();
    run("mkfifo", &[text(&bench.path("fifo"))]);
    check(&archive(&["fifo", "raw"]), "device node or a FIFO");
    check(&archive(&["link"]), "holds no disk");
    check(&archive(&["notes", "link"]), "holds no disk");
    check(
        &archive(&["-P", "--transform=s,raw,../../etc/raw,", "raw"]),
        "outside of itself",
    );
    check(
        &archive(&["-P", "--transform=s,raw,a/../raw,", "raw"]),
        "outside of itself",
    );
    let long = format!("--transform=s,raw,{}/../raw,", "x".repeat(200));
    for format in ["--format=gnu", "--format=pax"] {
        check(&archive(&[format, "-P", &long, "raw"]), "outside of itself");
    }
    // Devices, by a header of our own: making one takes privileges.
    let mut bytes = archive(&["raw"]);
    for kind in [b'3', b'4'] {
        set(&mut bytes, 156, &[kind]);
        check(&bytes, "device node or a FIFO");
    }
    // Links with a length: nothing follows them, so what does is taken for a header.
    set(&mut bytes, 156, b"2");
    check(&bytes, "");

    let bytes = archive(&["raw"]);
    let with = |at: usize, field: &[u8], expected: &str| {
        let mut bytes = bytes.clone();
        set(&mut bytes, at, field);
        check(&bytes, expected);
    };
    with(
        124,
        b"\x80\0\0\0\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        "it ends early",
    );
    let mut notes = archive(&["notes"]);
    set(
        &mut notes,
        124,
        b"\x80\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    );
    check(&notes, "an entry of");
    set(
        &mut notes,
        124,
        b"\x80\0\0\0\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    );
    check(&notes, "it ends early");
    for (kind, expected) in [
        (b"x", "an extended header of"),
        (b"L", "an extended header of"),
    ] {
        let mut bytes = bytes.clone();
        set(&mut bytes, 156, kind);
        check(&bytes, expected);
    }
    // The checksum of a second header.
    let mut two = archive(&["notes", "raw"]);
    two[512 + 5120 + 10] ^= 1;
    check(&two, "an entry's header is invalid");
    // Header after header, without end.
    let mut block = bytes[..512].to_vec();
    set(&mut block, 156, b"5");
    check(
        &block.repeat(10_001),
        "no disk among its first 10000 entries",
    );
}

#[test]
fn maps_of_holes_that_lie() {
    let bench = Bench::new(Pattern::Islands, 3 << 20);
    let tar = bench.path("tar");
    let archive = |format: &str| {
        let dir = text(bench.dir.path());
        run("tar", &["-cf", text(&tar), format, "-S", "-C", dir, "raw"]);
        fs::read(&tar).unwrap()
    };
    let old = archive("--format=oldgnu");
    let with = |at: usize, field: &[u8], expected: &str| {
        let mut bytes = old.clone();
        set(&mut bytes, at, field);
        check(&bytes, expected);
    };
    with(386, b"77777777777", "overlap");
    with(
        386,
        b"\x80\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        "overlap",
    );
    with(
        398,
        b"\x80\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        "overlap",
    );
    with(386, b"x7777777777", "garbled");
    with(483, b"00000001000", "does not fit");
    with(483, b"xxxxxxxxxxx", "garbled");
    with(124, b"00000001000", "does not fit");

    let pax = archive("--format=pax");
    let find = |text: &[u8]| {
        pax.windows(text.len())
            .position(|part| part == text)
            .unwrap()
    };
    let map = find(b"GNU.sparse.realsize") / 512 * 512 + 1024;
    let replace = |at: usize, field: &[u8], expected: &str| {
        let mut bytes = pax.clone();
        bytes[at..at + field.len()].copy_from_slice(field);
        check(&bytes, expected);
    };
    replace(map, b"999999999999999999999", "garbled");
    replace(map, b"99999999999999\n", "");
    replace(map, b"\n\n\n", "garbled");
    replace(map, &b"1\n0\n18446744073709551615\n"[..], "does not fit");
    replace(map, &b"2\n5\n9\n4\n18446744073709551615\n"[..], "overlap");
}

/// Sets a field of the first header, and its checksum.
fn set(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Cut anywhere, a stream gives an error: never a shorter disk.
#[test]
fn truncated_streams() {
    let bench = Bench::new(Pattern::Mixed, 200 << 10);
    for layers in [&[Gzip][..], &[Xz], &[Zstd], &[Bzip2], &[Tar], &[Tar, Gzip]] {
        let path = layers
            .iter()
            .fold(bench.raw.clone(), |path, layer| wrap(&path, *layer));
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        let content = fs::read(&bench.raw).unwrap();
        // An archive's last blocks may be missing: the disk is there.
        let end = if layers == [Tar] {
            512 + content.len()
        } else {
            bytes.len()
        };
        for len in (600..end).step_by(end / 300).chain(end - 20..end) {
            let Err(error) = unwrap(&bytes[..len]) else {
                panic!("{layers:?} cut at {len} of {end}");
            };
            assert!(matches!(error, WrappingError::Broken { .. }), "{error:?}");
        }
        assert!(unwrap(&bytes[..end]).unwrap().1 == content);
    }
}

/// One bit anywhere is seen by a checksum, unless it is in a field that does not count, and then the disk is right.
#[test]
fn damaged_streams() {
    let bench = Bench::new(Pattern::Mixed, 200 << 10);
    let content = fs::read(&bench.raw).unwrap();
    for layers in [&[Gzip][..], &[Xz], &[Zstd], &[Bzip2], &[Tar, Gzip]] {
        let path = layers
            .iter()
            .fold(bench.raw.clone(), |path, layer| wrap(&path, *layer));
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        let mut random = Random::new(7);
        for _ in 0..500 {
            // Behind the magic numbers: without them it is a raw disk.
            let at = 8 + random.below(bytes.len() as u64 - 8) as usize;
            let mut bent = bytes.clone();
            bent[at] ^= 1 << random.below(8);
            if let Ok((_, found)) = unwrap(&bent) {
                assert!(found == content, "{layers:?} bent at {at}");
            }
        }
    }
}

/// A stream of zeros, compressed twice.
#[test]
fn bombs() {
    let bench = Bench::new(Pattern::Empty, 1 << 20);
    let bomb = bench.path("bomb");
    let make = |script: &str| {
        run(
            "sh",
            &[
                "-c",
                &format!("head -c 512M /dev/zero | {script} > {}", text(&bomb)),
            ],
        );
        fs::read(&bomb).unwrap()
    };
    let twice = make("gzip -1 | gzip -1");
    check(&twice, "no disk compresses so well");
    let bytes = make("zstd -q | zstd -q");
    check(&bytes, "no disk compresses so well");
    // An honest empty disk passes, and the limit on what comes out holds.
    let mut stream = Unwrapped::new(File::open(wrap_zeros(&bench)).unwrap(), BYTES_MAX).unwrap();
    let len = io::copy(&mut stream, &mut io::sink()).unwrap();
    assert_eq!(len, 4 * RATIO_FREE_BYTES);
    let zeros = fs::read(wrap_zeros(&bench)).unwrap();
    let error = unwrap_within(&zeros, 100 << 20).unwrap_err().to_string();
    assert!(
        error.contains("more than 104857600 bytes come out"),
        "{error}"
    );
}

fn wrap_zeros(bench: &Bench) -> PathBuf {
    let path = bench.path("zeros.zst");
    let script = format!(
        "head -c {} /dev/zero | zstd -q -f -o {}",
        4 * RATIO_FREE_BYTES,
        text(&path)
    );
    run("sh", &["-c", &script]);
    path
}

#[test]
fn windows_are_bounded() {
    let bench = Bench::new(Pattern::Compressible, 1 << 20);
    let out = bench.path("out");
    let (raw, out) = (text(&bench.raw), text(&out));
    run(
        "sh",
        &["-c", &format!("xz --lzma2=dict=1GiB -c {raw} > {out}")],
    );
    check(&fs::read(out).unwrap(), "broken xz");
    run(
        "sh",
        &["-c", &format!("cat {raw} | zstd -q --long=31 -c > {out}")],
    );
    check(&fs::read(out).unwrap(), "broken zstd");
    run("sh", &["-c", &format!("xz -9e -c {raw} > {out}")]);
    assert_eq!(unwrap(&fs::read(out).unwrap()).unwrap().0, [Xz]);
    run(
        "sh",
        &["-c", &format!("cat {raw} | zstd -q --ultra -22 -c > {out}")],
    );
    assert_eq!(unwrap(&fs::read(out).unwrap()).unwrap().0, [Zstd]);
}

/// The source's errors stay what they are, through all layers.
#[test]
fn failing_sources() {
    struct Failing(Cursor<Vec<u8>>);

    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                len => Ok(len),
            }
        }
    }

    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    for layers in [
        &[][..],
        &[Gzip],
        &[Xz],
        &[Zstd],
        &[Bzip2],
        &[Tar],
        &[Tar, Gzip, Xz],
    ] {
        let path = layers
            .iter()
            .fold(bench.raw.clone(), |path, layer| wrap(&path, *layer));
        let bytes = fs::read(&path).unwrap();
        if !layers.is_empty() {
            fs::remove_file(path).unwrap();
        }
        let half = Failing(Cursor::new(bytes[..bytes.len() / 2].to_vec()));
        // Some decoders give nothing before half of it was read.
        let error = match Unwrapped::new(half, BYTES_MAX) {
            Ok(mut stream) => io::copy(&mut stream, &mut io::sink()).unwrap_err(),
            Err(error) => error.into(),
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{layers:?}");

        let error = Unwrapped::new(Failing(Cursor::new(bytes[..100].to_vec())), BYTES_MAX);
        assert!(matches!(error, Err(WrappingError::Source(_))), "{layers:?}");
    }
}

/// No panic, no endless loop, whatever comes.
#[test]
fn bent_archives() {
    let bench = Bench::new(Pattern::Islands, 1 << 20);
    let tar = bench.path("tar");
    for format in ["--format=oldgnu", "--format=pax", "--format=gnu"] {
        let dir = text(bench.dir.path());
        run("tar", &["-cf", text(&tar), format, "-S", "-C", dir, "raw"]);
        let bytes = fs::read(&tar).unwrap();
        let mut fine = 0;
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let mut bent = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(2048.min(bent.len() as u64 - 8)) as usize;
                let digits = format!("{:011o}", random.next() >> random.below(64));
                match random.below(3) {
                    0 => bent[at] = random.next() as u8,
                    1 => bent[at] = b'0' + random.below(8) as u8,
                    _ => bent
                        .splice(at..at + 11, digits.bytes().take(11))
                        .for_each(drop),
                }
            }
            set(&mut bent, 0, b"");
            let bent = Unwrapped::new(Cursor::new(bent), 1 << 24);
            let read = bent.map(|mut stream| io::copy(&mut stream, &mut io::sink()).is_ok());
            fine += u64::from(read.unwrap_or(false));
        }
        assert!(fine > 0 && fine < 10_000, "{format}: {fine}");
        println!("{format}: {fine} of 10000 read to their end");
    }
}

#[test]
fn plain_and_empty_streams() {
    let mut bytes = Random::new(1).bytes(100_000);
    bytes[0] = 1;
    let (wrappings, content) = unwrap(&bytes).unwrap();
    assert!(wrappings.is_empty() && content == bytes);
    let (wrappings, content) = unwrap(b"").unwrap();
    assert!(wrappings.is_empty() && content.is_empty());
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(b"").unwrap();
    let (wrappings, content) = unwrap(&gzip.finish().unwrap()).unwrap();
    assert_eq!(wrappings, [Gzip]);
    assert!(content.is_empty());
}
