//! Which part of a file an answer has (RFC 9110, 14.4).

/// `Content-Range: bytes 0-99/1000`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) len: Option<u64>,
}

impl ContentRange {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.trim().strip_prefix("bytes")?.trim_start();
        let (range, len) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        let (first, last) = (number(first)?, number(last)?);
        let len = match len {
            "*" => None,
            len => Some(number(len)?),
        };
        (first <= last && last < u64::MAX && len.is_none_or(|len| last < len)).then_some(Self {
            first,
            last,
            len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let range = |first, last, len| Some(ContentRange { first, last, len });
        for (text, expected) in [
            ("bytes 0-99/1000", range(0, 99, Some(1000))),
            ("bytes 5-5/*", range(5, 5, None)),
            ("bytes 5-4/10", None),
            ("bytes 0-10/10", None),
            ("bytes */10", None),
            ("bytes +0-9/10", None),
            ("items 0-9/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), expected, "{text}");
        }
    }
}
