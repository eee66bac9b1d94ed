//! What goes wrong.

use dvcr_openapi::Error;
use reqwest::Method;
use serde_json::json;

use super::*;

#[tokio::test]
async fn every_failure_is_a_problem_document() {
    let world = World::default().await;
    world.push("vi/a", "v1", &disk(1, 10_000)).await;
    let http = reqwest::Client::new();
    let check =
        async |method: Method, path: &str, body: Option<(&str, &str)>, expected: (u16, &str)| {
            let mut request = http.request(method.clone(), format!("{}{path}", world.url));
            if let Some((kind, text)) = body {
                request = request.header("content-type", kind).body(text.to_owned());
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let kind = answer.headers()["content-type"].clone();
            let allow = answer.headers().contains_key("allow");
            let text = answer.text().await.unwrap();
            assert_eq!(
                (status, kind.to_str().unwrap()),
                (expected.0, "application/problem+json"),
                "{method} {path}: {text}"
            );
            let problem: dvcr_openapi::Problem = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (problem.status, problem.code.as_str()),
                expected,
                "{method} {path}: {text}"
            );
            assert!(
                problem.kind == "about:blank"
                    && !problem.title.is_empty()
                    && !problem.detail.is_empty()
            );
            assert_eq!(allow, status == 405, "{method} {path}");
        };
    let unsupported = |status| (status, "UNSUPPORTED");
    let absent = Digest::sha256(b"absent");
    for path in [
        "/api/v1",
        "/api/v2/stats",
        "/api/v1/stats/",
        "/api/v1/nothing",
        "/api/docs/none.js",
        "/api/v1/gc/runs/1",
    ] {
        check(Method::GET, path, None, unsupported(404)).await;
    }
    for (path, code) in [
        ("/api/v1/stats?repository=A", "NAME_INVALID"),
        ("/api/v1/tags", "UNSUPPORTED"),
        ("/api/v1/tags?repository=..", "NAME_INVALID"),
        ("/api/v1/tags?repository=vi/a&limit=0", "UNSUPPORTED"),
        ("/api/v1/tags?repository=vi/a&limit=1001", "UNSUPPORTED"),
        ("/api/v1/tags?repository=vi/a&limit=x", "UNSUPPORTED"),
        ("/api/v1/manifests?repository=vi/a&after=xyz", "UNSUPPORTED"),
        ("/api/v1/manifests?repository=vi/a&after=00", "UNSUPPORTED"),
        ("/api/v1/gc/runs?after=00", "UNSUPPORTED"),
        ("/api/v1/gc/runs/x", "UNSUPPORTED"),
        ("/api/v1/gc/explain/x", "DIGEST_INVALID"),
        ("/api/v1/usage?from=yesterday", "UNSUPPORTED"),
        (
            "/api/v1/manifests/sha256:x?repository=vi/a",
            "DIGEST_INVALID",
        ),
    ] {
        check(Method::GET, path, None, (400, code)).await;
    }
    for (path, code) in [
        ("/api/v1/stats?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/tags?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/manifests?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/blobs?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/repository?repository=none", "NAME_UNKNOWN"),
        ("/api/v1/manifests/v2?repository=vi/a", "MANIFEST_UNKNOWN"),
        (&format!("/api/v1/blobs/{absent}"), "BLOB_UNKNOWN"),
    ] {
        check(Method::GET, path, None, (404, code)).await;
    }
    check(Method::PUT, "/api/v1/stats", None, unsupported(405)).await;
    check(Method::GET, "/api/v1/uploads/00", None, unsupported(405)).await;
    check(Method::POST, "/api/docs/", None, unsupported(405)).await;
    check(Method::DELETE, "/api/v1/uploads/00", None, unsupported(400)).await;
    let json = |text| Some(("application/json", text));
    let runs = "/api/v1/gc/runs";
    // What another site's form can send begins nothing.
    check(Method::POST, runs, None, unsupported(415)).await;
    check(
        Method::POST,
        runs,
        Some(("text/plain", "{}")),
        unsupported(415),
    )
    .await;
    let form = Some(("application/x-www-form-urlencoded", "force=true"));
    check(Method::POST, runs, form, unsupported(415)).await;
    for text in [
        "",
        "{",
        "7",
        "{\"grace_seconds\":-1}",
        // What serde would take for an object, by the order of fields.
        "[]",
        "[0, true]",
        "{\"force\":1}",
        "{\"unknown\":1}",
    ] {
        check(Method::POST, runs, json(text), unsupported(400)).await;
    }
    let long = format!("{{\"force\":true{}}}", " ".repeat(2 << 20));
    check(Method::POST, runs, json(&long), (413, "SIZE_INVALID")).await;
    // Refused before any handler.
    let long = format!("/api/v1/stats?repository={}", "a".repeat(20_000));
    check(Method::GET, &long, None, unsupported(414)).await;
    assert_eq!(
        world
            .client
            .gc_runs(&PageQuery::default())
            .await
            .unwrap()
            .items,
        []
    );
}

#[tokio::test]
async fn a_glob_that_keeps_the_server_busy_or_fits_nothing_is_refused_by_its_field() {
    let world = World::default().await;
    let http = reqwest::Client::new();
    let long = format!("{}z", "**".repeat(300_000));
    for (path, document, words) in [
        (
            "deletions",
            json!({ "repository": long, "whole": true, "dry_run": true }),
            "repository: a glob has 600001 bytes",
        ),
        (
            "deletions",
            json!({ "repository": "**", "tag": long, "dry_run": true }),
            "tag: a glob has 600001 bytes",
        ),
        (
            "deletions",
            json!({ "repository": "vi/a", "tag": "v[0-9]*" }),
            "tag: \"v[0-9]*\" can fit no tag because of '['",
        ),
        (
            "retention/plan",
            json!({ "repository": long }),
            "repository: a glob has 600001 bytes",
        ),
        (
            "retention/plan",
            json!({ "rules": { "retention": [{ "repository": long }] } }),
            "rules.retention[0].repository: a glob has 600001 bytes",
        ),
        (
            "retention/plan",
            json!({ "rules": { "retention": [
                { "repository": "**" },
                { "repository": "vi/**", "keep": [{ "tags": ["v*", "{stable,lts}"] }] },
            ] } }),
            "rules.retention[1].keep[0].tags[1]: \"{stable,lts}\" can fit no tag because of '{'",
        ),
        (
            "retention/plan",
            json!({ "rules": { "immutable": [{ "repository": "vi/**", "except": ["rc?"] }] } }),
            "rules.immutable[0].except[0]: \"rc?\"",
        ),
        (
            "retention/plan",
            json!({ "rules": { "immutable": [
                { "repository": "**", "tags": vec!["*a".repeat(64); 600] },
            ] } }),
            "the globs are longer than 65536 bytes together",
        ),
    ] {
        let request = http.post(format!("{}/api/v1/{path}", world.url));
        let answer = request.json(&document).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 400);
        let problem: dvcr_openapi::Problem = answer.json().await.unwrap();
        assert!(problem.detail.contains(words), "{}", problem.detail);
    }
}

#[tokio::test]
async fn failures_of_the_client_say_what_to_do() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let nobody = Client::new(&address)
        .unwrap()
        .gc_status()
        .await
        .unwrap_err();
    assert!(matches!(nobody, Error::Unreachable { .. }), "{nobody:?}");
    let world = World::default().await;
    // Something that is no registry: what a registry answers elsewhere.
    let other = Client::new(&format!("{}/v2", world.url)).unwrap();
    let error = other.gc_status().await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
}

#[tokio::test]
async fn whatever_is_no_limit_is_told_the_same_sentence() {
    let world = World::default().await;
    for (path, limits) in [
        ("tags?repository=vi/a", ["0", "-1", "x"]),
        (
            "repositories?prefix=vi",
            ["", "1001", "99999999999999999999"],
        ),
        ("gc/runs?after=", ["1.5", "+", "1%20"]),
    ] {
        for limit in limits {
            let url = format!("{}/api/v1/{path}&limit={limit}", world.url);
            let answer = reqwest::get(&url).await.unwrap();
            let problem: dvcr_openapi::Problem = answer.json().await.unwrap();
            assert_eq!(problem.status, 400, "{url}");
            assert_eq!(problem.detail, "limit is a number from 1 to 1000", "{url}");
        }
    }
}
