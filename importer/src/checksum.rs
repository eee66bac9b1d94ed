//! Checksums of a source's bytes as they were received, before anything is unpacked.

use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha512, digest::DynDigest};
use streebog::{Streebog256, Streebog512};

/// An algorithm of checksums. The broken ones are good against accidents only.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// RFC 1321; broken.
    Md5,
    /// FIPS 180-4; broken.
    Sha1,
    /// FIPS 180-4.
    Sha256,
    /// FIPS 180-4.
    Sha512,
    /// GOST R 34.11-2012 with 256 bits, RFC 6986.
    Streebog256,
    /// GOST R 34.11-2012 with 512 bits, RFC 6986.
    Streebog512,
}

impl Algorithm {
    const ALL: [Self; 6] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Streebog256,
        Self::Streebog512,
    ];

    /// `md5`, `sha1`, `sha256`, `sha512`, `streebog256`, `streebog512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Streebog256 => "streebog256",
            Self::Streebog512 => "streebog512",
        }
    }

    fn hasher(self) -> Box<dyn DynDigest + Send> {
        match self {
            Self::Md5 => Box::new(Md5::default()),
            Self::Sha1 => Box::new(Sha1::default()),
            Self::Sha256 => Box::new(Sha256::default()),
            Self::Sha512 => Box::new(Sha512::default()),
            Self::Streebog256 => Box::new(Streebog256::default()),
            Self::Streebog512 => Box::new(Streebog512::default()),
        }
    }
}

/// What the bytes of a source must hash to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checksum {
    algorithm: Algorithm,
    expected: Vec<u8>,
}

/// Text that is no checksum.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChecksumError {
    /// Not of the form.
    #[error("a checksum is written as algorithm:hexadecimal digits, like sha256:9f86d081...")]
    Form,
    /// An algorithm that is not known.
    #[error(
        "the algorithm {0:?} is not known; use md5, sha1, sha256, sha512, streebog256 or streebog512"
    )]
    Algorithm(String),
    /// Too few or too many digits.
    #[error("a checksum of {algorithm} has {expected} hexadecimal digits, not {found}")]
    Length {
        /// Which algorithm.
        algorithm: &'static str,
        /// How many it should have.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

impl FromStr for Checksum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        let (name, digits) = text.trim().split_once(':').ok_or(ChecksumError::Form)?;
        let plain = name.to_ascii_lowercase().replace('-', "");
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == plain)
            .ok_or_else(|| ChecksumError::Algorithm(name.to_owned()))?;
        let expected_len = algorithm.hasher().output_size();
        if digits.len() != 2 * expected_len {
            return Err(ChecksumError::Length {
                algorithm: algorithm.name(),
                expected: 2 * expected_len,
                found: digits.len(),
            });
        }
        let expected = hex::decode(digits).map_err(|_| ChecksumError::Form)?;
        Ok(Self {
            algorithm,
            expected,
        })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.algorithm.name(),
            hex::encode(&self.expected)
        )
    }
}

/// The bytes are not the expected ones. Final.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("checksum mismatch: {algorithm} of the source is {found}, not {expected}")]
pub struct Mismatch {
    /// Which algorithm.
    pub algorithm: &'static str,
    /// What was asked for, in hexadecimal digits.
    pub expected: String,
    /// What the bytes hash to.
    pub found: String,
}

/// Checksums under way, any number of them.
pub struct Hashing(Vec<(Checksum, Box<dyn DynDigest + Send>)>);

impl Hashing {
    /// Of no bytes yet.
    pub fn new(checksums: &[Checksum]) -> Self {
        let with_hasher = |checksum: &Checksum| (checksum.clone(), checksum.algorithm.hasher());
        Self(checksums.iter().map(with_hasher).collect())
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for (_, hasher) in &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// Compares all of them.
    pub fn verify(self) -> Result<(), Mismatch> {
        for (checksum, hasher) in self.0 {
            let found = hasher.finalize();
            if *found != *checksum.expected {
                return Err(Mismatch {
                    algorithm: checksum.algorithm.name(),
                    expected: hex::encode(checksum.expected),
                    found: hex::encode(found),
                });
            }
        }
        Ok(())
    }
}

/// The bytes of a source. Its end is an error with a [`Mismatch`] inside if they are not the expected ones.
pub struct Checked<R> {
    inner: R,
    hashing: Option<Hashing>,
}

impl<R> Checked<R> {
    /// Nothing was read of `inner` yet.
    pub fn new(inner: R, checksums: &[Checksum]) -> Self {
        Self {
            inner,
            hashing: Some(Hashing::new(checksums)),
        }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        if len > 0 {
            if let Some(hashing) = &mut self.hashing {
                hashing.update(&buf[..len]);
            }
        } else if !buf.is_empty()
            && let Some(hashing) = self.hashing.take()
        {
            let verified = hashing.verify();
            verified.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "abc", and for Streebog the first message of RFC 6986, section 10.1.
    const KNOWN: [(&str, &str); 6] = [
        ("abc", "md5:900150983cd24fb0d6963f7d28e17f72"),
        ("abc", "sha1:A9993E364706816ABA3E25717850C26C9CD0D89D"),
        (
            "abc",
            "SHA-256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            "abc",
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (
            "012345678901234567890123456789012345678901234567890123456789012",
            "streebog-256:9d151eefd8590b89daa6ba6cb74af9275dd051026bb149a452fd84e5e57b5500",
        ),
        (
            "012345678901234567890123456789012345678901234567890123456789012",
            "streebog512:1b54d01a4af5b9d5cc3d86d68d285462b19abc2475222f35c085122be4ba1ffa\
             00ad30f8767b3a82384c6574f024c311e2a481332b08ef7f41797891c1646f48",
        ),
    ];

    #[test]
    fn known_answers() {
        for (message, text) in KNOWN {
            let checksum: Checksum = text.parse().unwrap();
            let mut hashing = Hashing::new(&[checksum.clone(), checksum.clone()]);
            let (a, b) = message.as_bytes().split_at(message.len() / 2);
            hashing.update(a);
            hashing.update(b);
            assert_eq!(hashing.verify(), Ok(()), "{text}");
            let mut hashing = Hashing::new(std::slice::from_ref(&checksum));
            hashing.update(b"other");
            let error = hashing.verify().unwrap_err().to_string();
            assert!(error.starts_with("checksum mismatch"), "{error}");
            assert_eq!(checksum.to_string().parse(), Ok(checksum));
        }
    }

    #[test]
    fn what_is_no_checksum_is_named() {
        for (text, part) in [
            ("abc", "algorithm:hexadecimal"),
            ("crc32:00000000", "\"crc32\" is not known"),
            ("md5:00", "32 hexadecimal digits, not 2"),
            (
                "md5:zz0150983cd24fb0d6963f7d28e17f72",
                "algorithm:hexadecimal",
            ),
        ] {
            let error = text.parse::<Checksum>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
