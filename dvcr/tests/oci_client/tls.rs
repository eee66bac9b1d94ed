//! Certificates.

use std::fs;

use dvcr_client::{Client, Credentials, Error, Retry, Transport};
use dvcr_core::oci::Algorithm;

use crate::{
    content::{Image, tag},
    support::{random::Random, server::Server, tls::Tls},
};

#[tokio::test]
async fn a_certificate_is_trusted_with_its_ca_and_not_without() {
    let tls = Tls::new();
    let (certificate, key) = (tls.certificate(), tls.key());
    let server = Server::start(&[
        ("DVCR_TLS_CERTIFICATE", &certificate),
        ("DVCR_TLS_KEY", &key),
    ]);
    let url = server.url();
    let client = |transport: Transport| Client::at(&url, Credentials::Anonymous, &transport);

    let trusted = Transport {
        ca_pems: vec![fs::read(tls.ca()).unwrap()],
        ..Transport::default()
    };
    let repository = client(trusted).unwrap().repository(&"a/b".parse().unwrap());
    let image = Image::new(Algorithm::Sha256, Random::new().bytes(9 << 20));
    image.push(&repository, &[tag("x")]).await.unwrap();
    image.assert_at(&repository, "x").await;
    // Over HTTP/2 the answer to a HEAD has the length of the blob as that of its body.
    let layer = &image.blobs[1];
    let info = repository.blob_info(&layer.digest).await.unwrap();
    assert_eq!(info.unwrap().size, Some(layer.size));

    // Final: it is not asked ten times.
    let error = client(Transport::default())
        .unwrap()
        .ping()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
    assert!(!error.is_retryable());

    let insecure = Transport {
        insecure: true,
        retry: Retry::never(),
        ..Transport::default()
    };
    client(insecure).unwrap().ping().await.unwrap();
}
