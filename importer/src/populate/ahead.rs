//! Reading a stream ahead of whoever uses it, on a thread of its own.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// Blocks on their way: 4 MiB.
const BLOCKS: usize = 16;

/// A stream that is read ahead. Its errors come in their place; after one there is nothing more.
#[derive(Debug)]
pub struct Ahead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    given: usize,
}

impl Ahead {
    /// Begins to read. The thread ends with the stream, or when nobody wants more of it.
    pub fn new(mut stream: impl Read + Send + 'static) -> Self {
        let (sender, blocks) = sync_channel(BLOCKS);
        thread::spawn(move || {
            loop {
                let mut block = vec![];
                let result = stream
                    .by_ref()
                    .take(BLOCK_BYTES as u64)
                    .read_to_end(&mut block);
                // What came before an error still counts.
                let end = block.is_empty() || result.is_err();
                if sender.send(Ok(block)).is_err() {
                    return;
                }
                if let Err(error) = result {
                    // Nobody may be left to hear of it.
                    let _ = sender.send(Err(error));
                }
                if end {
                    return;
                }
            }
        });
        Self {
            blocks,
            block: vec![],
            given: 0,
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.given == self.block.len() {
            // The end is an empty block; after it the thread is gone.
            let Ok(block) = self.blocks.recv() else {
                return Ok(0);
            };
            self.given = 0;
            self.block = block?;
            if self.block.is_empty() {
                // An error may be behind it.
                return match self.blocks.recv() {
                    Ok(Err(error)) => Err(error),
                    _ => Ok(0),
                };
            }
        }
        let len = self.block[self.given..].as_ref().read(buf)?;
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(u64);

    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let len = self.0.min(buf.len() as u64).min(1000);
            buf[..len as usize].fill(7);
            self.0 -= len;
            Ok(len as usize)
        }
    }

    #[test]
    fn everything_comes_and_then_the_error() {
        for len in [0, 1, BLOCK_BYTES as u64, 10_000_001] {
            let content: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
            let mut all = vec![];
            let mut ahead = Ahead::new(io::Cursor::new(content.clone()));
            ahead.read_to_end(&mut all).unwrap();
            assert!(all == content);
            assert_eq!(ahead.read(&mut [0]).unwrap(), 0);

            let mut all = vec![];
            let error = Ahead::new(Failing(len)).read_to_end(&mut all).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(all.len() as u64, len);
        }
    }
}
