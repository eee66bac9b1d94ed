//! The server: settings in, a running registry out.

mod files;
mod listener;
#[cfg(test)]
mod listener_tests;
mod socket;
mod storage;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub use self::listener::{Listener, ListenerOptions};
use self::{storage::Storage, tls::Certificates};
use crate::{
    http::{Hosts, HttpLimits, ServerFacts, activity::Patience, router},
    metrics::Metrics,
    settings::{AllowAnonymous, LimitSettings, Settings, Time},
};

/// A lease below this is shorter than a push may take over an ordinary line.
const LEASE_MIN: Time = Time::seconds(60);

/// Runs the registry until SIGTERM or SIGINT. The first signal lets requests finish, for as long as the setting `drain` says; a
/// second one does not.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    settings.check()?;
    let metrics = Arc::new(Metrics::new());
    let (http_limits, mut listener_options) = limits(&settings);
    listener_options.connections_max = files::connections(listener_options.connections_max);

    // Before the storage is opened: what is misconfigured fails before anything is touched.
    let certificates = match settings.tls.files() {
        Some((certificate, key)) => Some(Arc::new(Certificates::open(certificate, key).await?)),
        None => None,
    };
    let socket = TcpListener::bind(settings.listen)
        .await
        .with_context(|| listen_failed(settings.listen))?;
    let address = socket.local_addr().context("read listening address")?;
    let mut signals = Signals::new()?;

    let storage = Storage::open(&settings).await?;
    metrics.add(storage.collector());
    let _upkeep = storage.keep_up();
    let drain = CancellationToken::new();
    let abort = CancellationToken::new();
    let router = router(
        storage.registry().clone(),
        Arc::clone(&metrics),
        http_limits,
        facts(&settings, storage.registry().now_ms())?,
        drain.clone(),
    );
    let _reload = reload(certificates.clone(), &metrics)?;
    let scheme = if certificates.is_some() {
        "https"
    } else {
        "http"
    };
    let listener = Listener::new(socket, router, listener_options, metrics, certificates);

    announce(scheme, address, &settings);
    let mut run = std::pin::pin!(listener.run(drain.clone(), abort.clone()));
    loop {
        tokio::select! {
            () = &mut run => break,
            name = signals.next() => {
                if drain.is_cancelled() {
                    tracing::warn!(signal = name, "stopping at once");
                    abort.cancel();
                } else {
                    tracing::info!(signal = name, "finishing what is going on; the same signal again stops at once");
                    drain.cancel();
                }
            }
        }
    }
    storage.close().await?;
    tracing::info!("stopped");
    Ok(())
}

/// The settings as the parts take them.
fn limits(settings: &Settings) -> (HttpLimits, ListenerOptions) {
    let LimitSettings {
        connections,
        requests,
        uri_bytes,
        header_bytes,
        manifest_bytes,
        blob_bytes,
        header_time,
        body_stall,
        answer_stall,
        idle,
        chunk_min_bytes,
    } = settings.limits;
    let hosts = match settings.allow_anonymous {
        AllowAnonymous::EveryoneMayReadAndWrite if settings.hosts.is_empty() => Hosts::Any,
        _ => Hosts::Only(settings.hosts.clone()),
    };
    let http = HttpLimits {
        hosts,
        requests_max: requests,
        uri_bytes_max: uri_bytes.as_usize(),
        header_bytes_max: header_bytes.as_usize(),
        manifest_bytes_max: manifest_bytes.as_usize(),
        blob_bytes_max: blob_bytes.0,
        body_stall: body_stall.0,
        chunk_min_bytes: chunk_min_bytes.0,
    };
    let listener = ListenerOptions {
        connections_max: connections,
        header_bytes_max: header_bytes.as_usize(),
        patience: Patience {
            header: header_time.0,
            stall: answer_stall.0,
            idle: idle.0,
        },
        drain: settings.drain.0,
    };
    (http, listener)
}

/// What the server tells about itself.
fn facts(settings: &Settings, started_ms: u64) -> anyhow::Result<ServerFacts> {
    let document = serde_json::to_value(settings).context("write settings down")?;
    let serde_json::Value::Object(document) = document else {
        anyhow::bail!("write settings down: they are no table");
    };
    let data = std::path::absolute(&settings.data).unwrap_or_else(|_| settings.data.clone());
    Ok(ServerFacts {
        started_ms,
        data: Some(data),
        reserve_bytes: settings.reserve_bytes.0,
        settings: document,
    })
}

fn listen_failed(address: SocketAddr) -> String {
    format!(
        "listen on {address}: is another program using the port? Choose another with --listen ADDRESS:PORT"
    )
}

/// Tells people where the registry is, and what to know about it.
fn announce(scheme: &str, address: SocketAddr, settings: &Settings) {
    // On standard output and not only in the log: whoever starts it by hand, or waits for it in a script, wants this line.
    println!(
        "dvcr listens on {scheme}://{address}, data in {}",
        settings.data.display()
    );
    tracing::info!(%address, scheme, data = %settings.data.display(), version = env!("CARGO_PKG_VERSION"), "listening");
    if settings.lease < LEASE_MIN {
        tracing::warn!(
            lease = %settings.lease,
            "pushes that take more than half of the lease from their first blob to their manifest will fail"
        );
    }
    if !address.ip().is_loopback() {
        tracing::warn!(
            "everyone who reaches {address} may read and write: allow_anonymous says so"
        );
    }
}

/// Watches over the certificate. SIGHUP is taken also without one, for its default is to kill.
fn reload(
    certificates: Option<Arc<Certificates>>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<AbortOnDropHandle<()>> {
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let metrics = Arc::clone(metrics);
    let task = tokio::spawn(async move {
        match certificates {
            Some(certificates) => certificates.watch(hangup, metrics).await,
            None => while hangup.recv().await.is_some() {},
        }
    });
    Ok(AbortOnDropHandle::new(task))
}

/// What asks the server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
