//! The name of one request, for logs on both ends.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};

/// The header that carries the name, in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name that is taken from a client: a UUID has 36 characters, trace ids of proxies up to about 100.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A name of 1 to 128 characters out of letters, digits, `-`, `_`, `.`, `:`, `/`, `=` and `+`: safe in any log and header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// The client's name for the request if it is harmless, else a random one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|text| is_harmless(text))
            .map_or_else(Self::random, |text| Self(text.to_owned()))
    }

    /// 128 random bits in hex.
    pub(crate) fn random() -> Self {
        Self(random_hex())
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_harmless(text: &str) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'=' | b'+')
        })
}

/// 32 hex digits from the system's random source.
pub(crate) fn random_hex() -> String {
    let mut bytes = [0; 16];
    // Names need to differ, not to be secret: a system without randomness gets equal names, not a failed request.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_name_is_taken() {
        fn check(sent: &str, taken: bool) {
            let headers = HeaderMap::from_iter([(REQUEST_ID, sent.parse().unwrap())]);
            let id = RequestId::of(&headers);
            assert_eq!(id.as_str() == sent, taken, "{sent:?}");
            assert!(is_harmless(id.as_str()));
        }
        check("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", true);
        check("1", true);
        check("00-4bf92f:/x_y.z=+", true);
        check("", false);
        check("a b", false);
        check("a\"b", false);
        check("<script>", false);
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
    }

    #[test]
    fn random_names_differ() {
        assert_ne!(RequestId::random(), RequestId::random());
    }
}
