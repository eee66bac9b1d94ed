//! Who asks.

/// The identity on whose behalf a use case runs. Every use case takes one; [`super::policy`] is the only reader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody logged in.
    Anonymous,
    /// The server itself: garbage collection, migration, tests.
    System,
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::System => "system",
        })
    }
}
