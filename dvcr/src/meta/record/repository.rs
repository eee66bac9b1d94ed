//! Repositories.

use super::record;

/// A repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// When something was first pushed to it, milliseconds since 1970.
    pub created_ms: u64,
}

record!(RepositoryRecord: created_ms);
