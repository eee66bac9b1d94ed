//! Byte ranges: the `Range` header of a read and the `Content-Range` header of an upload's chunk.

use std::ops::Range;

/// Most parts of one answer. A lazy reader that fetches scattered frames asks for a few dozen; each part costs a header
/// of about 100 bytes and at least one chunk's decoding, so a longer list pays less than reading the blob.
pub const RANGES_MAX: usize = 256;

/// What a `Range` header asks of a blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ranges {
    /// Answer 200 with everything: the header is malformed, of another unit, or asks for more than the blob.
    Whole,
    /// Answer 206. Not empty, at most [`RANGES_MAX`], each within the blob and not empty, in the order asked for;
    /// sorted and merged only if there were more than [`RANGES_MAX`]. Their sum does not exceed the blob.
    Satisfiable(Vec<Range<u64>>),
    /// Answer 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a blob of `len` bytes.
///
/// Source: RFC 9110 section 14.1.2. Two liberties that it leaves: a range that ends before it begins (`500-0`) counts as
/// unsatisfiable instead of malformed, because the OCI conformance suite expects 416 there; and a list whose parts add up
/// to more than the blob is answered with the whole blob (section 14.2: overlapping ranges are an attack).
pub fn parse_range(header: &str, len: u64) -> Ranges {
    let Some(ranges) = satisfiable(header, len) else {
        return Ranges::Whole;
    };
    if ranges.is_empty() {
        return Ranges::Unsatisfiable;
    }
    let ranges = if ranges.len() > RANGES_MAX {
        coalesce(ranges)
    } else {
        ranges
    };
    let total: u128 = ranges
        .iter()
        .map(|range| u128::from(range.end - range.start))
        .sum();
    if ranges.len() > RANGES_MAX || total > u128::from(len) {
        Ranges::Whole
    } else {
        Ranges::Satisfiable(ranges)
    }
}

/// The parts of the header that lie within the blob; `None` if the header is malformed or of another unit.
fn satisfiable(header: &str, len: u64) -> Option<Vec<Range<u64>>> {
    let (unit, set) = header.trim_ascii().split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = 0;
    let mut ranges = Vec::new();
    // RFC 9110 section 5.6.1.2: a recipient ignores empty elements of a list.
    for spec in set
        .split(',')
        .map(|spec| spec.trim_matches([' ', '\t']))
        .filter(|spec| !spec.is_empty())
    {
        specs += 1;
        let (first, last) = spec.split_once('-')?;
        let range = match (first, last) {
            ("", suffix) => len.saturating_sub(number(suffix)?)..len,
            (first, "") => number(first)?..len,
            (first, last) => number(first)?..number(last)?.saturating_add(1).min(len),
        };
        if range.start < range.end {
            ranges.push(range);
        }
    }
    (specs > 0).then_some(ranges)
}

/// A decimal number; one that does not fit is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    let well_formed = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    well_formed.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Sorts, and merges what overlaps or touches.
fn coalesce(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, merged| {
        let touches = next.start <= merged.end;
        if touches {
            merged.end = merged.end.max(next.end);
        }
        touches
    });
    ranges
}

/// Reads the `Content-Range` of an upload's chunk, `0-1023`: first and last byte, both inclusive, in order.
///
/// Source: OCI distribution-spec, "Pushing a blob in chunks" (no unit, no total). HTTP's own form
/// `bytes 0-1023/2048` (total or `*`) is tolerated; the total is not checked.
pub fn parse_content_range(header: &str) -> Option<(u64, u64)> {
    let text = header.trim_ascii();
    let text = match text.split_once(' ') {
        Some((unit, rest)) if unit.eq_ignore_ascii_case("bytes") => rest.trim_ascii(),
        Some(_) => return None,
        None => text,
    };
    let text = match text.split_once('/') {
        Some((range, total)) if total == "*" || exact(total).is_some() => range,
        Some(_) => return None,
        None => text,
    };
    let (first, last) = text.split_once('-')?;
    let (first, last) = (exact(first)?, exact(last)?);
    // The length, last - first + 1, and the offset after the chunk must be numbers too.
    (first <= last && last < u64::MAX).then_some((first, last))
}

/// A decimal number that fits.
fn exact(digits: &str) -> Option<u64> {
    let well_formed = digits.bytes().all(|b| b.is_ascii_digit());
    if well_formed {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges, one of them long, are what is tested"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_read_as_the_conformance_suite_expects() {
        fn check(header: &str, len: u64, expected: &[Range<u64>]) {
            let expected = if expected.is_empty() {
                Ranges::Unsatisfiable
            } else {
                Ranges::Satisfiable(expected.to_vec())
            };
            assert_eq!(parse_range(header, len), expected, "{header:?} of {len}");
        }
        check("bytes=500-1499", 2048, &[500..1500]);
        check("bytes=500-", 2048, &[500..2048]);
        check("bytes=-500", 2048, &[1548..2048]);
        check("bytes=2000-5000", 2048, &[2000..2048]);
        check("bytes=500-0", 2048, &[]);
        check("bytes=5000-10000", 2048, &[]);

        check("bytes=0-0", 2048, &[0..1]);
        check("bytes=2047-2047", 2048, &[2047..2048]);
        check("bytes=2048-", 2048, &[]);
        check("bytes=-0", 2048, &[]);
        check("bytes=-5000", 2048, &[0..2048]);
        check("bytes=0-", 2048, &[0..2048]);
        check("Bytes=0-1", 2048, &[0..2]);
        check(" bytes=0-1 ", 2048, &[0..2]);
        check("bytes=0-99999999999999999999999", 2048, &[0..2048]);
        check("bytes=99999999999999999999999-", 2048, &[]);
        check("bytes=-99999999999999999999999", 2048, &[0..2048]);
        check("bytes=0-18446744073709551615", u64::MAX, &[0..u64::MAX]);
        check(
            "bytes=18446744073709551614-",
            u64::MAX,
            &[u64::MAX - 1..u64::MAX],
        );
        // An empty blob satisfies nothing.
        check("bytes=0-", 0, &[]);
        check("bytes=0-0", 0, &[]);
        check("bytes=-1", 0, &[]);
        // Several.
        check("bytes=0-1,4-5", 2048, &[0..2, 4..6]);
        check("bytes=4-5, 0-1 ,\t8-9", 2048, &[4..6, 0..2, 8..10]);
        check("bytes=,0-1,,", 2048, &[0..2]);
        check("bytes=0-1,5000-", 2048, &[0..2]);
        check("bytes=0-1,500-0", 2048, &[0..2]);
        check("bytes=0-9,5-14", 2048, &[0..10, 5..15]);
        check("bytes=3000-,5000-", 2048, &[]);
    }

    #[test]
    fn a_header_that_says_nothing_useful_is_ignored() {
        fn check(header: &str) {
            assert_eq!(parse_range(header, 2048), Ranges::Whole, "{header:?}");
        }
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=0-1-2",
            "bytes=0 - 1",
            "bytes= =0-1",
            "bytes =0-1",
            "bytes=+0-1",
            "bytes=--1",
            "bytes=0x0-1",
            "bytes=1",
            "bytes=0-1;2-3",
            "bytes=0-1,x",
            "items=0-1",
            "bytes=٠-١",
        ] {
            check(header);
        }
        // More than the blob in all.
        check("bytes=0-,0-");
        check("bytes=0-2047,0-0");
        let overflow = format!("bytes={}0-0", "0-,".repeat(3));
        assert_eq!(parse_range(&overflow, u64::MAX), Ranges::Whole);
    }

    #[test]
    fn many_ranges_are_merged_or_ignored() {
        fn check(specs: impl Iterator<Item = String>, expected: &Ranges) {
            let header = format!("bytes={}", specs.collect::<Vec<_>>().join(","));
            assert_eq!(&parse_range(&header, 1 << 20), expected);
        }
        let max = RANGES_MAX as u64;
        let scattered = |n: u64| (0..n).map(|i| format!("{0}-{0}", 2 * i));
        check(
            scattered(max),
            &Ranges::Satisfiable((0..max).map(|i| 2 * i..2 * i + 1).collect()),
        );
        check(scattered(max + 1), &Ranges::Whole);
        check(
            (0..=max).rev().map(|i| format!("{i}-{i}")),
            &Ranges::Satisfiable([0..max + 1].into()),
        );
        check(
            (0..10_000).map(|_| "0-".to_owned()),
            &Ranges::Satisfiable([0..1 << 20].into()),
        );
    }

    #[test]
    fn a_content_range_is_read() {
        fn check(header: &str, expected: Option<(u64, u64)>) {
            assert_eq!(parse_content_range(header), expected, "{header:?}");
        }
        check("0-1023", Some((0, 1023)));
        check("1024-1024", Some((1024, 1024)));
        check("bytes 0-1023/2048", Some((0, 1023)));
        check("bytes 0-1023/*", Some((0, 1023)));
        check("0-1023/2048", Some((0, 1023)));
        check("0-18446744073709551614", Some((0, u64::MAX - 1)));
        for bad in [
            "",
            "-",
            "0-",
            "-5",
            "1-0",
            "a-b",
            "0-1-2",
            "bytes=0-1",
            "items 0-1/2",
            "bytes */2",
            "bytes 0-1/x",
            "0-1,2-3",
            "+0-1",
            "0-18446744073709551615",
            "0-99999999999999999999",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_blob(header in "bytes=([0-9]{0,3}-?[0-9]{0,3},?){0,5}", len in 0u64..600) {
            if let Ranges::Satisfiable(ranges) = parse_range(&header, len) {
                prop_assert!(!ranges.is_empty() && ranges.len() <= RANGES_MAX);
                prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= len));
            }
        }

        #[test]
        fn never_panics(header in "\\PC*", len: u64) {
            parse_range(&header, len);
            parse_range(&format!("bytes={header}"), len);
            parse_content_range(&header);
        }
    }
}
