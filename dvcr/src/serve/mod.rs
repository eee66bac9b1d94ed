//! The running server: engines, registry and listener put together, and taken down in order.

use std::{future::IntoFuture as _, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::file::FileBackend,
    clock::SystemClock,
    data_dir::DataDir,
    http::{self, HttpLimits},
    meta::redb::{RedbMeta, RedbOptions},
    metrics::Metrics,
    registry::{Registry, RegistryOptions, policy::SparseRules},
    settings::Settings,
    store::{BLOCK_BYTES, Store, StoreOptions},
};

/// How often expired upload sessions are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// Runs the registry until SIGTERM or SIGINT.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    if settings.tls_files().is_some() {
        bail!(
            "TLS is not served yet; put a proxy with TLS in front, or leave out the tls settings"
        );
    }
    let data = DataDir::open(&settings.data)?;
    let options = RedbOptions {
        cache_bytes: settings.meta_cache_bytes.as_usize(),
    };
    let meta = Arc::new(RedbMeta::open(data.meta_path(), &options).context("open the metadata")?);
    let packs =
        FileBackend::new(&data.packs_path(), settings.reserve_bytes.0).context("open the packs")?;
    let clock = Arc::new(SystemClock);
    let blocks = |bytes: usize| (bytes / BLOCK_BYTES).max(1);
    let options = StoreOptions {
        cache_bytes: settings.cache_bytes.0,
        upload_blocks: blocks(settings.upload_memory_bytes.as_usize()),
        all_upload_blocks: blocks(settings.all_uploads_memory_bytes.as_usize()),
        ..StoreOptions::default()
    };
    let store = Store::open(meta.clone(), Arc::new(packs), clock.clone(), options)
        .await
        .context("open the store")?;
    let options = RegistryOptions {
        lease: settings.lease.0,
        upload_expiry: settings.upload_expiry.0,
        sparse: SparseRules(
            settings
                .sparse
                .iter()
                .map(|rule| (rule.repository.clone(), rule.sparse))
                .collect(),
        ),
        ..RegistryOptions::default()
    };
    let registry = Registry::new(meta.clone(), Arc::clone(&store), clock, options);

    let stop = CancellationToken::new();
    let limits = HttpLimits {
        requests_max: settings.limits.requests,
        uri_bytes_max: settings.limits.uri_bytes.as_usize(),
        header_bytes_max: settings.limits.header_bytes.as_usize(),
        manifest_bytes_max: settings.limits.manifest_bytes.as_usize(),
        blob_bytes_max: settings.limits.blob_bytes.0,
        body_stall: settings.limits.body_stall.0,
        chunk_min_bytes: settings.limits.chunk_min_bytes.0,
    };
    let router = http::router(
        registry.clone(),
        Arc::new(Metrics::new()),
        limits,
        stop.clone(),
    );
    let listener = tokio::net::TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listen on {}", settings.listen))?;
    tracing::info!(address = %listener.local_addr()?, data = %data.path().display(), "listening");
    eprintln!("dvcr listens on http://{}", listener.local_addr()?);

    let expiry = tokio::spawn(expire_uploads(registry, stop.clone()));
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut serving = tokio::spawn(serving.into_future());
    tokio::select! {
        ended = &mut serving => ended.context("serve")??,
        signal = stop_signal() => {
            signal?;
            tracing::info!("draining");
            stop.cancel();
            if tokio::time::timeout(settings.drain.0, &mut serving).await.is_err() {
                serving.abort();
            }
        }
    }
    expiry.abort();
    store.close().await.context("close the store")?;
    Ok(())
}

async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}

async fn expire_uploads(registry: Registry, stop: CancellationToken) {
    while tokio::time::timeout(EXPIRY_INTERVAL, stop.cancelled())
        .await
        .is_err()
    {
        match registry.expire_uploads().await {
            Ok(0) => {}
            Ok(expired) => {
                tracing::info!(expired, "gave up upload sessions that nobody went on with");
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "expire upload sessions"
                );
            }
        }
    }
}
