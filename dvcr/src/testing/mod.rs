//! What tests of the registry, of garbage collection and of repair share.

mod content;
mod rebuilt;
mod world;

use bytes::Bytes;
use dvcr_core::oci::Digest;
use futures::TryStreamExt as _;

pub(crate) use content::{about, body, config, disk, image, index, name, numbered, random};
pub(crate) use rebuilt::{Checkpoint, checkpoint_of, rebuilt};
pub(crate) use world::World;

use crate::{
    backend::PackBackend,
    gc::{GcOptions, plan::SweepLimits},
    registry::{Principal, Registry, RegistryError},
};

/// Everybody.
pub(crate) const WHO: Principal = Principal::Anonymous;

/// When clocks that are set begin, milliseconds since 1970.
pub(crate) const BEGIN_MS: u64 = 1_000 * HOUR_MS;
/// An hour.
pub(crate) const HOUR_MS: u64 = 3_600_000;

/// Everything that is dead goes, at once.
pub(crate) fn thorough() -> GcOptions {
    GcOptions {
        limits: SweepLimits {
            unused_share: 0.0,
            ..GcOptions::default().limits
        },
        ..GcOptions::default()
    }
}

/// The bytes of a blob.
pub(crate) async fn read(
    registry: &Registry,
    repository: &str,
    digest: &Digest,
) -> Result<Vec<u8>, RegistryError> {
    let repository = name(repository);
    let reader = registry.blob_read(&WHO, &repository, digest).await?;
    let frames: Vec<Bytes> = reader.body(0..reader.info().len).try_collect().await?;
    Ok(frames.concat())
}

/// Bytes of all packs.
pub(crate) fn stored_bytes(packs: &dyn PackBackend) -> u64 {
    let all = packs.list().unwrap().into_iter();
    all.map(|pack| packs.len(pack).unwrap()).sum()
}
