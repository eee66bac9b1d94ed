//! Uploads in progress.

use futures::{StreamExt as _, stream};

use super::*;

#[tokio::test]
async fn uploads_are_listed_and_ended() {
    let world = World::default().await;
    let repository = name("vi/a");
    let start = async || {
        world
            .registry
            .upload_start(&WHO, &repository, None)
            .await
            .unwrap()
            .id
    };
    let (new, stored, active) = (start().await, start().await, start().await);
    world.clock.advance_ms(HOUR_MS);
    let half = disk(1, 300_000);
    let appended = world
        .registry
        .upload_append(&WHO, &repository, &stored, None, body(&half));
    appended.await.unwrap();
    // A client that sends a little and then nothing.
    let begun = stream::iter([Ok(Bytes::from_static(b"x"))])
        .chain(stream::pending())
        .boxed();
    let running = tokio::spawn({
        let (registry, repository) = (world.registry.clone(), repository.clone());
        async move {
            registry
                .upload_append(&WHO, &repository, &active, None, begun)
                .await
        }
    });
    let uploads = async || {
        let found = all(async |page| world.client.uploads(&page).await)
            .await
            .unwrap();
        let found = found.into_iter();
        found
            .map(|upload| (upload.id.clone(), upload))
            .collect::<BTreeMap<_, _>>()
    };
    let found = loop {
        let found = uploads().await;
        if found[&active.to_string()].active {
            break found;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(found.len(), 3);
    let told = &found[&stored.to_string()];
    assert_eq!((told.received_bytes, told.active), (300_000, false));
    assert_eq!(told.repository, "vi/a");
    assert_eq!(told.began_at, Some(Timestamp(BEGIN_MS)));
    assert_eq!(told.last_request_at, Timestamp(BEGIN_MS + HOUR_MS));
    assert_eq!(told.expires_at, Timestamp(BEGIN_MS + 25 * HOUR_MS));
    assert_eq!(found[&new.to_string()].last_request_at, Timestamp(BEGIN_MS));
    assert_eq!(found[&new.to_string()].began_at, Some(Timestamp(BEGIN_MS)));
    let first = world.client.uploads(&page(2, None)).await.unwrap();
    let second = world.client.uploads(&page(2, first.next)).await.unwrap();
    assert_eq!(
        (first.items.len(), second.items.len(), second.next),
        (2, 1, None)
    );

    for id in [new, stored, active] {
        world.client.cancel_upload(&id.to_string()).await.unwrap();
        let error = world
            .client
            .cancel_upload(&id.to_string())
            .await
            .unwrap_err();
        assert_eq!(error.problem().unwrap().code, "BLOB_UPLOAD_UNKNOWN");
        let status = world.registry.upload_status(&WHO, &repository, &id).await;
        assert!(status.is_err());
    }
    assert!(running.await.unwrap().is_err(), "its request ends, too");
    assert!(uploads().await.is_empty());
}
