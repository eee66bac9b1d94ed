//! The program as a pod runs it: told by the environment, watched over metrics, judged by its termination message.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/registry.rs"]
mod registry;
#[path = "support/site.rs"]
mod site;
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use registry::Registry;
use serde_json::Value;
use site::{Manners, Site};
use support::{Bench, Pattern};

/// What a pod left: exit code and termination message.
fn pod(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let message = dir.path().join("termination-log");
    let output = command(variables, dir.path()).output().unwrap();
    let text = fs::read_to_string(message).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.len() <= 4096 && errors.contains(&text), "{errors}");
    (output.status.code(), text)
}

fn command(variables: &[(&str, &str)], dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvcr-importer"));
    command
        .env_clear()
        .env("DVCR_TERMINATION_LOG", dir.join("termination-log"))
        .env("DVCR_METRICS_ADDRESS", "127.0.0.1:0")
        .env("DVCR_WORK_DIR", dir.join("work"))
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn deckhouse() {
    let registry = Registry::start();
    let bench = Bench::new(Pattern::Mixed, 4 << 20);
    let image = fs::read(bench.image("qcow2", &["-c"])).unwrap();
    let site = Site::new(image.clone(), Manners::default());
    let sum = format!("sha256:{}", dvcr_core::oci::Digest::sha256(&image).hex());
    let destination = format!("{}/vi/ns/disk:1", registry.address);
    let settings = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_CHECKSUMS", sum.as_str()),
        ("IMPORTER_DESTINATION_ENDPOINT", destination.as_str()),
        ("DESTINATION_INSECURE_TLS", "true"),
        ("OWNER_UID", "some-uid"),
    ];
    let (code, message) = pod(&settings);
    assert_eq!(code, Some(0), "{message}");
    let message: Value = serde_json::from_str(&message).unwrap();
    assert_eq!(message["source-image-size"], image.len());
    assert_eq!(message["source-image-virtual-size"], 4 << 20);
    assert_eq!(message["source-image-format"], "qcow2");
    assert!(message["duration"].as_u64().unwrap() > 1_000_000);
    assert!(message["average-speed"].as_u64().is_some());
    assert!(registry.manifest("vi/ns/disk", "1").is_some());

    let copy = format!("{}/cvi/copy:2", registry.address);
    let (code, message) = pod(&[
        ("IMPORTER_SOURCE", "dvcr"),
        ("IMPORTER_ENDPOINT", &destination),
        ("IMPORTER_DESTINATION_ENDPOINT", &copy),
    ]);
    assert_eq!(code, Some(0), "{message}");
    let message: Value = serde_json::from_str(&message).unwrap();
    assert_eq!(message.as_object().unwrap().len(), 1, "{message}");
    assert_eq!(
        registry.manifest("cvi/copy", "2"),
        registry.manifest("vi/ns/disk", "1")
    );

    let wrong = "md5:00000000000000000000000000000000";
    for (name, value, part) in [
        ("IMPORTER_CHECKSUMS", wrong, "checksum mismatch"),
        ("IMPORTER_CHECKSUMS", "md5:1", "32 hexadecimal digits"),
        ("IMPORTER_SOURCE", "other", "IMPORTER_SOURCE is"),
        ("IMPORTER_ENDPOINT", "http://127.0.0.1:1/x", "gave up"),
    ] {
        let mut settings = settings.to_vec();
        settings.push((name, value));
        let (code, message) = pod(&settings);
        assert!(matches!(code, Some(1 | 75)), "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn metrics_while_it_runs() {
    let registry = Registry::start();
    let manners = Manners {
        stall: true,
        ..Manners::default()
    };
    let site = Site::new(vec![1; 1 << 20], manners);
    let destination = format!("{}/vi/disk:1", registry.address);
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_DESTINATION_ENDPOINT", destination.as_str()),
        ("OWNER_UID", "some-uid"),
    ];
    let mut child = command(&settings, dir.path()).spawn().unwrap();
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
        let answer = client.build().unwrap().get(url).send().await.unwrap();
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
    support::run("kill", &["-TERM", &child.id().to_string()]);
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
}
