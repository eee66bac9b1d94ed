//! TLS in front of a server that has none.

use std::sync::Arc;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// On loopback; ends when dropped.
pub(crate) struct Front {
    port: u16,
    _runtime: Runtime,
}

impl Front {
    /// In front of `http://HOST:PORT`, with a certificate and a key in PEM.
    pub(crate) fn of(server: &str, certificate: &str, key: &str) -> Self {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = server.trim_start_matches("http://").to_owned();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    // Clients that do not trust the certificate go away.
                    let Ok(mut outside) = acceptor.accept(stream).await else {
                        return;
                    };
                    if let Ok(mut inside) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut outside, &mut inside).await;
                    }
                });
            }
        });
        Self {
            port,
            _runtime: runtime,
        }
    }

    /// `NAME:PORT`.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{name}:{}", self.port)
    }
}
