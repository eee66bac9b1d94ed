//! A stream that is hashed while it is read.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dvcr_client::Hasher;
use dvcr_core::oci::{Descriptor, Digest};

use super::ImageError;

/// Whether a stream was read to its end and found to be what it should be.
#[derive(Clone, Default, Debug)]
pub(super) struct Verdict(Arc<AtomicBool>);

impl Verdict {
    /// An error unless the stream was verified: somebody forgot to read to its end.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(io::Error::other("the layer was not read to its end"))
    }
}

/// The bytes of a blob; its end is an error if they were others than the descriptor says.
pub(super) struct Verified<R> {
    inner: R,
    /// Until the end.
    hasher: Option<Hasher>,
    expected: Digest,
    /// Bytes that are still to come.
    rest: u64,
    verdict: Verdict,
}

impl<R: Read> Verified<R> {
    pub(super) fn new(inner: R, blob: &Descriptor) -> Self {
        Self {
            inner,
            hasher: Some(Hasher::new(blob.digest.algorithm())),
            expected: blob.digest,
            rest: blob.size,
            verdict: Verdict::default(),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = self.inner.read(buf)?;
        if len > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buf[..len]);
            }
            let short = || {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a layer is longer than its manifest says",
                )
            };
            self.rest = self.rest.checked_sub(len as u64).ok_or_else(short)?;
            return Ok(len);
        }
        if self.rest > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(hasher) = self.hasher.take() else {
            return self.verdict.check().map(|()| 0);
        };
        let found = hasher.finish();
        if found != self.expected {
            let error = ImageError::Digest {
                what: "layer",
                expected: self.expected,
                found,
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        self.verdict.0.store(true, Ordering::Release);
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use dvcr_core::oci::Algorithm;

    use super::*;

    fn read(content: &[u8], digest: Digest, size: u64) -> io::Result<Vec<u8>> {
        let value = serde_json::json!({"mediaType": "a/b", "digest": digest, "size": size});
        let blob: Descriptor = serde_json::from_value(value).unwrap();
        let mut verified = Verified::new(content, &blob);
        let verdict = verified.verdict();
        assert!(verdict.check().is_err());
        let mut all = vec![];
        let result = verified.read_to_end(&mut all);
        assert_eq!(verdict.check().is_ok(), result.is_ok());
        result.map(|_| all)
    }

    #[test]
    fn only_the_right_bytes_pass() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"layer");
            assert_eq!(read(b"layer", digest, 5).unwrap(), b"layer");
            for (content, size) in [
                (&b"laver"[..], 5),
                (b"laye", 5),
                (b"layer", 4),
                (b"layer!", 5),
            ] {
                assert!(read(content, digest, size).is_err());
            }
        }
    }
}
