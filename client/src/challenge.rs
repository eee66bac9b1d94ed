//! How a server asks for credentials: `WWW-Authenticate`.

use std::collections::BTreeMap;

/// One challenge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Challenge {
    /// Lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    /// By lower-case name.
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Reads the values of all `WWW-Authenticate` fields of an answer. What is malformed ends that value; what was read before
/// counts. Source: RFC 9110 sections 11.2, 11.3, 11.6.1 and 5.6.
pub(crate) fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for value in values {
        let mut cursor = Cursor(value);
        while read(&mut cursor, &mut challenges).is_some() {}
    }
    challenges
}

/// Reads one element of the list: the begin of a challenge or one more parameter of the last. `None` ends the value.
fn read(cursor: &mut Cursor, challenges: &mut Vec<Challenge>) -> Option<()> {
    // RFC 9110 section 5.6.1.2: a recipient ignores empty elements of a list.
    cursor.skip(|b| matches!(b, b' ' | b'\t' | b','));
    let word = cursor.token()?;
    let before = cursor.0;
    cursor.skip(|b| matches!(b, b' ' | b'\t'));
    if cursor.take(b'=') {
        cursor.skip(|b| matches!(b, b' ' | b'\t'));
        let value = cursor.value()?;
        // A parameter before any scheme belongs to nothing.
        let last = challenges.last_mut()?;
        last.parameters.insert(word.to_ascii_lowercase(), value);
        return Some(());
    }
    let spaced = before.len() > cursor.0.len();
    challenges.push(Challenge {
        scheme: word.to_ascii_lowercase(),
        parameters: BTreeMap::new(),
    });
    if spaced && !cursor.0.is_empty() && !cursor.0.starts_with(',') {
        cursor.token68();
    }
    Some(())
}

struct Cursor<'a>(&'a str);

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

impl<'a> Cursor<'a> {
    /// The longest beginning whose bytes, ASCII ones only, satisfy `accept`.
    fn while_ascii(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let len = self.0.bytes().take_while(|b| b.is_ascii() && accept(*b));
        let (head, rest) = self.0.split_at(len.count());
        self.0 = rest;
        head
    }

    fn skip(&mut self, accept: impl Fn(u8) -> bool) {
        self.while_ascii(accept);
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.as_bytes().first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn token(&mut self) -> Option<&'a str> {
        Some(self.while_ascii(is_token)).filter(|token| !token.is_empty())
    }

    /// Skips credentials without name, such as Negotiate's, if that is what follows: a parameter has something behind its
    /// first `=`.
    fn token68(&mut self) {
        let start = self.0;
        self.skip(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        self.skip(|b| b == b'=');
        self.skip(|b| matches!(b, b' ' | b'\t'));
        if !self.0.is_empty() && !self.0.starts_with(',') {
            self.0 = start;
        }
    }

    fn value(&mut self) -> Option<String> {
        if !self.take(b'"') {
            return self.token().map(str::to_owned);
        }
        let mut value = String::new();
        let mut chars = self.0.char_indices();
        loop {
            let (at, next) = chars.next()?;
            match next {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                other => value.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(values: &[&str]) -> String {
        let challenges = parse(values.iter().copied());
        let shown = challenges.iter().map(|challenge| {
            let parameters: Vec<_> = challenge
                .parameters
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{}[{}]", challenge.scheme, parameters.join(";"))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn challenges_are_read_as_rfc_9110_says() {
        fn check(values: &[&str], expected: &str) {
            assert_eq!(shown(values), expected, "{values:?}");
        }
        check(
            &[
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
            ],
            "bearer[realm=https://auth.example/token;scope=repository:a/b:pull,push;service=registry.example]",
        );
        check(&[r#"Basic realm="dvcr""#], "basic[realm=dvcr]");
        check(
            &[r#"Basic Realm=x , Bearer  REALM = "y" "#],
            "basic[realm=x] bearer[realm=y]",
        );
        check(
            &[r#"Basic realm="x", charset="UTF-8", Bearer realm="y",service="z""#],
            "basic[charset=UTF-8;realm=x] bearer[realm=y;service=z]",
        );
        check(
            &[r#"Negotiate"#, r#"Basic realm="a\"b\\c""#],
            r#"negotiate[] basic[realm=a"b\c]"#,
        );
        check(
            &[r#"Negotiate YWJj==, Basic realm="x""#],
            "negotiate[] basic[realm=x]",
        );
        check(&[r#"NTLM YWJj"#], "ntlm[]");
        check(&[r#", ,Basic realm="x",,"#], "basic[realm=x]");
        check(
            &[r#"Bearer error="insufficient_scope", realm="é""#],
            "bearer[error=insufficient_scope;realm=é]",
        );
    }

    #[test]
    fn malformed_fields_end_where_they_are() {
        fn check(value: &str, expected: &str) {
            assert_eq!(shown(&[value]), expected, "{value:?}");
        }
        check("", "");
        check("=", "");
        check("realm=x", "");
        check("é", "");
        check(r#"Basic realm="open"#, "basic[]");
        check(r#"Basic realm="open\"#, "basic[]");
        check("Basic realm=", "basic[]");
        check("Bearer realm=x, =y, Basic", "bearer[realm=x]");
        check("\"", "");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_servers_send_is_a_panic(value in "\\PC{0,40}", parts in "[bB =,;\"\\\\é\t]{0,60}") {
            let _ = shown(&[&value, &parts, &format!("Bearer realm={parts}{value}")]);
        }
    }
}
