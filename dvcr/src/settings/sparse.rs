//! Which manifests may refer to content that the repository does not hold.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::registry::policy::Sparse;

impl FromStr for Sparse {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "index" => Ok(Self::Index),
            "all" => Ok(Self::All),
            _ => Err(format!("{text:?} is not one of none, index, all")),
        }
    }
}

/// One rule: repositories and what their manifests may lack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseRule {
    /// Glob of repository names: `*` stands for any part of a path segment, `**` for any number of segments or parts of
    /// them, anything else for itself.
    pub repository: String,
    /// What manifests there may lack.
    pub sparse: Sparse,
}

/// What manifests of a repository may lack: the first rule that matches decides, and nothing is the default.
pub fn sparse_of(rules: &[SparseRule], repository: &str) -> Sparse {
    rules
        .iter()
        .find(|rule| glob_matches(&rule.repository, repository))
        .map_or(Sparse::None, |rule| rule.sparse)
}

/// Does the glob match the whole name?
///
/// Takes time in proportion to the product of the lengths, whatever the stars.
pub fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    // reached[j]: the part of the glob seen so far matches the first j bytes of the name.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        fn check(glob: &str, name: &str, expected: bool) {
            assert_eq!(glob_matches(glob, name), expected, "{glob} {name}");
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

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |repository: &str, sparse| SparseRule {
            repository: repository.to_owned(),
            sparse,
        };
        let rules = [
            rule("mirror/strict/**", Sparse::None),
            rule("mirror/**", Sparse::Index),
            rule("scratch", Sparse::All),
        ];
        for (repository, expected) in [
            ("mirror/strict/a", Sparse::None),
            ("mirror/a", Sparse::Index),
            ("scratch", Sparse::All),
            ("a", Sparse::None),
        ] {
            assert_eq!(sparse_of(&rules, repository), expected, "{repository}");
        }
    }
}
