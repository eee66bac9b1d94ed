//! OCI digests of test data.

use sha2::{Digest as _, Sha256, Sha512};

/// The digest algorithms that every check runs with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// `algorithm:hex` of `data`.
    pub(crate) fn digest(self, data: &[u8]) -> String {
        let hex = match self {
            Self::Sha256 => hex::encode(Sha256::digest(data)),
            Self::Sha512 => hex::encode(Sha512::digest(data)),
        };
        format!("{}:{hex}", self.name())
    }
}

/// `sha256:hex` of `data`.
pub(crate) fn sha256(data: &[u8]) -> String {
    Algorithm::Sha256.digest(data)
}
