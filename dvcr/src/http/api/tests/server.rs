//! The server itself, and the pages about the API.

use super::*;

#[tokio::test]
async fn a_server_tells_what_it_is_and_no_secrets() {
    let world = World::default().await;
    let server = world.client.server().await.unwrap();
    assert_eq!(
        (server.version.as_str(), server.data_format),
        (env!("CARGO_PKG_VERSION"), 1)
    );
    assert_eq!(
        (server.uptime_seconds, server.now),
        (3_600, Timestamp(BEGIN_MS))
    );
    let storage = server.storage.unwrap();
    assert!(storage.total_bytes > storage.free_bytes && storage.reserve_bytes == 7);
    let settings = world.client.settings().await.unwrap().settings;
    assert_eq!(
        (&settings["listen"], &settings["s3_secret"]),
        (&"x".into(), &"(redacted)".into())
    );
}

#[tokio::test]
async fn the_document_and_its_pages_come_from_the_server_alone() {
    let world = World::default().await;
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}{path}", world.url)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let field = |name: &str| {
            let value = answer.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (policy, kind) = (field("content-security-policy"), field("content-type"));
        (policy, kind.unwrap(), answer.text().await.unwrap())
    };
    let (_, kind, text) = get("/api/v1/openapi.json").await;
    assert_eq!(
        (kind.as_str(), text),
        ("application/json", super::super::document_text().unwrap())
    );
    for path in ["/api", "/api/", "/api/docs", "/api/docs/"] {
        let (policy, kind, html) = get(path).await;
        assert_eq!(kind, "text/html", "{path}");
        let policy = policy.unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"));
        // Everything that the page names is here, and no script is in the page itself.
        let named: Vec<&str> = html
            .split(['"', '\''])
            .filter(|text| {
                text.ends_with(".js") || text.ends_with(".css") || text.ends_with(".png")
            })
            .collect();
        assert!(named.len() >= 6, "{html}");
        for file in named {
            let (_, _, text) = get(&format!("/api/docs/{file}")).await;
            assert!(!text.is_empty());
        }
        assert!(
            !html.contains("http://") && !html.contains("https://"),
            "{html}"
        );
        assert_eq!(
            html.matches("<script").count(),
            html.matches("<script src=").count()
        );
    }
    let (_, _, starter) = get("/api/docs/swagger-initializer.js").await;
    assert!(starter.contains("\"/api/v1/openapi.json\""), "{starter}");
}
