//! Deletion, on a clock that stands still until it is told to go on.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::{
    registry::{RegistryOptions, immutable::ImmutableRule},
    testing::{HOUR_MS, WHO, World, about, body, disk, index, name, numbered, thorough},
};

const DO_IT: DeletionOptions = DeletionOptions {
    dry_run: false,
    measure: true,
};
const DRY_RUN: DeletionOptions = DeletionOptions {
    dry_run: true,
    measure: true,
};

/// A registry where everything that is dead goes at once.
async fn world(immutable: Vec<ImmutableRule>) -> World {
    let options = RegistryOptions {
        immutable,
        gc: thorough(),
        ..RegistryOptions::default()
    };
    World::with(options).await
}

impl World {
    /// Pushes a manifest and the config of every image.
    async fn put_whole(&self, target: &str, manifest: &Bytes) -> Digest {
        self.push_config(target.split(':').next().unwrap()).await;
        self.put(target, manifest).await
    }

    async fn delete(
        &self,
        selection: Selection,
        options: DeletionOptions,
    ) -> Result<Deletion, RegistryError> {
        self.registry.delete(&WHO, &selection, options).await
    }

    async fn repositories(&self) -> Vec<String> {
        let all = self.registry.repositories(&WHO, None, 100).await.unwrap();
        all.items.iter().map(RepositoryName::to_string).collect()
    }

    /// Collects garbage when every lease and grace is over; returns how many bytes that freed.
    async fn collect(&self) -> u64 {
        self.registry.store().rotate_packs().await.unwrap();
        let before = self.stored_bytes();
        self.clock.advance_ms(3 * HOUR_MS);
        self.registry.gc().collect(false).await.unwrap();
        before - self.stored_bytes()
    }
}

fn tag(repositories: &str, tags: &str) -> Selection {
    Selection::Tags {
        repositories: repositories.parse().unwrap(),
        tags: tags.parse().unwrap(),
    }
}

fn manifest(repository: &str, digest: Digest) -> Selection {
    Selection::Manifest {
        repository: name(repository),
        digest,
    }
}

fn whole(repositories: &str) -> Selection {
    Selection::Repositories(repositories.parse().unwrap())
}

fn shown(deletion: &Deletion) -> BTreeSet<String> {
    let shown = |item: &Deleted| match &item.tag {
        Some(tag) => format!("{}:{tag}", item.repository),
        None => format!("{}@{}", item.repository, item.digest),
    };
    deletion.named.iter().map(shown).collect()
}

/// About as many bytes as were promised: a pack has a header, a footer, and a few records that are no chunks.
fn assert_freed(promised: Option<u64>, freed: u64) {
    let promised = promised.unwrap();
    assert!(
        freed >= promised && freed <= promised + promised / 50 + 8_192,
        "{freed} bytes freed, {promised} promised"
    );
}

#[tokio::test]
async fn a_tag_goes_with_its_image_and_frees_what_was_promised() {
    let world = world(vec![]).await;
    let (data, other) = (disk(1, 3_000_000), disk(500, 2_000_000));
    let digest = world.push("a:v1", &data).await;
    world.push("a:v2", &other).await;
    let planned = world.delete(tag("a", "v1"), DRY_RUN).await.unwrap();
    assert!(world.holds("a", digest).await, "a dry run does nothing");
    let deleted = world.delete(tag("a", "v1"), DO_IT).await.unwrap();
    assert_eq!(deleted, planned);
    assert_eq!(
        (
            deleted.repositories,
            deleted.tags,
            deleted.manifests,
            deleted.blobs
        ),
        (1, 1, 1, 1)
    );
    assert_eq!(deleted.logical_bytes, 3_000_000);
    assert_eq!(deleted.free_from_ms, 1_001 * HOUR_MS);
    assert!(deleted.failures.is_empty());
    assert!(!world.holds("a", digest).await);
    assert_freed(deleted.freed_bytes, world.collect().await);
}

#[tokio::test]
async fn what_is_shared_is_not_promised() {
    let world = world(vec![]).await;
    let base = disk(1, 3_000_000);
    let mut patched = base.to_vec();
    patched[1_000_000..1_000_010].fill(1);
    // Twice the same within the image: promised once.
    let doubled = Bytes::from([&patched[..], &patched[..]].concat());
    world.push("a:base", &base).await;
    world.push("b:doubled", &doubled).await;
    let deleted = world.delete(whole("b"), DO_IT).await.unwrap();
    assert!(deleted.freed_bytes.unwrap() < 500_000, "{deleted:?}");
    assert!(deleted.freed_bytes.unwrap() > 0, "{deleted:?}");
    assert_eq!(world.repositories().await, ["a"]);
    assert_freed(deleted.freed_bytes, world.collect().await);
    // The same blob in another repository.
    world.push("c:base", &base).await;
    let deleted = world.delete(tag("c", "base"), DO_IT).await.unwrap();
    assert_eq!((deleted.blobs, deleted.freed_bytes), (0, Some(0)));
    // Both together take everything along, and the bytes of small blobs count.
    let both = world.delete(whole("**"), DO_IT).await.unwrap();
    assert_eq!(both.repositories, 2);
    assert!(world.repositories().await.is_empty());
    assert_freed(
        both.freed_bytes.map(|bytes| bytes - 2),
        world.collect().await,
    );
    assert_eq!(world.stored_bytes(), 0);
}

#[tokio::test]
async fn an_upload_in_progress_shares() {
    let world = world(vec![]).await;
    let data = disk(1, 2_000_000);
    world.push("a:v1", &data).await;
    let repository = name("b");
    let upload = world.registry.upload_start(&WHO, &repository, None);
    let id = upload.await.unwrap().id;
    world
        .registry
        .upload_append(&WHO, &repository, &id, None, body(&data))
        .await
        .unwrap();
    let planned = world.delete(tag("a", "v1"), DRY_RUN).await.unwrap();
    assert!(planned.freed_bytes.unwrap() < 200_000, "{planned:?}");
    let quick = DeletionOptions {
        measure: false,
        ..DRY_RUN
    };
    let planned = world.delete(tag("a", "v1"), quick).await.unwrap();
    assert_eq!(planned.freed_bytes, None);
}

#[tokio::test]
async fn what_something_else_needs_stays() {
    let world = world(vec![]).await;
    let children = [
        world.put_whole("a", &numbered(0)).await,
        world.put_whole("a", &numbered(1)).await,
    ];
    let first = world.put_whole("a:first", &index(&children)).await;
    let second = world.put_whole("a:second", &index(&children[..1])).await;
    let signature = world.put_whole("a", &about(first, 10)).await;
    let tagged = world.put_whole("a:about", &about(first, 11)).await;
    let twice = world.put_whole("a:x", &numbered(2)).await;
    world.put_whole("a:y", &numbered(2)).await;
    // The manifest has another tag.
    let deleted = world.delete(tag("a", "x"), DO_IT).await.unwrap();
    assert_eq!((deleted.tags, deleted.manifests), (1, 0));
    assert!(world.holds("a", twice).await);
    // A child of an index cannot go.
    let refused = world.delete(manifest("a", children[0]), DO_IT).await;
    assert!(
        matches!(refused, Err(RegistryError::InUse(_))),
        "{refused:?}"
    );
    // The index goes with its signature and the child that nothing else lists.
    let planned = world.delete(manifest("a", first), DRY_RUN).await.unwrap();
    let deleted = world.delete(manifest("a", first), DO_IT).await.unwrap();
    assert_eq!(shown(&deleted), shown(&planned));
    assert_eq!((deleted.tags, deleted.manifests), (1, 3), "{deleted:?}");
    for (digest, there) in [
        (first, false),
        (children[1], false),
        (signature, false),
        (children[0], true),
        (second, true),
        (tagged, true),
    ] {
        assert_eq!(world.holds("a", digest).await, there, "{digest}");
    }
}

#[tokio::test]
async fn globs_select_tags_and_repositories() {
    let world = world(vec![]).await;
    for (number, target) in ["vi/a:n-1", "vi/a:n-2", "vi/a:v1", "vi/b:n-1", "cvi/a:n-1"]
        .into_iter()
        .enumerate()
    {
        world.put_whole(target, &numbered(number as u32)).await;
    }
    let tags = |deletion: &Deletion| -> Vec<String> {
        let tags = shown(deletion).into_iter();
        tags.filter(|item| !item.contains('@')).collect()
    };
    let planned = world.delete(tag("vi/*", "n-*"), DRY_RUN).await.unwrap();
    assert_eq!(tags(&planned), ["vi/a:n-1", "vi/a:n-2", "vi/b:n-1"]);
    let planned = world.delete(whole("**/a"), DRY_RUN).await.unwrap();
    assert_eq!(planned.repositories, 2);
    let nothing = world.delete(whole("x*"), DO_IT).await.unwrap();
    assert_eq!((nothing.repositories, nothing.freed_bytes), (0, Some(0)));
    // What is named must be there.
    for (selection, named) in [
        (whole("vi"), "vi"),
        (tag("vi", "x"), "vi"),
        (tag("vi/a", "x"), "x"),
        (manifest("vi/a", Digest::sha256(b"x")), "sha256:2d7"),
    ] {
        let refused = world.delete(selection.clone(), DO_IT).await.unwrap_err();
        assert!(
            refused.to_string().contains(named),
            "{selection:?}: {refused}"
        );
    }
    let deleted = world.delete(tag("vi/*", "n-*"), DO_IT).await.unwrap();
    assert_eq!(
        (deleted.repositories, deleted.tags, deleted.manifests),
        (2, 3, 3)
    );
    let deleted = world.delete(whole("vi/**"), DO_IT).await.unwrap();
    assert_eq!((deleted.repositories, deleted.tags), (2, 1));
    assert_eq!(world.repositories().await, ["cvi/a"]);
}

#[tokio::test]
async fn a_whole_repository_goes_with_nested_indexes_and_loose_blobs() {
    let world = world(vec![]).await;
    let child = world.put_whole("a", &numbered(0)).await;
    let inner = world.put_whole("a", &index(&[child])).await;
    world.put_whole("a:top", &index(&[inner])).await;
    world.put_whole("a", &about(child, 1)).await;
    world.push_blob("a", &disk(1, 100_000)).await;
    let deleted = world.delete(whole("a"), DO_IT).await.unwrap();
    assert_eq!((deleted.tags, deleted.manifests, deleted.blobs), (1, 4, 2));
    assert!(deleted.failures.is_empty(), "{deleted:?}");
    assert!(world.repositories().await.is_empty());
    world.collect().await;
    assert_eq!(world.stored_bytes(), 0);
}

#[tokio::test]
async fn immutable_tags_stay_and_are_told() {
    let world = world(vec![ImmutableRule {
        repository: "*".parse().unwrap(),
        tags: vec!["v*".parse().unwrap()],
        except: vec![],
        deletable: false,
    }])
    .await;
    let fixed = world.put_whole("a:v1", &numbered(0)).await;
    world.put_whole("a:other", &numbered(1)).await;
    world.put_whole("b:other", &numbered(1)).await;
    for selection in [tag("a", "v1"), manifest("a", fixed), whole("a")] {
        let refused = world.delete(selection.clone(), DO_IT).await;
        let refused = matches!(refused, Err(RegistryError::TagImmutable { .. }));
        assert!(refused, "{selection:?}");
    }
    let deleted = world.delete(whole("*"), DO_IT).await.unwrap();
    assert_eq!((deleted.repositories, deleted.tags), (1, 1));
    assert_eq!(deleted.failures.len(), 1);
    let failure = &deleted.failures[0];
    assert_eq!((failure.repository.as_str(), &failure.what), ("a", &None));
    assert!(failure.error.contains("v1"), "{failure:?}");
    let deleted = world.delete(tag("a", "*"), DO_IT).await.unwrap();
    assert_eq!((deleted.tags, deleted.manifests), (1, 1));
    assert_eq!(deleted.failures[0].what.as_deref(), Some("v1"));
    assert!(world.holds("a", fixed).await);
}

/// Planning and measuring take a while.
#[tokio::test]
async fn a_tag_that_was_pushed_anew_after_the_plan_stays() {
    let world = world(Vec::new()).await;
    for tag in ["nightly-1", "nightly-2"] {
        world.push(&format!("a:{tag}"), &disk(1, 100_000)).await;
    }
    let selection = Selection::Tags {
        repositories: "a".parse().unwrap(),
        tags: "nightly-*".parse().unwrap(),
    };
    let (inner, mut deletion) = (&world.registry.0, Deletion::default());
    let plan = inner.plan_deletion(&WHO, &selection, &mut deletion).await;
    let plan = plan.unwrap();
    let new = world.push("a:nightly-1", &disk(2, 100_000)).await;
    inner.carry_out(&plan[0], &mut deletion).await.unwrap();
    let named = deletion.named.iter().filter_map(|named| named.tag.as_ref());
    assert_eq!(named.map(Tag::as_str).collect::<Vec<_>>(), ["nightly-2"]);
    assert!(world.holds("a", new).await);
    world.pull("a", &disk(2, 100_000)).await.unwrap();
}
