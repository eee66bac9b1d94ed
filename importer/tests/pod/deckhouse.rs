//! The contract of Deckhouse's importer.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
};

use serde_json::Value;

use crate::{
    container::{Container, Ended},
    images::{Images, LEN, signal},
    registries::manifest,
    site::{Manners, Site},
    support::{digest::sha256, server::Server},
};

/// A container told to bring something into this registry.
fn import(container: &Container, more: &[(&str, &str)], destination: &str) -> Ended {
    let mut variables = vec![
        ("IMPORTER_DESTINATION_ENDPOINT", destination),
        ("DESTINATION_INSECURE_TLS", "true"),
        ("OWNER_UID", "some-uid"),
    ];
    variables.extend(more);
    container.run(&variables)
}

/// Every source, the message of each, and that equal disks are equal images.
#[test]
fn every_source() {
    let server = Server::start(&[]);
    let images = Images::new(11);
    let (image, raw) = (images.qcow2(), fs::read(images.raw()).unwrap());
    let site = Site::new(image.clone(), Manners::default());
    let at = |name: &str| format!("{}/{name}", server.address());
    let first = at("vi/ns/disk:1");
    let sums = format!("sha256:{}, ", &sha256(&image)["sha256:".len()..]);
    let variables = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_CHECKSUMS", sums.as_str()),
    ];
    let message = import(&Container::new(), &variables, &first).done();
    assert_eq!(message["source-image-size"], image.len());
    assert_eq!(message["source-image-virtual-size"], LEN);
    assert_eq!(message["source-image-format"], "qcow2");
    assert!(message["duration"].as_u64().unwrap() > 1_000_000);
    assert!(message["average-speed"].as_u64().is_some());
    assert_eq!(message.as_object().unwrap().len(), 5, "{message}");
    let layer = |name: &str| manifest(&server, name, "1")["layers"].clone();
    let expected = layer("vi/ns/disk");

    // From there: as an image that is copied, within the registry and as another's.
    let copy = at("cvi/copy:1");
    let variables = [("IMPORTER_SOURCE", "dvcr"), ("IMPORTER_ENDPOINT", &*first)];
    let message = import(&Container::new(), &variables, &copy).done();
    assert_eq!(message.as_object().unwrap().len(), 1, "{message}");
    assert!(message["duration"].is_u64());
    let source = format!("docker://{first}");
    let variables = [
        ("IMPORTER_SOURCE", "registry"),
        ("IMPORTER_ENDPOINT", &*source),
    ];
    let message = import(&Container::new(), &variables, &at("vi/other:1")).done();
    assert_eq!(message["source-image-virtual-size"], LEN);

    // What is mounted.
    let container = Container::new();
    fs::create_dir_all(container.path("tmp/fs")).unwrap();
    fs::write(container.path("tmp/fs/disk.img"), &raw).unwrap();
    let message = import(
        &container,
        &[("IMPORTER_SOURCE", "filesystem")],
        &at("vi/file:1"),
    )
    .done();
    // A volume is given what is in the image, in the format that this says.
    assert_eq!(message["source-image-format"], "qcow2");
    assert_eq!(message["source-image-size"], LEN);
    let container = Container::new();
    fs::write(container.path("dev/xvda"), &raw).unwrap();
    import(
        &container,
        &[("IMPORTER_SOURCE", "blockDevice")],
        &at("vi/device:1"),
    )
    .done();
    for name in ["cvi/copy", "vi/other", "vi/file", "vi/device"] {
        assert_eq!(layer(name), expected, "{name}");
    }
}

/// An optical disc stays one, and is attached as such.
#[test]
fn a_disc_is_told_as_a_disc() {
    let server = Server::start(&[]);
    let mut disc = vec![1; 1 << 20];
    // ECMA-119, 8.1: the volume descriptors.
    disc[0x8000..0x8006].copy_from_slice(b"\x01CD001");
    let site = Site::new(disc, Manners::default());
    let variables = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
    ];
    let destination = format!("{}/vi/disc:1", server.address());
    let message = import(&Container::new(), &variables, &destination).done();
    assert_eq!(message["source-image-format"], "iso");
}

/// Every variable that can be wrong, and what is said then.
#[test]
fn failures() {
    let server = Server::start(&[]);
    let site = Site::new(vec![1; 1 << 20], Manners::default());
    let destination = format!("{}/vi/ns/disk:1", server.address());
    let good = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_DESTINATION_ENDPOINT", destination.as_str()),
    ];
    for (name, value, part) in [
        ("IMPORTER_SOURCE", "other", "IMPORTER_SOURCE is http"),
        ("IMPORTER_ENDPOINT", "", "IMPORTER_ENDPOINT is not set"),
        ("IMPORTER_ENDPOINT", "ftp://host/x", "ftp:// is not read"),
        (
            "IMPORTER_CHECKSUMS",
            "md5:00000000000000000000000000000000",
            "checksum mismatch",
        ),
        ("IMPORTER_CHECKSUMS", "md5:1", "32 hexadecimal digits"),
        ("IMPORTER_SHA256SUM", "1", "64 hexadecimal digits"),
        (
            "IMPORTER_MD5SUM",
            "00000000000000000000000000000000",
            "checksum mismatch",
        ),
        ("IMPORTER_CERT_DIR", "/nowhere", "/nowhere"),
        ("IMPORTER_AUTH_CONFIG", "/nowhere", ""),
        ("INSECURE_TLS", "maybe", "true or false"),
        ("DESTINATION_INSECURE_TLS", "maybe", "true or false"),
        ("IMPORTER_DESTINATION_AUTH_CONFIG", "/nowhere", "/nowhere"),
        ("IMPORTER_DESTINATION_CERT_DIR", "/nowhere", "/nowhere"),
        (
            "IMPORTER_DESTINATION_ENDPOINT",
            "dvcr.example/UPPER",
            "IMPORTER_DESTINATION_ENDPOINT",
        ),
    ] {
        let mut variables = good.to_vec();
        variables.retain(|(variable, _)| *variable != name);
        variables.push((name, value));
        let ended = Container::new().run(&variables);
        if part.is_empty() {
            // Credentials for registries are of no concern to a web server.
            ended.done();
            continue;
        }
        ended.failed(part);
        let message: Result<Value, _> = serde_json::from_str(&ended.message);
        let text = message.unwrap_or_else(|_| panic!("{}", ended.message));
        assert!(
            text["error-message"].as_str().unwrap().contains(part),
            "{text}"
        );
    }
}

#[test]
fn metrics_while_it_runs() {
    let server = Server::start(&[]);
    let manners = Manners {
        stall: true,
        ..Manners::default()
    };
    let site = Site::new(vec![1; 1 << 20], manners);
    let destination = format!("{}/vi/disk:1", server.address());
    let container = Container::new();
    let settings = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_SECRET_KEY", "very-secret"),
        ("IMPORTER_DESTINATION_ENDPOINT", destination.as_str()),
        ("OWNER_UID", "some-uid"),
    ];
    let mut child = container.start(&settings, &[]);
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("metrics on ") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended");
    }
    let address = line.trim().rsplit(' ').next().unwrap();
    let url = format!("https://{address}/metrics");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let text = runtime.block_on(async {
        let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true);
        let answer = client
            .no_proxy()
            .build()
            .unwrap()
            .get(url)
            .send()
            .await
            .unwrap();
        answer.text().await.unwrap()
    });
    for name in [
        "registry_progress",
        "registry_average_speed",
        "registry_current_speed",
        "kubevirt_cdi_import_progress_total",
    ] {
        assert!(
            text.contains(&format!("\n{name}{{ownerUID=\"some-uid\"}} ")),
            "{text}"
        );
    }
    // What others on the machine see.
    let commands = fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert_eq!(commands, "/importer\0");
    signal(&child, "TERM");
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    let message = fs::read_to_string(container.path("dev/termination-log")).unwrap();
    assert_eq!(message, r#"{"error-message":"stopped"}"#);
    assert!(!rest.contains("very-secret"), "{rest}");
}
