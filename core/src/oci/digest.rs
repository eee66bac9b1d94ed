//! The digest of a whole blob or manifest, as it goes over the wire.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// Longest raw digest in bytes: SHA-512's.
const RAW_BYTES_MAX: usize = 64;

/// A digest algorithm that the registry can compute. The set is closed: a digest that nobody can verify is refused.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Algorithm {
    /// `sha256`, the algorithm of practically every client.
    Sha256,
    /// `sha512`, the other one that the image specification registers.
    Sha512,
}

impl Algorithm {
    /// The name that stands before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of a raw digest in bytes: 32 or 64.
    pub fn byte_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// First byte of [`Digest::to_key`]. Stored: never renumber.
    fn key_byte(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::Algorithm),
        }
    }
}

/// Why a text or key is no digest.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DigestError {
    /// There is no colon between algorithm and hex digits.
    #[error("a digest is written ALGORITHM:HEX, for example sha256:<64 hex digits>")]
    Form,
    /// Not one of the algorithms that the registry computes.
    #[error("unsupported digest algorithm: use sha256 or sha512")]
    Algorithm,
    /// Too few or too many digits or bytes for the algorithm.
    #[error("wrong digest length: sha256 has 64 hex digits, sha512 has 128")]
    Length,
    /// Something that is not a lower-case hex digit.
    #[error("a digest's hex part consists of the digits 0-9 and the lower-case letters a-f")]
    Hex,
}

/// A content digest: algorithm and value.
///
/// Text form (`Display`, `FromStr`, serde) is `sha256:<lower-case hex>`, parsed strictly. Ordered by algorithm, then by
/// value, like [`Digest::to_key`]. Source: OCI image-spec, descriptor.md, "Digests".
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    /// The raw digest, then zeros: equality and order of the array are those of the digest.
    bytes: [u8; RAW_BYTES_MAX],
}

impl Digest {
    /// A digest of raw bytes. Fails if their number is not [`Algorithm::byte_len`].
    pub fn new(algorithm: Algorithm, raw: &[u8]) -> Result<Self, DigestError> {
        if raw.len() != algorithm.byte_len() {
            return Err(DigestError::Length);
        }
        let mut bytes = [0; RAW_BYTES_MAX];
        bytes[..raw.len()].copy_from_slice(raw);
        Ok(Self { algorithm, bytes })
    }

    /// Hashes `data`.
    pub fn of(algorithm: Algorithm, data: &[u8]) -> Self {
        let mut bytes = [0; RAW_BYTES_MAX];
        match algorithm {
            Algorithm::Sha256 => bytes[..32].copy_from_slice(&Sha256::digest(data)),
            Algorithm::Sha512 => bytes.copy_from_slice(&Sha512::digest(data)),
        }
        Self { algorithm, bytes }
    }

    /// Hashes `data` with SHA-256.
    pub fn sha256(data: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, data)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw digest, [`Algorithm::byte_len`] bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.byte_len()]
    }

    /// The raw digest in lower-case hex, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// The stored form: one byte for the algorithm (1 sha256, 2 sha512), then the raw digest. Sorts like the digest.
    pub fn to_key(&self) -> Vec<u8> {
        let raw = self.as_bytes();
        let mut key = Vec::with_capacity(1 + raw.len());
        key.push(self.algorithm.key_byte());
        key.extend_from_slice(raw);
        key
    }

    /// Reads [`Digest::to_key`]'s form; the key must end with the digest.
    pub fn from_key(key: &[u8]) -> Result<Self, DigestError> {
        let (first, raw) = key.split_first().ok_or(DigestError::Length)?;
        let algorithm = match first {
            1 => Algorithm::Sha256,
            2 => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm),
        };
        Self::new(algorithm, raw)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, digits) = text.split_once(':').ok_or(DigestError::Form)?;
        let algorithm: Algorithm = algorithm.parse()?;
        if digits.len() != 2 * algorithm.byte_len() {
            return Err(DigestError::Length);
        }
        // Upper-case digits would make two texts of one digest; the specification allows lower case only.
        if !digits
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(DigestError::Hex);
        }
        let mut bytes = [0; RAW_BYTES_MAX];
        hex::decode_to_slice(digits, &mut bytes[..algorithm.byte_len()])
            .map_err(|_| DigestError::Hex)?;
        Ok(Self { algorithm, bytes })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY_256: &str =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                             47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    #[test]
    fn hashes_known_vectors() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY_256);
        assert_eq!(Digest::of(Algorithm::Sha512, b"").to_string(), EMPTY_512);
    }

    #[test]
    fn parses_strictly() {
        fn check(text: &str, expected: Result<(), DigestError>) {
            assert_eq!(text.parse::<Digest>().map(drop), expected, "{text:?}");
        }
        let hex = &EMPTY_256["sha256:".len()..];
        check(EMPTY_256, Ok(()));
        check(EMPTY_512, Ok(()));
        check("", Err(DigestError::Form));
        check(hex, Err(DigestError::Form));
        check("sha256", Err(DigestError::Form));
        check("sha256:", Err(DigestError::Length));
        check("sha256:baddigeststring", Err(DigestError::Length));
        check(&format!("sha512:{hex}"), Err(DigestError::Length));
        check(&format!("sha256:{hex}0"), Err(DigestError::Length));
        check(
            &format!("sha256:{}", hex.to_uppercase()),
            Err(DigestError::Hex),
        );
        check(
            &format!("sha256:{}", hex.replace('e', "g")),
            Err(DigestError::Hex),
        );
        check(&format!("sha256:{}é", &hex[..62]), Err(DigestError::Hex));
        check(&format!("SHA256:{hex}"), Err(DigestError::Algorithm));
        check(&format!("sha384:{hex}"), Err(DigestError::Algorithm));
        check(&format!("md5:{hex}"), Err(DigestError::Algorithm));
        check(&format!(" sha256:{hex}"), Err(DigestError::Algorithm));
        check(&format!("sha256:{hex}\n"), Err(DigestError::Length));
        check(&format!("sha256:sha256:{hex}"), Err(DigestError::Length));
        check(&format!("sha256:../{}", &hex[3..]), Err(DigestError::Hex));
    }

    #[test]
    fn keys_are_read_strictly() {
        fn check(key: &[u8], expected: Result<(), DigestError>) {
            assert_eq!(Digest::from_key(key).map(drop), expected, "{key:?}");
        }
        check(&[], Err(DigestError::Length));
        check(&[1], Err(DigestError::Length));
        check(&[0; 33], Err(DigestError::Algorithm));
        check(&[3; 33], Err(DigestError::Algorithm));
        check(&[1; 33], Ok(()));
        check(&[1; 34], Err(DigestError::Length));
        check(&[2; 33], Err(DigestError::Length));
        check(&[2; 65], Ok(()));
    }

    #[test]
    fn serde_form_is_the_text() {
        let digest = Digest::sha256(b"");
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{EMPTY_256}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
    }

    proptest! {
        #[test]
        fn text_and_key_round_trip_and_sort_alike(a: Vec<u8>, b: Vec<u8>, long_a: bool, long_b: bool) {
            let of = |long, data: &[u8]| Digest::of(if long { Algorithm::Sha512 } else { Algorithm::Sha256 }, data);
            let (a, b) = (of(long_a, &a), of(long_b, &b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(Digest::from_key(&a.to_key()), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_key().cmp(&b.to_key()));
        }
    }
}
