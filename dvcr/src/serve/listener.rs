//! Accepting connections, watching over them, and letting them end.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{socket::Socket, tls::Certificates};
use crate::{
    http::activity::{Activity, Patience, Verdict},
    metrics::Metrics,
};

/// HTTP/1 read buffer, and so the longest frame of a request's body: fewer, larger pieces for the chunk store to cut. hyper
/// grows it only for connections that fill it.
const H1_BUFFER_BYTES: usize = 1 << 20;

/// HTTP/2 flow control: what a client may send on one stream before it is read, and so what waits in memory where uploads wait for
/// theirs: 2 MiB for each of `limits.requests`, since further streams are answered and reset. That is 40 MB/s at a round trip of
/// 50 ms, and no bound nearby: of pushes by TLS over loopback, on two busy cores, it took 15 %, as much as 1 MiB. Twice as much,
/// and four times for a connection, let 30 connections that stall take 630 MiB.
const H2_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// All streams of one connection: one that waits does not hold up the others.
const H2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Larger frames cost fewer headers; the default is 16 KiB.
const H2_FRAME_BYTES: u32 = 256 << 10;
/// Bytes of answers that wait for one stream's window.
const H2_SEND_BUFFER_BYTES: usize = 1 << 20;
/// Streams of one connection; clients open a handful.
const H2_STREAMS_MAX: u32 = 128;
/// A client that does not answer a ping is gone, and its streams with it.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time for the answer.
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a connection is looked at, as a part of the shortest patience: what is cut is at most a quarter late.
const WATCHES: u32 = 4;
/// The most often.
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Pause after `accept` failed for want of file descriptors or memory: the failure would repeat at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are treated.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// Most open connections; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Longest header of a request that HTTP/2 takes.
    pub header_bytes_max: usize,
    /// With slow clients.
    pub patience: Patience,
    /// How long requests may go on once draining began.
    pub drain: Duration,
}

/// Accepts connections and serves them until told to stop.
pub struct Listener {
    listener: TcpListener,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

/// What every connection needs.
struct Shared {
    router: Router,
    options: ListenerOptions,
    metrics: Arc<Metrics>,
    certificates: Option<Arc<Certificates>>,
    /// Cancelled when the time for draining is over.
    abort: CancellationToken,
}

/// Connections of one time: before draining, or during.
#[derive(Default)]
struct Generation {
    tasks: TaskTracker,
    /// Cancelled when they shall finish what they do.
    finish: CancellationToken,
}

impl Listener {
    /// Serves HTTP, by TLS if there are certificates.
    pub(super) fn new(
        listener: TcpListener,
        router: Router,
        options: ListenerOptions,
        metrics: Arc<Metrics>,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(options.connections_max)),
            shared: Arc::new(Shared {
                router,
                options,
                metrics,
                certificates,
                abort: CancellationToken::new(),
            }),
        }
    }

    /// Runs until `drain` is cancelled and then until what was going on is done, or the time for that is over. `abort`
    /// ends it at once.
    ///
    /// While draining, connections are still accepted, for one request each: whoever sends requests here learns only
    /// bit by bit (`/readyz` says 503) that it should not.
    pub async fn run(self, drain: CancellationToken, abort: CancellationToken) {
        let Self {
            listener,
            shared,
            permits,
        } = self;
        let before = Generation::default();
        accept(
            &listener,
            &shared,
            &permits,
            &before,
            true,
            drain.cancelled(),
        )
        .await;

        let deadline = Instant::now() + shared.options.drain;
        before.finish.cancel();
        before.tasks.close();
        let during = Generation::default();
        let done = async {
            tokio::select! {
                () = before.tasks.wait() => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = abort.cancelled() => {}
            }
        };
        accept(&listener, &shared, &permits, &during, false, done).await;

        drop(listener);
        during.finish.cancel();
        during.tasks.close();
        let all = async { tokio::join!(before.tasks.wait(), during.tasks.wait()) };
        tokio::select! {
            _ = all => return,
            () = tokio::time::sleep_until(deadline) => {}
            () = abort.cancelled() => {}
        }
        tracing::warn!(
            connections = before.tasks.len() + during.tasks.len(),
            "cutting connections that are still busy"
        );
        shared.abort.cancel();
        tokio::join!(before.tasks.wait(), during.tasks.wait());
    }
}

/// Accepts until `stop` is ready.
async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    permits: &Arc<Semaphore>,
    generation: &Generation,
    keep_alive: bool,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    loop {
        let next = async {
            // Nobody closes the semaphore.
            let permit = Arc::clone(permits).acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let next = tokio::select! {
            biased;
            () = &mut stop => return,
            next = next => next,
        };
        match next {
            None => return,
            Some((Ok((stream, peer)), permit)) => {
                let connection = Connection {
                    shared: Arc::clone(shared),
                    finish: generation.finish.clone(),
                    keep_alive,
                    peer,
                    _permit: permit,
                };
                generation.tasks.spawn(connection.run(stream));
            }
            Some((Err(error), _)) if is_of_the_peer(&error) => {}
            Some((Err(error), _)) => {
                tracing::error!(%error, "accept connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that ended before it was accepted is no fault of the listener.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

struct Connection {
    shared: Arc<Shared>,
    finish: CancellationToken,
    keep_alive: bool,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let metrics = &self.shared.metrics.connections;
        metrics.accepted.inc();
        metrics.open.inc();
        self.serve_tcp(stream).await;
        metrics.open.dec();
    }

    async fn serve_tcp(&self, stream: TcpStream) {
        let Shared {
            options,
            metrics,
            certificates,
            abort,
            ..
        } = &*self.shared;
        // Answers are written whole; waiting for more to send would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, peer = %self.peer, "set TCP_NODELAY");
        }
        let activity = Arc::new(Activity::default());
        let socket = Socket::new(stream, Arc::clone(&activity), options.patience.stall);
        let Some(certificates) = certificates else {
            return self.serve_http(socket, activity).await;
        };
        let handshake = certificates.acceptor().accept(socket);
        let handshake = tokio::time::timeout(options.patience.header, handshake);
        let result = tokio::select! {
            result = handshake => result,
            () = abort.cancelled() => return,
        };
        match result {
            Ok(Ok(stream)) => self.serve_http(stream, activity).await,
            Ok(Err(error)) => {
                metrics.connections.tls_failures.inc();
                tracing::debug!(%error, peer = %self.peer, "TLS handshake");
            }
            Err(_) => {
                metrics.connections.tls_failures.inc();
                tracing::debug!(peer = %self.peer, "TLS handshake takes too long");
            }
        }
    }

    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        activity: Arc<Activity>,
    ) {
        let Shared {
            router,
            options,
            metrics,
            abort,
            ..
        } = &*self.shared;
        let service = TowerToHyperService::new(router.clone());
        let service = hyper::service::service_fn({
            let activity = Arc::clone(&activity);
            move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Arc::clone(&activity));
                service.call(request)
            }
        });
        let builder = builder(options, self.keep_alive);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));

        let patience = &options.patience;
        let shortest = patience.header.min(patience.stall).min(patience.idle);
        let mut watch = tokio::time::interval((shortest / WATCHES).max(WATCH_INTERVAL_MIN));
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut finishing = false;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(error, peer = %self.peer, "connection ended");
                    }
                    return;
                }
                () = abort.cancelled() => return,
                () = self.finish.cancelled(), if !finishing => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = watch.tick() => match activity.verdict(patience) {
                    Verdict::Keep => {}
                    // It was asked to finish one watch ago at least, and has nothing to finish.
                    Verdict::Idle if finishing => return,
                    Verdict::Idle => {
                        finishing = true;
                        metrics.connections.idle.inc();
                        connection.as_mut().graceful_shutdown();
                    }
                    Verdict::Stalled => {
                        metrics.connections.stalled.inc();
                        tracing::info!(peer = %self.peer, "cutting a connection whose client is too slow");
                        return;
                    }
                },
            }
        }
    }
}

fn builder(options: &ListenerOptions, keep_alive: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's own timer runs between requests, too, where a client may well wait; the watch tells the two apart.
        .header_read_timeout(None)
        .keep_alive(keep_alive)
        .max_buf_size(H1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(H2_FRAME_BYTES)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .max_concurrent_streams(H2_STREAMS_MAX)
        // Counts 32 bytes for each field besides; twice the bound lets the router say 431 in its own words.
        .max_header_list_size(u32::try_from(options.header_bytes_max * 2).unwrap_or(u32::MAX))
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}
