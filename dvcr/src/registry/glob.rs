//! Globs over repository names and tags.

/// Whether the glob fits the whole name: `*` stands for any part of a path segment, `**` for any number of segments or parts
/// of them, anything else for itself.
///
/// Takes time in proportion to the product of the lengths, whatever the stars.
#[must_use]
pub(crate) fn glob_fits(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    // reached[j]: the part of the glob seen so far fits the first j bytes of the name.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    let mut rest = glob;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'*' {
            let double = tail.first() == Some(&b'*');
            rest = if double { &tail[1..] } else { tail };
            for j in 1..=name.len() {
                reached[j] |= reached[j - 1] && (double || name[j - 1] != b'/');
            }
        } else {
            rest = tail;
            for j in (1..=name.len()).rev() {
                reached[j] = reached[j - 1] && name[j - 1] == first;
            }
            reached[0] = false;
        }
    }
    reached[name.len()]
}

/// The default of rules about tags.
pub(super) fn every_tag() -> Vec<String> {
    vec!["*".to_owned()]
}

/// What is wrong with a list of globs called `key`, for people.
pub(super) fn globs_fault(key: &str, globs: &[String]) -> Option<String> {
    if globs.is_empty() {
        Some(format!(
            "{key} must name at least one glob; leave it out for all tags"
        ))
    } else if globs.iter().any(String::is_empty) {
        Some(format!("{key} has an empty glob"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_whole_names() {
        fn check(glob: &str, name: &str, expected: bool) {
            assert_eq!(glob_fits(glob, name), expected, "{glob} {name}");
        }
        check("**", "a/b/c", true);
        check("**", "a", true);
        check("*", "a", true);
        check("*", "a/b", false);
        check("a", "a", true);
        check("a", "ab", false);
        check("a", "ba", false);
        check("vi/**", "vi/ns/disk", true);
        check("vi/**", "vi", false);
        check("vi/*", "vi/ns/disk", false);
        check("vi/*/disk", "vi/ns/disk", true);
        check("vi/*/*", "vi/ns/disk", true);
        check("**/disk", "vi/ns/disk", true);
        check("**/disk", "disk", false);
        check("**disk", "disk", true);
        check("vi/**/disk", "vi/a/b/disk", true);
        check("vi/**/disk", "vi/a/b/disks", false);
        check("a*c*e", "abcde", true);
        check("a*c*e", "abcd", false);
        check("a*b**c", "axb/y/c", true);
        check("", "", true);
        check("", "a", false);
        check("***", "a/b", true);
        check(&"*a".repeat(30), &"a".repeat(255), true);
        check(&format!("{}b", "*a".repeat(30)), &"a".repeat(255), false);
    }
}
