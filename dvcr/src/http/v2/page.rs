//! Lists that come in pages: `n`, `last` and the `Link` to what follows.
//!
//! Source: OCI distribution-spec, end-8b; RFC 5988.

use axum::http::HeaderValue;

use super::{Call, value};
use crate::http::{
    error::{ApiError, RequestError},
    query::encode,
};

/// Entries of a page when the client names no number.
pub(super) const PAGE_ENTRIES: usize = 1_000;

/// Most entries of a page, whatever the client names: about 1.3 MB of the longest tags.
pub(super) const PAGE_ENTRIES_MAX: usize = 10_000;

/// Reads `n`. Zero is a number: it asks for an empty page.
pub(super) fn entries(n: Option<&str>) -> Result<usize, RequestError> {
    let Some(text) = n else {
        return Ok(PAGE_ENTRIES);
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RequestError::PageSize(text.chars().take(32).collect()));
    }
    // More digits than fit are more than the most, too.
    Ok(text
        .parse()
        .unwrap_or(PAGE_ENTRIES_MAX)
        .min(PAGE_ENTRIES_MAX))
}

impl Call {
    /// The entry after which the page begins.
    pub(super) fn last(&self) -> Option<&str> {
        self.query.get("last").filter(|last| !last.is_empty())
    }
}

/// The `Link` to the page after `last`. The path is ours, the parameters are escaped.
pub(super) fn link(path: &str, parameters: &[(&str, &str)]) -> Result<HeaderValue, ApiError> {
    let query: Vec<String> = parameters
        .iter()
        .map(|(name, text)| format!("{name}={}", encode(text)))
        .collect();
    value(&format!("<{path}?{}>; rel=\"next\"", query.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_numbers_within_bounds() {
        fn check(n: Option<&str>, expected: Option<usize>) {
            assert_eq!(entries(n).ok(), expected, "{n:?}");
        }
        check(None, Some(1_000));
        check(Some("0"), Some(0));
        check(Some("1"), Some(1));
        check(Some("00010"), Some(10));
        check(Some("10000"), Some(10_000));
        check(Some("10001"), Some(10_000));
        check(Some("99999999999999999999999999"), Some(10_000));
        check(Some(""), None);
        check(Some("-1"), None);
        check(Some("+1"), None);
        check(Some("1.5"), None);
        check(Some("ten"), None);
        check(Some("1 "), None);
    }

    #[test]
    fn links_are_escaped() {
        let link = link("/v2/a/b/tags/list", &[("n", "5"), ("last", "v1>x&y")]).unwrap();
        assert_eq!(
            link,
            "</v2/a/b/tags/list?n=5&last=v1%3Ex%26y>; rel=\"next\""
        );
    }
}
