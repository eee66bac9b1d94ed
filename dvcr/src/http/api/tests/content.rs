//! What is stored.

use dvcr_openapi::{ChildRole, ManifestKind, ReferrersQuery, UsageQuery};

use super::*;

#[tokio::test]
async fn repositories_are_listed_in_pages_and_by_prefix() {
    let world = World::default().await;
    let layer = disk(1, 10_000);
    for name in ["vi/a", "vi/b", "vj", "cvi/a/b"] {
        world.push(name, "v1", &layer).await;
    }
    world.push("vi/b", "v2", &disk(2, 10_000)).await;
    let names = async |prefix: Option<&str>, limit: u32| {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let found = world.client.repositories(prefix, &page(limit, after)).await;
            let found = found.unwrap();
            assert!(!found.items.is_empty() && found.items.len() <= limit as usize);
            names.extend(
                found
                    .items
                    .into_iter()
                    .map(|r| format!("{} {}", r.name, r.tags)),
            );
            after = found.next;
            if after.is_none() {
                return names;
            }
        }
    };
    for limit in [1, 2, 3, 4, 100] {
        assert_eq!(
            names(None, limit).await,
            ["cvi/a/b 1", "vi/a 1", "vi/b 2", "vj 1"]
        );
        assert_eq!(names(Some("vi/"), limit).await, ["vi/a 1", "vi/b 2"]);
    }
    let found = world.client.repositories(Some("x"), &page(1, None)).await;
    assert_eq!(found.unwrap().items, []);

    let detail = world.client.repository("vi/b").await.unwrap();
    assert_eq!(detail.created_at, Timestamp(BEGIN_MS));
    assert_eq!((detail.tags, detail.manifests, detail.blobs), (2, 2, 3));
    assert_eq!(detail.logical_bytes, 20_002);
    let error = world.client.repository("vi/none").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "NAME_UNKNOWN");
}

#[tokio::test]
async fn manifests_are_shown_with_what_they_name_and_who_names_them() {
    let world = World::default().await;
    let (first, second) = (disk(1, 100_000), disk(2, 50_000));
    let a = world.push("vi/a", "a", &first).await;
    let b = world.push("vi/a", "b", &second).await;
    let entry = |digest: &Digest, size: usize| serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size});
    let lens = [a, b].map(|digest| entry(&digest, 1));
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": lens});
    let index = world.put("vi/a", "all", index.to_string().into()).await;
    let mut signature = image(&Digest::sha256(&first), first.len());
    signature["subject"] = entry(&index, 1);
    signature["artifactType"] = "application/x.sig".into();
    signature["annotations"] = serde_json::json!({"by": "me"});
    let signature = signature.to_string();
    let signed_by = Digest::sha256(signature.as_bytes());
    world
        .put("vi/a", &signed_by.to_string(), signature.into())
        .await;

    let tags = all(async |page| world.client.tags("vi/a", &page).await)
        .await
        .unwrap();
    let told: Vec<_> = tags
        .iter()
        .map(|tag| {
            let manifest = tag.manifest.as_ref().unwrap();
            assert_eq!(manifest.tags, [tag.name.as_str()]);
            (tag.name.as_str(), manifest.kind, manifest.content_bytes)
        })
        .collect();
    // The config of both images is the same blob: once in the index.
    assert_eq!(
        told,
        [
            ("a", Some(ManifestKind::Image), 100_002),
            ("all", Some(ManifestKind::Index), 150_002),
            ("b", Some(ManifestKind::Image), 50_002),
        ]
    );

    let detail = world.client.manifest("vi/a", "all").await.unwrap();
    assert_eq!(detail.manifest.digest, index.to_string());
    assert_eq!(detail.referrers, 1);
    let children: Vec<_> = detail
        .children
        .iter()
        .map(|c| (c.role, c.present))
        .collect();
    assert_eq!(children, [(ChildRole::Manifest, true); 2]);
    let detail = world.client.manifest("vi/a", &a.to_string()).await.unwrap();
    let roles: Vec<_> = detail.children.iter().map(|child| child.role).collect();
    assert_eq!(roles, [ChildRole::Config, ChildRole::Layer]);
    assert_eq!(detail.children[1].bytes, 100_000);

    let query = ReferrersQuery {
        repository: "vi/a".into(),
        digest: index.to_string(),
        artifact_type: Some("application/x.sig".into()),
    };
    let found = world.client.referrers(&query, &PageQuery::default()).await;
    let found = found.unwrap();
    assert_eq!(found.items[0].digest, signed_by.to_string());
    assert_eq!(found.items[0].annotations["by"], "me");
    let other = ReferrersQuery {
        artifact_type: Some("x".into()),
        ..query
    };
    let found = world.client.referrers(&other, &PageQuery::default()).await;
    assert_eq!(found.unwrap().items, []);

    for limit in [1, 3, 100] {
        let (mut digests, mut after) = (Vec::new(), None);
        loop {
            let found = world
                .client
                .manifests("vi/a", &page(limit, after))
                .await
                .unwrap();
            digests.extend(found.items.into_iter().map(|m| m.digest));
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        let mut expected = [a, b, index, signed_by];
        expected.sort();
        assert_eq!(
            digests,
            expected.map(|digest| digest.to_string()),
            "{limit}"
        );
    }
}

#[tokio::test]
async fn blobs_are_shown_with_what_they_take_and_share() {
    let world = World::default().await;
    let base = disk(1, 3_000_000);
    let mut patched = base.to_vec();
    patched[1_000_000..1_000_010].fill(1);
    let patched = Bytes::from(patched);
    let digest = world.push_blob("vi/a", &base).await;
    let alone = world
        .client
        .blob(Some("vi/a"), &digest.to_string())
        .await
        .unwrap();
    assert_eq!((alone.logical_bytes, alone.shared_bytes), (3_000_000, 0));
    assert!(
        alone.stored_bytes > 500_000 && alone.chunks > 10,
        "{alone:?}"
    );
    world.push_blob("vi/b", &patched).await;
    world.push_blob("vi/b", &base).await;
    let shared = world.client.blob(None, &digest.to_string()).await.unwrap();
    assert_eq!(shared.stored_bytes, alone.stored_bytes);
    assert!(shared.shared_bytes > alone.stored_bytes / 2, "{shared:?}");
    assert!(shared.shared_bytes < alone.stored_bytes, "{shared:?}");
    assert_eq!(shared.repositories, ["vi/a", "vi/b"]);

    let stats = world.client.stats(Some("vi/a")).await.unwrap();
    assert_eq!(
        stats.shared_bytes,
        Some(stats.stored_bytes),
        "vi/b has all of it"
    );
    let in_b = world
        .client
        .blobs(Some("vi/b"), &page(1, None))
        .await
        .unwrap();
    let rest = world
        .client
        .blobs(Some("vi/b"), &page(1, in_b.next))
        .await
        .unwrap();
    assert_eq!(
        (in_b.items.len(), rest.items.len(), rest.next),
        (1, 1, None)
    );
    let lease = rest.items[0].lease_until;
    assert_eq!(lease, Some(Timestamp(BEGIN_MS + HOUR_MS)));
    let everywhere = world
        .client
        .blobs(None, &PageQuery::default())
        .await
        .unwrap();
    assert_eq!(everywhere.items.len(), 2);
    // A blob is told of only through a repository that holds it.
    let patched = Digest::sha256(&patched).to_string();
    let error = world.client.blob(Some("vi/a"), &patched).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn usage_is_noted_every_ten_minutes_and_told_by_time() {
    let world = World::default().await;
    world.push_blob("vi/a", &disk(1, 1_000_000)).await;
    let mut noted = 0;
    for _ in 0..61 {
        let sizes = world.registry.sizes().await.unwrap();
        noted += u32::from(world.registry.note_usage(sizes).await.unwrap());
        world.clock.advance_ms(60_000);
    }
    assert_eq!(noted, 7);
    let samples = async |query: UsageQuery| {
        all(async |page| world.client.usage(&query, &page).await)
            .await
            .unwrap()
    };
    let all_samples = samples(UsageQuery::default()).await;
    assert_eq!(all_samples.len(), 7);
    let first = all_samples[0];
    assert_eq!((first.at, first.blobs), (Timestamp(BEGIN_MS), 1));
    assert_eq!(first.logical_bytes, 1_000_000);
    assert!(
        first.chunks > 5 && first.stored_bytes > 100_000,
        "{first:?}"
    );
    let some = UsageQuery {
        from: Some(all_samples[2].at),
        to: Some(all_samples[5].at),
    };
    assert_eq!(samples(some.clone()).await, all_samples[2..5]);
    let begin = world.client.usage(&some, &page(2, None)).await.unwrap();
    let end = world
        .client
        .usage(&some, &page(2, begin.next))
        .await
        .unwrap();
    assert_eq!((begin.items.len(), &end.items[..]), (2, &all_samples[4..5]));
    assert_eq!(end.next, None);
}
