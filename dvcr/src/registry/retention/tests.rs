//! Retention of a registry whose clock stands still until it is told to go on.

mod held;

use std::time::Duration;

use dvcr_core::oci::Reference;

use super::*;
use crate::{
    registry::{RegistryOptions, glob::RepositoryGlob, immutable::ImmutableRule},
    settings::Time,
    testing::{HOUR_MS, WHO, World, about, index, name, numbered},
};

const MINUTE_MS: u64 = 60_000;

/// A registry with rules as in the settings, and a lease of an hour.
async fn world(toml: &str) -> World {
    let set: RetentionSet = toml::from_str(toml).unwrap();
    let options = RegistryOptions {
        retention: set.retention,
        immutable: set.immutable,
        lease: Duration::from_secs(3600),
        ..RegistryOptions::default()
    };
    let world = World::with(options).await;
    for repository in ["vi/a", "vi/golden"] {
        world.push_config(repository).await;
    }
    world
}

impl World {
    async fn has(&self, reference: impl Into<Reference>) -> bool {
        let reference = reference.into();
        let found = self
            .registry
            .manifest_get(&WHO, &name("vi/a"), &reference)
            .await;
        found.is_ok()
    }

    async fn tags(&self, repository: &str) -> Vec<String> {
        let tags = self
            .registry
            .tags(&WHO, &name(repository), None, 1_000)
            .await;
        tags.unwrap().items.iter().map(Tag::to_string).collect()
    }

    async fn round_after(&self, minutes: u64) -> (u64, u64) {
        self.clock.advance_ms(minutes * MINUTE_MS);
        let retained = self.registry.retain(false).await.unwrap();
        let Retained {
            tags, manifests, ..
        } = retained;
        (tags, manifests)
    }
}

const LAST_TWO: &str = r#"
    [[retention]]
    repository = "vi/golden"

    [[retention]]
    repository = "vi/**"
    keep = [{ last = 2 }, { tags = ["v*"] }]
"#;

#[tokio::test]
async fn without_rules_nothing_goes() {
    let world = world("").await;
    let old = world.put("vi/a:latest", &numbered(0)).await;
    world.put("vi/a:latest", &numbered(1)).await;
    let alone = world.put("vi/a", &numbered(2)).await;
    assert_eq!(world.round_after(100_000).await, (0, 0));
    assert!(world.has(old).await && world.has(alone).await);
}

#[tokio::test]
async fn tags_that_no_entry_keeps_go_and_their_manifests_after_a_lease() {
    let world = world(LAST_TWO).await;
    let mut digests = Vec::new();
    for (number, tag) in ["v1", "a", "b", "c"].into_iter().enumerate() {
        digests.push(
            world
                .put(&format!("vi/a:{tag}"), &numbered(number as u32))
                .await,
        );
        world
            .put(&format!("vi/golden:{tag}"), &numbered(number as u32))
            .await;
        world.clock.advance_ms(1);
    }
    assert_eq!(world.round_after(0).await, (1, 0));
    assert_eq!(world.tags("vi/a").await, ["b", "c", "v1"]);
    assert_eq!(world.tags("vi/golden").await, ["a", "b", "c", "v1"]);
    assert!(
        world.holds("vi/a", digests[1]).await,
        "a push may just have found it"
    );
    assert_eq!(world.round_after(59).await, (0, 0));
    assert_eq!(world.round_after(1).await, (0, 1));
    assert!(!world.holds("vi/a", digests[1]).await && world.holds("vi/a", digests[0]).await);
    assert_eq!(world.round_after(100_000).await, (0, 0));
}

#[tokio::test]
async fn a_push_of_what_is_there_makes_a_tag_young_again() {
    let world = world(LAST_TWO).await;
    for (number, tag) in ["a", "b", "c"].into_iter().enumerate() {
        world
            .put(&format!("vi/a:{tag}"), &numbered(number as u32))
            .await;
        world.clock.advance_ms(1);
    }
    world.put("vi/a:a", &numbered(0)).await;
    assert_eq!(world.round_after(0).await, (1, 0));
    assert_eq!(world.tags("vi/a").await, ["a", "c"]);
}

#[tokio::test]
async fn a_manifest_that_another_tag_names_stays() {
    let world = world(LAST_TWO).await;
    let digest = world.put("vi/a:a", &numbered(0)).await;
    world.put("vi/a:v1", &numbered(0)).await;
    for (number, tag) in ["b", "c"].into_iter().enumerate() {
        world.clock.advance_ms(1);
        world
            .put(&format!("vi/a:{tag}"), &numbered(number as u32 + 1))
            .await;
    }
    assert_eq!(world.round_after(0).await, (1, 0));
    assert_eq!(world.round_after(10_000).await, (0, 0));
    assert!(world.holds("vi/a", digest).await);
}

#[tokio::test]
async fn what_hangs_on_a_manifest_goes_with_it() {
    let world = world(LAST_TWO).await;
    let children = [
        world.put("vi/a", &numbered(0)).await,
        world.put("vi/a", &numbered(1)).await,
    ];
    let first = world.put("vi/a:a", &index(&children)).await;
    let signature = world.put("vi/a", &about(first, 10)).await;
    let of_signature = world.put("vi/a", &about(signature, 11)).await;
    let tagged = world.put("vi/a:v-about", &about(first, 12)).await;
    // Another index needs one of the children.
    let second = world.put("vi/a:v2", &index(&children[..1])).await;
    for (number, tag) in ["b", "c"].into_iter().enumerate() {
        world.clock.advance_ms(1);
        world
            .put(&format!("vi/a:{tag}"), &numbered(number as u32 + 2))
            .await;
    }
    assert_eq!(world.round_after(10_000).await, (1, 0), "only a");
    assert_eq!(world.round_after(60).await, (0, 1), "the index");
    assert_eq!(
        world.round_after(60).await,
        (0, 2),
        "its child, its signature"
    );
    assert_eq!(
        world.round_after(60).await,
        (0, 1),
        "what is about the signature"
    );
    assert_eq!(world.round_after(10_000).await, (0, 0));
    for (digest, there) in [
        (first, false),
        (children[1], false),
        (signature, false),
        (of_signature, false),
        (children[0], true),
        (second, true),
        (tagged, true),
    ] {
        assert_eq!(world.holds("vi/a", digest).await, there, "{digest}");
    }
}

const UNTAGGED: &str = r#"
    [[retention]]
    repository = "vi/**"
    untagged_after = "24h"
"#;
const DAY: u64 = 24 * 60;

#[tokio::test]
async fn untagged_manifests_go_after_their_time_unless_something_needs_them() {
    let world = world(UNTAGGED).await;
    let moved = world.put("vi/a:latest", &numbered(0)).await;
    let child = world.put("vi/a", &numbered(1)).await;
    let listed = world.put("vi/a:index", &index(&[child])).await;
    let signature = world.put("vi/a", &about(listed, 10)).await;
    let orphan = world
        .put("vi/a", &about(Digest::sha256(b"absent"), 11))
        .await;
    assert_eq!(world.round_after(DAY / 2).await, (0, 0));
    world.put("vi/a:latest", &numbered(2)).await;
    assert_eq!(world.round_after(DAY / 2).await, (0, 1), "the orphan");
    assert_eq!(
        world.round_after(DAY / 2).await,
        (0, 1),
        "what the tag named"
    );
    assert_eq!(world.round_after(100 * DAY).await, (0, 0));
    for (digest, there) in [
        (moved, false),
        (orphan, false),
        (child, true),
        (listed, true),
        (signature, true),
    ] {
        assert_eq!(world.holds("vi/a", digest).await, there, "{digest}");
    }
    // A client of the distribution API removes the index alone; the rule takes the rest.
    world
        .registry
        .manifest_delete(&WHO, &name("vi/a"), &listed.into())
        .await
        .unwrap();
    assert_eq!(world.round_after(DAY - 1).await, (0, 0));
    assert_eq!(world.round_after(1).await, (0, 2));
    assert!(!world.holds("vi/a", child).await && !world.holds("vi/a", signature).await);
}

#[tokio::test]
async fn asking_for_an_untagged_manifest_by_digest_makes_it_young_again() {
    let world = world(UNTAGGED).await;
    let digest = world.put("vi/a", &numbered(0)).await;
    for _ in 0..3 {
        assert_eq!(world.round_after(DAY - 1).await, (0, 0));
        assert!(world.has(digest).await);
    }
    world.put("vi/a", &numbered(0)).await;
    assert_eq!(world.round_after(DAY - 1).await, (0, 0));
    assert_eq!(world.round_after(1).await, (0, 1));
    assert!(!world.has(digest).await);
}

#[tokio::test]
async fn a_push_that_finds_a_manifest_can_list_it() {
    let world = world(LAST_TWO).await;
    let child = world.put("vi/a:a", &numbered(0)).await;
    for (number, tag) in ["b", "c"].into_iter().enumerate() {
        world.clock.advance_ms(1);
        world
            .put(&format!("vi/a:{tag}"), &numbered(number as u32 + 1))
            .await;
    }
    assert!(world.has(child).await);
    assert_eq!(world.round_after(1).await, (1, 0));
    // An hour after its tag went, somebody asks for it again, and has half an hour at least.
    assert_eq!(world.round_after(50).await, (0, 0));
    assert!(world.has(child).await);
    assert_eq!(world.round_after(30).await, (0, 0));
    world.put("vi/a:v-index", &index(&[child])).await;
    assert_eq!(world.round_after(60).await, (1, 0), "b, which is third");
    assert_eq!(world.round_after(60).await, (0, 1), "what it named");
    assert_eq!(world.round_after(10_000).await, (0, 0));
    assert!(world.holds("vi/a", child).await);
}

#[tokio::test]
async fn immutable_tags_neither_move_nor_go() {
    let world = world(
        r#"
        [[immutable]]
        repository = "vi/**"
        except = ["latest"]

        [[retention]]
        repository = "vi/**"
        keep = [{ last = 1 }]
        "#,
    )
    .await;
    let digest = world.put("vi/a:v1", &numbered(0)).await;
    let tag: Reference = "v1".parse().unwrap();
    let moved = world.try_put("vi/a", &tag, &numbered(1)).await;
    assert!(
        matches!(&moved, Err(RegistryError::TagImmutable { digest: d, .. }) if *d == digest),
        "{moved:?}"
    );
    assert!(
        !world.has(Digest::sha256(&numbered(1))).await,
        "all or nothing"
    );
    // By the parameter of a push by digest, too.
    let other = numbered(2);
    let tags = ["latest".parse().unwrap(), "v1".parse().unwrap()];
    let by_digest = Reference::Digest(Digest::sha256(&other));
    let repository = name("vi/a");
    let put = world
        .registry
        .manifest_put(&WHO, &repository, &by_digest, &tags, None, other);
    assert!(put.await.is_err());
    assert_eq!(world.tags("vi/a").await, ["v1"]);
    world.put("vi/a:v1", &numbered(0)).await;
    // Nor do the tag and its manifest go.
    for reference in [tag, digest.into()] {
        let deleted = world
            .registry
            .manifest_delete(&WHO, &name("vi/a"), &reference)
            .await;
        assert!(
            matches!(deleted, Err(RegistryError::TagImmutable { .. })),
            "{deleted:?}"
        );
    }
    world.clock.advance_ms(1);
    world.put("vi/a:latest", &numbered(3)).await;
    world.put("vi/a:latest", &numbered(4)).await;
    assert_eq!(world.round_after(10_000).await, (0, 0));
    assert_eq!(world.tags("vi/a").await, ["latest", "v1"]);
}

#[tokio::test]
async fn immutable_tags_go_where_their_rule_says_so() {
    let world = world(
        r#"
        [[immutable]]
        repository = "vi/**"
        deletable = true

        [[retention]]
        repository = "vi/**"
        allow_mass_removal = true
        keep = [{ within = "1h" }]
        "#,
    )
    .await;
    let tag: Reference = "v1".parse().unwrap();
    world.put("vi/a:v1", &numbered(0)).await;
    assert!(world.try_put("vi/a", &tag, &numbered(1)).await.is_err());
    world
        .registry
        .manifest_delete(&WHO, &name("vi/a"), &tag)
        .await
        .unwrap();
    world.put("vi/a:v1", &numbered(1)).await;
    assert_eq!(world.round_after(60).await, (0, 0));
    // The manifest that was deleted by its tag is an untagged one, which no rule takes here.
    assert_eq!(world.round_after(1).await, (1, 0));
}

#[tokio::test]
async fn what_somebody_changes_meanwhile_is_judged_again() {
    let world = world(LAST_TWO).await;
    for (number, tag) in ["a", "b", "c"].into_iter().enumerate() {
        world
            .put(&format!("vi/a:{tag}"), &numbered(number as u32))
            .await;
        world.clock.advance_ms(1);
    }
    let inner = &world.registry.0;
    let repository = name("vi/a");
    let (no, rule) = rule_of(&inner.options.retention, &repository).unwrap();
    // Seen when a, b and c were there; then c goes, so that a would be among the last two.
    let judge = inner.see_tags(&repository, rule).await.unwrap();
    let gone: Tag = "c".parse().unwrap();
    inner
        .remove_tag(&repository, &gone, None, inner.stays())
        .await
        .unwrap();
    let judged = inner.remove_judged(&repository, no, &judge).await.unwrap();
    assert_eq!(judged, (0, false));
    assert_eq!(world.round_after(0).await, (0, 0));
    assert_eq!(world.tags("vi/a").await, ["a", "b"]);
    // What is pushed meanwhile neither hinders nor goes.
    world.put("vi/a:d", &numbered(9)).await;
    let judge = inner.see_tags(&repository, rule).await.unwrap();
    world.clock.advance_ms(1);
    world.put("vi/a:e", &numbered(9)).await;
    let judged = inner.remove_judged(&repository, no, &judge).await.unwrap();
    assert_eq!(judged, (1, true));
    assert_eq!(world.tags("vi/a").await, ["b", "d", "e"]);
}

#[tokio::test]
async fn a_signature_tag_goes_with_its_manifest() {
    let world = world(LAST_TWO).await;
    let signed = world.put("vi/a:a", &numbered(0)).await;
    let signature = format!("sha256-{}.sig", signed.hex());
    world.put(&format!("vi/a:{signature}"), &numbered(1)).await;
    for (number, tag) in ["b", "c"].into_iter().enumerate() {
        world.clock.advance_ms(1);
        world
            .put(&format!("vi/a:{tag}"), &numbered(number as u32 + 2))
            .await;
    }
    assert_eq!(world.round_after(0).await, (1, 0), "a");
    assert_eq!(world.round_after(60).await, (0, 1), "what it named");
    assert_eq!(world.round_after(0).await, (1, 0), "the signature's tag");
    assert_eq!(world.tags("vi/a").await, ["b", "c"]);
}

#[tokio::test]
async fn a_plan_says_what_goes_and_by_which_rule_page_by_page() {
    let world = world(LAST_TWO).await;
    for (number, tag) in ["v1", "a", "b", "c"].into_iter().enumerate() {
        world
            .put(&format!("vi/a:{tag}"), &numbered(number as u32))
            .await;
        world
            .put(&format!("vi/golden:{tag}"), &numbered(number as u32))
            .await;
        world.clock.advance_ms(1);
    }
    let alone = world.put("vi/a", &numbered(20)).await;
    let tried = RetentionSet {
        retention: vec![RetentionRule {
            repository: "vi/a".parse().unwrap(),
            untagged_after: Some(Time::hours(1)),
            allow_mass_removal: true,
            keep: vec![],
        }],
        immutable: vec![ImmutableRule {
            repository: "vi/a".parse().unwrap(),
            tags: vec!["a".parse().unwrap()],
            except: vec![],
            deletable: false,
        }],
    };
    world.clock.advance_ms(2 * HOUR_MS);
    let plan = async |rules: Option<&RetentionSet>, glob: Option<&RepositoryGlob>, page: usize| {
        let (mut lines, mut after) = (Vec::new(), None::<PlanCursor>);
        loop {
            let (items, next) = world
                .registry
                .retention_plan(&WHO, rules, glob, after.as_ref(), page)
                .await
                .unwrap();
            assert!(items.len() <= page);
            lines.extend(items.into_iter().map(|item| {
                let name = item
                    .tag
                    .map_or("untagged".to_owned(), |tag| tag.to_string());
                let kept = if item.kept { "stays" } else { "goes" };
                format!("{}:{name} {kept}: {}", item.repository, item.reason)
            }));
            match next {
                Some(next) => after = Some(next.to_string().parse().unwrap()),
                None => return lines,
            }
        }
    };
    let whole = plan(None, None, 1_000).await;
    assert_eq!(
        whole,
        [
            "vi/a:a goes: retention[1]: no entry keeps it",
            "vi/a:b stays: retention[1].keep[0]: last 2 of *",
            "vi/a:c stays: retention[1].keep[0]: last 2 of *",
            "vi/a:v1 stays: retention[1].keep[1]: v*",
            "vi/a:untagged stays: retention[1] does not say otherwise",
            "vi/golden:a stays: retention[0] does not say otherwise",
            "vi/golden:b stays: retention[0] does not say otherwise",
            "vi/golden:c stays: retention[0] does not say otherwise",
            "vi/golden:v1 stays: retention[0] does not say otherwise",
        ]
    );
    for page in 1..10 {
        assert_eq!(plan(None, None, page).await, whole, "{page}");
    }
    assert_eq!(
        plan(Some(&tried), Some(&"*/a".parse().unwrap()), 3).await,
        [
            "vi/a:a stays: immutable",
            "vi/a:b stays: retention[0] does not say otherwise",
            "vi/a:c stays: retention[0] does not say otherwise",
            "vi/a:v1 stays: retention[0] does not say otherwise",
            "vi/a:untagged goes: retention[0].untagged_after: 1h",
        ]
    );
    assert!(world.holds("vi/a", alone).await, "a plan changes nothing");
    let mut wrong = tried;
    wrong.retention[0].untagged_after = Some(Time::seconds(1));
    let refused = world
        .registry
        .retention_plan(&WHO, Some(&wrong), None, None, 10)
        .await;
    assert!(
        matches!(refused, Err(RegistryError::Invalid(_))),
        "{refused:?}"
    );
}
