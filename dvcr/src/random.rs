//! Random bytes, from one place, so that a simulation can say which.

/// Fills `bytes` from the system's generator; in a simulation, from its dice. Fails where the system has none.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    #[cfg(any(test, feature = "testing"))]
    if crate::simulation::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
}
