//! Telling formats apart by content. Names and media types are never asked.

use std::fmt;

use super::FormatError;
use crate::source::ReadAt;

/// Bytes from the start of a source that [`detect`] wants to see: up to the volume descriptor of an ISO image.
pub const DETECT_HEAD_BYTES: usize = 36 << 10;

/// Bytes from the end of a source that [`detect`] wants to see: the footer of a fixed VHD.
pub const DETECT_TAIL_BYTES: usize = 512;

/// The format of a disk image.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Format {
    /// The disk itself; what nothing else matches.
    Raw,
    /// An optical disc (ISO 9660), hybrids that boot from disks included.
    Iso,
    /// QEMU's qcow2, versions 2 and 3.
    Qcow2,
    /// VMware's sparse extents: monolithicSparse and streamOptimized.
    Vmdk,
    /// VirtualBox's VDI, dynamic and fixed.
    Vdi,
    /// Virtual PC's and Azure's VHD, dynamic and fixed.
    Vhd,
    /// Hyper-V's VHDX, dynamic and fixed.
    Vhdx,
}

impl Format {
    /// The name that labels and messages use: `raw`, `iso`, `qcow2`, `vmdk`, `vdi`, `vhd`, `vhdx`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Iso => "iso",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
        }
    }

    /// Whether the disk can be had by reading the source once from start to end: a stream of any other format has to be
    /// spooled first.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::Raw | Self::Iso)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A magic number at a fixed offset.
type Magic = (usize, &'static [u8]);

/// First match wins. The ISO volume descriptor comes last: the 32 KiB before it belong to whoever wants them.
const KNOWN: [(Magic, Format); 6] = [
    ((0, b"QFI\xFB"), Format::Qcow2),
    ((0, b"KDMV"), Format::Vmdk),
    ((0, b"vhdxfile"), Format::Vhdx),
    ((0, b"conectix"), Format::Vhd),
    ((0x40, b"\x7F\x10\xDA\xBE"), Format::Vdi),
    ((0x8001, b"CD001"), Format::Iso),
];

/// What is no disk, or none that is read here. As raw disks they would become VMs that do not boot.
const REFUSED: [(Magic, &str, &str); 15] = [
    ((0, b"# Disk DescriptorFile"), "a VMDK descriptor", TO_QCOW2),
    ((0, b"COWD"), "a VMDK of ESX 2", TO_QCOW2),
    ((0, b"QED\0"), "a QED image", TO_QCOW2),
    ((0, b"WithoutFreeSpace"), "a Parallels image", TO_QCOW2),
    ((0, b"WithouFreSpacExt"), "a Parallels image", TO_QCOW2),
    ((0, b"#!/bin/sh\n#V2.0 Format"), "a cloop image", TO_QCOW2),
    ((0, b"PK\x03\x04"), "a zip archive", UNPACK),
    ((0, b"7z\xBC\xAF\x27\x1C"), "a 7-Zip archive", UNPACK),
    ((0, b"Rar!\x1A\x07"), "a RAR archive", UNPACK),
    ((0, b"LZIP"), "an lzip file", UNPACK),
    ((0, b"\x04\x22\x4D\x18"), "an LZ4 file", UNPACK),
    ((0, b"\x1F\x9D"), "a compress (.Z) file", UNPACK),
    ((0, b"<!DOCTYPE html"), "an HTML page", HTML),
    ((0, b"<!doctype html"), "an HTML page", HTML),
    ((0, b"<html"), "an HTML page", HTML),
];

const TO_QCOW2: &str = "convert it with `qemu-img convert -O qcow2` first";
const UNPACK: &str = "unpack it first";
const HTML: &str = "the address leads to a page, not to an image";

/// The format of what begins with `head` and, if known, ends with `tail`; what matches nothing is raw.
///
/// `head` is the first [`DETECT_HEAD_BYTES`] or all there is, `tail` the last [`DETECT_TAIL_BYTES`]. Without `tail` a fixed
/// VHD looks like a raw disk with a sector too many.
pub fn detect(head: &[u8], tail: Option<&[u8]>) -> Result<Format, FormatError> {
    let has = |bytes: &[u8], (at, magic): Magic| {
        bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
    };
    for (magic, what, reason) in REFUSED {
        if has(head, magic) {
            return Err(FormatError::refused(what, reason));
        }
    }
    if let Some((_, format)) = KNOWN.iter().find(|(magic, _)| has(head, *magic)) {
        return Ok(*format);
    }
    if tail.is_some_and(|tail| has(tail, (0, b"conectix"))) {
        return Ok(Format::Vhd);
    }
    Ok(Format::Raw)
}

/// [`detect`] on a source that can be read at random.
pub(super) fn detect_source(source: &dyn ReadAt) -> Result<Format, FormatError> {
    let len = source.len();
    let mut head = vec![0; len.min(DETECT_HEAD_BYTES as u64) as usize];
    source.read_at(0, &mut head)?;
    let mut tail = [0; DETECT_TAIL_BYTES];
    let Some(tail_at) = len.checked_sub(tail.len() as u64) else {
        return detect(&head, None);
    };
    source.read_at(tail_at, &mut tail)?;
    detect(&head, Some(&tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_named() {
        for (magic, what, _) in REFUSED {
            let mut head = vec![0; DETECT_HEAD_BYTES];
            head[magic.0..magic.0 + magic.1.len()].copy_from_slice(magic.1);
            let error = detect(&head, None).unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
        }
    }

    #[test]
    fn formats_by_magic() {
        for (magic, format) in KNOWN {
            let mut head = vec![0; DETECT_HEAD_BYTES];
            head[magic.0..magic.0 + magic.1.len()].copy_from_slice(magic.1);
            assert_eq!(detect(&head, None).unwrap(), format);
        }
        assert_eq!(detect(b"", None).unwrap(), Format::Raw);
        assert_eq!(detect(b"QFI", None).unwrap(), Format::Raw);
        let mut footer = [0; DETECT_TAIL_BYTES];
        footer[..8].copy_from_slice(b"conectix");
        assert_eq!(detect(&[0; 512], Some(&footer)).unwrap(), Format::Vhd);
    }
}
