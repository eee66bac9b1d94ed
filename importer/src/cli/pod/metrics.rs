//! What a pod tells about its progress: Prometheus text over HTTPS, with a certificate made on the spot, which those who ask do not
//! verify.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::Gauge;

/// Longest head of a request that is read.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Longest time for a whole request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Most connections at once: one controller asks, every two seconds.
const CONNECTIONS_MAX: usize = 16;

/// How often the current speed is measured.
const SPEED_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes per second, on average and at the moment.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Speeds {
    pub(super) average: u64,
    pub(super) current: u64,
}

/// The text of all metrics.
pub(super) fn render(owner: &str, percent: f64, speeds: Speeds) -> String {
    // As the text format wants it.
    let owner = owner
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n");
    let mut text = String::new();
    let metrics = [
        (
            "registry_progress",
            "gauge",
            "How far the import is, in percent",
            format!("{percent:.2}"),
        ),
        (
            "registry_average_speed",
            "gauge",
            "Bytes per second since the import began",
            speeds.average.to_string(),
        ),
        (
            "registry_current_speed",
            "gauge",
            "Bytes per second during the last second",
            speeds.current.to_string(),
        ),
        (
            "kubevirt_cdi_import_progress_total",
            "counter",
            "How far the import is, in percent",
            format!("{percent:.2}"),
        ),
    ];
    for (name, kind, help, value) in metrics {
        text.push_str(&format!(
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{ownerUID=\"{owner}\"}} {value}\n"
        ));
    }
    text
}

/// Answers at the first of these addresses that can be had, until the runtime ends. An error means that nobody can ask.
pub(super) async fn serve(
    addresses: &[SocketAddr],
    owner: String,
    gauge: Gauge,
) -> anyhow::Result<()> {
    let acceptor = acceptor()?;
    let listener = TcpListener::bind(addresses)
        .await
        .with_context(|| format!("listen on {addresses:?}"))?;
    eprintln!("dvcr-importer: metrics on {}", listener.local_addr()?);
    let speeds = Arc::new(std::sync::Mutex::new(Speeds::default()));
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let begin = tokio::time::Instant::now();
    let mut before = 0;
    let mut tick = tokio::time::interval(SPEED_INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let (_, moved) = gauge();
                let seconds = begin.elapsed().as_secs_f64().max(1.0);
                if let Ok(mut speeds) = speeds.lock() {
                    speeds.average = (moved as f64 / seconds) as u64;
                    speeds.current = moved.saturating_sub(before);
                }
                before = moved;
            }
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
                let now = speeds.lock().map(|speeds| *speeds).unwrap_or_default();
                let text = render(&owner, gauge().0, now);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who asks may go away; it asks again.
                    let _ = tokio::time::timeout(REQUEST_TIME, answer(acceptor, stream, text)).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream, text: String) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = vec![];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let len = stream.read(&mut part).await?;
        head.extend_from_slice(&part[..len]);
        if len == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
    }
    let (status, body) = if head.starts_with(b"GET /metrics") {
        ("200 OK", text.as_str())
    } else {
        ("404 Not Found", "")
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn acceptor() -> anyhow::Result<TlsAcceptor> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])
        .context("make a certificate")?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("make a key: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let speeds = Speeds {
            average: 5,
            current: 7,
        };
        let text = render("a\"b", 12.345, speeds);
        for line in [
            "registry_progress{ownerUID=\"a\\\"b\"} 12.35",
            "registry_average_speed{ownerUID=\"a\\\"b\"} 5",
            "registry_current_speed{ownerUID=\"a\\\"b\"} 7",
            "kubevirt_cdi_import_progress_total{ownerUID=\"a\\\"b\"} 12.35",
            "# TYPE kubevirt_cdi_import_progress_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
