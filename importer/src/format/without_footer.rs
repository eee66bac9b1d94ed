//! Raw disks and fixed VHDs in a stream.

use std::io::{self, Read};

use super::{
    Format,
    vhd::{COOKIE, FOOTER_BYTES, is_fixed_footer},
};

/// A raw disk, or a fixed VHD: that is a raw disk with a footer, which a stream shows only at its end. The footer is left out, and
/// an error if it does not fit the disk.
pub struct WithoutFooter<R> {
    inner: R,
    format: Format,
    /// The last bytes that were read, not given yet.
    held: Vec<u8>,
    /// Bytes that were read.
    received: u64,
    ended: bool,
}

impl<R: Read> WithoutFooter<R> {
    /// A stream at its start, which begins like `format`: what is an ISO image has no footer, whatever it ends with, as in a file.
    pub fn new(inner: R, format: Format) -> Self {
        Self {
            inner,
            format,
            held: vec![],
            received: 0,
            ended: false,
        }
    }

    /// Bytes that were read so far, a footer included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What the stream is. That it is a VHD is known at the end.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Looks at the last bytes.
    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        let Ok(footer) = <&[u8; FOOTER_BYTES]>::try_from(&*self.held) else {
            return Ok(());
        };
        if self.format != Format::Raw || !footer.starts_with(COOKIE) {
            return Ok(());
        }
        if !is_fixed_footer(footer, self.received - FOOTER_BYTES as u64) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the disk ends with the footer of a VHD that does not fit it: it is broken, or only a part of a file",
            ));
        }
        self.format = Format::Vhd;
        self.held.clear();
        Ok(())
    }
}

impl<R: Read> Read for WithoutFooter<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended && self.held.len() <= FOOTER_BYTES {
            let start = self.held.len();
            self.held.resize(start + buf.len().max(FOOTER_BYTES + 1), 0);
            let result = self.inner.read(&mut self.held[start..]);
            let len = *result.as_ref().unwrap_or(&0);
            self.held.truncate(start + len);
            self.received += len as u64;
            if result? == 0 {
                self.end()?;
            }
        }
        let free = if self.ended {
            self.held.len()
        } else {
            self.held.len() - FOOTER_BYTES
        };
        let len = free.min(buf.len());
        buf[..len].copy_from_slice(&self.held[..len]);
        self.held.drain(..len);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microsoft's specification, "Hard Disk Footer Format".
    fn footer(len: u64) -> Vec<u8> {
        let mut footer = vec![1; FOOTER_BYTES];
        footer[..8].copy_from_slice(b"conectix");
        footer[48..56].copy_from_slice(&len.to_be_bytes());
        footer[60..64].copy_from_slice(&2_u32.to_be_bytes());
        footer[64..68].fill(0);
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        footer
    }

    #[test]
    fn footers_are_left_out() {
        for len in [0, 1, 511, 512, 513, 70_000] {
            let disk: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let vhd = [&disk[..], &footer(len)].concat();
            for (bytes, format, expected) in [
                (&disk, Format::Raw, &disk),
                (&vhd, Format::Raw, &disk),
                (&vhd, Format::Iso, &vhd),
            ] {
                let mut stream = WithoutFooter::new(&**bytes, format);
                let mut found = vec![];
                stream.read_to_end(&mut found).unwrap();
                assert_eq!(stream.format() == Format::Vhd, bytes != expected);
                assert_eq!(stream.received(), bytes.len() as u64);
                assert!(found == *expected, "{len}");
            }
        }
    }

    #[test]
    fn footers_of_other_disks_are_refused() {
        let mut bent = footer(4096);
        bent[100] ^= 1;
        for footer in [footer(4097), footer(0), bent] {
            let bytes = [vec![7; 4096], footer].concat();
            let error = io::copy(
                &mut WithoutFooter::new(&*bytes, Format::Raw),
                &mut io::sink(),
            );
            let error = error.unwrap_err().to_string();
            assert!(error.contains("footer of a VHD"), "{error}");
        }
    }
}
