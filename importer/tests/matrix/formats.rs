//! One disk in every format, made by `qemu-img`, and what `qemu-img` reads out of each.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use sha2::{Digest as _, Sha256};

use crate::{
    once::Once,
    support::{Random, run, text},
};

/// A multiple of nothing: every window, cluster, block and sector has a last one that is not whole.
const DISK_BYTES: u64 = (9 << 20) + 300 * 1024 + 1000;

/// Where the volume descriptors of ISO 9660 begin.
const ISO_DESCRIPTOR: u64 = 0x8000;

/// Its blocks.
const ISO_BLOCK_BYTES: u64 = 2048;

/// A format with the options that change how it is read.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub(crate) enum Format {
    Raw,
    Iso,
    Qcow2V2,
    Qcow2Zlib,
    Qcow2Zstd,
    Qcow2ExtendedL2,
    VmdkSparse,
    VmdkStream,
    Ova,
    VdiDynamic,
    VdiStatic,
    VhdDynamic,
    VhdFixed,
    VhdxDynamic,
    VhdxFixed,
}

use Format::*;

impl Format {
    /// What `qemu-img` calls it, and how it is made.
    fn recipe(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Raw | Iso => ("raw", &[]),
            Qcow2V2 => ("qcow2", &["-o", "compat=0.10"]),
            Qcow2Zlib => ("qcow2", &["-c"]),
            Qcow2Zstd => ("qcow2", &["-c", "-o", "compression_type=zstd"]),
            Qcow2ExtendedL2 => ("qcow2", &["-o", "extended_l2=on"]),
            VmdkSparse => ("vmdk", &["-o", "subformat=monolithicSparse"]),
            VmdkStream | Ova => ("vmdk", &["-o", "subformat=streamOptimized"]),
            VdiDynamic => ("vdi", &[]),
            VdiStatic => ("vdi", &["-o", "static=on"]),
            // Its length is rounded up to what cylinders, heads and sectors can say.
            VhdDynamic => ("vpc", &["-o", "subformat=dynamic"]),
            VhdFixed => ("vpc", &["-o", "subformat=fixed,force_size=on"]),
            VhdxDynamic => ("vhdx", &["-o", "subformat=dynamic"]),
            VhdxFixed => ("vhdx", &["-o", "subformat=fixed"]),
        }
    }

    /// The name of the format in labels.
    pub(crate) fn label(self) -> &'static str {
        match self.recipe().0 {
            "raw" if self == Iso => "iso",
            "vpc" => "vhd",
            other => other,
        }
    }
}

/// An image, and the disk that it holds.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    /// What `qemu-img convert -O raw` makes of it.
    pub(crate) raw: PathBuf,
    pub(crate) len: u64,
    pub(crate) sha256: [u8; 32],
}

/// The disk in every format, each made when it is asked for.
pub(crate) struct Images {
    dir: PathBuf,
    images: Once<Format, Image>,
}

impl Images {
    pub(crate) fn new(dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        write_disk(&dir.join("disk"), false);
        write_disk(&dir.join("disc"), true);
        Self {
            dir,
            images: Once::default(),
        }
    }

    pub(crate) fn get(&self, format: Format) -> Image {
        self.images.get(format, || self.make(format))
    }

    fn make(&self, format: Format) -> Image {
        let (name, options) = format.recipe();
        let disk = self.dir.join(if format == Iso { "disc" } else { "disk" });
        let dir = self.dir.join(format!("{format:?}"));
        fs::create_dir(&dir).unwrap();
        let (image, raw) = (dir.join("image"), dir.join("raw"));
        let convert = |from: &str, to: &str, options: &[&str], one: &Path, other: &Path| {
            let args = ["convert", "-f", from, "-O", to];
            run(
                "qemu-img",
                &[&args, options, &[text(one), text(other)]].concat(),
            );
        };
        if name == "raw" {
            // Converted it would have whole sectors.
            fs::copy(disk, &image).unwrap();
        } else {
            convert("raw", name, options, &disk, &image);
        }
        convert(name, "raw", &[], &image, &raw);
        let path = if format == Ova {
            ova(&dir, &image)
        } else {
            image
        };
        let bytes = fs::read(&raw).unwrap();
        Image {
            path,
            raw,
            len: bytes.len() as u64,
            sha256: Sha256::digest(&bytes).into(),
        }
    }
}

/// An appliance as virtualisation products export it.
fn ova(dir: &Path, vmdk: &Path) -> PathBuf {
    let descriptor = "<?xml version=\"1.0\"?>\n<Envelope>".to_owned() + &"<File/>\n".repeat(500);
    fs::write(dir.join("vm.ovf"), descriptor).unwrap();
    fs::write(dir.join("vm.mf"), "SHA256(vm.ovf)= 00\n".repeat(40)).unwrap();
    fs::rename(vmdk, dir.join("vm-disk1.vmdk")).unwrap();
    let ova = dir.join("vm.ova");
    let args = ["--format=ustar", "-cf", text(&ova), "-C", text(dir)];
    let names = ["vm.ovf", "vm.mf", "vm-disk1.vmdk"];
    run("tar", &[&args[..], &names].concat());
    ova
}

/// Data at the start, in the middle and at the very end, on no boundary; a hole with an island; zeros that take space; text;
/// the same block again and again.
fn write_disk(path: &Path, disc: bool) {
    const MIB: u64 = 1 << 20;
    // Discs have whole blocks, and stay as they are: with a sector filled up it would be another one.
    let len = match disc {
        true => DISK_BYTES / ISO_BLOCK_BYTES * ISO_BLOCK_BYTES,
        false => DISK_BYTES,
    };
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    let mut random = Random::new(DISK_BYTES);
    let mut data = |at: u64, len: usize| file.write_all_at(&random.bytes(len), at).unwrap();
    data(0, 64 << 10);
    data(5 * MIB + 12_800, 512);
    data(6 * MIB + 777, 700_001);
    data(len - 70_000, 70_000);
    let line = |i: u32| format!("line {i} of a file that compresses well\n").into_bytes();
    let lines: Vec<u8> = (0..).flat_map(line).take(512 << 10).collect();
    file.write_all_at(&lines, MIB).unwrap();
    let block = Random::new(1).bytes(64 << 10);
    file.write_all_at(&block.repeat(8), 2 * MIB).unwrap();
    file.write_all_at(&[0; 256 << 10], 8 * MIB).unwrap();
    if disc {
        file.write_all_at(b"\x01CD001\x01", ISO_DESCRIPTOR).unwrap();
    }
}
