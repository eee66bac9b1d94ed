//! The client against servers that break connections, refuse, redirect, lie and say nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use dvcr_client::{Client, Credentials, Error, Pushed, Repository, Retry, Transport};
use dvcr_core::oci::{Algorithm, Digest, Reference, media_type};
use support::{Received, Reply, Server};

fn transport() -> Transport {
    Transport {
        retry: Retry {
            attempts: 4,
            pause: Duration::from_millis(1),
            pause_max: Duration::from_millis(2),
        },
        ..Transport::default()
    }
}

fn repository(server: &Server, credentials: Credentials) -> Repository {
    let client = Client::at(&server.url(), credentials, &transport()).unwrap();
    client.repository(&"a/b".parse().unwrap())
}

fn login() -> Credentials {
    Credentials::basic("me", "secret")
}

/// Different in every byte's neighbourhood, so that misplaced pieces show.
fn content(len: usize) -> Vec<u8> {
    let seed = blake3::hash(&len.to_le_bytes());
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(seed.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// `(first, last)` of `Range: bytes=first-last`.
fn range(request: &Received) -> Option<(usize, usize)> {
    let (first, last) = request
        .header("range")?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

async fn drain(mut reader: dvcr_client::BlobReader) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_pull_goes_on_where_it_broke() {
    let blob = content(1 << 20);
    let served = blob.clone();
    let server = Server::start(move |request, _| {
        let (status, part) = match range(request) {
            Some((first, last)) => (206, &served[first..=last]),
            None => (200, &served[..]),
        };
        let first = served.len() - part.len();
        let reply = Reply::new(status)
            .with(
                "Content-Range",
                format!("bytes {first}-{}/{}", served.len() - 1, served.len()),
            )
            .body(part);
        // More breaks than attempts in a row: each brings some bytes.
        if part.len() > 200_000 {
            reply.cut(100_000)
        } else {
            reply
        }
    });
    let repository = repository(&server, Credentials::Anonymous);
    let digest = Digest::sha256(&blob);
    let reader = repository
        .blob(&digest, Some(blob.len() as u64))
        .await
        .unwrap();
    assert!(drain(reader).await.unwrap() == blob);
    let requests = server.received();
    assert!(requests.len() > 6, "{}", requests.len());
    let asked: Vec<_> = requests.iter().filter_map(range).collect();
    assert!(asked.windows(2).all(|two| two[0].0 < two[1].0), "{asked:?}");
}

#[tokio::test]
async fn a_pull_goes_on_without_ranges() {
    let blob = content(300_000);
    let served = blob.clone();
    let server = Server::start(move |_, before| {
        let reply = Reply::new(200).body(served.clone());
        if before < 2 {
            reply.cut(100_000 + before * 100_000)
        } else {
            reply
        }
    });
    let repository = repository(&server, Credentials::Anonymous);
    let reader = repository.blob(&Digest::sha256(&blob), None).await.unwrap();
    assert!(drain(reader).await.unwrap() == blob);
    let reader = repository
        .blob_range(&Digest::sha256(&blob), 250_000..260_000)
        .await
        .unwrap();
    assert!(drain(reader).await.unwrap() == blob[250_000..260_000]);
}

#[tokio::test]
async fn a_pull_without_progress_ends() {
    let server = Server::start(|_, _| Reply::new(200).body(content(1_000)).cut(0));
    let repository = repository(&server, Credentials::Anonymous);
    let reader = repository
        .blob(&Digest::sha256(b"x"), Some(1_000))
        .await
        .unwrap();
    let error = drain(reader).await.unwrap_err();
    assert!(matches!(error, Error::Connection { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(server.received().len(), 4);
}

#[tokio::test]
async fn wrong_bytes_are_never_a_blob() {
    let server = Server::start(|_, _| Reply::new(200).body("evil"));
    let repository = repository(&server, Credentials::Anonymous);
    let digest = Digest::sha256(b"good");
    let reader = repository.blob(&digest, Some(4)).await.unwrap();
    let error = drain(reader).await.unwrap_err();
    assert!(error.is_corrupt() && !error.is_retryable(), "{error:?}");
    // Another length is noticed before anything is read.
    let error = repository.blob(&digest, Some(5)).await.unwrap_err();
    assert!(matches!(
        error,
        Error::Size {
            expected: 5,
            found: 4,
            ..
        }
    ));
    let error = repository
        .manifest(&Reference::Digest(digest))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error:?}");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_a_refusal_is_final() {
    let server = Server::start(|request, before| match request.target.as_str() {
        "/v2/" if before == 0 => Reply::new(429).with("Retry-After", "0"),
        "/v2/" if before == 1 => Reply::new(503),
        "/v2/" => Reply::new(200),
        _ => Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#),
    });
    let repository = repository(&server, Credentials::Anonymous);
    repository.client().ping().await.unwrap();
    assert_eq!(server.received().len(), 3);
    let tag = Reference::Tag("x".parse().unwrap());
    let error = repository.manifest(&tag).await.unwrap_err();
    assert!(
        error.is_denied() && error.to_string().contains("not yours"),
        "{error}"
    );
    assert_eq!(server.received().len(), 4);
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let blob = content(1_000);
    let served = blob.clone();
    let elsewhere = Server::start(move |_, _| Reply::new(200).body(served.clone()));
    let target = format!("{}/bucket/x?signature=s", elsewhere.url());
    let server = Server::start(move |request, _| match request.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => Reply::new(307).with("Location", target.clone()),
        _ => Reply::new(401).with("WWW-Authenticate", r#"Basic realm="x""#),
    });
    let repository = repository(&server, login());
    let reader = repository
        .blob(&Digest::sha256(&blob), Some(1_000))
        .await
        .unwrap();
    assert!(drain(reader).await.unwrap() == blob);
    let asked = elsewhere.received();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/bucket/x?signature=s");
    assert_eq!(asked[0].header("authorization"), None);
    // The first request shows nothing: the registry has not asked.
    assert_eq!(server.received()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_challenge_of_another_server_gets_nothing() {
    let elsewhere =
        Server::start(|_, _| Reply::new(401).with("WWW-Authenticate", r#"Basic realm="x""#));
    let target = elsewhere.url();
    let server = Server::start(move |_, _| Reply::new(302).with("Location", target.clone()));
    let repository = repository(&server, login());
    let error = repository
        .blob(&Digest::sha256(b""), None)
        .await
        .unwrap_err();
    assert!(error.is_denied(), "{error:?}");
    assert!(elsewhere.received()[0].header("authorization").is_none());
    assert_eq!(elsewhere.received().len(), 1);
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|request, before| {
        assert!(before < 20, "{request:?}");
        Reply::new(302).with("Location", format!("/{before}"))
    });
    let repository = repository(&server, Credentials::Anonymous);
    let error = repository
        .blob(&Digest::sha256(b""), None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("circles"), "{error}");
    assert_eq!(server.received().len(), 11);
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_again_when_it_is_refused() {
    let tokens = Server::start(|request, before| {
        assert_eq!(request.header("authorization"), Some("Basic bWU6c2VjcmV0"));
        assert!(request.target.contains("scope=repository%3Aa%2Fb%3Apull&"));
        Reply::new(200).body(format!(r#"{{"token": "t{before}", "expires_in": 300}}"#))
    });
    let realm = tokens.url();
    let server = Server::start(move |request, before| {
        let good = if before < 4 { "Bearer t0" } else { "Bearer t1" };
        if request.header("authorization") == Some(good) {
            Reply::new(200).with("Content-Type", "a/b").body("{}")
        } else {
            let challenge =
                format!(r#"Bearer realm="{realm}/token",service="s",scope="repository:a/b:pull""#);
            Reply::new(401).with("WWW-Authenticate", challenge)
        }
    });
    let repository = repository(&server, login());
    let tag = Reference::Tag("x".parse().unwrap());
    for _ in 0..5 {
        repository.manifest(&tag).await.unwrap();
    }
    assert_eq!(tokens.received().len(), 2);
    // 401, 200, 200, 200, (revoked) 401, 200, 200
    assert_eq!(server.received().len(), 7);
}

#[tokio::test]
async fn a_token_that_is_never_good_is_a_refusal() {
    let tokens = Server::start(|_, _| Reply::new(200).body(r#"{"access_token": "t"}"#));
    let realm = tokens.url();
    let server = Server::start(move |_, _| {
        let challenge = format!(r#"Bearer realm="{realm}/token",error="insufficient_scope""#);
        Reply::new(401).with("WWW-Authenticate", challenge)
    });
    let repository = repository(&server, Credentials::Anonymous);
    let tag = Reference::Tag("x".parse().unwrap());
    let error = repository.manifest(&tag).await.unwrap_err();
    assert!(error.is_denied(), "{error:?}");
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_a_form() {
    let tokens = Server::start(|request, _| {
        assert_eq!(request.method, "POST");
        let body = String::from_utf8(request.body.clone()).unwrap();
        assert!(
            body.contains("grant_type=refresh_token&refresh_token=id"),
            "{body}"
        );
        Reply::new(200).body(r#"{"access_token": "t"}"#)
    });
    let realm = tokens.url();
    let server = Server::start(move |request, _| match request.header("authorization") {
        Some("Bearer t") => Reply::new(200),
        _ => Reply::new(401).with(
            "WWW-Authenticate",
            format!(r#"Bearer realm="{realm}/token",service="s""#),
        ),
    });
    let repository = repository(&server, Credentials::IdentityToken("id".into()));
    repository.client().ping().await.unwrap();
}

/// A registry that takes uploads and stumbles: it breaks the connection in the middle of the first PATCH.
struct Stumbling {
    stored: Vec<u8>,
    breaks: usize,
}

fn stumbling(breaks: usize, forgets: bool) -> Server {
    let state = Mutex::new(Stumbling {
        stored: Vec::new(),
        breaks,
    });
    Server::start(move |request, _| {
        let mut state = state.lock().unwrap();
        let at = |status: u16, len: usize| {
            Reply::new(status)
                .with("Location", "/v2/a/b/blobs/uploads/1?_state=x")
                .with("Range", format!("0-{}", len.saturating_sub(1)))
        };
        match request.method.as_str() {
            "HEAD" => Reply::new(404),
            "POST" => {
                state.stored.clear();
                at(202, 0)
            }
            "PATCH" => {
                let offset = state.stored.len();
                let from = request
                    .header("content-range")
                    .unwrap()
                    .split_once('-')
                    .unwrap()
                    .0;
                if from != offset.to_string() {
                    return at(416, offset);
                }
                if state.breaks > 0 {
                    state.breaks -= 1;
                    let half = request.body.len() / 2;
                    state.stored.extend_from_slice(&request.body[..half]);
                    return Reply::hangup();
                }
                state.stored.extend_from_slice(&request.body);
                at(202, state.stored.len())
            }
            "GET" if forgets => Reply::new(404),
            "GET" => at(204, state.stored.len()),
            "PUT" => {
                let digest = Digest::sha256(&state.stored)
                    .to_string()
                    .replace(':', "%3A");
                if request.target.ends_with(&format!("digest={digest}")) {
                    Reply::new(201)
                } else {
                    Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#)
                }
            }
            _ => Reply::new(405),
        }
    })
}

fn descriptor(content: &[u8]) -> dvcr_core::oci::Descriptor {
    let digest = Digest::sha256(content);
    let value = serde_json::json!({"mediaType": "a/b", "digest": digest, "size": content.len()});
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_push_goes_on_where_the_registry_stands() {
    for forgets in [false, true] {
        let server = stumbling(2, forgets);
        let repository = repository(&server, Credentials::Anonymous);
        let bytes = Bytes::from(content(3 << 20));
        let pushed = repository
            .push_blob(&descriptor(&bytes), &bytes, None)
            .await
            .unwrap();
        assert!(matches!(pushed, Pushed::Sent(_)), "{pushed:?}");
        let offsets: Vec<_> = server
            .received()
            .iter()
            .filter(|request| request.method == "PATCH")
            .map(|request| request.header("content-range").unwrap().to_owned())
            .collect();
        let len = bytes.len();
        let expected = match forgets {
            false => [0, len / 2, len / 2 + len / 4],
            true => [0; 3],
        };
        assert_eq!(offsets, expected.map(|at| format!("{at}-{}", len - 1)));
    }
}

#[tokio::test]
async fn pieces_in_memory_are_sent_again_from_where_the_registry_stands() {
    let server = stumbling(3, false);
    let repository = repository(&server, Credentials::Anonymous);
    let bytes = Bytes::from(content(1 << 20));
    let mut upload = repository.upload(Algorithm::Sha256).await.unwrap();
    for at in (0..bytes.len()).step_by(256 << 10) {
        upload
            .append(bytes.slice(at..at + (256 << 10)))
            .await
            .unwrap();
    }
    upload.finish(&Digest::sha256(&bytes)).await.unwrap();
}

#[tokio::test]
async fn a_forgotten_upload_of_pieces_is_an_error() {
    let server = stumbling(1, true);
    let repository = repository(&server, Credentials::Anonymous);
    let mut upload = repository.upload(Algorithm::Sha256).await.unwrap();
    // The session is lost with its first piece: that one is still in memory.
    upload.append(Bytes::from_static(b"abcd")).await.unwrap();
    assert_eq!(upload.offset(), 4);
    let error = upload.finish(&Digest::sha256(b"other")).await.unwrap_err();
    assert!(error.is_corrupt() && !error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn what_a_source_says_is_what_the_push_says() {
    struct Broken;
    impl dvcr_client::BlobSource for Broken {
        fn open(
            &self,
            _: u64,
        ) -> futures::future::BoxFuture<'_, Result<dvcr_client::BlobStream, dvcr_client::BoxError>>
        {
            use futures::{FutureExt as _, StreamExt as _};
            let items = [
                Ok(Bytes::from_static(b"ab")),
                Err("the disk is gone".into()),
            ];
            let stream = futures::stream::iter(items).boxed();
            async move { Ok(stream) }.boxed()
        }
    }
    let server = stumbling(0, false);
    let repository = repository(&server, Credentials::Anonymous);
    let mut upload = repository.upload(Algorithm::Sha256).await.unwrap();
    let error = upload.push(&Broken, 10).await.unwrap_err();
    let Error::Source(source) = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.to_string(), "the disk is gone");
}

#[tokio::test]
async fn a_silent_server_is_noticed() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/v2/a/b/blobs/uploads/1"),
        _ => Reply::silent(),
    });
    let mut transport = transport();
    transport.retry = Retry::never();
    transport.stall_time = Duration::from_millis(500);
    let client = Client::at(&server.url(), Credentials::Anonymous, &transport).unwrap();
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
}

#[tokio::test]
async fn lists_end_and_stay_on_their_server() {
    let elsewhere = Server::start(|_, _| Reply::new(200).body(r#"{"tags": ["evil"]}"#));
    let target = elsewhere.url();
    let server = Server::start(move |request, before| {
        let link = match before {
            0 => r#"</v2/a/b/tags/list?last=b>; rel="next""#.to_owned(),
            1 => format!(r#"<{target}/v2/a/b/tags/list>; rel="next""#),
            _ if request.target.starts_with("/v2/c") => {
                r#"</v2/c/tags/list?x>; rel="next""#.to_owned()
            }
            _ => String::new(),
        };
        let tags = if before == 0 { r#"["a","b"]"# } else { "null" };
        Reply::new(200)
            .with("Link", link)
            .body(format!(r#"{{"tags": {tags}}}"#))
    });
    let repository = repository(&server, Credentials::Anonymous);
    let tags = repository.tags().unwrap().all().await.unwrap();
    assert_eq!(tags.len(), 2);
    assert!(elsewhere.received().is_empty());
    let endless = repository.client().repository(&"c".parse().unwrap());
    let error = endless.tags().unwrap().all().await.unwrap_err();
    assert!(error.to_string().contains("never ends"), "{error}");
}

#[tokio::test]
async fn a_list_that_does_not_advance_or_is_too_long_ends() {
    /// A server whose page of a number is what `page` makes of it, and which always claims more.
    async fn check(page: fn(usize) -> String, next: fn(usize) -> String, pages: usize, told: &str) {
        let server = Server::start(move |_, before| {
            let link = format!("</v2/_catalog?last={}>; rel=\"next\"", next(before));
            let body = format!("{{\"repositories\": [{}]}}", page(before));
            Reply::new(200).with("Link", link).body(body)
        });
        let client = Client::at(&server.url(), Credentials::Anonymous, &transport()).unwrap();
        let error = client.catalog().unwrap().all().await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        let asked = server.received().len();
        assert!(asked <= pages, "{asked} pages instead of {pages}: {error}");
    }
    let forth = |n: usize| n.to_string();
    let many = |n: usize| {
        let names = (0..300_000).map(|i| format!("\"{n}/{i}\""));
        names.collect::<Vec<_>>().join(",")
    };
    let unlike = |n: usize| format!("\"{n}\"");
    // Back to a page that was there, though not the last one.
    check(unlike, |n| (n % 3).to_string(), 4, "never ends").await;
    check(|_| r#""a", "b""#.to_owned(), forth, 102, "never ends").await;
    check(|_| String::new(), forth, 101, "never ends").await;
    check(many, forth, 4, "entries").await;
    check(|_| "\"\",".repeat(1_100_000) + "\"\"", forth, 1, "entries").await;
    let long = |n: usize| format!("\"{n}{}\"", "a".repeat(60 << 20));
    check(long, forth, 5, "longer than").await;
}

#[tokio::test]
async fn a_list_may_have_an_empty_page() {
    let server = Server::start(|_, before| {
        let (link, names) = match before {
            0 => ("</v2/_catalog?last=b>; rel=\"next\"", r#""a", "b""#),
            1 => ("</v2/_catalog?last=c>; rel=\"next\"", ""),
            _ => ("", r#""d", "not a name\u001b""#),
        };
        let body = format!("{{\"repositories\": [{names}]}}");
        Reply::new(200).with("Link", link).body(body)
    });
    let client = Client::at(&server.url(), Credentials::Anonymous, &transport()).unwrap();
    let names = client.catalog().unwrap().all().await.unwrap();
    assert_eq!(names, ["a", "b", "d", "not a name\u{1b}"]);
}

#[tokio::test]
async fn long_answers_are_not_read() {
    let server = Server::start(|_, _| {
        Reply::new(200)
            .with("Content-Type", media_type::OCI_IMAGE)
            .body(" ".repeat(9 << 20))
    });
    let repository = repository(&server, Credentials::Anonymous);
    let tag = Reference::Tag("x".parse().unwrap());
    let error = repository.manifest(&tag).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    // As patient as programs are: with the pauses between all attempts this would take more than a minute.
    let patient = Transport::default();
    let client = Client::at(&address, Credentials::Anonymous, &patient).unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(10), client.ping());
    let error = asked.await.expect("it is said within seconds").unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("no server answers"), "{error}");
    let source = std::error::Error::source(&error);
    assert!(source.is_none(), "the reason is told once: {source:?}");
}
