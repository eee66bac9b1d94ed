//! The API as clients meet it: over HTTP, against the whole router, on a clock that stands still.

mod content;
mod gc;
mod problem;
mod server;
mod upload;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use dvcr_core::oci::{Digest, Reference};
use dvcr_openapi::{Client, PageQuery, Timestamp, all};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    backend::memory::MemoryBackend,
    clock::ManualClock,
    http::{HttpLimits, ServerFacts, router},
    meta::memory::MemoryMeta,
    metrics::Metrics,
    registry::{Registry, RegistryOptions},
    store::{Store, StoreOptions},
    testing::{HOUR_MS, WHO, body, disk, name},
};

const BEGIN_MS: u64 = 1_790_000_000_000;

struct World {
    clock: Arc<ManualClock>,
    registry: Registry,
    client: Client,
    url: String,
    _tasks: [AbortOnDropHandle<()>; 2],
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
        let gc = Arc::clone(registry.gc());
        let collector = tokio::spawn(async move { gc.run().await });
        Self {
            clock,
            registry,
            client: Client::new(&url).unwrap(),
            url,
            _tasks: [server, collector].map(AbortOnDropHandle::new),
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
