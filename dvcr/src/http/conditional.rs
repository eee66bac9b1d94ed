//! Header fields that decide which form of an answer a client gets: entity tags and codings.
//!
//! Source: RFC 9110, sections 8.8.3 (entity tags), 12.5.3 (`Accept-Encoding`), 13.1 (preconditions).

use axum::http::{HeaderMap, HeaderName, header};

/// The lines of a field as one list; lines that are not visible ASCII are skipped.
fn list(headers: &HeaderMap, name: &HeaderName) -> String {
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    lines.join(",")
}

/// Does the client have this representation already (`If-None-Match`)? `etag` is strong and quoted; the comparison is weak,
/// as the RFC asks for reads.
pub(crate) fn none_match(headers: &HeaderMap, etag: &str) -> bool {
    // Digests contain no commas, so splitting does not cut a tag that could match.
    list(headers, &header::IF_NONE_MATCH).split(',').any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

/// May a `Range` be honoured? True without `If-Range`. Only a strong tag that equals ours lets the client add bytes to
/// what it has; dates are never equal, because blobs have none.
pub(crate) fn if_range(headers: &HeaderMap, etag: &str) -> bool {
    match headers.get(header::IF_RANGE) {
        None => true,
        Some(value) => value.to_str().is_ok_and(|value| value.trim() == etag),
    }
}

/// Does the client name zstd as a coding that it takes? `*` is not enough: containerd and its like name what they can
/// decode, and a client that takes anything may still store what it gets as it came.
pub(crate) fn accepts_zstd(headers: &HeaderMap) -> bool {
    list(headers, &header::ACCEPT_ENCODING)
        .split(',')
        .filter_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next()?;
            coding
                .eq_ignore_ascii_case("zstd")
                .then(|| parts.all(|parameter| !is_zero_quality(parameter)))
        })
        .next()
        .unwrap_or(false)
}

/// Is the parameter `q=0`, `q=0.000` or a weight that makes no sense?
fn is_zero_quality(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    name.trim().eq_ignore_ascii_case("q")
        && !value
            .trim()
            .parse::<f32>()
            .is_ok_and(|quality| quality > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn zstd_must_be_named_with_a_weight_above_zero() {
        fn check(values: &[&str], expected: bool) {
            let headers = headers(header::ACCEPT_ENCODING, values);
            assert_eq!(accepts_zstd(&headers), expected, "{values:?}");
        }
        check(&[], false);
        check(&[""], false);
        check(&["identity"], false);
        check(&["gzip, deflate"], false);
        check(&["*"], false);
        check(&["zstd"], true);
        check(&["ZSTD"], true);
        check(&["gzip, zstd"], true);
        check(&["gzip", "zstd"], true);
        check(&["zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"], true);
        check(&["gzip,zstd;q=0.001"], true);
        check(&["zstd ; Q = 0.5"], true);
        check(&["zstd;q=0"], false);
        check(&["zstd;q=0.000"], false);
        check(&["zstd;q=-1"], false);
        check(&["zstd;q=many"], false);
        check(&["zstd;q=NaN"], false);
        check(&["zstd;q=0, zstd"], false);
        check(&["x-zstd"], false);
        check(&["zstdx"], false);
    }

    #[test]
    fn a_known_tag_saves_the_body() {
        fn check(values: &[&str], expected: bool) {
            let headers = headers(header::IF_NONE_MATCH, values);
            assert_eq!(
                none_match(&headers, "\"sha256:aa\""),
                expected,
                "{values:?}"
            );
        }
        check(&[], false);
        check(&["\"sha256:aa\""], true);
        check(&["W/\"sha256:aa\""], true);
        check(&["\"x\", \"sha256:aa\""], true);
        check(&["\"x\"", "\"sha256:aa\""], true);
        check(&["*"], true);
        check(&["sha256:aa"], false);
        check(&["\"sha256:aa-zstd\""], false);
        check(&["\"\""], false);
    }

    #[test]
    fn only_a_strong_tag_continues_a_download() {
        fn check(values: &[&str], expected: bool) {
            let headers = headers(header::IF_RANGE, values);
            assert_eq!(if_range(&headers, "\"sha256:aa\""), expected, "{values:?}");
        }
        check(&[], true);
        check(&["\"sha256:aa\""], true);
        check(&["W/\"sha256:aa\""], false);
        check(&["\"sha256:bb\""], false);
        check(&["\"sha256:aa-zstd\""], false);
        check(&["*"], false);
        check(&["Sat, 21 Nov 2026 07:28:00 GMT"], false);
    }
}
