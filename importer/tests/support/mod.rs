//! Images made by `qemu-img`, and the contents that go into them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod repository;
pub(crate) mod tar;
pub(crate) mod volume;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use dvcr_importer::{
    format::{DiskImage, ExtentKind, FormatError},
    source::{FileSource, ReadAt},
};

/// Runs a program that the tests need; its absence is a failure.
pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}; `tools/install.sh clients` installs what the tests need")
        });
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small generator (xorshift64*): the same bytes in every run.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}

/// What a disk holds.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Pattern {
    Empty,
    Incompressible,
    Compressible,
    /// Every third 64 KiB zero, every third text, the rest random.
    Mixed,
    /// A few KiB here and there, the disk's first and last sector among them.
    Islands,
}

/// Contents of every kind, and lengths that are no multiple of anything. The last is no multiple of a sector.
pub(crate) const CONTENTS: [(Pattern, u64); 9] = [
    (Pattern::Empty, 4 << 20),
    (Pattern::Incompressible, 512),
    (Pattern::Incompressible, (5 << 20) + 512),
    (Pattern::Compressible, (3 << 20) - 512),
    (Pattern::Mixed, 8 << 20),
    (Pattern::Mixed, (2 << 20) + 65_536 + 1024),
    (Pattern::Islands, 64 << 20),
    (Pattern::Islands, 600 << 20),
    (Pattern::Mixed, (1 << 20) + 1000),
];

/// Writes a raw disk.
pub(crate) fn make_raw(path: &Path, pattern: Pattern, len: u64) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    let mut random = Random::new(len);
    let line = |i: u64| format!("line {i} of a file that compresses well\n");
    let mut at = 0;
    if matches!(pattern, Pattern::Islands) {
        let islands = [0, len - 512]
            .into_iter()
            .chain((0..40).map(|_| random.below(len - 8192)));
        for (i, at) in islands.enumerate() {
            let len = (1 + i * 137 % 8000).min((len - at) as usize);
            file.write_all_at(&Random::new(i as u64 + 1).bytes(len), at)
                .unwrap();
        }
        return;
    }
    while at < len {
        let part = (len - at).min(65_536) as usize;
        let kind = match pattern {
            Pattern::Mixed => at / 65_536 % 3,
            Pattern::Compressible => 1,
            Pattern::Incompressible => 2,
            Pattern::Empty | Pattern::Islands => 0,
        };
        let bytes = match kind {
            1 => (at..)
                .flat_map(|i| line(i).into_bytes())
                .take(part)
                .collect(),
            2 => random.bytes(part),
            _ => vec![],
        };
        file.write_all_at(&bytes, at).unwrap();
        at += part as u64;
    }
}

pub(crate) fn open(path: &Path) -> Result<DiskImage, FormatError> {
    let source = FileSource::new(File::open(path).unwrap()).unwrap();
    DiskImage::open(Arc::new(source))
}

/// Compares a disk with a raw one, extent by extent, then by reads at random. Returns how many bytes are data extents.
pub(crate) fn assert_same(image: &DiskImage, raw: &Path) -> u64 {
    let reference = FileSource::new(File::open(raw).unwrap()).unwrap();
    assert_eq!(image.virtual_len(), reference.len(), "virtual size");
    let (mut end, mut data) = (0, 0);
    let mut expected = vec![0; 1 << 20];
    let mut found = vec![0; 1 << 20];
    for extent in image.extents() {
        let extent = extent.unwrap();
        assert_eq!(extent.offset, end);
        assert!(extent.len > 0);
        end += extent.len;
        data += if extent.kind == ExtentKind::Data {
            extent.len
        } else {
            0
        };
        let mut at = extent.offset;
        while at < end {
            let stretch = reference.stretch_at(at).unwrap();
            if stretch.hole && extent.kind == ExtentKind::Zero {
                at += stretch.len;
                continue;
            }
            let part = (end - at).min(expected.len() as u64) as usize;
            reference.read_at(at, &mut expected[..part]).unwrap();
            if extent.kind == ExtentKind::Data {
                image.read_at(at, &mut found[..part]).unwrap();
            } else {
                found[..part].fill(0);
            }
            assert!(
                expected[..part] == found[..part],
                "bytes from {at} on differ"
            );
            at += part as u64;
        }
    }
    assert_eq!(end, image.virtual_len());

    let mut random = Random::new(end);
    for _ in 0..200 {
        let at = random.below(end);
        let part = (1 + random.below(300_000)).min(end - at) as usize;
        reference.read_at(at, &mut expected[..part]).unwrap();
        image.read_at(at, &mut found[..part]).unwrap();
        assert!(
            expected[..part] == found[..part],
            "{part} bytes at {at} differ"
        );
    }
    assert!(image.read_at(end, &mut [0]).is_err());
    assert!(image.read_at(u64::MAX, &mut [0]).is_err());
    data
}

/// A directory with one raw disk in it.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) raw: PathBuf,
}

impl Bench {
    pub(crate) fn new(pattern: Pattern, len: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("raw");
        make_raw(&raw, pattern, len);
        Self { dir, raw }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An image of the disk.
    pub(crate) fn image(&self, format: &str, options: &[&str]) -> PathBuf {
        let path = self.path("image");
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        args.extend(options);
        args.extend([text(&self.raw), text(&path)]);
        run("qemu-img", &args);
        path
    }

    /// What `qemu-img` reads out of an image.
    pub(crate) fn reference(&self, format: &str, image: &Path) -> PathBuf {
        let path = self.path("reference");
        run(
            "qemu-img",
            &[
                "convert",
                "-f",
                format,
                "-O",
                "raw",
                text(image),
                text(&path),
            ],
        );
        path
    }
}
