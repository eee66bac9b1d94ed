//! Archives made by hand.

/// What is in a tar archive.
pub(crate) enum Member<'a> {
    File(&'a str, &'a [u8]),
    Directory(&'a str),
    Symlink(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    /// A header with this type flag.
    Special(&'a str, u8),
}

/// A tar archive (ustar) of these members, names as they are.
pub(crate) fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut archive = vec![];
    for member in members {
        let (name, kind, link, content): (&str, u8, &str, &[u8]) = match member {
            Member::File(name, content) => (name, b'0', "", content),
            Member::Directory(name) => (name, b'5', "", b""),
            Member::Symlink(name, link) => (name, b'2', link, b""),
            Member::HardLink(name, link) => (name, b'1', link, b""),
            Member::Special(name, kind) => (name, *kind, "", b""),
        };
        archive.extend(header(name, kind, link, content.len()));
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// One header.
fn header(name: &str, kind: u8, link: &str, len: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{len:011o}\0").as_bytes());
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    set_sum(&mut header);
    header
}

/// Sets the checksum of a header right.
pub(crate) fn set_sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
