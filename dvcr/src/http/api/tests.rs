//! The API as clients meet it: over HTTP, against the whole router, on a clock that stands still.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use dvcr_core::oci::{Digest, Reference};
use dvcr_openapi::{
    ChildRole, Client, Error, GcRun, GcRunRequest, GcRunState, GcTrigger, ManifestKind, PageQuery,
    ReferrersQuery, Timestamp, UsageQuery, all,
};
use futures::{StreamExt as _, stream};
use reqwest::Method;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    backend::memory::MemoryBackend,
    clock::ManualClock,
    http::{HttpLimits, ServerFacts, router},
    meta::memory::MemoryMeta,
    metrics::Metrics,
    registry::{
        Principal, Registry, RegistryOptions,
        tests::{body, disk, name},
    },
    store::{Store, StoreOptions},
};

const WHO: Principal = Principal::Anonymous;
const BEGIN_MS: u64 = 1_790_000_000_000;
const HOUR_MS: u64 = 3_600_000;

struct World {
    clock: Arc<ManualClock>,
    registry: Registry,
    client: Client,
    url: String,
    _server: AbortOnDropHandle<()>,
}

impl World {
    async fn new(options: RegistryOptions) -> Self {
        let clock = Arc::new(ManualClock::new(BEGIN_MS));
        let meta = Arc::new(MemoryMeta::new());
        let packs = Arc::new(MemoryBackend::default());
        let store = StoreOptions::default();
        let store = Store::open(meta.clone(), packs, clock.clone(), store);
        let registry = Registry::new(meta, store.await.unwrap(), clock.clone(), options);
        let facts = ServerFacts {
            started_ms: BEGIN_MS - HOUR_MS,
            data: Some(std::env::temp_dir()),
            reserve_bytes: 7,
            settings: BTreeMap::from([("listen", "x"), ("s3_secret", "y")])
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect(),
        };
        let router = router(
            registry.clone(),
            Arc::new(Metrics::new()),
            HttpLimits::default(),
            facts,
            CancellationToken::new(),
        );
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
        Self {
            clock,
            registry,
            client: Client::new(&url).unwrap(),
            url,
            _server: AbortOnDropHandle::new(server),
        }
    }

    async fn default() -> Self {
        Self::new(RegistryOptions::default()).await
    }

    async fn push_blob(&self, repository: &str, data: &Bytes) -> Digest {
        let (repository, digest) = (name(repository), Digest::sha256(data));
        let pushed = self
            .registry
            .blob_push(&WHO, &repository, digest, body(data));
        pushed.await.unwrap();
        digest
    }

    /// An image with one layer under a tag.
    async fn push(&self, repository: &str, tag: &str, layer: &Bytes) -> Digest {
        self.push_blob(repository, &Bytes::from_static(b"{}")).await;
        let digest = self.push_blob(repository, layer).await;
        let manifest = image(&digest, layer.len()).to_string();
        self.put(repository, tag, manifest.into()).await
    }

    async fn put(&self, repository: &str, reference: &str, manifest: Bytes) -> Digest {
        let (repository, reference) = (name(repository), reference.parse().unwrap());
        let put = self
            .registry
            .manifest_put(&WHO, &repository, &reference, &[], None, manifest);
        put.await.unwrap().digest
    }

    async fn collect(&self, how: GcRunRequest) -> GcRun {
        let mut run = self.client.gc_start(&how).await.unwrap();
        while !run.state.is_over() {
            tokio::task::yield_now().await;
            run = self.client.gc_run(run.id).await.unwrap();
        }
        run
    }
}

/// An image with a config that all have in common.
fn image(layer: &Digest, len: usize) -> serde_json::Value {
    let descriptor = |kind: &str, digest: &Digest, len: usize| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": len})
    };
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &Digest::sha256(b"{}"), 2),
        "layers": [descriptor("layer.v1.tar", layer, len)],
    })
}

fn page(limit: u32, after: Option<String>) -> PageQuery {
    PageQuery {
        limit: Some(limit),
        after,
    }
}

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
    assert_eq!(told.last_request_at, Timestamp(BEGIN_MS + HOUR_MS));
    assert_eq!(told.expires_at, Timestamp(BEGIN_MS + 25 * HOUR_MS));
    assert_eq!(found[&new.to_string()].last_request_at, Timestamp(BEGIN_MS));
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

#[tokio::test]
async fn a_server_tells_what_it_is_and_no_secrets() {
    let world = World::default().await;
    let server = world.client.server().await.unwrap();
    assert_eq!(
        (server.version.as_str(), server.data_format),
        (env!("CARGO_PKG_VERSION"), 1)
    );
    assert_eq!(
        (server.uptime_seconds, server.now),
        (3_600, Timestamp(BEGIN_MS))
    );
    let storage = server.storage.unwrap();
    assert!(storage.total_bytes > storage.free_bytes && storage.reserve_bytes == 7);
    let settings = world.client.settings().await.unwrap().settings;
    assert_eq!(
        (&settings["listen"], &settings["s3_secret"]),
        (&"x".into(), &"(redacted)".into())
    );
}

#[tokio::test]
async fn the_document_and_its_pages_come_from_the_server_alone() {
    let world = World::default().await;
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}{path}", world.url)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let field = |name: &str| {
            let value = answer.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (policy, kind) = (field("content-security-policy"), field("content-type"));
        (policy, kind.unwrap(), answer.text().await.unwrap())
    };
    let (_, kind, text) = get("/api/v1/openapi.json").await;
    assert_eq!(
        (kind.as_str(), text),
        ("application/json", super::document_text().unwrap())
    );
    for path in ["/api", "/api/", "/api/docs", "/api/docs/"] {
        let (policy, kind, html) = get(path).await;
        assert_eq!(kind, "text/html", "{path}");
        let policy = policy.unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"));
        // Everything that the page names is here, and no script is in the page itself.
        let named: Vec<&str> = html
            .split(['"', '\''])
            .filter(|text| {
                text.ends_with(".js") || text.ends_with(".css") || text.ends_with(".png")
            })
            .collect();
        assert!(named.len() >= 6, "{html}");
        for file in named {
            let (_, _, text) = get(&format!("/api/docs/{file}")).await;
            assert!(!text.is_empty());
        }
        assert!(
            !html.contains("http://") && !html.contains("https://"),
            "{html}"
        );
        assert_eq!(
            html.matches("<script").count(),
            html.matches("<script src=").count()
        );
    }
    let (_, _, starter) = get("/api/docs/swagger-initializer.js").await;
    assert!(starter.contains("\"/api/v1/openapi.json\""), "{starter}");
}

#[tokio::test]
async fn every_failure_is_a_problem_document() {
    let world = World::default().await;
    world.push("vi/a", "v1", &disk(1, 10_000)).await;
    let http = reqwest::Client::new();
    let check =
        async |method: Method, path: &str, body: Option<(&str, &str)>, expected: (u16, &str)| {
            let mut request = http.request(method.clone(), format!("{}{path}", world.url));
            if let Some((kind, text)) = body {
                request = request.header("content-type", kind).body(text.to_owned());
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let kind = answer.headers()["content-type"].clone();
            let allow = answer.headers().contains_key("allow");
            let text = answer.text().await.unwrap();
            assert_eq!(
                (status, kind.to_str().unwrap()),
                (expected.0, "application/problem+json"),
                "{method} {path}: {text}"
            );
            let problem: dvcr_openapi::Problem = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (problem.status, problem.code.as_str()),
                expected,
                "{method} {path}: {text}"
            );
            assert!(
                problem.kind == "about:blank"
                    && !problem.title.is_empty()
                    && !problem.detail.is_empty()
            );
            assert_eq!(allow, status == 405, "{method} {path}");
        };
    let unsupported = |status| (status, "UNSUPPORTED");
    let absent = Digest::sha256(b"absent");
    for path in [
        "/api/v1",
        "/api/v2/stats",
        "/api/v1/stats/",
        "/api/v1/nothing",
        "/api/docs/none.js",
        "/api/v1/gc/runs/1",
    ] {
        check(Method::GET, path, None, unsupported(404)).await;
    }
    for (path, code) in [
        ("/api/v1/stats?repository=A", "NAME_INVALID"),
        ("/api/v1/tags", "UNSUPPORTED"),
        ("/api/v1/tags?repository=..", "NAME_INVALID"),
        ("/api/v1/tags?repository=vi/a&limit=0", "UNSUPPORTED"),
        ("/api/v1/tags?repository=vi/a&limit=1001", "UNSUPPORTED"),
        ("/api/v1/tags?repository=vi/a&limit=x", "UNSUPPORTED"),
        ("/api/v1/manifests?repository=vi/a&after=xyz", "UNSUPPORTED"),
        ("/api/v1/manifests?repository=vi/a&after=00", "UNSUPPORTED"),
        ("/api/v1/gc/runs?after=00", "UNSUPPORTED"),
        ("/api/v1/gc/runs/x", "UNSUPPORTED"),
        ("/api/v1/gc/explain/x", "DIGEST_INVALID"),
        ("/api/v1/usage?from=yesterday", "UNSUPPORTED"),
        (
            "/api/v1/manifests/sha256:x?repository=vi/a",
            "DIGEST_INVALID",
        ),
    ] {
        check(Method::GET, path, None, (400, code)).await;
    }
    for (path, code) in [
        ("/api/v1/stats?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/tags?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/manifests?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/blobs?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/repository?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/manifests/v2?repository=vi/a", "MANIFEST_UNKNOWN"),
        (&format!("/api/v1/blobs/{absent}"), "BLOB_UNKNOWN"),
    ] {
        check(Method::GET, path, None, (404, code)).await;
    }
    check(Method::PUT, "/api/v1/stats", None, unsupported(405)).await;
    check(Method::GET, "/api/v1/uploads/00", None, unsupported(405)).await;
    check(Method::POST, "/api/docs/", None, unsupported(405)).await;
    check(Method::DELETE, "/api/v1/uploads/00", None, unsupported(400)).await;
    let json = |text| Some(("application/json", text));
    let runs = "/api/v1/gc/runs";
    // What another site's form can send begins nothing.
    check(Method::POST, runs, None, unsupported(415)).await;
    check(
        Method::POST,
        runs,
        Some(("text/plain", "{}")),
        unsupported(415),
    )
    .await;
    let form = Some(("application/x-www-form-urlencoded", "force=true"));
    check(Method::POST, runs, form, unsupported(415)).await;
    for text in [
        "",
        "{",
        "7",
        "{\"grace_seconds\":-1}",
        "{\"force\":1}",
        "{\"unknown\":1}",
    ] {
        check(Method::POST, runs, json(text), unsupported(400)).await;
    }
    let long = format!("{{\"force\":true{}}}", " ".repeat(2 << 20));
    check(Method::POST, runs, json(&long), (413, "SIZE_INVALID")).await;
    // Refused before any handler.
    let long = format!("/api/v1/stats?repository={}", "a".repeat(20_000));
    check(Method::GET, &long, None, unsupported(414)).await;
    assert_eq!(
        world
            .client
            .gc_runs(&PageQuery::default())
            .await
            .unwrap()
            .items,
        []
    );
}

#[tokio::test]
async fn failures_of_the_client_say_what_to_do() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let nobody = Client::new(&address)
        .unwrap()
        .gc_status()
        .await
        .unwrap_err();
    assert!(matches!(nobody, Error::Unreachable { .. }), "{nobody:?}");
    let world = World::default().await;
    // Something that is no registry: what a registry answers elsewhere.
    let other = Client::new(&format!("{}/v2", world.url)).unwrap();
    let error = other.gc_status().await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
}
