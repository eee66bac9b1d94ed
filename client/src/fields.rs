//! Fields of answers.

use std::time::{Duration, SystemTime};

use dvcr_core::oci::Digest;
use reqwest::header::{HeaderMap, HeaderName};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Longest time that a server's `Retry-After` is honoured; a longer one would look like a hang.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A field's value as text.
pub(crate) fn text(headers: &HeaderMap, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The digest that the server gives for what it sends.
pub(crate) fn digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, CONTENT_DIGEST)?.parse().ok()
}

/// How long the server asks to wait: seconds or a date. Source: RFC 9110 section 10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = text(headers, reqwest::header::RETRY_AFTER)?.trim_ascii();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The parts of `Content-Range: bytes 5-9/10`: first byte, end (exclusive), whole length if known.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let text = text(headers, reqwest::header::CONTENT_RANGE)?;
    let (range, total) = text
        .trim_ascii()
        .strip_prefix("bytes")?
        .trim_ascii()
        .split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1).filter(|end| first < *end)?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok().filter(|total| end <= *total)?),
    };
    Some((first, end, total))
}

/// How many bytes an upload session has, from `Range: 0-9`; `None` without that field. `0-0` is one byte, or none: servers have no
/// other form for an empty session.
pub(crate) fn upload_range(headers: &HeaderMap) -> Option<u64> {
    let text = text(headers, reqwest::header::RANGE)?.trim_ascii();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first == 0).then(|| last.checked_add(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        fn check(value: &str, expected: Option<u64>) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 10);
            let headers = with(reqwest::header::RETRY_AFTER, value);
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{value}");
        }
        check("7", Some(7));
        check("0", Some(0));
        check("99999", Some(300));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(10));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        fn check(value: &str, expected: Option<(u64, u64, Option<u64>)>) {
            let headers = with(reqwest::header::CONTENT_RANGE, value);
            assert_eq!(content_range(&headers), expected, "{value}");
        }
        check("bytes 5-9/10", Some((5, 10, Some(10))));
        check("bytes 0-0/*", Some((0, 1, None)));
        check("bytes 5-9/9", None);
        check("bytes 9-5/10", None);
        check("bytes */10", None);
        check("5-9/10", None);
        check("bytes 0-18446744073709551615/*", None);
    }

    #[test]
    fn upload_ranges_are_read_as_servers_write_them() {
        fn check(value: &str, expected: Option<u64>) {
            let headers = with(reqwest::header::RANGE, value);
            assert_eq!(upload_range(&headers), expected, "{value}");
        }
        check("0-0", Some(1));
        check("0-1023", Some(1024));
        check("bytes=0-1023", Some(1024));
        check("1-2", None);
        check("0--1", None);
        check("", None);
    }
}
