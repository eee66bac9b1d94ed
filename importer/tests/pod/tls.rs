//! An authority of our own.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::front::Front;

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate for all names of these tests, and its key.
pub(crate) struct Issued {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// What clients are to trust.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn issue(&self) -> Issued {
        let names = ["files", "mirror", "registry", "dvcr", "auth"];
        let mut names: Vec<_> = names.map(|name| format!("{name}.test")).into();
        names.push("127.0.0.1".to_owned());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        Issued {
            certificate: params.signed_by(&key, &self.issuer).unwrap(),
            key,
        }
    }
    /// TLS in front of a server on loopback.
    pub(crate) fn front(&self, server: &str) -> Front {
        let Issued { certificate, key } = self.issue();
        Front::of(server, &certificate.pem(), &key.serialize_pem())
    }
}
