//! The archive around the file: headers of one fixed length before it, zeros behind.
//!
//! ```text
//! ustar "disk/", a directory | PAX header (512 + 2560 bytes) | ustar header of the file | the file | padding | 1024 zeros
//! ```
//!
//! The PAX header holds a comment that makes the file begin at a multiple of a page, and the length of files beyond the
//! 8 GiB that ustar can say. Source: POSIX `pax`, "ustar Interchange Format"; the GNU manual for lengths in base 256, which
//! readers without PAX understand.

use super::PAGE_BYTES;

/// Length of everything before the file.
pub const HEAD_BYTES: usize = PAGE_BYTES;

/// The unit of archives.
const BLOCK: usize = 512;

/// The body of the PAX header.
const PAX_BYTES: usize = HEAD_BYTES - 3 * BLOCK;

/// Zeros at an archive's end.
const END_BYTES: usize = 2 * BLOCK;

/// Files from this length on do not fit eleven octal digits.
const OCTAL_MAX: u64 = (8 << 30) - 1;

/// Owner of directory and file: the user that virtual machines run as in KubeVirt.
const OWNER: u64 = 107;

/// Name of a disk as canonical qcow2.
pub const QCOW2_NAME: &str = "disk/disk.qcow2";

/// Name of an image that is stored as it came.
pub const RAW_NAME: &str = "disk/disk.img";

/// What precedes a file of `file_len` bytes called `name`, which has at most 100 bytes.
pub fn head(name: &str, file_len: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend(header("disk/", b'5', 0o755, 0));
    head.extend(header("disk/PaxHeader", b'x', 0o644, PAX_BYTES as u64));
    let mut body = String::new();
    if file_len > OCTAL_MAX {
        body.push_str(&record("size", &file_len.to_string()));
    }
    // "NNNN comment=" and the line's end.
    let rest = PAX_BYTES - body.len();
    let spaces = " ".repeat(rest - "NNNN comment=\n".len());
    body.push_str(&record("comment", &spaces));
    head.extend(body.into_bytes());
    head.extend(header(name, b'0', 0o444, file_len));
    head
}

/// Name and length of the file that such a `head` precedes; `None` if it is not one that [`head`] makes.
pub fn parse_head(bytes: &[u8]) -> Option<(&'static str, u64)> {
    let field = bytes.get(HEAD_BYTES - BLOCK..)?.get(124..136)?;
    let len = match field {
        [0x80, 0, 0, 0, len @ ..] => u64::from_be_bytes(len.try_into().ok()?),
        [digits @ .., 0] => u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?,
        _ => return None,
    };
    let names = [QCOW2_NAME, RAW_NAME].into_iter();
    names
        .map(|name| (name, len))
        .find(|(name, len)| bytes == head(name, *len))
}

/// What follows a file of `file_len` bytes.
pub fn tail(file_len: u64) -> Vec<u8> {
    let padding = file_len.next_multiple_of(BLOCK as u64) - file_len;
    vec![0; padding as usize + END_BYTES]
}

/// A PAX record: its length counts the digits of the length itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}")
}

fn header(name: &str, kind: u8, mode: u64, len: u64) -> [u8; BLOCK] {
    let octal = |value: u64, digits: usize| format!("{value:0digits$o}\0").into_bytes();
    let len_field = if len > OCTAL_MAX {
        [&[0x80, 0, 0, 0][..], &len.to_be_bytes()].concat()
    } else {
        octal(len, 11)
    };
    let mut block = [0; BLOCK];
    let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, &octal(mode, 7));
    put(108, &octal(OWNER, 7));
    put(116, &octal(OWNER, 7));
    put(124, &len_field);
    put(136, &octal(0, 11));
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for len in [0, 1, OCTAL_MAX, OCTAL_MAX + 1, 64 << 40] {
            let head = head(QCOW2_NAME, len);
            assert_eq!(head.len(), HEAD_BYTES);
            let pax = std::str::from_utf8(&head[1024..1024 + PAX_BYTES]).unwrap();
            assert_eq!(
                pax.contains(&format!(
                    " size={len}
"
                )),
                len > OCTAL_MAX
            );
            assert!(pax.contains(" comment=   ") && pax.ends_with(" \n"));
            assert_eq!(parse_head(&head), Some((QCOW2_NAME, len)));
            let all = len + tail(len).len() as u64;
            assert!(all.is_multiple_of(512) && all >= len + 1024 && all < len + 1536);
        }
    }

    #[test]
    fn records() {
        assert_eq!(record("size", "8589934592"), "19 size=8589934592\n");
        assert_eq!(record("a", "b"), "6 a=b\n");
        assert_eq!(record("abc", "def"), "11 abc=def\n");
        assert_eq!(record("abc", "de"), "9 abc=de\n");
    }
}
