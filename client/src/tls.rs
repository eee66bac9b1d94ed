//! Which servers are trusted: those that the system's authorities vouch for, and those that the certificates vouch for which somebody
//! names.
//!
//! A certificate that was named is trusted also where a server shows it itself. `openssl req -x509` makes one that says it is an
//! authority, and such a one webpki refuses as a server's own; OpenSSL, Go and Python take it, as whoever named it expects.

use std::sync::Arc;

use reqwest::ClientBuilder;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use rustls_platform_verifier::Verifier;

use crate::Error;

/// Protocols over TLS, the preferred one first (ALPN).
pub const HTTP_1_AND_2: &[&str] = &["h2", "http/1.1"];

/// The same where only HTTP/1.1 will do.
pub const HTTP_1: &[&str] = &["http/1.1"];

/// Lets a client trust the certificates of PEM documents beside the system's authorities. Without any it stays as it is. It must not be
/// one that trusts everybody.
pub fn trust(
    builder: ClientBuilder,
    pems: &[Vec<u8>],
    protocols: &[&str],
) -> Result<ClientBuilder, Error> {
    if pems.is_empty() {
        return Ok(builder);
    }
    let verifier = NamedVerifier::new(certificates(pems)?).map_err(unusable)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| (*name).into()).collect();
    Ok(builder.tls_backend_preconfigured(config))
}

/// All certificates of PEM documents, each of which has one at least.
pub(crate) fn certificates(pems: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut all = vec![];
    for pem in pems {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let parsed = parsed.ok().filter(|parsed| !parsed.is_empty());
        all.extend(parsed.ok_or_else(|| {
            Error::Settings(
                "the CA file holds no PEM certificate: it must have lines BEGIN CERTIFICATE"
                    .to_owned(),
            )
        })?);
    }
    Ok(all)
}

fn unusable(error: TlsError) -> Error {
    Error::Settings(format!("the CA cannot be used: {error}"))
}

/// Verifies as the system does, with more authorities; and takes a server's certificate that was named itself.
#[derive(Debug)]
struct NamedVerifier {
    inner: Verifier,
    named: Vec<CertificateDer<'static>>,
}

impl NamedVerifier {
    fn new(named: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let inner = Verifier::new_with_extra_roots(named.clone(), provider)?;
        Ok(Self { inner, named })
    }
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // Its dates were compared before this was found.
            Err(error) if is_authority(&error) && self.named.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether a certificate was refused because it says that it is an authority.
fn is_authority(error: &TlsError) -> bool {
    let TlsError::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// As `openssl req -x509` makes it, good until a year.
    fn self_signed(year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["r.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_named_certificate_that_signed_itself_was_refused() {
        let (named, old, other) = (self_signed(2040), self_signed(2022), self_signed(2040));
        let verifier = NamedVerifier::new(vec![named.clone(), old.clone()]).unwrap();
        // In 2030.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
        for (what, shown, name, expected) in [
            ("named", &named, "r.example", true),
            ("of another name", &named, "s.example", false),
            ("too old", &old, "r.example", false),
            ("not named", &other, "r.example", false),
        ] {
            let name = ServerName::try_from(name).unwrap();
            let verified = verifier.verify_server_cert(shown, &[], &name, &[], now);
            assert_eq!(verified.is_ok(), expected, "{what}: {verified:?}");
        }
    }
}
