//! Globs over repository names and tags, parsed once: a glob that exists is short and can fit a name.
//!
//! A rule with a glob that fits nothing is worse than an error: what it was to keep goes. So what is meant in another dialect
//! (`v[0-9]*`, `{a,b}`, `?`) is refused.

use std::{fmt, marker::PhantomData, str::FromStr};

use dvcr_core::oci::{NAME_BYTES_MAX, RepositoryName, TAG_BYTES_MAX, Tag};
use serde::{Deserialize, Serialize};

/// Names that globs are about.
pub trait Globbed: Clone + FromStr<Err: fmt::Display> {
    /// What such a name is called.
    const WHAT: &str;
    /// Longest glob in bytes: that of a name. The time of a match is in proportion to it.
    const BYTES_MAX: usize;
    /// The glob that fits every name.
    const EVERY: &str;
    /// Which wildcards there are, for people.
    const WILDCARDS: &str;
}

impl Globbed for RepositoryName {
    const WHAT: &str = "repository name";
    const BYTES_MAX: usize = NAME_BYTES_MAX;
    const EVERY: &str = "**";
    const WILDCARDS: &str = "the only wildcards are * and **";
}

impl Globbed for Tag {
    const WHAT: &str = "tag";
    const BYTES_MAX: usize = TAG_BYTES_MAX;
    const EVERY: &str = "*";
    const WILDCARDS: &str = "the only wildcard is *";
}

/// A glob: `*` stands for any part of a path segment, `**` for any number of segments or parts of them, anything else for itself.
/// At most as long as a name may be, and able to fit one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "N: Globbed")]
pub struct Glob<N> {
    text: Box<str>,
    names: PhantomData<fn() -> N>,
}

/// Which repositories.
pub type RepositoryGlob = Glob<RepositoryName>;

/// Which tags. A tag is one segment: `**` is the same as `*`.
pub type TagGlob = Glob<Tag>;

/// What is wrong with a glob, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct GlobError(String);

impl<N> Glob<N> {
    /// The glob as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<N: Globbed> Glob<N> {
    /// Whether the glob fits the whole name. What is longer than a name may be is none.
    ///
    /// Takes time in proportion to the product of the lengths, whatever the stars.
    pub fn fits(&self, name: &str) -> bool {
        let name = name.as_bytes();
        if name.len() > N::BYTES_MAX {
            return false;
        }
        // reached[j]: the part of the glob seen so far fits the first j bytes of the name.
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        let mut rest = self.text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if first == b'*' {
                let double = tail.first() == Some(&b'*');
                rest = if double { &tail[1..] } else { tail };
                for j in 1..=name.len() {
                    reached[j] |= reached[j - 1] && (double || name[j - 1] != b'/');
                }
            } else {
                rest = tail;
                let mut any = false;
                for j in (1..=name.len()).rev() {
                    reached[j] = reached[j - 1] && name[j - 1] == first;
                    any |= reached[j];
                }
                reached[0] = false;
                if !any {
                    return false;
                }
            }
        }
        reached[name.len()]
    }

    /// The glob that fits every name.
    pub fn every() -> Self {
        Self {
            text: N::EVERY.into(),
            names: PhantomData,
        }
    }

    /// The only name that it fits, if it has no star.
    pub fn name(&self) -> Option<N> {
        self.text.parse().ok()
    }
}

impl<N: Globbed> FromStr for Glob<N> {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            let every = N::EVERY;
            return Err(GlobError(format!(
                "a glob is empty; {every} fits every {}",
                N::WHAT
            )));
        }
        if text.len() > N::BYTES_MAX {
            return Err(GlobError(format!(
                "a glob has {} bytes, more than the {} of the longest {}",
                text.len(),
                N::BYTES_MAX,
                N::WHAT
            )));
        }
        // A letter in the place of stars may have anything beside it, so this is a name if and only if the glob fits one.
        let named = |part: &str| stars_at_most(1, part).replace('*', "a").parse::<N>();
        if let Err(error) = named(text) {
            let in_none = |c: &char| named(&format!("a{c}a")).is_err();
            let culprit = match text.chars().find(in_none) {
                Some(c) => format!("{c:?}"),
                None => {
                    let part = text.split('/').find(|part| named(part).is_err());
                    format!("the part {:?}", part.unwrap_or(text))
                }
            };
            return Err(GlobError(format!(
                "{text:?} can fit no {} because of {culprit}: {error}; {}",
                N::WHAT,
                N::WILDCARDS
            )));
        }
        Ok(Self {
            text: stars_at_most(N::EVERY.len(), text).into(),
            names: PhantomData,
        })
    }
}

/// The text with no more stars in a row than so many: more of them mean nothing else.
fn stars_at_most(n: usize, text: &str) -> String {
    let mut run = 0;
    let mut short = text.to_owned();
    short.retain(|c| {
        run = if c == '*' { run + 1 } else { 0 };
        run <= n
    });
    short
}

impl<N> fmt::Display for Glob<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<N> fmt::Debug for Glob<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl<N: Globbed> TryFrom<String> for Glob<N> {
    type Error = GlobError;

    fn try_from(text: String) -> Result<Self, GlobError> {
        text.parse()
    }
}

impl<N> From<Glob<N>> for String {
    fn from(glob: Glob<N>) -> Self {
        glob.text.into()
    }
}

/// The default of rules about tags.
pub(super) fn every_tag() -> Vec<TagGlob> {
    vec![TagGlob::every()]
}

/// Whether one of the globs fits the tag.
pub(super) fn any_fits(globs: &[TagGlob], tag: &str) -> bool {
    globs.iter().any(|glob| glob.fits(tag))
}

/// What is wrong with a list of globs called `key`, for people.
pub(super) fn globs_fault(key: &str, globs: &[TagGlob]) -> Option<String> {
    globs
        .is_empty()
        .then(|| format!("{key} must name at least one glob; leave it out for all tags"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_whole_names() {
        fn check(glob: &str, name: &str, expected: bool) {
            let parsed: RepositoryGlob = glob.parse().unwrap();
            assert_eq!(parsed.fits(name), expected, "{glob} {name}");
        }
        check("**", "a/b/c", true);
        check("**", "a", true);
        check("*", "a", true);
        check("*", "a/b", false);
        check("a", "a", true);
        check("a", "ab", false);
        check("a", "ba", false);
        check("a", "", false);
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
        check("***", "a/b", true);
        check("*a*", "a", true);
        check("**", &"a".repeat(256), false);
        check(&"*a".repeat(30), &"a".repeat(255), true);
        check(&format!("{}b", "*a".repeat(30)), &"a".repeat(255), false);
    }

    #[test]
    fn a_glob_is_no_longer_than_a_name() {
        fn check<N: Globbed>(glob: &str, expected: Result<&str, &str>) {
            match (glob.parse::<Glob<N>>(), expected) {
                (Ok(glob), Ok(expected)) => assert_eq!(glob.as_str(), expected),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (found, _) => panic!("{glob}: {found:?}"),
            }
        }
        let (name, tag) = ("a".repeat(255), "a".repeat(128));
        check::<RepositoryName>(&name, Ok(&name));
        check::<RepositoryName>(&format!("{name}a"), Err("256 bytes"));
        check::<RepositoryName>(&"*".repeat(255), Ok("**"));
        check::<RepositoryName>("a****/***b*c", Ok("a**/**b*c"));
        check::<Tag>(&tag, Ok(&tag));
        check::<Tag>(&format!("{tag}*"), Err("129 bytes"));
        check::<Tag>("v**", Ok("v*"));
        // What once kept the server busy for half a minute.
        let long = format!("{}z", "**".repeat(500_000));
        check::<RepositoryName>(&long, Err("1000001 bytes"));
        check::<Tag>(&long, Err("1000001 bytes"));
    }

    #[test]
    fn a_glob_that_can_fit_nothing_is_refused_with_its_culprit() {
        fn check<N: Globbed>(glob: &str, culprit: &str) {
            let error = glob.parse::<Glob<N>>().unwrap_err().to_string();
            assert!(error.contains(culprit), "{error}");
            assert!(glob.is_empty() || error.contains(N::WILDCARDS), "{error}");
        }
        check::<Tag>("v[0-9]*", "'['");
        check::<Tag>("{stable,lts}", "'{'");
        check::<Tag>("v?", "'?'");
        check::<Tag>("vi/v1", "'/'");
        check::<Tag>("v1 ", "' '");
        check::<Tag>("\u{1b}[2J", "'\\u{1b}'");
        check::<Tag>("-rc*", "the part \"-rc*\"");
        check::<Tag>("", "is empty");
        check::<RepositoryName>("vi/Debian", "'D'");
        check::<RepositoryName>("vi/debian:12", "':'");
        check::<RepositoryName>("vi/[ab]*", "'['");
        check::<RepositoryName>("vi/", "the part \"\"");
        check::<RepositoryName>("/vi/**", "the part \"\"");
        check::<RepositoryName>("vi/a..*/b", "the part \"a..*\"");
        check::<RepositoryName>("", "is empty");
        for good in ["*-rc*", "v*", "_*", "sha256-*", "*.sig", "A*", "*-"] {
            assert!(good.parse::<TagGlob>().is_ok(), "{good}");
        }
        for good in ["*", "a-*", "a*-b", "**/x", "a__*", "vi/*/*.img"] {
            assert!(good.parse::<RepositoryGlob>().is_ok(), "{good}");
        }
    }

    #[test]
    fn a_glob_without_a_star_is_a_name() {
        fn check(glob: &str, expected: Option<&str>) {
            let name = glob.parse::<RepositoryGlob>().unwrap().name();
            assert_eq!(name.as_ref().map(RepositoryName::as_str), expected);
        }
        check("vi/a", Some("vi/a"));
        check("vi/*", None);
        check("**", None);
    }
}
