//! What names a manifest in a repository: a tag or a digest.

use std::{fmt, str::FromStr};

use super::{Digest, DigestError, Tag, TagError};

/// A tag or a digest. A text with a colon is a digest or nothing: tags have none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reference {
    /// A name that can be moved.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Why a text is neither tag nor digest.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReferenceError {
    /// It has no colon and is no tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It has a colon and is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Ok(if text.contains(':') {
            Self::Digest(text.parse()?)
        } else {
            Self::Tag(text.parse()?)
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_digest() {
        fn check(text: &str, expected: Result<(), ReferenceError>) {
            let parsed = text.parse::<Reference>();
            if let Ok(reference) = &parsed {
                assert_eq!(reference.to_string(), text);
                assert_eq!(
                    matches!(reference, Reference::Digest(_)),
                    text.contains(':')
                );
            }
            assert_eq!(parsed.map(drop), expected, "{text:?}");
        }
        check("latest", Ok(()));
        check(&Digest::sha256(b"x").to_string(), Ok(()));
        check("latest:1", Err(DigestError::Algorithm.into()));
        check("sha256:0", Err(DigestError::Length.into()));
        check("", Err(TagError.into()));
        check("a/b", Err(TagError.into()));
    }
}
