//! Streams that were cut off or bent, bombs, and sources that fail.

use std::{
    fs::{self, File},
    io::{self, Cursor, Read},
    path::PathBuf,
};

use dvcr_importer::wrapping::{RATIO_FREE_BYTES, Unwrapped, WrappingError};

use dvcr_importer::wrapping::Wrapping::{Bzip2, Gzip, Tar, Xz, Zstd};

use crate::{
    BYTES_MAX, check,
    support::{Bench, Pattern, Random, run, text},
    unwrap, unwrap_within, wrap,
};

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
