//! Object stores as processes on loopback, none of them ours: moto (S3), fake-gcs-server, Azurite.

use std::{
    net::TcpListener,
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::blackbox::{
    http::{Body, Client, Request},
    process::{Process, tool},
};

/// A server that is not ready after this long has failed; Python and JavaScript on a busy machine need some seconds.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The account that Azurite has, and its key: both are in its documentation.
pub(crate) const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The version of Azure's protocol that files are put with.
const AZURE_VERSION: &str = "2023-11-03";

/// Whose interface it has.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    S3,
    Google,
    Azure,
}

/// A running object store, killed when dropped.
pub(crate) struct Store {
    kind: Kind,
    /// Where clients find it; for Azure with the account.
    pub(crate) endpoint: String,
    server: String,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl Store {
    /// Starts a store with two buckets, `private` and `public`.
    pub(crate) fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free_port;
        let mut command = match kind {
            Kind::S3 => tool("moto_server"),
            Kind::Google => tool("fake-gcs-server"),
            Kind::Azure => tool("azurite-blob"),
        };
        match kind {
            Kind::S3 => command.args(["-H", "127.0.0.1", "-p", "0"]),
            Kind::Google => {
                // It does not tell which port it got, so that it cannot be asked to choose one.
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                free_port = listener.local_addr().unwrap().port().to_string();
                let options = ["-scheme", "http", "-backend", "memory"];
                let host = ["-host", "127.0.0.1", "-public-host", "127.0.0.1", "-port"];
                command.args(options).args(host).arg(&free_port)
            }
            Kind::Azure => {
                let options = ["--skipApiVersionCheck", "--disableTelemetry", "--silent"];
                let host = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--location"];
                command.args(options).args(host).arg(dir.path())
            }
        };
        let mut process = Process::start(command);
        let server = process.wait_for(START_LIMIT, |process| {
            let log = process.log();
            let rest = &log[log.find("http://127.0.0.1:")?..];
            // Of a whole line: what is being written may end within the number.
            let end = rest.find(|c: char| c.is_whitespace() || c == '"')?;
            Some(rest[..end].trim_end_matches('/').to_owned())
        });
        let store = Self {
            kind,
            endpoint: match kind {
                Kind::Azure => format!("{server}/{AZURE_ACCOUNT}"),
                _ => server.clone(),
            },
            server,
            _process: process,
            _dir: dir,
        };
        for bucket in ["private", "public"] {
            store.make_bucket(bucket);
        }
        store
    }

    /// Puts a file; where it is. In `public` everybody may read it.
    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: &[u8]) -> String {
        match self.kind {
            Kind::S3 => {
                let put = Request::new("PUT", format!("/{bucket}/{key}")).octets(bytes);
                self.send(match bucket {
                    "public" => put.header("x-amz-acl", "public-read"),
                    // Who owns an object may replace it. The server looks no closer.
                    _ => put.header(
                        "authorization",
                        "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, \
                         SignedHeaders=host, Signature=0",
                    ),
                });
                format!("s3://{bucket}/{key}")
            }
            Kind::Google => {
                let path = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media");
                let name = key.replace("%20", " ");
                self.send(
                    Request::new("POST", path)
                        .query("name", &name)
                        .octets(bytes),
                );
                format!("gs://{bucket}/{key}")
            }
            Kind::Azure => {
                let path = format!("/{AZURE_ACCOUNT}/{bucket}/{key}");
                let header = ("x-ms-blob-type", "BlockBlob");
                self.send(signed(&path, "", header, Some(bytes)));
                format!("az://{bucket}/{key}")
            }
        }
    }

    fn make_bucket(&self, bucket: &str) {
        match self.kind {
            Kind::S3 => self.send(Request::new("PUT", format!("/{bucket}"))),
            Kind::Google => {
                let name = format!("{{\"name\": \"{bucket}\"}}");
                let post = Request::new("POST", "/storage/v1/b").body(Body::Sized(name.into()));
                self.send(post.header("Content-Type", "application/json"));
            }
            Kind::Azure => {
                let path = format!("/{AZURE_ACCOUNT}/{bucket}");
                let header = match bucket {
                    "public" => ("x-ms-blob-public-access", "blob"),
                    _ => ("x-ms-client-request-id", "1"),
                };
                self.send(signed(&path, "restype:container", header, None));
            }
        }
    }

    fn send(&self, request: Request) {
        let client = Client::new(&self.server);
        let answer = client.send(&request).unwrap();
        assert!(
            (200..300).contains(&answer.status),
            "{}",
            client.transcript()
        );
    }
}

/// A PUT as "Authorize with Shared Key" of Azure's documentation has it. The path has the account twice in what is signed: as the
/// owner, and because a host of many accounts has it in its paths.
fn signed(
    path: &str,
    query: &str,
    (name, value): (&'static str, &'static str),
    body: Option<&[u8]>,
) -> Request {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let len = body.map_or(String::new(), |body| body.len().to_string());
    let content_type = body.map_or("", |_| "application/octet-stream");
    let resource = format!("/{AZURE_ACCOUNT}{path}");
    let resource = [&resource, query]
        .into_iter()
        .filter(|part| !part.is_empty());
    let text = format!(
        "PUT\n\n\n{len}\n\n{content_type}\n\n\n\n\n\n\n{name}:{value}\nx-ms-date:{date}\nx-ms-version:{AZURE_VERSION}\n{}",
        resource.collect::<Vec<_>>().join("\n")
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(AZURE_KEY).unwrap());
    let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    let target = match query {
        "" => path.to_owned(),
        query => format!("{path}?{}", query.replace(':', "=")),
    };
    let request = Request::new("PUT", target)
        .header(name, value)
        .header("x-ms-date", date)
        .header("x-ms-version", AZURE_VERSION)
        .header(
            "authorization",
            format!("SharedKey {AZURE_ACCOUNT}:{signature}"),
        );
    match body {
        Some(body) => request.octets(body),
        None => request,
    }
}
