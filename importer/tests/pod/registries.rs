//! Registries with TLS and logins that were not written by us, and our own, as source and as destination.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::{
    container::{Container, Ended},
    images::{Images, LEN},
    site::{Manners, Site},
    support::{
        distribution::{Distribution, Version},
        http::{Client, Request},
        process::Process,
        server::{Server, serve},
    },
    tls::Authority,
    tokens::TokenService,
    volume::same_disk,
};

/// `me:secret`, hashed by bcrypt with its lowest cost.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// By what our own registry is known in containers.
const NAMED: (&str, &str) = ("DVCR_HOSTS", "[\"dvcr.test\"]");

/// Longest wait for a server.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Plain HTTP has to be permitted where it does not stay on the machine, and whoever has not done so is told at once.
#[test]
fn our_own_without_tls() {
    let server = Server::start(&[NAMED]);
    let port = server.address().rsplit(':').next().unwrap();
    let scene = Scene::new(24, format!("dvcr.test:{port}"), &Authority::new());
    let reference = scene.reference();
    let with = |flag: &str| {
        let variables = [
            ("IMPORTER_SOURCE", "http"),
            ("IMPORTER_ENDPOINT", scene.site.url.as_str()),
            ("IMPORTER_DESTINATION_ENDPOINT", &reference),
            ("IMPORTER_DESTINATION_CERT_DIR", "/certs"),
            ("DESTINATION_INSECURE_TLS", flag),
        ];
        scene.container().run(&variables)
    };
    with("false").failed("the server does not speak TLS: allow plain HTTP");
    with("true").done();
    let container = scene.container();
    let populate = ["populate", &reference, "/data", "--insecure"];
    let ended = container.command(&[], &populate);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    same_disk("raw", &container.path("data/disk.img"), &scene.images.raw());
}

/// A manifest in a registry of our own.
pub(crate) fn manifest(server: &Server, repository: &str, tag: &str) -> Value {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let response = Client::new(&server.url()).send(&Request::new("GET", &path));
    let response = response.unwrap();
    assert_eq!(response.status, 200, "{path}");
    serde_json::from_slice(&response.body).unwrap()
}

/// Where a registry is, what to trust, and a disk on a web server.
struct Scene {
    images: Images,
    site: Site,
    host: String,
    ca: String,
}

impl Scene {
    fn new(seed: u64, host: String, authority: &Authority) -> Self {
        let images = Images::new(seed);
        let site = Site::new(images.qcow2(), Manners::default());
        Self {
            images,
            site,
            host,
            ca: authority.pem().to_owned(),
        }
    }

    fn reference(&self) -> String {
        format!("{}/vi/disk:1", self.host)
    }

    fn container(&self) -> Container {
        let container = Container::new().secret("secret").secret("bWU6c2VjcmV0");
        container.file("certs/ca.crt", &self.ca);
        container
    }

    /// A docker configuration with one entry.
    fn config(&self, entry: &Value) -> String {
        json!({"auths": {self.host.as_str(): entry}}).to_string()
    }

    /// A pod of Deckhouse's that brings the disk there with these credentials.
    fn import(&self, entry: &Value) -> Ended {
        let container = self.container();
        container.file("auth/.dockerconfigjson", self.config(entry));
        container.run(&[
            ("IMPORTER_SOURCE", "http"),
            ("IMPORTER_ENDPOINT", &self.site.url),
            ("IMPORTER_DESTINATION_ENDPOINT", &self.reference()),
            (
                "IMPORTER_DESTINATION_AUTH_CONFIG",
                "/auth/.dockerconfigjson",
            ),
            ("IMPORTER_DESTINATION_CERT_DIR", "/certs"),
        ])
    }

    /// A person who takes the disk from there with these credentials.
    fn populate(&self, entry: &Value) -> Ended {
        let container = self.container();
        container.file("auth/config.json", self.config(entry));
        let reference = self.reference();
        let arguments = [
            "populate",
            &reference,
            "/data",
            "--authfile",
            "/auth/config.json",
            "--ca",
            "/certs/ca.crt",
        ];
        let ended = container.command(&[], &arguments);
        if ended.code == Some(0) {
            same_disk("raw", &container.path("data/disk.img"), &self.images.raw());
        }
        ended
    }

    /// A pod of CDI's, with the user and password of a secret.
    fn cdi(&self, password: &str) -> Ended {
        let container = self.container();
        let ended = container.run(&[
            ("IMPORTER_SOURCE", "registry"),
            (
                "IMPORTER_ENDPOINT",
                &format!("docker://{}", self.reference()),
            ),
            ("IMPORTER_ACCESS_KEY_ID", "me"),
            ("IMPORTER_SECRET_KEY", password),
            ("IMPORTER_CERT_DIR", "/certs"),
        ]);
        if ended.code == Some(0) {
            same_disk("raw", &container.path("data/disk.img"), &self.images.raw());
        }
        ended
    }

    /// Nobody gets in without the right credentials, and everybody is told what to do.
    fn refusals(&self) {
        let advice = "give credentials that the registry accepts";
        for entry in [json!({}), json!({"username": "me", "password": "guess"})] {
            self.import(&entry).failed(advice);
            self.populate(&entry).failed(advice);
        }
        self.cdi("guess").failed(advice);
        let reference = self.reference();
        let untrusting = Container::new().trusting(&Authority::new());
        let ended = untrusting.command(
            &[],
            &[
                "inspect",
                &reference,
                "--user",
                "me",
                "--password",
                "secret",
            ],
        );
        ended.failed("give the CA that signed it");
    }
}

#[test]
fn a_login_at_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    fs::write(&file, HTPASSWD).unwrap();
    let more = format!(
        "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
        file.display()
    );
    let registry = Distribution::start(Version::V2, &more);
    let authority = Authority::new();
    let front = authority.front(registry.address());
    let scene = Scene::new(21, front.at("registry.test"), &authority);

    let pair = json!({"auth": "bWU6c2VjcmV0"});
    let message = scene.import(&pair).done();
    assert_eq!(message["source-image-virtual-size"], LEN);
    assert_eq!(scene.populate(&pair).code, Some(0));
    scene.cdi("secret").done();

    // A password in a file, one in the environment, and what `docker login` has left.
    let container = scene.container();
    container.file("auth/password", "secret\n");
    container.file("home/.docker/config.json", scene.config(&pair));
    let reference = scene.reference();
    let inspect = ["inspect", &reference, "--ca", "/certs"];
    let with_file = [
        &inspect[..],
        &["--user", "me", "--password-file", "/auth/password"],
    ]
    .concat();
    let variables = [
        ("DVCR_SOURCE_USER", "me"),
        ("DVCR_SOURCE_PASSWORD", "secret"),
    ];
    let named = [("REGISTRY_AUTH_FILE", "/home/.docker/config.json")];
    for (variables, arguments) in [
        (&[][..], &with_file[..]),
        (&variables, &inspect),
        (&[("HOME", "/home")], &inspect),
        (&named, &inspect),
    ] {
        let ended = container.command(variables, arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(
            ended.log.contains("6.00 MiB (6291456 bytes)"),
            "{}",
            ended.log
        );
    }
    // And what is there is compared with, and goes on to another place of the same registry.
    let copy = format!("{}/vi/copy:1", scene.host);
    let copying = [
        "import",
        &reference,
        &copy,
        "--source-ca",
        "/certs",
        "--ca",
        "/certs",
    ];
    let ended = container.command(&named, &copying);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("0 B sent"), "{}", ended.log);
    scene.refusals();
}

#[test]
fn a_login_at_a_token_service() {
    let service = TokenService::start();
    let authority = Authority::new();
    let auth = authority.front(&service.url());
    let behind = format!("https://{}", auth.at("auth.test"));
    let registry = Distribution::start(Version::V3, &service.configuration_at(&behind));
    let front = authority.front(registry.address());
    let scene = Scene::new(22, front.at("registry.test"), &authority);

    scene
        .import(&json!({"username": "me", "password": "secret"}))
        .done();
    scene.cdi("secret").done();
    let identity = json!({"identitytoken": "refresh"});
    assert_eq!(scene.populate(&identity).code, Some(0));
    scene.import(&identity).done();

    // A token that somebody else has got.
    let query = "/token?service=registry&scope=repository%3Avi%2Fdisk%3Apull%2Cpush";
    let request = Request::new("GET", query).header("Authorization", "Basic bWU6c2VjcmV0");
    let answer = Client::new(&service.url()).send(&request).unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let bearer = json!({"registrytoken": answer["token"]});
    assert_eq!(scene.populate(&bearer).code, Some(0));
    scene.import(&bearer).done();
    scene.refusals();
}

#[test]
fn our_own_with_tls() {
    let authority = Authority::new();
    let issued = authority.issue();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("crt"), dir.path().join("key"));
    fs::write(&certificate, issued.certificate.pem()).unwrap();
    fs::write(&key, issued.key.serialize_pem()).unwrap();
    let settings = [
        ("DVCR_TLS_CERTIFICATE", certificate.to_str().unwrap()),
        ("DVCR_TLS_KEY", key.to_str().unwrap()),
        NAMED,
    ];
    let mut server = Process::start(serve(&dir.path().join("data"), &settings));
    let port = server.wait_for(START_LIMIT, |server| {
        let log = server.log();
        let rest = log.split("127.0.0.1:").nth(1)?;
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(port).filter(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    });
    let scene = Scene::new(23, format!("dvcr.test:{port}"), &authority);
    scene.import(&json!({})).done();
    assert_eq!(scene.populate(&json!({})).code, Some(0));
    scene.cdi("").done();

    // On loopback a CA means TLS, and without one the registry is asked in plain HTTP.
    let local = format!("127.0.0.1:{port}/vi/disk:1");
    let container = scene.container();
    let ended = container.command(&[], &["inspect", &local, "--ca", "/certs"]);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let named = scene.reference();
    let ended = container.command(&[], &["inspect", &named, "--insecure"]);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    scene
        .container()
        .trusting(&Authority::new())
        .command(&[], &["inspect", &named])
        .failed("give the CA that signed it");
}
