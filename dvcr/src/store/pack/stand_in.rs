//! Stand-ins for `dvcr_core::chunk::ChunkId` and `dvcr_core::oci::Digest` until those land.
#![allow(missing_docs)]

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(Vec<u8>);

#[derive(Debug)]
pub struct DigestError;

impl Digest {
    pub fn to_key(&self) -> Vec<u8> {
        self.0.clone()
    }
    pub fn from_key(key: &[u8]) -> Result<Digest, DigestError> {
        match (key.first(), key.len()) {
            (Some(1), 33) | (Some(2), 65) => Ok(Digest(key.to_vec())),
            _ => Err(DigestError),
        }
    }
}
