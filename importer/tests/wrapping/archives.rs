//! Archives: honest ones of every format, and those that lie.

use std::{
    fs,
    io::{self, Cursor, Read},
    path::Path,
    sync::Arc,
};

use dvcr_importer::{
    input::{Input, Located},
    source::ReadAt,
    wrapping::Unwrapped,
};

use dvcr_importer::wrapping::Wrapping::Tar;

use crate::{
    BYTES_MAX, check,
    support::{Bench, Pattern, Random, run, tar::set_sum, text},
    unwrap,
};

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
    for version in ["0.0", "0.1", "1.0"] {
        for name in ["raw", &long] {
            let version = format!("--sparse-version={version}");
            let args = ["-cf", text(&tar), "--format=pax", &version, "-S", "-C"];
            run(
                "tar",
                &[&args[..], &[text(bench.dir.path()), name]].concat(),
            );
            let bytes = fs::read(&tar).unwrap();
            assert!(bytes.len() < raw.len());
            let (wrappings, content) = unwrap(&bytes).unwrap();
            assert_eq!(wrappings, [Tar]);
            assert!(content == raw, "{version} {name}");
        }
    }
}

/// As `qemu-img` and a virtualisation product would make it. Of several disks somebody has to choose.
#[test]
fn ova() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let vmdk = bench.path("vm-disk1.vmdk");
    let options = ["-O", "vmdk", "-o", "subformat=streamOptimized"];
    run(
        "qemu-img",
        &[&["convert"], &options[..], &[text(&bench.raw), text(&vmdk)]].concat(),
    );
    fs::rename(
        bench.image("vmdk", &options[2..]),
        bench.path("vm-disk2.vmdk"),
    )
    .unwrap();
    // Firmware's variables: no text, no disk.
    fs::write(bench.path("vm.nvram"), Random::new(3).bytes(8684)).unwrap();
    let descriptor = "<?xml version=\"1.0\"?>\n<Envelope>".to_owned() + &"<File/>\n".repeat(500);
    fs::write(bench.path("vm.ovf"), descriptor).unwrap();
    fs::write(bench.path("vm.mf"), "SHA256(vm.ovf)= 00\n".repeat(40)).unwrap();
    let ova = bench.path("vm.ova");
    let dir = text(bench.dir.path());
    let archive = |names: &[&str]| {
        let args = ["-cf", text(&ova), "--format=ustar", "-C", dir];
        run("tar", &[&args, names].concat());
        fs::read(&ova).unwrap()
    };
    let one = archive(&["vm.ovf", "vm.mf", "vm-disk1.vmdk", "vm.nvram"]);
    let two = archive(&["vm.ovf", "./vm-disk1.vmdk", "vm-disk2.vmdk", "vm.nvram"]);
    check_choice(&one, None, Ok(&vmdk));
    let several = "several disks; choose one with --file: vm-disk1.vmdk, vm-disk2.vmdk";
    check_choice(&two, None, Err(several));
    for (wanted, file) in [
        ("vm-disk1.vmdk", "vm-disk1.vmdk"),
        ("/vm-disk2.vmdk", "vm-disk2.vmdk"),
        ("./vm.nvram", "vm.nvram"),
    ] {
        check_choice(&two, Some(wanted), Ok(&bench.path(file)));
    }
    let absent = "has no file vm-disk3.vmdk; disks in it: vm-disk1.vmdk, vm-disk2.vmdk";
    check_choice(&two, Some("vm-disk3.vmdk"), Err(absent));
    // Nobody knows which of these is the disk.
    let unclear = archive(&["vm.nvram", "vm-disk1.vmdk"]);
    check_choice(&unclear, None, Err("vm.nvram, vm-disk1.vmdk"));
    check_choice(&archive(&["raw", "vm.nvram"]), None, Ok(&bench.raw));
    fs::copy(&bench.raw, bench.path("other")).unwrap();
    check_choice(&archive(&["raw", "other"]), None, Err("raw, other"));
    let raw = fs::read(&bench.raw).unwrap();
    check_choice(&raw, Some("raw"), Err("the source is no archive"));
}

/// What is taken out of a source, as a stream and where it lies.
fn check_choice(bytes: &[u8], wanted: Option<&str>, expected: Result<&Path, &str>) {
    let stream = Unwrapped::choose(Cursor::new(bytes.to_vec()), BYTES_MAX, wanted);
    let mut content = vec![];
    let streamed = stream
        .map_err(io::Error::from)
        .and_then(|mut stream| stream.read_to_end(&mut content));
    let located = Input::at_random(Arc::new(bytes.to_vec()), wanted);
    match expected {
        Ok(file) => {
            streamed.unwrap();
            assert!(content == fs::read(file).unwrap(), "{wanted:?}");
            let Ok(Located::Disk(input)) = located else {
                panic!("{wanted:?} is not read where it lies");
            };
            assert_eq!(input.image.source().len(), content.len() as u64);
        }
        Err(expected) => {
            let streamed = streamed.unwrap_err().to_string();
            let Err(located) = located else {
                panic!("{wanted:?} in spite of {expected}");
            };
            for error in [streamed, located.to_string()] {
                assert!(error.contains(expected), "{error:?}: {expected:?}");
            }
        }
    }
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
    set_sum(&mut bytes[..512]);
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
