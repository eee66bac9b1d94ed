//! A reader whose first bytes were looked at.

use std::io::{self, Read};

/// Gives the bytes that were looked at first, then the rest.
pub(super) struct Peek<R> {
    head: Vec<u8>,
    /// Bytes of the head that were given.
    given: usize,
    rest: R,
}

impl<R: Read> Peek<R> {
    /// Looks at the first `len` bytes, or all if there are fewer.
    pub(super) fn new(mut rest: R, len: usize) -> io::Result<Self> {
        let mut head = vec![];
        rest.by_ref().take(len as u64).read_to_end(&mut head)?;
        Ok(Self {
            head,
            given: 0,
            rest,
        })
    }

    /// The first bytes, whether or not they were read since.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }
}

impl<R: Read> Read for Peek<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.given == self.head.len() {
            return self.rest.read(buf);
        }
        let len = self.head[self.given..].as_ref().read(buf)?;
        self.given += len;
        Ok(len)
    }
}
