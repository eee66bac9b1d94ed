//! Connections over real sockets. Patience is short and real here: a paused clock runs ahead of the kernel.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    listener::{Listener, ListenerOptions},
    tls::Certificates,
};
use crate::{
    http::activity::{Activity, Patience, Running},
    metrics::Metrics,
};

/// Short enough for a quick test, long enough for a busy machine to answer a request.
const SHORT: Duration = Duration::from_millis(300);
/// What is meant not to happen in a test.
const NEVER: Duration = Duration::from_secs(3600);
/// What has not happened by now will not.
const LIMIT: Duration = Duration::from_secs(30);

const PATIENT: ListenerOptions = ListenerOptions {
    connections_max: 16,
    header_bytes_max: 64 << 10,
    patience: Patience {
        header: NEVER,
        stall: NEVER,
        idle: NEVER,
    },
    drain: NEVER,
};

struct Server {
    address: std::net::SocketAddr,
    metrics: Arc<Metrics>,
    /// Lets `/slow` answer.
    go: Arc<Notify>,
    /// Says that `/slow` was asked for.
    asked: Arc<Notify>,
    drain: CancellationToken,
    abort: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(options: ListenerOptions, certificates: Option<Arc<Certificates>>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new());
        let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (go, asked) = (Arc::clone(&go), Arc::clone(&asked));
            move || async move {
                asked.notify_one();
                go.notified().await;
                "slow"
            }
        };
        let endless = || async {
            let frame = Bytes::from_static(&[0; 64 << 10]);
            Body::from_stream(stream::repeat(Ok::<_, std::convert::Infallible>(frame)))
        };
        let router = Router::new()
            .route("/fast", get(|| async { "fast" }))
            .route("/slow", get(slow))
            .route("/endless", get(endless))
            .layer(from_fn(counted));
        let listener = Listener::new(socket, router, options, Arc::clone(&metrics), certificates);
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let task = AbortOnDropHandle::new(tokio::spawn(listener.run(drain.clone(), abort.clone())));
        Self {
            address,
            metrics,
            go,
            asked,
            drain,
            abort,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Counts requests on their connection, as the router's outermost layer does.
async fn counted(request: Request, next: Next) -> Response {
    let activity = request.extensions().get::<Arc<Activity>>().cloned();
    let running = Running::begin(activity.unwrap(), request.version());
    next.run(request).await.map(|body| {
        let until_complete = move |frame| {
            let _held = &running;
            frame
        };
        Body::from_stream(body.into_data_stream().map(until_complete))
    })
}

async fn send(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads until the text was seen.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut buffer = [0; 4096];
        let len = limit(stream.read(&mut buffer)).await.unwrap();
        assert_ne!(len, 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..len]);
    }
}

/// Reads to the end, whatever comes.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = limit(stream.read_to_end(&mut rest)).await;
}

async fn limit<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap()
}

#[tokio::test]
async fn a_header_that_never_ends_is_cut() {
    let mut options = PATIENT;
    options.patience.header = SHORT;
    let server = Server::start(options, None).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /fast HTTP/1.1\r\nHo").await.unwrap();
    closed(&mut stream).await;
    assert_eq!(server.metrics.connections.stalled.get(), 1);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let mut options = PATIENT;
    options.patience.stall = SHORT;
    let server = Server::start(options, None).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/endless").await;
    let cut = async {
        while server.metrics.connections.open.get() > 0
            || server.metrics.connections.accepted.get() == 0
        {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    limit(cut).await;
}

#[tokio::test]
async fn slow_work_of_ours_cuts_nobody() {
    let mut options = PATIENT;
    options.patience = Patience {
        header: SHORT,
        stall: SHORT,
        idle: SHORT,
    };
    let server = Server::start(options, None).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/slow").await;
    // Until its request was read it could be idle itself.
    limit(server.asked.notified()).await;
    // Another connection becomes idle and is closed: so much time has passed.
    closed(&mut server.connect().await).await;
    assert_eq!(server.metrics.connections.idle.get(), 1);
    server.go.notify_one();
    expect(&mut stream, "slow").await;
}

#[tokio::test]
async fn connections_past_the_bound_wait_their_turn() {
    let mut options = PATIENT;
    options.connections_max = 1;
    let server = Server::start(options, None).await;
    let mut first = server.connect().await;
    send(&mut first, "/fast").await;
    expect(&mut first, "fast").await;
    let mut second = server.connect().await;
    send(&mut second, "/fast").await;
    assert_eq!(server.metrics.connections.accepted.get(), 1);
    drop(first);
    expect(&mut second, "fast").await;
    assert_eq!(server.metrics.connections.accepted.get(), 2);
}

#[tokio::test]
async fn draining_finishes_requests_and_still_answers_newcomers() {
    let server = Server::start(PATIENT, None).await;
    let mut running = server.connect().await;
    send(&mut running, "/slow").await;
    limit(server.asked.notified()).await;
    server.drain.cancel();
    let mut newcomer = server.connect().await;
    send(&mut newcomer, "/fast").await;
    expect(&mut newcomer, "fast").await;
    closed(&mut newcomer).await;
    server.go.notify_one();
    expect(&mut running, "slow").await;
    closed(&mut running).await;
    limit(server.task).await.unwrap();
}

#[tokio::test]
async fn draining_ends_when_its_time_is_over_or_somebody_insists() {
    for insist in [false, true] {
        let options = ListenerOptions {
            drain: if insist { NEVER } else { SHORT },
            ..PATIENT
        };
        let server = Server::start(options, None).await;
        let mut running = server.connect().await;
        send(&mut running, "/slow").await;
        limit(server.asked.notified()).await;
        server.drain.cancel();
        if insist {
            server.abort.cancel();
        }
        limit(server.task).await.unwrap();
        closed(&mut running).await;
    }
}

fn write_certificate(directory: &Path) -> reqwest::Certificate {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("tls.crt"), pair.cert.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    reqwest::Certificate::from_pem(pair.cert.pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections_and_old_ones_go_on() {
    // A second test that installs one finds it there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let certificate = write_certificate(directory.path());
    let files = [
        directory.path().join("tls.crt"),
        directory.path().join("tls.key"),
    ];
    let certificates = Arc::new(Certificates::open(&files[0], &files[1]).await.unwrap());
    let server = Server::start(PATIENT, Some(Arc::clone(&certificates))).await;
    let url = format!("https://localhost:{}/fast", server.address.port());
    let client = |certificate: &reqwest::Certificate| {
        reqwest::Client::builder()
            .tls_certs_only([certificate.clone()])
            .build()
            .unwrap()
    };
    let old = client(&certificate);
    let answer = old.get(&url).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), "fast");

    let renewed = write_certificate(directory.path());
    assert!(client(&renewed).get(&url).send().await.is_err());
    assert!(certificates.reload().await.unwrap());
    let answer = client(&renewed).get(&url).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "fast");
    let answer = old.get(&url).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "fast");
    assert_eq!(server.metrics.connections.accepted.get(), 3);
}

#[tokio::test]
async fn a_stalled_http2_connection_may_send_a_few_mib_and_no_more() {
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let server = Server::start(PATIENT, None).await;
    let mut stream = server.connect().await;
    // The preface of RFC 9113, section 3.4, and a SETTINGS frame with nothing in it.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    // What RFC 9113, section 6.9.2, gives every client.
    let (mut of_stream, mut of_connection) = (65_535, 65_535);
    let greeting = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; len as usize];
            stream.read_exact(&mut payload).await.unwrap();
            let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
            match head[3] {
                SETTINGS => {
                    for setting in payload.chunks_exact(6) {
                        if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                            of_stream = number(&setting[2..]);
                        }
                    }
                }
                WINDOW_UPDATE => {
                    of_connection += number(&payload);
                    break;
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, greeting).await.unwrap();
    assert_eq!((of_stream, of_connection), (2 << 20, 4 << 20));
}
