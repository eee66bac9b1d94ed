//! The digest of a blob while it is being uploaded; its midstate survives a restart.

use dvcr_core::oci::{Algorithm, Digest};
use sha2::{
    Digest as _, Sha256, Sha512,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// A running SHA-256 or SHA-512.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(data),
            Self::Sha512(h) => h.update(data),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let digest = match self {
            Self::Sha256(h) => Digest::new(algorithm, &h.finalize()),
            Self::Sha512(h) => Digest::new(algorithm, &h.finalize()),
        };
        digest.expect("the hash has the algorithm's length")
    }

    /// The midstate. Its layout belongs to sha2 0.11: a golden test says when it changes.
    pub(crate) fn save(&self) -> Vec<u8> {
        match self {
            Self::Sha256(h) => h.serialize().to_vec(),
            Self::Sha512(h) => h.serialize().to_vec(),
        }
    }

    pub(crate) fn restore(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => {
                let state = SerializedState::<Sha256>::try_from(state).ok()?;
                Sha256::deserialize(&state).ok().map(Self::Sha256)
            }
            Algorithm::Sha512 => {
                let state = SerializedState::<Sha512>::try_from(state).ok()?;
                Sha512::deserialize(&state).ok().map(Self::Sha512)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_midstate_continues() {
        let data: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for split in [0, 1, 63, 64, 65, 127, 128, 129, 4000] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&data[..split]);
                let mut hasher = Hasher::restore(algorithm, &hasher.save()).unwrap();
                hasher.update(&data[split..]);
                assert_eq!(hasher.finish(), Digest::of(algorithm, &data));
            }
            assert!(Hasher::restore(algorithm, b"short").is_none());
        }
    }

    #[test]
    fn the_stored_form_of_a_midstate_has_not_moved() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"abc");
        let state = hex::encode(hasher.save());
        assert!(
            state.starts_with("67e6096a85ae67bb72f36e3c3af54fa5"),
            "{state}"
        );
    }
}
