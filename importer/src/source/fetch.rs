//! One request to a server, whatever protocol it speaks.

use std::{ops::Range, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

pub use super::retry::FetchError;

/// The bytes of an answer, in order.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, FetchError>> + Send>>;

/// A file on a server.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Asks for the bytes of `range`, which is not empty; an end of [`u64::MAX`] is the file's end, wherever that is.
    ///
    /// The answer may begin at 0 and go on to the end instead ([`Opened::start`]). With a `version`, an answer of another
    /// version is a final error.
    async fn open(
        &self,
        range: Range<u64>,
        version: Option<&Version>,
    ) -> Result<Opened, FetchError>;

    /// The file's address as messages may show it: without credentials.
    fn address(&self) -> String;
}

/// An answer whose body is still to come.
pub struct Opened {
    /// Offset of the body's first byte in the file: as asked for, or 0 from a server that knows no ranges.
    pub start: u64,
    /// Whether the server took the range into account.
    pub ranges: bool,
    /// What the file was like.
    pub version: Version,
    /// The bytes. Fewer than asked for are a break.
    pub body: Body,
}

/// What tells one version of a file from another.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Version {
    /// Length in bytes, if the server said.
    pub len: Option<u64>,
    /// Entity tag as it was sent (RFC 9110, 8.8.3).
    pub etag: Option<String>,
    /// Time of the last change, as it was sent.
    pub modified: Option<String>,
    /// Which server answered, after redirects.
    pub host: String,
}

impl Version {
    /// Whether this may be the same version as `other`. Mirrors of a file give it tags of their own: across hosts, length and
    /// time count alone.
    pub fn same(&self, other: &Self) -> bool {
        let agree = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => Some(a == b),
            _ => None,
        };
        if let (Some(a), Some(b)) = (self.len, other.len)
            && a != b
        {
            return false;
        }
        if self.host == other.host
            && let Some(same) = agree(&self.etag, &other.etag)
        {
            return same;
        }
        agree(&self.modified, &other.modified).unwrap_or(true)
    }

    /// What may stand in `If-Range` for a request to `host`: a strong tag of that host, else the time.
    pub fn condition(&self, host: &str) -> Option<&str> {
        let etag = self.etag.as_deref().filter(|etag| etag.starts_with('"'));
        etag.filter(|_| self.host == host)
            .or(self.modified.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(host: &str, len: Option<u64>, etag: &str, modified: &str) -> Version {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Version {
            len,
            etag: text(etag),
            modified: text(modified),
            host: host.to_owned(),
        }
    }

    #[test]
    fn versions() {
        let first = version("a", Some(5), "\"1\"", "Mon");
        for (other, same) in [
            (version("a", Some(5), "\"1\"", "Mon"), true),
            (version("a", Some(5), "\"2\"", "Mon"), false),
            (version("a", Some(6), "\"1\"", "Mon"), false),
            (version("a", None, "", ""), true),
            (version("a", None, "", "Tue"), false),
            (version("b", Some(5), "\"2\"", "Mon"), true),
            (version("b", Some(5), "\"1\"", "Tue"), false),
        ] {
            assert_eq!(first.same(&other), same, "{other:?}");
        }
    }

    #[test]
    fn conditions() {
        assert_eq!(
            version("a", None, "\"1\"", "Mon").condition("a"),
            Some("\"1\"")
        );
        assert_eq!(
            version("a", None, "\"1\"", "Mon").condition("b"),
            Some("Mon")
        );
        assert_eq!(
            version("a", None, "W/\"1\"", "Mon").condition("a"),
            Some("Mon")
        );
        assert_eq!(version("a", None, "W/\"1\"", "").condition("a"), None);
    }
}
