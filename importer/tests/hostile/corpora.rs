//! The fuzz corpora of the importer as plain tests: see `fuzz/replay.rs`.

#[path = "../../../fuzz/replay.rs"]
mod replay;
#[path = "../../../fuzz/importer_targets.rs"]
#[allow(dead_code, reason = "parts are for libFuzzer only")]
pub(crate) mod targets;

use crate::counting::peak;

/// Most memory that any input takes: a VHDX of 16 MiB whose log has nearly as much, read twice; or decoded clusters of 2 MiB.
const MEMORY_MAX: usize = 64 << 20;

fn check(target: &str, body: fn(&[u8]), mutations: usize) {
    replay::check(
        target,
        |data| {
            let ((), memory) = peak(|| body(data));
            assert!(memory < MEMORY_MAX, "{memory} bytes of memory");
        },
        mutations,
    );
}

#[test]
fn qcow2() {
    check("qcow2", targets::qcow2, 500);
}

#[test]
fn vmdk() {
    check("vmdk", targets::vmdk, 500);
}

#[test]
fn vdi() {
    check("vdi", targets::vdi, 500);
}

#[test]
fn vhd() {
    check("vhd", targets::vhd, 500);
}

#[test]
fn vhdx() {
    check("vhdx", targets::vhdx, 300);
}

#[test]
fn image() {
    check("image", targets::image, 1000);
}

#[test]
fn partitions() {
    check("partitions", targets::partitions, 1000);
}

#[test]
fn wrapping() {
    check("wrapping", targets::wrapping, 300);
}

#[test]
fn archive() {
    check("archive", targets::archive, 1000);
}

#[test]
fn layer() {
    check("layer", targets::layer, 1000);
}

#[test]
fn container() {
    check("container", targets::container, 2000);
}

mod seeds {
    use std::{fs, path::Path, sync::Arc};

    use dvcr_importer::{
        format::DiskImage,
        layout::{Content, write_layer},
    };

    use super::targets::Sparse;
    use crate::{
        sources,
        support::{
            Bench, Pattern, Random, run,
            tar::{Member, tar},
            text,
        },
    };

    fn write(target: &str, seeds: impl IntoIterator<Item = (impl AsRef<str>, Vec<u8>)>) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        fs::create_dir_all(&corpus).unwrap();
        for (name, bytes) in seeds {
            fs::write(corpus.join(name.as_ref()), bytes).unwrap();
        }
    }

    /// A disk of 1 MiB with a few short texts on it.
    fn bench() -> Bench {
        let bench = Bench::new(Pattern::Empty, 1 << 20);
        let mut raw = vec![0; 1 << 20];
        for (i, at) in [0, 4096, 70_000, 200_000, 1_040_000]
            .into_iter()
            .enumerate()
        {
            raw[at..at + 40].fill(b'a' + i as u8);
        }
        fs::write(&bench.raw, raw).unwrap();
        bench
    }

    /// Images by `qemu-img`, each also cut off in the middle.
    fn images(target: &str, format: &str, options: &[(&str, &[&str])]) {
        let bench = bench();
        for (name, options) in options {
            let image = fs::read(bench.image(format, options)).unwrap();
            let whole = Sparse::encode(&image);
            let cut = Sparse::encode(&image[..image.len() * 2 / 3]);
            let cut_name = format!("{name}-cut");
            write(target, [(*name, whole), (&cut_name, cut)]);
        }
    }

    #[test]
    #[ignore = "writes the seeds anew"]
    fn write_images() {
        images(
            "qcow2",
            "qcow2",
            &[
                ("default", &[]),
                ("v2-512", &["-o", "compat=0.10,cluster_size=512"]),
                ("small-clusters", &["-o", "cluster_size=4k"]),
                ("deflate", &["-c", "-o", "cluster_size=16k"]),
                (
                    "zstd",
                    &["-c", "-o", "compression_type=zstd,cluster_size=4k"],
                ),
                ("extended-l2", &["-o", "extended_l2=on,cluster_size=16k"]),
                (
                    "extended-zstd",
                    &["-c", "-o", "extended_l2=on,compression_type=zstd"],
                ),
            ],
        );
        images(
            "vmdk",
            "vmdk",
            &[
                ("sparse", &["-o", "subformat=monolithicSparse"]),
                (
                    "zeroed",
                    &["-o", "subformat=monolithicSparse,zeroed_grain=on"],
                ),
                ("stream", &["-o", "subformat=streamOptimized"]),
            ],
        );
        images(
            "vdi",
            "vdi",
            &[("dynamic", &[]), ("static", &["-o", "static=on"])],
        );
        images(
            "vhd",
            "vpc",
            &[
                ("dynamic", &["-o", "subformat=dynamic,force_size=on"]),
                ("fixed", &["-o", "subformat=fixed,force_size=on"]),
                ("geometry", &["-o", "subformat=dynamic"]),
            ],
        );
        images(
            "vhdx",
            "vhdx",
            &[
                ("dynamic", &["-o", "block_size=1M"]),
                ("fixed", &["-o", "subformat=fixed,block_size=1M"]),
            ],
        );
        let dirty = crate::vhdx::dirty(&Bench::new(Pattern::Empty, 8 << 20));
        write("vhdx", [("dirty", Sparse::encode(&dirty))]);
        // What each of them looks like, without its zeros: detection first.
        for (format, magic, at) in [
            ("qcow2", &b"QFI\xFB\0\0\0\x03"[..], 0),
            ("vmdk", b"KDMV", 0),
            ("vhd", b"conectix", 0),
            ("vhdx", b"vhdxfile", 0),
            ("vdi", b"\x7F\x10\xDA\xBE", 0x40),
            ("iso", b"CD001", 0x8001),
            ("zip", b"PK\x03\x04", 0),
            ("html", b"<!DOCTYPE html", 0),
            ("descriptor", b"# Disk DescriptorFile", 0),
        ] {
            let mut bytes = vec![0; at + 600];
            bytes[at..at + magic.len()].copy_from_slice(magic);
            write("image", [(format, bytes)]);
        }
        let small = bench().image("qcow2", &["-o", "cluster_size=512"]);
        write("image", [("small", fs::read(small).unwrap())]);
    }

    #[test]
    #[ignore = "writes the seeds anew"]
    fn write_partitions() {
        let bench = Bench::new(Pattern::Empty, 8 << 20);
        for (name, script) in [
            (
                "mbr",
                "label: dos\n1M,1M,83,*\n2M,1M,7\n3M,,5\n3100K,1M\n4300K,1M\n",
            ),
            ("gpt", "label: gpt\n1M,1M,U\n2M,2M,L,*\n"),
            ("gpt-short", "label: gpt\ntable-length: 8\n\n1M,1M\n"),
            ("empty", "label: dos\n"),
        ] {
            fs::write(&bench.raw, vec![0; 8 << 20]).unwrap();
            let command = format!("printf '{script}' | sfdisk -q {}", text(&bench.raw));
            run("sh", &["-ec", &command]);
            write(
                "partitions",
                [(name, Sparse::encode(&fs::read(&bench.raw).unwrap()))],
            );
        }
        run("mkfs.ext4", &["-q", "-F", text(&bench.raw)]);
        let mut whole = fs::read(&bench.raw).unwrap();
        whole.truncate(4096);
        write("partitions", [("ext4", Sparse::encode(&whole))]);
        let chain = Sparse::encode(&sources::extended_loop()[..16 << 10]);
        write("partitions", [("loop", chain)]);
    }

    #[test]
    #[ignore = "writes the seeds anew"]
    fn write_streams() {
        let bench = Bench::new(Pattern::Compressible, 3000);
        let raw = text(&bench.raw);
        for (name, command) in [
            ("gzip", "gzip -9 <$1"),
            ("xz", "xz -9 <$1"),
            ("zstd", "zstd -q <$1"),
            ("bzip2", "bzip2 <$1"),
            ("xz-blocks", "xz --block-size=1000 --check=sha256 <$1"),
            ("zstd-checked", "zstd -q -19 --check <$1"),
            ("members", "gzip <$1; gzip -1 <$1"),
            ("gzip-xz", "gzip <$1 | xz"),
            ("zstd-bzip2-gzip", "zstd -q <$1 | bzip2 | gzip"),
            ("zeros", "head -c 1000000 /dev/zero | gzip -9"),
            (
                "zeros-twice",
                "head -c 9000000 /dev/zero | gzip -9 | gzip -9",
            ),
            ("raw", "cat $1"),
        ] {
            let out = bench.path("out");
            let command = format!("{{ {command}; }} >$2");
            run("sh", &["-ec", &command, "sh", raw, text(&out)]);
            write("wrapping", [(name, fs::read(out).unwrap())]);
        }
        let sparse = bench.path("sparse");
        let script = "truncate -s 300K $1; for at in 3 40 200; do printf island | dd of=$1 bs=1K seek=$at conv=notrunc status=none; done";
        run("sh", &["-ec", script, "sh", text(&sparse)]);
        let dir = text(bench.dir.path());
        for (name, options) in [
            ("ustar", &["--format=ustar", "raw"][..]),
            ("pax", &["--format=pax", "raw"]),
            (
                "gnu-long",
                &[
                    "--format=gnu",
                    "--transform=s,raw,xxxxxxxxxxxxxxxxxxxx/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/xxxxxxxxxxxxxxxxxxxxxxxxxx/raw,",
                    "raw",
                ],
            ),
            ("oldgnu-sparse", &["--format=oldgnu", "-S", "sparse"]),
            (
                "sparse-0.0",
                &["--format=pax", "--sparse-version=0.0", "-S", "sparse"],
            ),
            (
                "sparse-0.1",
                &["--format=pax", "--sparse-version=0.1", "-S", "sparse"],
            ),
            (
                "sparse-1.0",
                &["--format=pax", "--sparse-version=1.0", "-S", "sparse"],
            ),
        ] {
            let out = bench.path("out.tar");
            run(
                "tar",
                &[&["-b1", "-cf", text(&out), "-C", dir], options].concat(),
            );
            write("archive", [(name, fs::read(out).unwrap())]);
        }
        let disk = Random::new(5).bytes(600);
        let members = [
            Member::Directory("d"),
            Member::Symlink("l", "/etc/passwd"),
            Member::File("README", b"text\n"),
            Member::File("disk", &disk),
            Member::File("other", &disk[..512]),
        ];
        write(
            "archive",
            [
                ("members", tar(&members)),
                ("one", tar(&members[2..4])),
                ("named", tar(&members[3..])),
            ],
        );
        write(
            "archive",
            sources::hostile_archives()
                .into_iter()
                .filter(|(_, bytes, _)| bytes.len() < 8192)
                .map(|(name, bytes, _)| (name.replace(' ', "-"), bytes)),
        );
    }

    #[test]
    #[ignore = "writes the seeds anew"]
    fn write_layers() {
        let bench = bench();
        let raw = fs::read(&bench.raw).unwrap();
        let image = DiskImage::open(Arc::new(raw.clone())).unwrap();
        let mut disk = vec![];
        write_layer(&Content::disk(&image).unwrap(), 1, &mut disk).unwrap();
        let mut verbatim = vec![];
        let file: Arc<dyn dvcr_importer::source::ReadAt> = Arc::new(raw[..70_100].to_vec());
        write_layer(&Content::Verbatim(file), 1, &mut verbatim).unwrap();
        let cut = disk[100..].to_vec();
        let mut bent = disk.clone();
        let at = bent.len() - 30;
        bent[at] ^= 4;
        write(
            "layer",
            [
                ("disk", disk),
                ("verbatim", verbatim),
                ("cut", cut),
                ("bent", bent),
                ("empty", vec![]),
            ],
        );
        write(
            "container",
            [
                ("one", vec![0x50]),
                ("two", vec![0x50, 0x51]),
                ("replaced", vec![0x50, 0xFF, 0x50]),
                ("removed", vec![0x50, 0xFF, 0x55]),
                ("opaque", vec![0x50, 0x02, 0xFF, 0x56, 0x51]),
                ("link", vec![0x50, 0xFF, 0x20]),
                ("device", vec![0x30]),
                ("directory", vec![0x52, 0xFF, 0x02]),
                ("root-opaque", vec![0x53, 0xFF, 0x58, 0xFF, 0x0A]),
                ("empty", vec![0x40, 0xFF, 0xFF]),
            ],
        );
    }
}
