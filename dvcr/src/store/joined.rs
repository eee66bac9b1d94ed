//! Waiting for a task of the store's own, which nobody cancels: what must not stop halfway runs in one.

use tokio::task::JoinHandle;

use super::StoreError;

/// The result of a task; a panic is passed on. `what` it does, in the present tense.
pub(super) async fn joined<T>(
    task: JoinHandle<Result<T, StoreError>>,
    what: &str,
) -> Result<T, StoreError> {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::io(
                what.to_owned(),
                std::io::Error::other("the server is stopping"),
            )),
        },
    }
}
