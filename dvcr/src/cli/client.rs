//! Running the commands that talk to a server.

use anyhow::Context as _;

/// Runs a command's future; commands need one thread.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a worker thread")?
        .block_on(future)
}
