//! A certificate authority that nobody else knows, and a certificate of it for this machine.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The authority's certificate, the one that it has issued, and its key, as PEM files that go when this is dropped.
pub(crate) struct Tls {
    directory: tempfile::TempDir,
}

impl Tls {
    /// For `localhost` and `127.0.0.1`.
    pub(crate) fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = authority.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(authority, key);
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate");
        let tls = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        for (name, text) in [
            ("ca", ca),
            ("certificate", certificate.pem()),
            ("key", key.serialize_pem()),
        ] {
            fs::write(tls.file(name), text).expect("write a PEM file");
        }
        tls
    }

    /// What clients are to trust.
    pub(crate) fn ca(&self) -> String {
        self.file("ca")
    }

    pub(crate) fn certificate(&self) -> String {
        self.file("certificate")
    }

    pub(crate) fn key(&self) -> String {
        self.file("key")
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.directory.path().join(format!("{name}.pem"));
        path.to_str().expect("temporary names are text").to_owned()
    }
}
