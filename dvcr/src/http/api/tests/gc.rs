//! Garbage collection.

use dvcr_openapi::{GcRun, GcRunRequest, GcRunState, GcTrigger};

use super::*;

impl World {
    async fn collect(&self, how: GcRunRequest) -> GcRun {
        let mut run = self.client.gc_start(&how).await.unwrap();
        while !run.state.is_over() {
            tokio::task::yield_now().await;
            run = self.client.gc_run(run.id).await.unwrap();
        }
        run
    }
}

#[tokio::test]
async fn a_collection_may_be_asked_for_with_another_grace() {
    let world = World::default().await;
    let gone = disk(1, 3_000_000);
    let manifest = world.push("vi/a", "v1", &gone).await;
    world.clock.advance_ms(2 * HOUR_MS);
    // The leases of that push are over.
    world.collect(GcRunRequest::default()).await;
    let (repository, digest) = (name("vi/a"), Reference::Digest(manifest));
    world
        .registry
        .manifest_delete(&WHO, &repository, &digest)
        .await
        .unwrap();
    // Pushed just now, and no manifest yet; and an upload that is not over.
    let fresh = disk(50, 400_000);
    world.push_blob("vi/a", &fresh).await;
    let upload = world
        .registry
        .upload_start(&WHO, &repository, None)
        .await
        .unwrap()
        .id;
    let half = disk(70, 400_000);
    let appended = world
        .registry
        .upload_append(&WHO, &repository, &upload, None, body(&half));
    appended.await.unwrap();

    let usual = world.collect(GcRunRequest::default()).await;
    assert_eq!((usual.state, usual.reviewed.removed), (GcRunState::Done, 0));
    let longer = GcRunRequest {
        grace_seconds: Some(1),
        force: false,
    };
    assert_eq!(
        world.collect(longer).await.reviewed.removed,
        0,
        "a second has not passed"
    );
    let now = GcRunRequest {
        grace_seconds: Some(0),
        force: false,
    };
    let run = world.collect(now.clone()).await;
    assert_eq!(
        (run.state, run.trigger),
        (GcRunState::Done, GcTrigger::Request)
    );
    // The layer and the config; of leases and uploads nothing.
    assert_eq!(run.reviewed.removed, 2, "{run:?}");
    assert!(run.swept.freed_bytes > 1_000_000, "{run:?}");
    assert_eq!(run.grace_seconds, Some(0));
    let kept = world
        .client
        .blobs(None, &PageQuery::default())
        .await
        .unwrap();
    assert_eq!(kept.items.len(), 1);
    let mut rest = disk(70, 400_000).to_vec();
    rest.extend_from_slice(b"end");
    let whole = Digest::sha256(&rest);
    let end = body(&Bytes::from_static(b"end"));
    let finished = world
        .registry
        .upload_finish(&WHO, &repository, &upload, None, whole, end);
    finished.await.unwrap();

    let again = world.collect(now).await;
    assert_eq!((again.reviewed.removed, again.swept.packs), (0, 0));
    let status = world.client.gc_status().await.unwrap();
    assert_eq!(status.last.as_ref().map(|last| last.id), Some(again.id));
    assert_eq!(
        (status.interval_seconds, status.grace_seconds),
        (300, 3_600)
    );
    assert_eq!(status.since_start.removed_blobs, 2);
    assert!(status.running.is_none() && status.waiting == 0);
    let told = world
        .client
        .gc_explain(&Digest::sha256(&fresh).to_string())
        .await;
    let told = told.unwrap();
    assert_eq!(told.kept_by[0].repository, "vi/a");
    assert!(told.kept_by[0].lease_until.is_some());

    // The last first, page by page.
    let all_runs = all(async |page| world.client.gc_runs(&page).await)
        .await
        .unwrap();
    assert_eq!(all_runs.len(), 5);
    assert!(all_runs.is_sorted_by(|a, b| a.id > b.id));
    assert_eq!(all_runs[1], run);
    let first = world.client.gc_runs(&page(3, None)).await.unwrap();
    let second = world.client.gc_runs(&page(3, first.next)).await.unwrap();
    assert_eq!(second.items, all_runs[3..]);
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn a_collection_that_removes_too_much_is_refused_unless_forced() {
    let mut options = RegistryOptions::default();
    options.gc.limits.removed_free_bytes = 0;
    let world = World::new(options).await;
    let manifest = world.push("vi/a", "v1", &disk(1, 3_000_000)).await;
    let (repository, digest) = (name("vi/a"), Reference::Digest(manifest));
    let deleted = world.registry.manifest_delete(&WHO, &repository, &digest);
    deleted.await.unwrap();
    world.clock.advance_ms(2 * HOUR_MS);
    let run = world.collect(GcRunRequest::default()).await;
    assert_eq!(
        (run.state, run.swept.packs),
        (GcRunState::Refused, 0),
        "{run:?}"
    );
    let plan = world.client.gc_plan().await.unwrap();
    assert!(plan.too_much && plan.freed_bytes > 0, "{plan:?}");
    let force = GcRunRequest {
        force: true,
        grace_seconds: None,
    };
    let run = world.collect(force).await;
    assert_eq!(run.state, GcRunState::Done);
    assert!(run.force && run.swept.packs > 0 && run.chosen_packs >= run.swept.packs);
}
