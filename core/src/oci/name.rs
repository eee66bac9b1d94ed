//! Repository names.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest repository name in bytes. Clients cap host and name together at 255, so a longer one could not be pulled.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a text is no repository name.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("repository name is longer than {NAME_BYTES_MAX} bytes")]
    Length,
    /// Does not match the specification's expression.
    #[error(
        "repository name must be lower-case segments of a-z and 0-9, joined by '/', each with single '.', '_', '__' or \
         dashes inside"
    )]
    Form,
}

/// A repository's name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, such segments joined by slashes, at most 255 bytes.
///
/// Cheap to clone. Sorts by bytes, the order of the catalog. Never part of a path on disk.
/// Source: OCI distribution-spec, "Pulling manifests".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `segment` is `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_segment(segment: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    if !(bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric))
    {
        return false;
    }
    // What lies between two alphanumeric runs must be one separator.
    bytes
        .split(|b| alphanumeric(*b))
        .all(|separator| match separator {
            b"" | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|b| *b == b'-'),
        })
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::Length);
        }
        if !text.split('/').all(is_segment) {
            return Err(NameError::Form);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for RepositoryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RepositoryName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RepositoryName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<RepositoryName> for String {
    fn from(name: RepositoryName) -> Self {
        name.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn follows_the_specification() {
        fn check(text: &str, expected: Result<(), NameError>) {
            assert_eq!(
                text.parse::<RepositoryName>().map(drop),
                expected,
                "{text:?}"
            );
        }
        let form = Err(NameError::Form);
        for good in [
            "a",
            "0",
            "library/debian",
            "a/b/c/d/e",
            "vi/default/debian-13",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a--b",
            "a-----b",
            "a.b_c__d---e",
            "blobs",
            "manifests/blobs/uploads/tags/list/referrers",
        ] {
            check(good, Ok(()));
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", "A", "aB", "a/B", "a..b", "a___b", "a._b", "a.-b", "a_-b",
            ".a", "a.", "_a", "a_", "-a", "a-", "a/.", "a/..", "..", ".", "a/../b", "a b", "a%2fb",
            "a\\b", "a\0", "a\n", "é", "a:b", "a@b", "_catalog", "_oci",
        ] {
            check(bad, form);
        }
        check(&"a".repeat(255), Ok(()));
        check(&"a".repeat(256), Err(NameError::Length));
    }

    proptest! {
        #[test]
        fn accepts_what_the_expression_generates(
            name in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}){0,3}"
        ) {
            let parsed: RepositoryName = name.parse().unwrap();
            prop_assert_eq!(parsed.as_str(), name);
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<RepositoryName>();
        }
    }
}
