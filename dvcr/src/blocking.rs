//! The one door to code that blocks: redb, zstd, hashing, files.

/// Runs `work` on a thread where blocking is allowed and returns its result. A panic of `work` is passed on.
pub async fn run<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    #[cfg(any(test, feature = "testing"))]
    if crate::simulation::turn().await {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
