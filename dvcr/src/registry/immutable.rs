//! Immutable tags: which may not be moved to another manifest, and whether they may be deleted.
//!
//! Pure. The answer is applied inside the transaction that moves or deletes the tag, which fails if the tag changed meanwhile.

use dvcr_core::oci::RepositoryName;

use super::glob::{RepositoryGlob, TagGlob, any_fits, every_tag, globs_fault};

/// Tags that stay what they are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImmutableRule {
    /// Which repositories.
    pub repository: RepositoryGlob,
    /// Which tags; all of them by default.
    #[serde(default = "every_tag")]
    pub tags: Vec<TagGlob>,
    /// Tags that this rule leaves alone though `tags` fits them; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<TagGlob>,
    /// Whether such a tag may be deleted, by whoever may delete tags and by retention; false by default.
    #[serde(default)]
    pub deletable: bool,
}

impl ImmutableRule {
    fn fits(&self, repository: &RepositoryName, tag: &str) -> bool {
        self.repository.fits(repository.as_str())
            && any_fits(&self.tags, tag)
            && !any_fits(&self.except, tag)
    }

    /// What is wrong with the rule, for people.
    pub(crate) fn fault(&self) -> Option<String> {
        globs_fault("tags", &self.tags)
    }
}

/// What may not be done to a tag; the larger, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagLock {
    /// Anything may be done.
    Open,
    /// It does not move to another manifest, but may be deleted.
    Fixed,
    /// It neither moves nor goes, and its manifest stays with it.
    Permanent,
}

/// What may not be done to a tag: the strictest of all rules that fit.
#[must_use]
pub fn lock_of(rules: &[ImmutableRule], repository: &RepositoryName, tag: &str) -> TagLock {
    let fitting = rules.iter().filter(|rule| rule.fits(repository, tag));
    let locks = fitting.map(|rule| match rule.deletable {
        true => TagLock::Fixed,
        false => TagLock::Permanent,
    });
    locks.max().unwrap_or(TagLock::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_rule_that_fits_decides() {
        let rules: Vec<ImmutableRule> = serde_json::from_value(serde_json::json!([
            { "repository": "cvi/**" },
            { "repository": "vi/**", "tags": ["v*", "release-*"], "except": ["*-rc*"], "deletable": true },
            { "repository": "vi/golden/*", "tags": ["v*"] },
        ]))
        .unwrap();
        for (repository, tag, expected) in [
            ("cvi/a", "latest", TagLock::Permanent),
            ("cvi", "latest", TagLock::Open),
            ("vi/a", "v1", TagLock::Fixed),
            ("vi/a", "release-1", TagLock::Fixed),
            ("vi/a", "v1-rc1", TagLock::Open),
            ("vi/a", "latest", TagLock::Open),
            ("vi/golden/a", "v1", TagLock::Permanent),
            ("vi/golden/a", "v1-rc1", TagLock::Permanent),
            ("vi/golden/a", "release-1", TagLock::Fixed),
        ] {
            let name = repository.parse().unwrap();
            assert_eq!(lock_of(&rules, &name, tag), expected, "{repository}:{tag}");
        }
    }

    #[test]
    fn rules_that_cannot_be_meant_are_told() {
        let rule = |tags: &[&str]| ImmutableRule {
            repository: RepositoryGlob::every(),
            tags: tags.iter().map(|glob| glob.parse().unwrap()).collect(),
            except: vec!["latest".parse().unwrap()],
            deletable: false,
        };
        assert_eq!(rule(&["*"]).fault(), None);
        assert!(rule(&[]).fault().is_some());
    }
}
