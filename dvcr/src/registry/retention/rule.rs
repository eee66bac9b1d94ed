//! Retention rules, as they stand in the settings.

use std::{fmt, time::Duration};

use dvcr_core::oci::RepositoryName;
use serde::{Deserialize, Serialize};

use crate::{
    registry::{
        glob::{RepositoryGlob, TagGlob, any_fits, every_tag, globs_fault},
        immutable::ImmutableRule,
    },
    settings::Time,
};

/// Most tags that one entry keeps by their number: each is a check of the transactions that remove others.
const LAST_MAX: usize = 1_000;

/// Most entries of a rule.
const KEEP_MAX: usize = 32;

/// Longest time in a rule: ten years.
const TIME_MAX: Time = Time::hours(10 * 365 * 24);

/// What goes from the repositories that a glob fits. The first rule that fits a repository is the only one for it; where none
/// fits, nothing goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Which repositories.
    pub repository: RepositoryGlob,
    /// How long a manifest stays that has no tag, is in no index, and is about no other manifest; none: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged_after: Option<Time>,
    /// Whether one round may remove most tags of a repository, or all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_mass_removal: bool,
    /// Which tags stay: those that at least one entry keeps. Without an entry all do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Keep>,
}

/// Tags that stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The tags that this entry is about; all of them by default.
    #[serde(default = "every_tag")]
    pub tags: Vec<TagGlob>,
    /// Of those, only so many: the ones that were pushed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Of those, only the ones that were pushed within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Time>,
}

impl Keep {
    /// Whether the entry is about the tag.
    pub(super) fn is_about(&self, tag: &str) -> bool {
        any_fits(&self.tags, tag)
    }

    fn fault(&self) -> Option<String> {
        let Self { tags, last, within } = self;
        if let Some(fault) = globs_fault("tags", tags) {
            return Some(fault);
        }
        match (last, within) {
            (Some(_), Some(_)) => Some(
                "last and within in one entry could mean both or either: write an entry for each to keep what either keeps".to_owned(),
            ),
            (Some(last), None) if *last == 0 || *last > LAST_MAX => {
                Some(format!("last is {last}, but must be 1 to {LAST_MAX}"))
            }
            (None, Some(within)) if *within < Time::seconds(60) || *within > TIME_MAX => {
                Some(format!("within is {within}, but must be 1m to {TIME_MAX}"))
            }
            (None, None) if self.is_about("any") && self.is_about("0") => Some(
                "an entry that is about every tag, without last or within, keeps every tag: leave keep out instead".to_owned(),
            ),
            _ => None,
        }
    }
}

/// For people: `last 10 of nightly-*`.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags: Vec<&str> = self.tags.iter().map(TagGlob::as_str).collect();
        let tags = tags.join(", ");
        match (self.last, self.within) {
            (Some(last), _) => write!(f, "last {last} of {tags}"),
            (None, Some(within)) => write!(f, "{tags} within {within}"),
            (None, None) => f.write_str(&tags),
        }
    }
}

impl RetentionRule {
    /// What is wrong with the rule, for people. A manifest must outlive the lease, so that a push that finds it can refer to it.
    fn fault(&self, lease: Duration) -> Option<String> {
        let Self {
            repository: _,
            untagged_after,
            allow_mass_removal: _,
            keep,
        } = self;
        if let Some(after) = untagged_after
            && (after.0 < lease || *after > TIME_MAX)
        {
            let lease = Time(lease);
            return Some(format!(
                "untagged_after is {after}, but must be {lease} (lease) to {TIME_MAX}"
            ));
        }
        if keep.len() > KEEP_MAX {
            return Some(format!("keep has more than {KEEP_MAX} entries"));
        }
        let mut faults = keep.iter().enumerate().filter_map(|(no, keep)| {
            let fault = keep.fault()?;
            Some(format!("keep[{no}]: {fault}"))
        });
        faults.next()
    }
}

/// What is wrong with rules, each fault with the rule that has it.
pub(crate) fn rule_faults(
    retention: &[RetentionRule],
    immutable: &[ImmutableRule],
    lease: Duration,
) -> Vec<String> {
    let retention = retention.iter().enumerate();
    let retention =
        retention.filter_map(|(no, rule)| Some(format!("retention[{no}]: {}", rule.fault(lease)?)));
    let immutable = immutable.iter().enumerate();
    let immutable =
        immutable.filter_map(|(no, rule)| Some(format!("immutable[{no}]: {}", rule.fault()?)));
    immutable.chain(retention).collect()
}

/// The rule for a repository, and its number.
pub(super) fn rule_of<'a>(
    rules: &'a [RetentionRule],
    repository: &RepositoryName,
) -> Option<(usize, &'a RetentionRule)> {
    let fits = |rule: &RetentionRule| rule.repository.fits(repository.as_str());
    rules.iter().enumerate().find(|(_, rule)| fits(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(toml: &str) -> Vec<RetentionRule> {
        #[derive(Deserialize)]
        struct File {
            retention: Vec<RetentionRule>,
        }
        toml::from_str::<File>(toml).unwrap().retention
    }

    #[test]
    fn the_first_rule_that_fits_is_the_only_one() {
        let rules = rules(
            r#"
            [[retention]]
            repository = "vi/golden/**"

            [[retention]]
            repository = "vi/**"
            untagged_after = "24h"
            [[retention.keep]]
            last = 3
            "#,
        );
        for (repository, expected) in [("vi/golden/a", Some(0)), ("vi/a", Some(1)), ("cvi/a", None)]
        {
            let name = repository.parse().unwrap();
            let found = rule_of(&rules, &name).map(|(no, _)| no);
            assert_eq!(found, expected, "{repository}");
        }
    }

    #[test]
    fn rules_that_cannot_be_meant_are_told() {
        fn check(rest: &str, expected: Option<&str>) {
            let rules = rules(&format!("[[retention]]\nrepository = \"**\"\n{rest}"));
            let fault = rules[0].fault(Duration::from_secs(3600));
            match expected {
                None => assert_eq!(fault, None, "{rest}"),
                Some(words) => assert!(
                    fault.as_ref().is_some_and(|fault| fault.contains(words)),
                    "{rest}: {fault:?}"
                ),
            }
        }
        check("", None);
        check("untagged_after = \"1h\"", None);
        check("untagged_after = \"59m\"", Some("lease"));
        check("untagged_after = \"3651d\"", Some("untagged_after"));
        check("keep = [{ last = 1 }, { tags = [\"v*\"] }]", None);
        check("keep = [{ within = \"30d\" }]", None);
        check("keep = [{ last = 0 }]", Some("keep[0]"));
        check("keep = [{ last = 1001 }]", Some("1000"));
        check("keep = [{ within = \"1s\" }]", Some("within"));
        check("keep = [{ last = 1 }, {}]", Some("keep[1]"));
        check("keep = [{ tags = [\"**\"] }]", Some("every tag"));
        check("keep = [{ last = 1, within = \"1d\" }]", Some("either"));
        check("keep = [{ last = 1, tags = [] }]", Some("tags"));
    }

    #[test]
    fn entries_are_told_in_words() {
        let rules = rules(
            "[[retention]]\nrepository = \"**\"\nkeep = [{ last = 2 }, { tags = [\"a\", \"b*\"] }, { within = \"30d\" }]",
        );
        let told: Vec<String> = rules[0].keep.iter().map(Keep::to_string).collect();
        assert_eq!(told, ["last 2 of *", "a, b*", "* within 720h"]);
    }
}
