//! Disks to layers and back: every format gives the same layer, and the usual tools read it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{fs, io, os::unix::fs::FileExt, path::Path, process::Command, sync::Arc};

use dvcr_core::{
    chunk::{ChunkId, Cutter},
    disk::{CanonicalQcow2, ClusterMap, PIECE_BYTES_MAX, PIECE_BYTES_MIN, tar},
    oci::Digest,
};
use dvcr_importer::{
    format::{ExtentKind, Format},
    layout::{Archive, Content, Layer, LayoutError, write_layer},
    source::ReadAt,
};
use support::{Bench, Pattern, Random, assert_same, open, run, text};

fn layer_of(image: &Path) -> (Layer, Vec<u8>) {
    let image = open(image).unwrap();
    let mut bytes = vec![];
    let layer = write_layer(&Content::disk(&image).unwrap(), 2, &mut bytes).unwrap();
    assert_eq!(layer.digest, Digest::sha256(&bytes));
    assert_eq!(layer.len, bytes.len() as u64);
    assert_eq!(
        layer.index_digest,
        Digest::sha256(&bytes[layer.index_offset as usize..])
    );
    (layer, bytes)
}

/// `zstd -d | tar x`, and whether `qemu-img` finds the same disk in it without fault.
fn check_with_tools(bench: &Bench, layer: &Layer, bytes: &[u8]) {
    let (zst, tar, out) = (
        bench.path("layer.zst"),
        bench.path("layer.tar"),
        bench.path("out"),
    );
    fs::write(&zst, bytes).unwrap();
    run("zstd", &["-q", "-d", "-f", text(&zst), "-o", text(&tar)]);
    assert_eq!(layer.diff_id, Digest::sha256(&fs::read(&tar).unwrap()));
    fs::create_dir_all(&out).unwrap();
    run(
        "tar",
        &["-xf", text(&tar), "-C", text(&out), "--no-same-owner"],
    );
    let file = out.join("disk/disk.qcow2");
    run("qemu-img", &["check", "-q", "-f", "qcow2", text(&file)]);
    let disks = [text(&file), text(&bench.raw)];
    run(
        "qemu-img",
        &[
            "compare", "-q", "-f", "qcow2", "-F", "raw", disks[0], disks[1],
        ],
    );
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn one_layer_whatever_the_format() {
    for (pattern, len) in [
        (Pattern::Empty, 4 << 20),
        (Pattern::Incompressible, 512),
        (Pattern::Incompressible, (3 << 20) + 512),
        (Pattern::Compressible, 4 << 20),
        (Pattern::Mixed, (8 << 20) - 512),
        (Pattern::Islands, 1200 << 20),
    ] {
        let bench = Bench::new(pattern, len);
        let (layer, bytes) = layer_of(&bench.raw);
        check_with_tools(&bench, &layer, &bytes);
        for (format, options) in [
            ("qcow2", &[][..]),
            ("qcow2", &["-c"]),
            (
                "qcow2",
                &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
            ),
            ("qcow2", &["-o", "extended_l2=on,preallocation=metadata"]),
            ("vmdk", &["-o", "subformat=streamOptimized"]),
            ("vdi", &["-o", "static=on"]),
            ("vpc", &["-o", "force_size=on"]),
            ("vhdx", &[]),
        ] {
            // Whole megabytes only.
            if format == "vhdx" && len % (1 << 20) != 0
                || options.contains(&"static=on") && len > 1 << 30
            {
                continue;
            }
            let image = bench.image(format, options);
            assert!(
                layer_of(&image) == (layer.clone(), bytes.clone()),
                "{format} {options:?} {pattern:?}"
            );
        }

        let archive = Archive::open(Arc::new(bytes), Some(&layer.index_digest)).unwrap();
        let data_frames = archive
            .index()
            .unwrap()
            .frames()
            .iter()
            .filter(|frame| frame.raw.end - frame.raw.start > 65_536);
        assert!(
            data_frames
                .clone()
                .all(|frame| frame.raw.end - frame.raw.start <= PIECE_BYTES_MAX as u64)
        );
        let image = archive.image().unwrap();
        assert_eq!(image.format(), Format::Qcow2);
        assert_same(&image, &bench.raw);
    }
}

/// Nothing of this may change: equal disks would be stored twice. A new layout has a new version and its own vectors.
#[test]
fn golden_layers() {
    for (pattern, len, digest, diff_id) in [
        (
            Pattern::Empty,
            1 << 20,
            "sha256:2727f82954ff15bf550e5b1851e4a45fdca13630c46be0f8d9175b031e3c8eec",
            "sha256:12cb2bc1bc135afa3878bcc970a16542b75ed0be2e07808e8233613045d1b72f",
        ),
        (
            Pattern::Incompressible,
            (3 << 20) + 512,
            "sha256:d166181322eae5fa60562eb993302585e85b24b51233890ec8b7dbd2e05ce7d1",
            "sha256:fd6b4e3ebaddf274ea7489d5066cd8d198afbbcdd06e6c7b681fc212c2608946",
        ),
        (
            Pattern::Mixed,
            8 << 20,
            "sha256:d2760c5c1a17200a9819782603bac255e8ca822dffaf100bc36ffc9df62bfebf",
            "sha256:e84c73c96da79a9c3c5408093a8b0aa8163798042aa9ec9b1b9992d070a9fdcc",
        ),
        (
            Pattern::Islands,
            1200 << 20,
            "sha256:cbbf0ca23b4acb909b38e15bfa1d16ff0e8e467deeac418446705b7a0706d927",
            "sha256:50715ac1fb3ac133da07339ea141cb0600bfcac568e464d1d15e3ea0091f1143",
        ),
    ] {
        let bench = Bench::new(pattern, len);
        let (layer, _) = layer_of(&bench.raw);
        println!(
            "(Pattern::{pattern:?}, {len}, \"{}\", \"{}\")",
            layer.digest, layer.diff_id
        );
        assert_eq!(layer.digest.to_string(), digest, "{pattern:?} {len}");
        assert_eq!(layer.diff_id.to_string(), diff_id, "{pattern:?} {len}");
    }
}

/// Tables of several clusters each, as QEMU sees them; the data is a hole, so that no space is needed.
#[test]
fn large_tables_are_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.qcow2");
    let last = (64 << 40) / 65_536 - 1;
    for (virtual_len, clusters) in [
        (64 << 40, vec![0, 7, 8191, 8192, 8192 * 8192, last]),
        (40 << 40, vec![]),
        (3 << 30, (0..49_152).collect()),
        (2 << 30, (0..32_760).collect()),
        (2 << 30, (0..32_761).collect()),
        // Every table 32 times or more.
        (16 << 40, (0..1 << 20).map(|i| i * 256).collect()),
    ] {
        let image = CanonicalQcow2::new(virtual_len, ClusterMap::from_iter(clusters)).unwrap();
        let file = fs::File::create(&path).unwrap();
        file.set_len(image.file_len()).unwrap();
        for number in 0..image.meta_clusters() {
            file.write_all_at(&image.meta_cluster(number), number * 65_536)
                .unwrap();
        }
        run("qemu-img", &["check", "-q", "-f", "qcow2", text(&path)]);
        let read = open(&path).unwrap();
        assert_eq!(read.virtual_len(), virtual_len);
        let extents = read.extents().map(Result::unwrap);
        let data = extents.filter(|extent| extent.kind == ExtentKind::Data);
        let meta_len = image.meta_clusters() * 65_536;
        assert_eq!(
            data.map(|extent| extent.len).sum::<u64>(),
            image.file_len() - meta_len
        );
    }
}

#[test]
fn verbatim() {
    let dir = tempfile::tempdir().unwrap();
    for len in [1, 4095, 70_000, (1 << 20) + 3000] {
        let file = Random::new(len).bytes(len as usize);
        let content = Content::Verbatim(Arc::new(file.clone()));
        let mut bytes = vec![];
        let layer = write_layer(&content, 1, &mut bytes).unwrap();
        let (zst, out) = (
            dir.path().join("layer.tar.zst"),
            dir.path().join("disk/disk.img"),
        );
        fs::write(&zst, &bytes).unwrap();
        run(
            "tar",
            &[
                "--zstd",
                "-xf",
                text(&zst),
                "-C",
                text(dir.path()),
                "--no-same-owner",
            ],
        );
        assert!(fs::read(out).unwrap() == file);
        let layer: Arc<dyn ReadAt> = Arc::new((bytes, layer).0);
        let image = Archive::open(layer, None).unwrap().image().unwrap();
        assert_eq!(image.format(), Format::Raw);
        let mut read = vec![0; file.len()];
        image.read_at(0, &mut read).unwrap();
        assert!(read == file);
    }
}

/// Lengths beyond ustar's octal digits, understood by tar.
#[test]
fn archives_beyond_8_gib() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.tar");
    for len in [(8 << 30) - 1, 8 << 30, 40 << 30] {
        let file = fs::File::create(&path).unwrap();
        io::Write::write_all(&mut &file, &tar::head(tar::QCOW2_NAME, len)).unwrap();
        file.set_len(tar::HEAD_BYTES as u64 + len + tar::tail(len).len() as u64)
            .unwrap();
        let output = Command::new("tar")
            .args(["-tvf", text(&path)])
            .output()
            .unwrap();
        let list = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && list.contains(&format!(" {len} ")),
            "{list}"
        );
        assert!(list.contains("-r--r--r-- 107/107"), "{list}");
        assert!(
            list.lines().count() == 2 && list.starts_with("drwxr-xr-x 107/107"),
            "{list}"
        );
    }
}

/// A byte changed anywhere is noticed before anything of its frame is given out.
#[test]
fn damaged_layers() {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    let (layer, bytes) = layer_of(&bench.raw);
    let read = |bytes: Vec<u8>, digest| {
        let archive = Archive::open(Arc::new(bytes), digest)?;
        let mut all = vec![0; archive.len() as usize];
        archive.read_at(0, &mut all)?;
        Ok::<_, LayoutError>(all)
    };
    let whole = read(bytes.clone(), Some(&layer.index_digest)).unwrap();
    assert_eq!(Digest::sha256(&whole), layer.diff_id);
    let mut random = Random::new(3);
    for _ in 0..2000 {
        let mut bent = bytes.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bent[at] ^= 1 << random.below(8);
        assert!(
            read(bent.clone(), Some(&layer.index_digest)).is_err(),
            "bent at {at}"
        );
        // Without the digest the index may lie about a frame's hash only if the frame does not fit it.
        if let Ok(found) = read(bent, None) {
            assert!(found == whole, "bent at {at}");
        }
    }
    for len in (0..bytes.len()).step_by(997) {
        assert!(read(bytes[..len].to_vec(), None).is_err());
    }
    let other = zstd::bulk::compress(&whole, 1).unwrap();
    assert!(matches!(read(other, None), Err(LayoutError::Other)));
}

/// A registry cuts a layer into its frames, and names each as the index does.
#[test]
fn frames_are_chunks() {
    let bench = Bench::new(Pattern::Mixed, 24 << 20);
    let (layer, bytes) = layer_of(&bench.raw);
    let archive = Archive::open(Arc::new(bytes.clone()), None).unwrap();
    let mut cutter = Cutter::new();
    let mut at = 0;
    for frame in archive.index().unwrap().frames() {
        let cut = cutter.next(&bytes[at..], true).unwrap();
        let end = at + cut.len;
        assert_eq!(frame.stored, at as u64..end as u64);
        assert_eq!(ChunkId::of(&bytes[at..end]), frame.id);
        at = end;
    }
    assert_eq!(at as u64, layer.index_offset);
}

/// Two disks that differ in one place share all frames but those around it.
#[test]
fn a_changed_page_changes_few_frames() {
    let bench = Bench::new(Pattern::Incompressible, 16 << 20);
    let frames = || {
        let (_, bytes) = layer_of(&bench.raw);
        let archive = Archive::open(Arc::new(bytes), None).unwrap();
        let ids = archive
            .index()
            .unwrap()
            .frames()
            .iter()
            .map(|frame| frame.id);
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    let before = frames();
    let file = fs::File::options().write(true).open(&bench.raw).unwrap();
    file.write_all_at(&[1; 4096], 9 << 20).unwrap();
    let after = frames();
    let changed = after.difference(&before).count();
    assert!((1..=3).contains(&changed), "{changed} of {}", after.len());
    assert!(
        before.len() > (16 << 20) / PIECE_BYTES_MAX
            && before.len() < (16 << 20) / PIECE_BYTES_MIN + 8
    );
}

#[test]
fn failing_outputs() {
    struct Full(usize);

    impl io::Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(buf.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let bench = Bench::new(Pattern::Incompressible, 32 << 20);
    let image = open(&bench.raw).unwrap();
    let content = Content::disk(&image).unwrap();
    for room in [0, 5000, 1 << 20, 20 << 20] {
        let error = write_layer(&content, 2, &mut Full(room)).unwrap_err();
        assert!(
            matches!(error, LayoutError::Io(error) if error.kind() == io::ErrorKind::StorageFull)
        );
    }
}
