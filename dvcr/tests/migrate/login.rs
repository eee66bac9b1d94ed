//! Registries that want a login, speak TLS and have certificates of a private authority.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    compare::{Reader, assert_same},
    fill::fill,
    front::Front,
    migration::{migrate_to, run_to},
    site::Site,
    support::{
        distribution::{Distribution, Version},
        server::Server,
        tls::Tls,
    },
    tokens::TokenService,
};

/// `me:secret`, hashed by bcrypt with its lowest cost.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A login for these hosts, as docker keeps it.
fn auth_file(site: &Site, name: &str, login: &str, hosts: &[&str]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let auth = json!({"auth": STANDARD.encode(login)});
    let auths: serde_json::Map<_, _> = hosts
        .iter()
        .map(|host| ((*host).to_owned(), auth.clone()))
        .collect();
    site.write(name, json!({"auths": auths}).to_string().as_bytes())
}

/// Fills a registry that lets everybody in, brings that into one that does not, and from there into a server with TLS. The one in
/// the middle is a target first, then a source.
fn through(version: Version, auth: &str, tls: &Tls) {
    let (site, open) = (Site::new(), Distribution::start(version, ""));
    fill(&site, open.address());
    let closed = Distribution::start_tls(version, auth, tls);
    let ca = tls.ca();
    let good = auth_file(&site, "auth.json", "me:secret", &[closed.address()]);
    let access = ["--ca-file", &ca, "--auth-file", &good];
    let source = open.url();
    let arguments = [&["registry", &source], &access[..]].concat();
    let done = migrate_to(&site, &closed.url(), &arguments);
    assert!(done.complete, "{}", done.log);

    let data = site.path("data");
    let (certificate, key) = (tls.certificate(), tls.key());
    let settings = [
        ("DVCR_TLS_CERTIFICATE", &*certificate),
        ("DVCR_TLS_KEY", &*key),
    ];
    let server = Server::start_on(&data, &settings);
    let from_closed = |more: &[&str]| {
        let source = closed.url();
        let arguments = [&["registry", &source], more].concat();
        run_to(&site, &server.url(), &arguments)
    };
    let wrong = auth_file(&site, "wrong.json", "me:guess", &[closed.address()]);
    let elsewhere = auth_file(&site, "elsewhere.json", "me:secret", &["localhost:1"]);
    for (what, arguments, told) in [
        ("no CA", &["--auth-file", &*good][..], "certificate"),
        ("no login", &["--ca-file", &ca], "401"),
        (
            "a wrong login",
            &["--ca-file", &ca, "--auth-file", &wrong],
            "401",
        ),
        (
            "another's login",
            &["--ca-file", &ca, "--auth-file", &elsewhere],
            "401",
        ),
    ] {
        let refused = from_closed(arguments);
        assert!(!refused.success, "{what}");
        assert!(refused.log.contains(told), "{what}: {}", refused.log);
        assert!(!refused.log.contains("secret"), "{what}: {}", refused.log);
    }
    let source = closed.url();
    let arguments = [&["registry", &source], &access[..]].concat();
    let done = migrate_to(&site, &server.url(), &arguments);
    assert!(done.complete, "{}", done.log);
    // The server's own figures come by the same CA.
    assert!(done.report["server"]["stored_bytes"].as_u64() > Some(0));
    drop(server);

    let server = Server::start_on(&data, &[]);
    assert_same(&Reader::new(&open.url()), &Reader::new(&server.url()));
}

fn htpasswd(directory: &Path) -> String {
    let file = directory.join("htpasswd");
    fs::write(&file, HTPASSWD).unwrap();
    let file = file.display();
    format!("auth: {{htpasswd: {{realm: test, path: {file}}}}}\n")
}

#[test]
fn docker_registry_2_with_a_login_and_tls_comes_over() {
    let directory = tempfile::tempdir().unwrap();
    through(Version::V2, &htpasswd(directory.path()), &Tls::new());
}

#[test]
fn distribution_3_with_a_token_service_and_tls_comes_over() {
    let (service, tls) = (TokenService::start(), Tls::new());
    // A password is not sent to a token service without TLS.
    let pem = |path| fs::read_to_string(path).unwrap();
    let front = Front::of(&service.url(), &pem(tls.certificate()), &pem(tls.key()));
    let url = format!("https://{}", front.at("127.0.0.1"));
    through(Version::V3, &service.configuration_at(&url), &tls);
    assert!(!service.asked().is_empty());
}
