//! The certificate, and taking a new one without dropping connections.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;

use crate::{blocking, metrics::Metrics};

/// How often the files are compared with what is used: cert-manager renews weeks ahead, and a kubelet takes about a minute
/// to bring a changed secret.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Longest certificate or key file. A chain of ten certificates takes about 20 KiB.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Certificate and key in use, and where they came from.
pub(super) struct Certificates {
    files: Files,
    current: ArcSwap<ServerConfig>,
    /// The bytes that were looked at last, good or bad: a broken file is reported once, not every ten seconds.
    seen: Mutex<Pem>,
}

#[derive(Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificates {
    /// Reads both files. Fails with what is wrong if they cannot be used.
    pub(super) async fn open(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let (config, seen) = {
            let files = files.clone();
            blocking::run(move || {
                let pem = files.read()?;
                anyhow::Ok((files.config(&pem)?, pem))
            })
            .await?
        };
        Ok(Self {
            files,
            current: ArcSwap::from_pointee(config),
            seen: Mutex::new(seen),
        })
    }

    /// For the next handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Takes the files if they changed. True if they did and are good; connections that are open keep what they have.
    pub(super) async fn reload(self: &Arc<Self>) -> anyhow::Result<bool> {
        let this = Arc::clone(self);
        blocking::run(move || {
            let pem = this.files.read()?;
            let mut seen = this.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == pem {
                return Ok(false);
            }
            // While a renewal replaces two files one after the other, they do not fit: the old pair stays, and the next look
            // finds the new one.
            let config = this.files.config(&pem);
            *seen = pem;
            this.current.store(Arc::new(config?));
            Ok(true)
        })
        .await
    }

    /// Reloads when the files change, at the latest with the next signal. Never ends.
    pub(super) async fn watch(self: Arc<Self>, mut hangup: Signal, metrics: Arc<Metrics>) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = hangup.recv() => {}
            }
            match self.reload().await {
                Ok(false) => {}
                Ok(true) => {
                    metrics.connections.tls_reloads.inc();
                    tracing::info!("took a new TLS certificate");
                }
                Err(error) => {
                    metrics.connections.tls_reload_failures.inc();
                    tracing::error!(
                        error = format!("{error:#}"),
                        "keeping the old TLS certificate"
                    );
                }
            }
        }
    }
}

impl Files {
    fn read(&self) -> anyhow::Result<Pem> {
        let read = |path: &Path| -> anyhow::Result<Vec<u8>> {
            let context = || format!("read {}", path.display());
            let file = std::fs::File::open(path).with_context(context)?;
            let mut bytes = Vec::new();
            let len = file
                .take(PEM_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
                .with_context(context)?;
            if len as u64 > PEM_BYTES_MAX {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge)).with_context(context);
            }
            Ok(bytes)
        };
        Ok(Pem {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }

    fn config(&self, pem: &Pem) -> anyhow::Result<ServerConfig> {
        let certificate = self.certificate.display();
        let key = self.key.display();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem.certificate)
            .collect::<Result<_, _>>()
            .with_context(|| format!("read PEM certificates in {certificate}"))?;
        anyhow::ensure!(!chain.is_empty(), "no PEM certificate in {certificate}");
        let private = PrivateKeyDer::from_pem_slice(&pem.key)
            .with_context(|| format!("read PEM key in {key}"))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .context("set up TLS 1.2 and 1.3")?
                .with_no_client_auth()
                .with_single_cert(chain, private)
                .with_context(|| format!("use certificate {certificate} with key {key}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        directory: tempfile::TempDir,
    }

    impl Pair {
        fn new() -> Self {
            let pair = Self {
                directory: tempfile::tempdir().unwrap(),
            };
            pair.renew();
            pair
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn renew(&self) {
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(self.path("tls.crt"), pair.cert.pem()).unwrap();
            std::fs::write(self.path("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        }

        async fn open(&self) -> anyhow::Result<Certificates> {
            Certificates::open(&self.path("tls.crt"), &self.path("tls.key")).await
        }
    }

    #[tokio::test]
    async fn a_renewed_pair_is_taken_once() {
        let pair = Pair::new();
        let certificates = Arc::new(pair.open().await.unwrap());
        let before = certificates.current.load_full();
        assert!(!certificates.reload().await.unwrap());
        pair.renew();
        assert!(certificates.reload().await.unwrap());
        assert!(!certificates.reload().await.unwrap());
        assert!(!Arc::ptr_eq(&before, &certificates.current.load_full()));
    }

    #[tokio::test]
    async fn a_half_renewed_pair_keeps_the_old_one() {
        let pair = Pair::new();
        let certificates = Arc::new(pair.open().await.unwrap());
        let before = certificates.current.load_full();
        let key = std::fs::read(pair.path("tls.key")).unwrap();
        pair.renew();
        let new_key = std::fs::read(pair.path("tls.key")).unwrap();
        std::fs::write(pair.path("tls.key"), key).unwrap();
        assert!(certificates.reload().await.is_err());
        assert!(Arc::ptr_eq(&before, &certificates.current.load_full()));
        assert!(!certificates.reload().await.unwrap(), "told once");
        std::fs::write(pair.path("tls.key"), new_key).unwrap();
        assert!(certificates.reload().await.unwrap());
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let pair = Pair::new();
        std::fs::write(pair.path("tls.crt"), "").unwrap();
        let error = pair.open().await.err().unwrap();
        assert!(
            format!("{error:#}").contains("no PEM certificate in"),
            "{error:#}"
        );
        std::fs::remove_file(pair.path("tls.key")).unwrap();
        let error = pair.open().await.err().unwrap();
        assert!(format!("{error:#}").contains("tls.key"), "{error:#}");
    }
}
