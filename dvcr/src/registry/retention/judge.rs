//! Which tags of one repository stay: facts in, verdicts out.
//!
//! In two passes, so that memory does not grow with the number of tags: [`Judge::see`] every tag, then [`Judge::judge`] each.

use std::collections::BTreeSet;

use dvcr_core::oci::Digest;

use super::rule::{Keep, RetentionRule};

/// What is known of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagFacts<'a> {
    pub(super) tag: &'a str,
    /// When a push last named it, milliseconds since 1970.
    pub(super) pushed_ms: u64,
    /// It is immutable and may not be deleted.
    pub(super) permanent: bool,
    /// It is named after a manifest ([`subject_of`]), and that manifest is there.
    pub(super) has_subject: bool,
}

/// Whether a tag stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Kept(KeptBy),
    /// No entry of the rule keeps it.
    Removed,
}

/// Why a tag stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// It is immutable and may not be deleted.
    Immutable,
    /// It is named after a manifest that is there, as tools name signatures: it goes when that is gone.
    Subject,
    /// The rule removes no tags.
    NoEntries,
    /// This entry of the rule.
    Entry(usize),
}

/// The manifest that a tag is named after, if it has the form `sha256-HEX` with or without an ending: the referrers tag schema
/// of the distribution specification, and how cosign names signatures.
pub(super) fn subject_of(tag: &str) -> Option<Digest> {
    let rest = tag.strip_prefix("sha256-")?;
    let (hex, ending) = rest.split_at_checked(64)?;
    if !ending.is_empty() && !ending.starts_with('.') {
        return None;
    }
    format!("sha256:{hex}").parse().ok()
}

/// Fewest tags of a repository of which most may not go at once: of fewer, most go whenever some are pushed in a row.
const MOST_OF_MIN: u64 = 10;

/// How many tags a repository has, and how many of them a round would remove. Tags that are named after a manifest do not count:
/// they go because it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) tags: u64,
    pub(super) goes: u64,
}

impl Share {
    /// Whether that is rather a mistake in a rule, or in the clock, than what somebody wants: more than half, or everything.
    pub(super) fn is_too_much(self) -> bool {
        let Self { tags, goes } = self;
        goes > 0 && (goes == tags || tags >= MOST_OF_MIN && goes > tags / 2)
    }
}

/// Applies a rule to the tags of one repository.
pub(super) struct Judge<'a> {
    rule: &'a RetentionRule,
    now_ms: u64,
    /// For each entry, the tags that it keeps by their number: those that were pushed last, the greater name first among
    /// those pushed at once.
    newest: Vec<BTreeSet<(u64, String)>>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(rule: &'a RetentionRule, now_ms: u64) -> Self {
        Self {
            rule,
            now_ms,
            newest: vec![BTreeSet::new(); rule.keep.len()],
        }
    }

    /// First pass: every tag of the repository, in any order.
    pub(super) fn see(&mut self, tag: &str, pushed_ms: u64) {
        if subject_of(tag).is_some() {
            // What is about an image takes no image's place.
            return;
        }
        for (keep, newest) in self.rule.keep.iter().zip(&mut self.newest) {
            let Some(last) = keep.last else { continue };
            let full = newest.len() >= last;
            let is_newer = |first: &(u64, String)| (first.0, first.1.as_str()) < (pushed_ms, tag);
            if keep.is_about(tag) && (!full || newest.first().is_some_and(is_newer)) {
                newest.insert((pushed_ms, tag.to_owned()));
                if newest.len() > last {
                    newest.pop_first();
                }
            }
        }
    }

    /// Second pass.
    pub(super) fn judge(&self, facts: &TagFacts<'_>) -> Verdict {
        if facts.permanent {
            return Verdict::Kept(KeptBy::Immutable);
        }
        if self.rule.keep.is_empty() {
            return Verdict::Kept(KeptBy::NoEntries);
        }
        if facts.has_subject {
            return Verdict::Kept(KeptBy::Subject);
        }
        let named_after = subject_of(facts.tag).is_some();
        let mut entries = self.rule.keep.iter().zip(&self.newest);
        match entries.position(|(keep, newest)| self.keeps(keep, newest, facts, named_after)) {
            Some(entry) => Verdict::Kept(KeptBy::Entry(entry)),
            None => Verdict::Removed,
        }
    }

    fn keeps(
        &self,
        keep: &Keep,
        newest: &BTreeSet<(u64, String)>,
        facts: &TagFacts<'_>,
        named_after: bool,
    ) -> bool {
        if !keep.is_about(facts.tag) {
            return false;
        }
        let within = keep.within.is_none_or(|within| {
            let age_ms = self.now_ms.saturating_sub(facts.pushed_ms);
            u128::from(age_ms) <= within.0.as_millis()
        });
        // A tag that was pushed between the passes is newer than those that were seen.
        let among_last = keep.last.is_none_or(|last| {
            let at = (facts.pushed_ms, facts.tag);
            let reaches = |first: &(u64, String)| at >= (first.0, first.1.as_str());
            !named_after && (newest.len() < last || newest.first().is_some_and(reaches))
        });
        within && among_last
    }

    /// Counts a tag that is there.
    pub(super) fn count(&self, facts: &TagFacts<'_>, share: &mut Share) {
        if subject_of(facts.tag).is_none() {
            share.tags += 1;
            share.goes += u64::from(self.judge(facts) == Verdict::Removed);
        }
    }

    /// The tags that take the places of others. While they are all there, what was removed because of them stays removed
    /// rightly: pushing to them, or pushing other tags, only makes it older.
    pub(super) fn witnesses(&self) -> BTreeSet<&str> {
        let newest = self.newest.iter().flatten();
        newest.map(|(_, tag)| tag.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{registry::glob::RepositoryGlob, settings::Time};

    const DAY_MS: u64 = 86_400_000;
    const NOW_MS: u64 = 1_000 * DAY_MS;

    fn keep(tags: &[&str], last: Option<usize>, days: Option<u64>) -> Keep {
        Keep {
            tags: tags.iter().map(|glob| glob.parse().unwrap()).collect(),
            last,
            within: days.map(|days| Time::hours(24 * days)),
        }
    }

    fn rule(keep: &[Keep]) -> RetentionRule {
        RetentionRule {
            repository: RepositoryGlob::every(),
            untagged_after: None,
            allow_mass_removal: false,
            keep: keep.to_vec(),
        }
    }

    /// Names and ages in days. An exclamation mark says that the tag is permanent, an `@` that its subject is there.
    fn verdicts(rule: &RetentionRule, tags: &[(&str, u64)]) -> Vec<Verdict> {
        let facts: Vec<TagFacts<'_>> = tags
            .iter()
            .map(|(tag, days)| TagFacts {
                tag: tag.trim_matches(['!', '@']),
                pushed_ms: NOW_MS - days * DAY_MS,
                permanent: tag.ends_with('!'),
                has_subject: tag.ends_with('@'),
            })
            .collect();
        let mut judge = Judge::new(rule, NOW_MS);
        for tag in &facts {
            judge.see(tag.tag, tag.pushed_ms);
        }
        facts.iter().map(|tag| judge.judge(tag)).collect()
    }

    #[test]
    fn tags_stay_that_an_entry_keeps() {
        /// A dot is a tag that goes, a number the entry that keeps it.
        fn check(keep: &[Keep], tags: &[(&str, u64)], expected: &str) {
            let verdicts = verdicts(&rule(keep), tags);
            let shown: String = verdicts
                .iter()
                .map(|verdict| match verdict {
                    Verdict::Removed => '.',
                    Verdict::Kept(KeptBy::Entry(entry)) => char::from(b'0' + *entry as u8),
                    Verdict::Kept(KeptBy::Immutable) => '!',
                    Verdict::Kept(KeptBy::Subject) => '@',
                    Verdict::Kept(KeptBy::NoEntries) => 'n',
                })
                .collect();
            assert_eq!(shown, expected, "{keep:?} {tags:?}");
        }
        let tags = [("a", 1), ("b", 2), ("c", 3), ("v1", 400), ("v2", 300)];
        check(&[], &tags, "nnnnn");
        check(&[keep(&["*"], Some(2), None)], &tags, "00...");
        check(&[keep(&["*"], Some(9), None)], &tags, "00000");
        check(&[keep(&["*"], None, Some(2))], &tags, "00...");
        check(&[keep(&["v*"], None, None)], &tags, "...00");
        check(&[keep(&["v*"], Some(1), None)], &tags, "....0");
        let both = [keep(&["*"], Some(1), None), keep(&["v*"], None, None)];
        check(&both, &tags, "0..11");
        let either = [keep(&["*"], Some(1), None), keep(&["*"], None, Some(3))];
        check(&either, &tags, "011..");
        // Pushed at once: the greater name stays.
        check(&[keep(&["*"], Some(1), None)], &[("a", 5), ("b", 5)], ".0");
        // A tag from the future, after a clock was set back, is young.
        check(&[keep(&["*"], None, Some(1))], &[("a", 0)], "0");
    }

    #[test]
    fn immutable_tags_stay_and_take_their_place_among_the_last() {
        let rule = rule(&[keep(&["*"], Some(1), None)]);
        let found = verdicts(&rule, &[("new!", 1), ("old!", 9), ("other", 2)]);
        let immutable = Verdict::Kept(KeptBy::Immutable);
        assert_eq!(found, [immutable, immutable, Verdict::Removed]);
    }

    #[test]
    fn most_of_many_tags_and_all_of_any_are_too_much() {
        for (tags, goes, expected) in [
            (0, 0, false),
            (1, 1, true),
            (1, 0, false),
            (3, 2, false),
            (3, 3, true),
            (9, 8, false),
            (10, 5, false),
            (10, 6, true),
            (11, 5, false),
            (11, 6, true),
            (1_000, 500, false),
            (1_000, 501, true),
        ] {
            let share = Share { tags, goes };
            assert_eq!(share.is_too_much(), expected, "{share:?}");
        }
    }

    #[test]
    fn signatures_do_not_count_as_what_goes() {
        let rule = rule(&[keep(&["v*"], None, None)]);
        let (judge, mut share) = (Judge::new(&rule, NOW_MS), Share::default());
        let signature = format!("sha256-{}.sig", "a".repeat(64));
        for tag in ["v1", "a", &signature] {
            let facts = TagFacts {
                tag,
                pushed_ms: NOW_MS,
                permanent: false,
                has_subject: false,
            };
            judge.count(&facts, &mut share);
        }
        assert_eq!(share, Share { tags: 2, goes: 1 });
    }

    #[test]
    fn signatures_go_with_what_they_sign() {
        let name = |ending: &str| format!("sha256-{}{ending}", "a".repeat(64));
        let rule = rule(&[keep(&["*"], Some(1), None)]);
        let (there, gone) = (name(".sig@"), name(".sig"));
        let found = verdicts(&rule, &[("v1", 5), (&there, 900), (&gone, 1)]);
        let kept = Verdict::Kept(KeptBy::Entry(0));
        let with = Verdict::Kept(KeptBy::Subject);
        assert_eq!(found, [kept, with, Verdict::Removed]);
        for (tag, named) in [
            (name(""), true),
            (name(".sig"), true),
            (name("x"), false),
            ("sha256-aa".to_owned(), false),
            (format!("sha256-{}", "g".repeat(64)), false),
            ("latest".to_owned(), false),
        ] {
            assert_eq!(subject_of(&tag).is_some(), named, "{tag}");
        }
    }

    /// What the rules say, without regard to memory.
    fn model(rule: &RetentionRule, tags: &[TagFacts<'_>]) -> Vec<bool> {
        let kept_by = |keep: &Keep, tag: &TagFacts<'_>| {
            let about: Vec<_> = tags.iter().filter(|tag| keep.is_about(tag.tag)).collect();
            let newer = about
                .iter()
                .filter(|other| (other.pushed_ms, other.tag) > (tag.pushed_ms, tag.tag));
            keep.is_about(tag.tag)
                && keep.last.is_none_or(|last| newer.count() < last)
                && keep
                    .within
                    .is_none_or(|within| u128::from(NOW_MS - tag.pushed_ms) <= within.0.as_millis())
        };
        let kept = |tag: &TagFacts<'_>| {
            tag.permanent || rule.keep.is_empty() || rule.keep.iter().any(|k| kept_by(k, tag))
        };
        tags.iter().map(kept).collect()
    }

    prop_compose! {
        fn any_keep()(
            tags in prop::sample::subsequence(vec!["*", "a*", "b*", "*1"], 1..3),
            last in prop::option::of(1..5_usize),
            days in prop::option::of(1..30_u64),
        ) -> Keep {
            keep(&tags, last, if last.is_some() { None } else { days })
        }
    }

    proptest! {
        #[test]
        fn verdicts_are_those_of_the_simple_model(
            entries in prop::collection::vec(any_keep(), 0..4),
            tags in prop::collection::btree_map("[abc][0-9]", (0..40_u64, prop::bool::weighted(0.1)), 0..30),
            turn in 0..30_usize,
        ) {
            let rule = rule(&entries);
            let facts: Vec<TagFacts<'_>> = tags.iter().map(|(tag, (days, permanent))| TagFacts {
                tag,
                pushed_ms: NOW_MS - days * DAY_MS,
                permanent: *permanent,
                has_subject: false,
            }).collect();
            let mut judge = Judge::new(&rule, NOW_MS);
            let turn = turn.min(facts.len());
            for tag in facts[turn..].iter().chain(&facts[..turn]) {
                judge.see(tag.tag, tag.pushed_ms);
            }
            let found: Vec<bool> = facts.iter().map(|tag| judge.judge(tag) != Verdict::Removed).collect();
            prop_assert_eq!(&found, &model(&rule, &facts));

            // While the witnesses are there, whatever else goes or is pushed again changes no removal.
            let witnesses = judge.witnesses();
            let later: Vec<TagFacts<'_>> = facts.iter().zip(&found)
                .filter(|(tag, kept)| witnesses.contains(tag.tag) || !**kept)
                .map(|(tag, kept)| TagFacts { pushed_ms: if *kept { NOW_MS } else { tag.pushed_ms }, ..*tag })
                .collect();
            for (tag, kept) in later.iter().zip(model(&rule, &later)) {
                prop_assert!(!kept || tag.permanent || witnesses.contains(tag.tag), "{}", tag.tag);
            }
        }
    }
}
