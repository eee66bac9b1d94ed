//! Blobs that uploads are being compared with: they stay until that is done.
//!
//! Who pushes what the registry has need not store it again, only show that it has the bytes. That takes as long as sending them,
//! and until it is done nothing of it is in the metadata: without a pin the blob could go meanwhile, and the push would fail.
//! Pins are for this server's pushes. Where another server removes the blob, the push is told to try again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dvcr_core::oci::Digest;
use tokio::sync::Notify;

/// Who relies on a blob, and who removes it: never both.
#[derive(Default)]
pub(crate) struct Pins {
    state: Mutex<HashMap<Digest, Use>>,
    ended: Notify,
}

enum Use {
    /// So many uploads are being compared with it.
    Pinned(usize),
    /// It is being removed.
    Going,
}

/// The blob is not removed while this lives.
pub(crate) struct Pin(Arc<Pins>, Digest);

/// The blob is not pinned while this lives.
pub(super) struct Removal<'a>(&'a Pins, Digest);

impl Pins {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Use>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a blob, once nobody removes it any more; whether it is there is to be looked up afterwards.
    pub(crate) async fn pin(self: &Arc<Self>, digest: &Digest) -> Pin {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // Before the look, so that an end after it is noticed.
            ended.as_mut().enable();
            if let Use::Pinned(count) = self.lock().entry(*digest).or_insert(Use::Pinned(0)) {
                *count += 1;
                return Pin(Arc::clone(self), *digest);
            }
            ended.await;
        }
    }

    /// Keeps a blob from being pinned while it is removed; none if it is pinned.
    pub(super) fn remove(&self, digest: &Digest) -> Option<Removal<'_>> {
        let mut state = self.lock();
        if state.contains_key(digest) {
            return None;
        }
        state.insert(*digest, Use::Going);
        Some(Removal(self, *digest))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(Use::Pinned(count)) = state.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.remove(&self.1);
            }
        }
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_blob_is_relied_on_or_removed() {
        let (pins, digest) = (Arc::new(Pins::default()), Digest::sha256(b"x"));
        let (first, second) = (pins.pin(&digest).await, pins.pin(&digest).await);
        drop(first);
        assert!(pins.remove(&digest).is_none());
        drop(second);
        let removal = pins.remove(&digest).expect("nobody relies on it");
        let mut waits = Box::pin(pins.pin(&digest));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(removal);
        drop(waits.await);
        assert!(pins.lock().is_empty());
    }
}
