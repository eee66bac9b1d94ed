//! Tags.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest tag in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// Why a text is no tag.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a tag has 1 to {TAG_BYTES_MAX} letters, digits, '_', '.' or '-', and begins with a letter, a digit or '_'"
)]
pub struct TagError;

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Sorts by bytes, the order of tag lists.
/// Source: OCI distribution-spec, "Pulling manifests".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Box<str>);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let good = text.len() <= TAG_BYTES_MAX
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if good {
            Ok(Self(text.into()))
        } else {
            Err(TagError)
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Tag {
    type Error = TagError;

    fn try_from(text: String) -> Result<Self, TagError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_specification() {
        fn check(text: &str, good: bool) {
            assert_eq!(text.parse::<Tag>().is_ok(), good, "{text:?}");
        }
        for good in [
            "latest",
            "1.0",
            "_",
            "A",
            "v1-rc.2_b",
            "0",
            "a..b",
            "sha256-0a1b",
            "list",
            "uploads",
        ] {
            check(good, true);
        }
        for bad in [
            "", ".", "-a", ".a", "a/b", "a:b", "a b", "a%3A", "é", "a\n", "a@b", "a+b",
        ] {
            check(bad, false);
        }
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
    }
}
