//! Where a list goes on: `Link` with `rel="next"`.

use reqwest::Url;

/// The next page, if a `Link` field names one on the server that `base` was asked of. Elsewhere is not followed: lists are
/// asked for with credentials. Source: RFC 8288; OCI distribution-spec, "Listing Tags".
pub(crate) fn next<'a>(values: impl IntoIterator<Item = &'a str>, base: &Url) -> Option<Url> {
    let target = values.into_iter().find_map(next_target)?;
    let next = base.join(target).ok()?;
    (next.origin() == base.origin()).then_some(next)
}

fn next_target(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        // The parameters end at the next link; quoted text of registries has no '<'.
        let parameters = after.split('<').next().unwrap_or("");
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split(' ')
                        .any(|rel| rel.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_on_the_same_server() {
        fn check(value: &str, expected: Option<&str>) {
            let base = Url::parse("https://r.example/v2/a/tags/list?n=2").unwrap();
            let next = next([value], &base);
            assert_eq!(next.as_ref().map(Url::as_str), expected, "{value}");
        }
        let second = Some("https://r.example/v2/a/tags/list?n=2&last=b");
        check(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, second);
        check("<?n=2&last=b>;rel=next", second);
        check(
            r#"<https://r.example/v2/a/tags/list?n=2&last=b>; rel="next""#,
            second,
        );
        check(
            r#"</first>; rel="first", </v2/a/tags/list?n=2&last=b>; title=x; REL="x next""#,
            second,
        );
        check(r#"</v2/a/tags/list>; rel="prev""#, None);
        check(r#"<https://elsewhere.example/v2/>; rel="next""#, None);
        check(r#"<http://r.example/v2/>; rel="next""#, None);
        check(r#"<//elsewhere.example/v2/>; rel="next""#, None);
        check("<", None);
        check("", None);
    }
}
