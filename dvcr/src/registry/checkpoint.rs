//! Checkpoints as operators see them: take one now, and keep the packs still while they are copied.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    Principal, Registry, RegistryError, millis,
    policy::{self, Action},
    upload::in_background,
};
use crate::{
    checkpoint::{Checkpoint, TakeError},
    store::StoreError,
};

/// Longest time for which packs may be held. A backup that takes longer asks again.
const HOLD_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A checkpoint, and until when the packs that it needs stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Checkpointed {
    /// The checkpoint.
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// Until when no pack is removed, milliseconds since 1970; none if they are not held.
    pub packs_held_until_ms: Option<u64>,
}

impl Registry {
    /// Takes a checkpoint now. With `hold`, no pack is removed for so long, so that packs that are copied one after the other
    /// hold everything that the checkpoint names; zero ends that. A sweep that is going on is waited for.
    pub async fn checkpoint(
        &self,
        who: &Principal,
        hold: Option<Duration>,
    ) -> Result<Checkpointed, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let inner = Arc::clone(&self.0);
        let checkpoints = inner.checkpoints.get().cloned().ok_or_else(|| {
            RegistryError::Invalid("this registry has no directory for checkpoints".into())
        })?;
        if hold.is_some_and(|hold| hold > HOLD_MAX) {
            return Err(RegistryError::Invalid(
                "packs are held for at most 7 days; ask again later".into(),
            ));
        }
        in_background(async move {
            if let Some(hold) = hold {
                inner.gc.hold(inner.now_ms() + millis(hold)).await?;
            }
            let checkpoint = checkpoints.take().await.map_err(|error| match error {
                TakeError::Meta(error) => RegistryError::Store(error.into()),
                TakeError::Io { source, .. } => {
                    RegistryError::Store(StoreError::io("write a checkpoint".into(), source))
                }
            })?;
            let held = inner.gc.held_until_ms().await?;
            Ok(Checkpointed {
                checkpoint,
                packs_held_until_ms: held,
            })
        })
        .await
    }
}
