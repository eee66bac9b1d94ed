//! Certificates.

use std::{fs, time::Duration};

use dvcr_client::{Client, Credentials, Error, Retry, Transport};
use dvcr_core::oci::Algorithm;

use crate::{
    content::{Image, tag},
    support::{process::Process, random::Random, server::serve},
};

const START_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_certificate_is_trusted_with_its_ca_and_not_without() {
    let directory = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = pair.cert.pem();
    let (certificate, key) = (directory.path().join("crt"), directory.path().join("key"));
    fs::write(&certificate, &pem).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let settings = [
        ("DVCR_TLS_CERTIFICATE", certificate.to_str().unwrap()),
        ("DVCR_TLS_KEY", key.to_str().unwrap()),
    ];
    let mut server = Process::start(serve(&directory.path().join("data"), &settings));
    let port = server.wait_for(START_LIMIT, |server| {
        let log = server.log();
        let rest = log.split("127.0.0.1:").nth(1)?;
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(port).filter(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    });
    let url = format!("https://localhost:{port}");
    let client = |transport: Transport| Client::at(&url, Credentials::Anonymous, &transport);

    let trusted = Transport {
        ca_pems: vec![pem.into_bytes()],
        ..Transport::default()
    };
    let repository = client(trusted).unwrap().repository(&"a/b".parse().unwrap());
    let image = Image::new(Algorithm::Sha256, Random::new().bytes(9 << 20));
    image.push(&repository, &[tag("x")]).await.unwrap();
    image.assert_at(&repository, "x").await;

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
