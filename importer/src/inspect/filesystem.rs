//! Guessing a file system by its magic numbers, as `libblkid` does.

use crate::format::{DiskImage, FormatError};

/// Bytes from the start of a partition that are looked at: up to the superblock of btrfs.
const HEAD_BYTES: u64 = 0x10000 + 512;

/// Name, offset and magic number. The first match wins: containers of others before these.
const MAGICS: [(&str, usize, &[u8]); 20] = [
    ("LUKS", 0, b"LUKS\xBA\xBE"),
    ("LVM2 physical volume", 512 + 24, b"LVM2 001"),
    ("LVM2 physical volume", 24, b"LVM2 001"),
    ("Linux RAID", 4096, b"\xFC\x4E\x2B\xA9"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("xfs", 0, b"XFSB"),
    ("f2fs", 0x400, b"\x10\x20\xF5\xF2"),
    ("bcachefs", 4096 + 24, b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9"),
    ("squashfs", 0, b"hsqs"),
    ("erofs", 0x400, b"\xE2\xE1\xF5\xE0"),
    ("iso9660", 0x8001, b"CD001"),
    ("udf", 0x8001, b"BEA01"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("ntfs", 3, b"NTFS    "),
    ("refs", 3, b"ReFS\0\0\0\0"),
    ("exfat", 3, b"EXFAT   "),
    ("bitlocker", 3, b"-FVE-FS-"),
    ("vfat", 82, b"FAT32   "),
    ("vfat", 54, b"FAT16   "),
    ("vfat", 54, b"FAT12   "),
];

/// The file system that begins at `offset`, in `len` bytes of the disk. `None` if it is none that is known.
pub fn filesystem(
    image: &DiskImage,
    offset: u64,
    len: u64,
) -> Result<Option<&'static str>, FormatError> {
    let rest = image.virtual_len().saturating_sub(offset);
    let mut head = vec![0; len.min(rest).min(HEAD_BYTES) as usize];
    image.read_at(offset, &mut head)?;
    Ok(guess(&head))
}

fn guess(head: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let known = MAGICS.iter().find(|(_, at, magic)| has(*at, magic));
    if let Some((name, ..)) = known {
        return Some(name);
    }
    // ext2 and its heirs have one magic number; features tell them apart (linux/fs/ext4/ext4.h).
    has(0x438, b"\x53\xEF").then(|| {
        let feature = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        let (compatible, incompatible) = (feature(0x45C), feature(0x460));
        const HAS_JOURNAL: u32 = 4;
        // Extents, 64 bits, flexible block groups, inline data.
        const EXT4: u32 = 0x40 | 0x80 | 0x200 | 0x8000;
        if incompatible & EXT4 != 0 {
            "ext4"
        } else if compatible & HAS_JOURNAL != 0 {
            "ext3"
        } else {
            "ext2"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magics() {
        assert_eq!(guess(&[]), None);
        assert_eq!(guess(&[0; 70_000]), None);
        for (name, at, magic) in MAGICS {
            let mut head = vec![0; HEAD_BYTES as usize];
            head[at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(guess(&head), Some(name));
            assert_eq!(guess(&head[..at + magic.len() - 1]), None);
        }
        let mut head = vec![0; 2048];
        head[0x438..0x43A].copy_from_slice(b"\x53\xEF");
        assert_eq!(guess(&head), Some("ext2"));
        head[0x45C] = 4;
        assert_eq!(guess(&head), Some("ext3"));
        head[0x460] = 0x40;
        assert_eq!(guess(&head), Some("ext4"));
    }
}
