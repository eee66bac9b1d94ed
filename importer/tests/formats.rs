//! Images of every format and option, against what `qemu-img` reads out of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use dvcr_importer::format::{ExtentKind, Format};
use support::{Bench, CONTENTS, Pattern, assert_same, open, run, text};

/// Every content in one format with each of these options.
fn check(qemu_format: &str, format: Format, options: &[&[&str]]) {
    for (pattern, len) in CONTENTS {
        let bench = Bench::new(pattern, len);
        for options in options {
            println!("{qemu_format} {options:?} {pattern:?} {len}");
            let path = bench.image(qemu_format, options);
            let reference = bench.reference(qemu_format, &path);
            let image = open(&path).unwrap();
            assert_eq!(image.format(), format);
            assert_same(&image, &reference);
        }
    }
}

#[test]
fn raw() {
    check("raw", Format::Raw, &[&[]]);
}

#[test]
fn qcow2_clusters() {
    check(
        "qcow2",
        Format::Qcow2,
        &[
            &[],
            &["-o", "compat=0.10"],
            &["-o", "cluster_size=512"],
            &["-o", "cluster_size=4096,compat=0.10"],
            &["-o", "cluster_size=2M"],
            &["-o", "refcount_bits=1"],
            &["-o", "lazy_refcounts=on,refcount_bits=64"],
        ],
    );
}

#[test]
fn qcow2_compressed() {
    check(
        "qcow2",
        Format::Qcow2,
        &[
            &["-c"],
            &["-c", "-o", "compat=0.10,cluster_size=512"],
            &["-c", "-o", "cluster_size=2M"],
            &["-c", "-o", "compression_type=zstd"],
            &["-c", "-o", "compression_type=zstd,cluster_size=4096"],
            &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
        ],
    );
}

#[test]
fn qcow2_extended_l2() {
    check(
        "qcow2",
        Format::Qcow2,
        &[
            &["-o", "extended_l2=on"],
            &["-o", "extended_l2=on,cluster_size=16k"],
            &["-o", "extended_l2=on,cluster_size=2M"],
            &["-c", "-o", "extended_l2=on,compression_type=zstd"],
        ],
    );
}

#[test]
fn qcow2_preallocated() {
    for mode in ["metadata", "falloc", "full"] {
        for extended in ["off", "on"] {
            let bench = Bench::new(Pattern::Mixed, (9 << 20) + 512);
            let options = format!("preallocation={mode},extended_l2={extended}");
            let path = bench.image("qcow2", &["-o", &options]);
            let reference = bench.reference("qcow2", &path);
            assert_same(&open(&path).unwrap(), &reference);
        }
    }
}

#[test]
fn vmdk() {
    check(
        "vmdk",
        Format::Vmdk,
        &[
            &["-o", "subformat=monolithicSparse"],
            &["-o", "subformat=streamOptimized"],
            &["-o", "subformat=monolithicSparse,zeroed_grain=on"],
            &[
                "-o",
                "subformat=monolithicSparse,compat6=on,adapter_type=lsilogic",
            ],
        ],
    );
}

#[test]
fn vdi() {
    check("vdi", Format::Vdi, &[&[], &["-o", "static=on"]]);
}

#[test]
fn vhd() {
    check(
        "vpc",
        Format::Vhd,
        &[
            &["-o", "subformat=dynamic"],
            &["-o", "subformat=fixed"],
            &["-o", "subformat=dynamic,force_size=on"],
            &["-o", "subformat=fixed,force_size=on"],
        ],
    );
}

#[test]
fn vhdx() {
    check(
        "vhdx",
        Format::Vhdx,
        &[
            &["-o", "subformat=dynamic"],
            &["-o", "subformat=dynamic,block_size=1M"],
            &[
                "-o",
                "subformat=dynamic,block_size=256M,block_state_zero=off",
            ],
            &["-o", "subformat=fixed,block_size=2M"],
        ],
    );
}

/// What a guest leaves behind: rewritten, zeroed and discarded parts, smaller than clusters and larger.
#[test]
fn images_that_were_written_to() {
    const COMMANDS: [&str; 12] = [
        "write -P 0x11 0 1k",
        "write -P 0x12 65024 1k",
        "write -z 128k 64k",
        "write -z -u 200k 300k",
        "discard 1M 1M",
        "write -P 0x13 1100k 4k",
        "write -P 0x14 3M 100k",
        "write -z 3080k 8k",
        "discard 3M 2k",
        "write -P 0x15 7M 1M",
        "write -z -u 7200k 64k",
        "write -P 0x16 8388096 512",
    ];
    for (qemu_format, options) in [
        ("qcow2", &["-o", "compat=0.10"][..]),
        ("qcow2", &[]),
        ("qcow2", &["-c"]),
        ("qcow2", &["-o", "cluster_size=512"]),
        ("qcow2", &["-o", "extended_l2=on"]),
        ("qcow2", &["-c", "-o", "extended_l2=on,cluster_size=16k"]),
        ("qcow2", &["-o", "preallocation=metadata,lazy_refcounts=on"]),
        (
            "vmdk",
            &["-o", "subformat=monolithicSparse,zeroed_grain=on"],
        ),
        ("vdi", &[]),
        ("vpc", &["-o", "force_size=on"]),
        ("vhdx", &["-o", "block_size=1M"]),
    ] {
        for pattern in [Pattern::Empty, Pattern::Mixed, Pattern::Incompressible] {
            println!("{qemu_format} {options:?} {pattern:?}");
            let bench = Bench::new(pattern, 8 << 20);
            let path = bench.image(qemu_format, options);
            let mut args = vec!["-f", qemu_format, "-d", "unmap"];
            args.extend(COMMANDS.iter().flat_map(|command| ["-c", command]));
            args.push(text(&path));
            run("qemu-io", &args);
            let reference = bench.reference(qemu_format, &path);
            assert_same(&open(&path).unwrap(), &reference);
        }
    }
}

/// Internal snapshots are no part of the disk.
#[test]
fn qcow2_with_snapshots() {
    let bench = Bench::new(Pattern::Mixed, 8 << 20);
    let path = bench.image("qcow2", &[]);
    run("qemu-img", &["snapshot", "-c", "before", text(&path)]);
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 7 100k 900k", text(&path)],
    );
    let reference = bench.reference("qcow2", &path);
    assert_same(&open(&path).unwrap(), &reference);
}

#[test]
fn holes_are_reported_not_read() {
    for (qemu_format, options, most) in [
        ("raw", &[][..], 1 << 20),
        ("qcow2", &[], 4 << 20),
        ("qcow2", &["-o", "extended_l2=on"], 1 << 20),
        ("qcow2", &["-c", "-o", "compression_type=zstd"], 4 << 20),
        ("vmdk", &["-o", "subformat=streamOptimized"], 4 << 20),
        ("vdi", &[], 43 << 20),
        ("vpc", &[], 86 << 20),
        ("vhdx", &["-o", "block_size=1M"], 43 << 20),
    ] {
        let bench = Bench::new(Pattern::Islands, 1536 << 20);
        let path = bench.image(qemu_format, options);
        let image = open(&path).unwrap();
        let data: u64 = image
            .extents()
            .map(Result::unwrap)
            .filter(|extent| extent.kind == ExtentKind::Data)
            .map(|extent| extent.len)
            .sum();
        assert!(
            data > 0 && data <= most,
            "{qemu_format} {options:?}: {data} bytes of data"
        );
    }
}

/// The largest disk is opened and walked at once, for it is empty.
#[test]
fn large_disks() {
    for (qemu_format, options, size) in [
        ("qcow2", "cluster_size=64k", "64T"),
        ("qcow2", "cluster_size=2M,extended_l2=on", "64T"),
        ("vmdk", "subformat=monolithicSparse", "62T"),
        ("vhdx", "block_size=256M", "63T"),
        ("vdi", "static=off", "8T"),
        ("vpc", "subformat=dynamic,force_size=on", "2040G"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        run(
            "qemu-img",
            &[
                "create",
                "-q",
                "-f",
                qemu_format,
                "-o",
                options,
                text(&path),
                size,
            ],
        );
        let image = open(&path).unwrap();
        let extents: Vec<_> = image.extents().map(Result::unwrap).collect();
        assert_eq!(extents.len(), 1, "{qemu_format}");
        assert_eq!(extents[0].len, image.virtual_len());
    }
}
