//! The end of what runs beside a test.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Says that it is over when it is dropped, also by a test that fails: who runs beside it would go on for ever.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
