//! Query strings, in and out.

/// The decoded parameters of a request, in the order sent.
///
/// Its size is bounded by the bound on the whole URI. A plus sign stands for itself, not for a space as in HTML forms: no
/// value of ours contains a space, but media types contain plus signs that some clients do not escape.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the question mark. Nothing is malformed: what is no escape stays as it is, and what is not
    /// UTF-8 becomes U+FFFD, which no value of ours contains.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            });
        Self(pairs.collect())
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| first == b'%').and_then(|digits| {
            let [high, low] = [digits[0], digits[1]].map(|digit| (digit as char).to_digit(16));
            u8::try_from(high? * 16 + low?).ok()
        });
        if let Some(byte) = escaped {
            decoded.push(byte);
            rest = &tail[2..];
        } else {
            decoded.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Percent-encodes a value for a query. Colons and slashes, which are allowed there, stay readable.
pub(crate) fn encode(value: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(value.len());
    for &byte in value.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_kept_in_order() {
        fn check(query: &str, name: &str, expected: &[&str]) {
            let parsed = Query::parse(Some(query));
            assert_eq!(parsed.all(name).collect::<Vec<_>>(), expected, "{query}");
            assert_eq!(parsed.get(name), expected.first().copied(), "{query}");
        }
        check("", "n", &[]);
        check("n=5", "n", &["5"]);
        check("n", "n", &[""]);
        check("n=", "n", &[""]);
        check("&&n=5&", "n", &["5"]);
        check("last=a&n=5", "n", &["5"]);
        check("tag=a&tag=b&x=c&tag=d", "tag", &["a", "b", "d"]);
        check("digest=sha256%3Aab", "digest", &["sha256:ab"]);
        check("digest=sha256%3aab", "digest", &["sha256:ab"]);
        check("from=a%2Fb%2Fc", "from", &["a/b/c"]);
        check("%64igest=x", "digest", &["x"]);
        check("a=b=c", "a", &["b=c"]);
        check(
            "artifactType=application/vnd.a+json",
            "artifactType",
            &["application/vnd.a+json"],
        );
        check(
            "artifactType=application%2Fvnd.a%2Bjson",
            "artifactType",
            &["application/vnd.a+json"],
        );
        check("a=%", "a", &["%"]);
        check("a=%4", "a", &["%4"]);
        check("a=%zz", "a", &["%zz"]);
        check("a=%+1", "a", &["%+1"]);
        check("a=%ff", "a", &["\u{fffd}"]);
        check("a=%C3%A9", "a", &["é"]);
        check("a=é%41", "a", &["éA"]);
        check("a=%2541", "a", &["%41"]);
    }

    #[test]
    fn no_query_has_no_parameters() {
        assert_eq!(Query::parse(None).get(""), None);
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in [
            "",
            "latest",
            "sha256:00ff",
            "a/b",
            "a+b c&d=e%f#g?",
            "é\"<>",
        ] {
            let encoded = encode(text);
            assert_eq!(decode(&encoded), text);
            assert!(
                !encoded.contains(['&', '=', '#', '?', '<', '>', '"', ' ', '+']),
                "{encoded}"
            );
        }
        assert_eq!(encode("application/x+json"), "application/x%2Bjson");
    }
}
