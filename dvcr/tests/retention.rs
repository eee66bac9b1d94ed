//! Retention, immutable tags and deletion on the real program, over HTTP and from the command line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    http::{Body, Client, Request, Response},
    process::{Finished, run},
    random::Random,
    server::{Server, program},
    stored::Stored,
};

const LIMIT: Duration = Duration::from_secs(60);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER_BYTES: usize = 2 << 20;

struct World {
    server: Server,
    client: Client,
    stored: Stored,
    random: Random,
}

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        let server = Server::start(settings);
        Self {
            client: Client::new(&server.url()),
            server,
            stored: Stored::default(),
            random: Random::new(),
        }
    }

    /// Pushes an image of its own under a tag.
    fn push(&mut self, repository: &str, tag: &str) -> Result<(), Response> {
        let (client, random) = (&self.client, &mut self.random);
        self.stored.push(client, repository, LAYER_BYTES, random)?;
        let path = format!("/v2/{repository}/manifests/");
        let (_, manifest) = self.stored.newest(&format!("{path}v1"));
        self.stored
            .put_manifest(client, &format!("{path}{tag}"), manifest)
    }

    fn send(&self, request: &Request) -> Response {
        self.client.send(request).unwrap()
    }

    fn get(&self, path: &str) -> Response {
        self.send(&Request::new("GET", path))
    }

    /// A JSON document, sent and answered.
    fn post(&self, path: &str, document: &Value) -> (u16, Value) {
        let body = Body::Sized(document.to_string().into_bytes());
        let request = Request::new("POST", path).header("Content-Type", "application/json");
        let response = self.send(&request.body(body));
        (response.status, response.json().unwrap())
    }

    fn tags(&self, repository: &str) -> Vec<String> {
        let response = self.get(&format!("/v2/{repository}/tags/list"));
        let tags = response.json().unwrap()["tags"].as_array().cloned();
        let tags = tags.unwrap_or_default().into_iter();
        tags.map(|tag| tag.as_str().unwrap().to_owned()).collect()
    }

    fn dvcr(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DVCR_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("DVCR_SERVER", self.server.url());
        run(command, LIMIT)
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let finished = self.dvcr(arguments);
        assert!(finished.success, "{}", finished.log);
        String::from_utf8(finished.stdout).unwrap()
    }

    fn stored_bytes(&self) -> u64 {
        let stats = self.succeed(&["stats", "--json"]);
        let stats: Value = serde_json::from_str(&stats).unwrap();
        stats["pack_bytes"].as_u64().unwrap()
    }
}

fn poll(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn rules_are_tried_and_then_applied_by_the_server_itself() {
    let mut world = World::new(&[]);
    for tag in ["a", "b", "c"] {
        world.push("vi/debian", tag).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new.toml");
    let rules = "listen = \"127.0.0.1:1\"\n[[retention]]\nrepository = \"vi/**\"\nkeep = [{ last = 2 }]\n[[immutable]]\nrepository = \"vi/**\"\ntags = [\"v*\"]\n";
    std::fs::write(&file, rules).unwrap();
    let told = world.succeed(&["retention", "test", "--rules", file.to_str().unwrap()]);
    let line = |tag: &str| {
        let mut lines = told.lines();
        let line = lines.find(|line| line.split_whitespace().nth(1) == Some(tag));
        line.unwrap_or_else(|| panic!("{tag} in\n{told}"))
            .to_owned()
    };
    assert!(line("a").contains("goes"), "{told}");
    assert!(line("a").contains("no entry keeps it"), "{told}");
    assert!(line("c").contains("keep[0]: last 2 of *"), "{told}");
    assert!(
        line("v1").contains("stays") && line("v1").contains("immutable"),
        "{told}"
    );
    assert!(told.contains("2 stay, 2 go"), "{told}");
    let nothing = "[[retention]]\nrepository = \"vi/**\"\nkeep = [{ tags = [\"release-*\"] }]\n";
    std::fs::write(&file, nothing).unwrap();
    let held = world.succeed(&["retention", "test", "--rules", file.to_str().unwrap()]);
    assert!(held.contains("0 stay, 0 go\n4 held"), "{held}");
    assert!(held.contains("4 of 4 tags would go at once"), "{held}");
    // Nothing is in force yet.
    let told = world.succeed(&["retention", "test", "--json"]);
    let items: Value = serde_json::from_str(&told).unwrap();
    let items = items.as_array().unwrap();
    assert!(items.iter().all(|item| item["kept"] == true), "{told}");
    assert_eq!(world.tags("vi/debian"), ["a", "b", "c", "v1"]);
    // A rule that is meant to keep v1, v2 and so on, and would keep nothing.
    let rules = "[[retention]]\nrepository = \"vi/**\"\nkeep = [{ tags = [\"v[0-9]*\"] }]\n";
    std::fs::write(&file, rules).unwrap();
    let path = file.to_str().unwrap();
    for arguments in [
        &["retention", "test", "--rules", path][..],
        &["check-config", "--config", path],
        &["serve", "--config", path],
    ] {
        let refused = world.dvcr(arguments);
        let told = ["line 3", "can fit no tag because of '['", "wildcard"];
        assert!(
            !refused.success && told.iter().all(|words| refused.log.contains(words)),
            "{arguments:?}: {}",
            refused.log
        );
    }

    let rules = r#"[{ repository = "vi/**", keep = [{ last = 2 }] }]"#;
    let mut world = World::new(&[
        ("DVCR_RETENTION", rules),
        ("DVCR_GC_INTERVAL", "1s"),
        ("DVCR_GC_GRACE", "0s"),
    ]);
    for tag in ["a", "b", "c"] {
        world.push("vi/debian", tag).unwrap();
        world.push("other", tag).unwrap();
    }
    let told = world.succeed(&["retention", "rules"]);
    assert!(told.contains("last = 2"), "{told}");
    poll("retention removes what the rules do not keep", || {
        world.tags("vi/debian") == ["c", "v1"]
    });
    assert_eq!(world.tags("other"), ["a", "b", "c", "v1"]);
    // Counted and told after it was done.
    poll("retention counts what it removed", || {
        let metrics = world.get("/metrics").text();
        metrics.contains("dvcr_retention_removed_tags_total 2")
    });
    poll("retention tells what it removed", || {
        world.server.log().contains("retention removed a tag")
    });

    // A rule that is wrong removes nothing until somebody insists.
    let rules = r#"[{ repository = "vi/**", keep = [{ tags = ["release-*"] }] }]"#;
    let mut world = World::new(&[("DVCR_RETENTION", rules), ("DVCR_GC_INTERVAL", "1s")]);
    world.push("vi/debian", "a").unwrap();
    poll("retention holds all tags", || {
        let metrics = world.get("/metrics").text();
        metrics.contains("dvcr_retention_held_repositories 1")
    });
    assert_eq!(world.tags("vi/debian"), ["a", "v1"]);
    poll("retention tells what it holds", || {
        world.server.log().contains("such_as=vi/debian")
    });
    world.succeed(&["gc", "run", "--force", "--wait"]);
    assert!(world.tags("vi/debian").is_empty());
}

#[test]
fn an_immutable_tag_answers_denied() {
    let rules = r#"[{ repository = "cvi/**", tags = ["v*"] }]"#;
    let mut world = World::new(&[("DVCR_IMMUTABLE", rules)]);
    world.push("cvi/golden", "latest").unwrap();
    let path = "/v2/cvi/golden/manifests/v1";
    let (_, manifest) = world.stored.newest(path);
    let refused = world.push("cvi/golden", "other").unwrap_err();
    assert_eq!(refused.status, 403, "{}", refused.text());
    let error = refused.json().unwrap()["errors"][0].clone();
    assert_eq!(error["code"], "DENIED");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("v1") && message.contains("immutable"),
        "{message}"
    );
    // The same again is fine, and so is another tag.
    let put = Request::new("PUT", path).header("Content-Type", MANIFEST);
    let again = world.send(&put.body(Body::Sized(manifest.clone())));
    assert_eq!(again.status, 201, "{}", again.text());
    let by_digest = format!(
        "/v2/cvi/golden/manifests/{}",
        support::digest::sha256(&manifest)
    );
    for target in [path, &by_digest] {
        assert_eq!(
            world.send(&Request::new("DELETE", target)).status,
            403,
            "{target}"
        );
    }
    assert_eq!(world.get(path).body, manifest);
    let request = json!({"repository": "cvi/golden", "whole": true});
    let (status, problem) = world.post("/api/v1/deletions", &request);
    assert_eq!(
        (status, &problem["code"]),
        (403, &json!("DENIED")),
        "{problem}"
    );
    let refused = world.dvcr(&["rm", "cvi/golden:v1"]);
    assert!(
        !refused.success && refused.log.contains("immutable"),
        "{}",
        refused.log
    );
}

#[test]
fn deletions_free_what_they_promise() {
    let mut world = World::new(&[("DVCR_GC_GRACE", "0s"), ("DVCR_LEASE", "1s")]);
    for (repository, tag) in [("vi/a", "x"), ("vi/test-1", "x"), ("vi/test-2", "x")] {
        world.push(repository, tag).unwrap();
    }
    let before = world.stored_bytes();
    for request in [
        json!({"repository": "vi/a"}),
        json!({"repository": "vi/a", "tag": "x", "whole": true}),
        json!({"repository": "vi/a", "tag": "x", "unknown": 1}),
        json!({"repository": "vi/a", "digest": "sha256:0"}),
    ] {
        let (status, problem) = world.post("/api/v1/deletions", &request);
        assert_eq!(status, 400, "{request}: {problem}");
    }
    let (status, _) = world.post(
        "/api/v1/deletions",
        &json!({"repository": "none", "whole": true}),
    );
    assert_eq!(status, 404);
    // A tag of two: the image stays.
    let request = json!({"repository": "vi/a", "tag": "x"});
    let (_, deleted) = world.post("/api/v1/deletions", &request);
    assert_eq!(
        (&deleted["tags"], &deleted["manifests"]),
        (&json!(1), &json!(0)),
        "{deleted}"
    );
    let told = world.succeed(&["rm", "vi/test-*", "--dry-run"]);
    assert!(
        told.contains("would remove 4 tags and 2 manifests of 2 repositories"),
        "{told}"
    );
    let unasked = world.dvcr(&["rm", "vi/test-*"]);
    assert!(
        !unasked.success && unasked.log.contains("--yes"),
        "{}",
        unasked.log
    );
    let told = world.succeed(&["rm", "vi/test-*", "--yes", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let promised = told["freed_bytes"].as_u64().unwrap();
    assert!(promised >= 2 * LAYER_BYTES as u64, "{told}");
    let repositories = world.succeed(&["ls"]);
    assert!(
        !repositories.contains("test") && repositories.contains("vi/a"),
        "{repositories}"
    );
    poll("the bytes are free", || {
        world.succeed(&["gc", "run", "--wait"]);
        // A sweep has copied before it removes.
        before.saturating_sub(world.stored_bytes()) >= promised
    });
    let (path, manifest) = world.stored.newest("vi/a/manifests/v1");
    assert_eq!(world.get(&path).body, manifest);
}

#[test]
fn an_untrusted_certificate_is_not_an_absent_server() {
    let tls = support::tls::Tls::new();
    let (certificate, key) = (tls.certificate(), tls.key());
    let server = Server::start(&[
        ("DVCR_TLS_CERTIFICATE", &certificate),
        ("DVCR_TLS_KEY", &key),
    ]);
    let mut command = Command::new(program());
    command
        .args(["ls", "--server", &server.url()])
        .env_remove("DVCR_SERVER");
    let refused = run(command, LIMIT);
    assert!(!refused.success);
    assert!(
        refused.log.contains("no trusted connection"),
        "{}",
        refused.log
    );
    assert!(refused.log.contains("SSL_CERT_FILE"), "{}", refused.log);
    assert!(
        !refused.log.contains("no server answers"),
        "{}",
        refused.log
    );
}
