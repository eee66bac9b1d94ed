//! `multipart/byteranges`: several parts of a blob in one answer, with a length that is known before the first byte.
//!
//! Source: RFC 9110 section 14.6, RFC 2046 section 5.1.1.

use std::ops::Range;

use bytes::Bytes;

/// The plan of one answer: what stands before each part, and after the last.
#[derive(Debug)]
pub(crate) struct Multipart {
    /// Value of the answer's `Content-Type`.
    pub(crate) content_type: String,
    /// Bytes of the whole body.
    pub(crate) len: u64,
    /// What stands before a part's bytes, and the part.
    pub(crate) parts: Vec<(Bytes, Range<u64>)>,
    /// What ends the body.
    pub(crate) end: Bytes,
}

/// Plans an answer with `ranges` of a blob of `len` bytes, in their order. `boundary` is random: a client that cuts at
/// boundaries instead of counting bytes must not find one in a blob that somebody made for it.
pub(crate) fn plan(ranges: Vec<Range<u64>>, len: u64, boundary: &str) -> Multipart {
    let parts: Vec<(Bytes, Range<u64>)> = ranges
        .into_iter()
        .enumerate()
        .map(|(index, range)| {
            // The line break before a delimiter belongs to the delimiter, and the first has no line to break.
            let lead = if index == 0 { "" } else { "\r\n" };
            let head = format!(
                "{lead}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {}\r\n\r\n",
                content_range(&range, len)
            );
            (Bytes::from(head), range)
        })
        .collect();
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let body: u64 = parts
        .iter()
        .map(|(head, range)| head.len() as u64 + (range.end - range.start))
        .sum();
    Multipart {
        content_type: format!("multipart/byteranges; boundary={boundary}"),
        len: body + end.len() as u64,
        parts,
        end,
    }
}

/// The value of `Content-Range` for a part that is not empty.
pub(crate) fn content_range(range: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", range.start, range.end - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body that a plan stands for, with its parts cut from `blob`.
    fn render(plan: &Multipart, blob: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for (head, range) in &plan.parts {
            body.extend_from_slice(head);
            body.extend_from_slice(&blob[range.start as usize..range.end as usize]);
        }
        body.extend_from_slice(&plan.end);
        body
    }

    #[test]
    fn the_body_is_what_the_rfc_shows() {
        let plan = plan(vec![0..2, 4..5], 10, "X");
        assert_eq!(plan.content_type, "multipart/byteranges; boundary=X");
        assert_eq!(
            String::from_utf8(render(&plan, b"0123456789")).unwrap(),
            "--X\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--X\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 4-4/10\r\n\r\n4\
             \r\n--X--\r\n"
        );
    }

    #[test]
    fn the_length_is_known_beforehand() {
        let blob = vec![7; 2_000];
        for ranges in [
            vec![0..1, 1..2],
            vec![0..1_000, 1_500..2_000, 7..8],
            vec![1_999..2_000, 0..10],
            (0..200).map(|i| i * 10..i * 10 + 1).collect(),
        ] {
            let plan = plan(ranges, 2_000, "0123456789abcdef");
            assert_eq!(render(&plan, &blob).len() as u64, plan.len);
        }
    }
}
