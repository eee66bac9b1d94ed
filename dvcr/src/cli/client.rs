//! Talking to a server.

use std::time::Duration;

use anyhow::{Context as _, bail};
use dvcr_core::oci::{Digest, Reference, RepositoryName};
use reqwest::{Method, Response, StatusCode, header};
use serde::de::DeserializeOwned;

use super::ServerArgs;

/// Longest answer that is read: a page of 10,000 tags of the longest kind takes 1.3 MB, a manifest at most 8 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Longest time for finding the server.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest silence of the server. Statistics walk over every blob.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);

/// Entries asked for at once.
const PAGE_ENTRIES: usize = 1_000;

/// Runs a command's future; commands need one thread.
pub(super) fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a worker thread")?
        .block_on(future)
}

/// A server.
pub(super) struct Client {
    server: String,
    http: reqwest::Client,
}

/// A manifest as it was answered.
pub(super) struct Manifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

impl Client {
    pub(super) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let server = args.server.trim_end_matches('/');
        let server = if server.contains("://") {
            server.to_owned()
        } else {
            format!("http://{server}")
        };
        let http = reqwest::Client::builder()
            .user_agent(concat!("dvcr/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME_MAX)
            .read_timeout(ANSWER_TIME_MAX)
            .build()
            .context("set up HTTP client")?;
        Ok(Self { server, http })
    }

    /// Sends a request. An answer that is no success is an error, except 404, which the caller may expect.
    async fn send(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        let request = self.http.request(method, format!("{}{path}", self.server));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => {
                return Err(error).with_context(|| {
                    format!(
                        "{:?} is no address of a server: write for example --server http://127.0.0.1:5000",
                        self.server
                    )
                });
            }
            Err(error) if dvcr_openapi::is_tls(&error) => {
                return Err(error).with_context(|| {
                    format!(
                        "no trusted connection to {}: let this machine trust the certificate's issuer, for example with SSL_CERT_FILE=ISSUERS.pem",
                        self.server
                    )
                });
            }
            Err(error) if error.is_connect() => {
                return Err(error).with_context(|| {
                    format!(
                        "no server answers at {}: start one with `dvcr serve`, or name another with --server URL or DVCR_SERVER",
                        self.server
                    )
                });
            }
            Err(error) => return Err(error).with_context(|| format!("ask {}", self.server)),
        };
        if response.status().is_success() || response.status() == StatusCode::NOT_FOUND {
            Ok(response)
        } else {
            Err(refusal(response).await)
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        let response = self.send(Method::GET, path).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(refusal(response).await);
        }
        Ok(response)
    }

    /// A list that comes in pages: `pick` takes the entries out of each.
    async fn pages<T: DeserializeOwned>(
        &self,
        first: String,
        pick: impl Fn(T) -> Vec<String>,
    ) -> anyhow::Result<Vec<String>> {
        let mut entries = Vec::new();
        let mut path = Some(first);
        while let Some(next) = path {
            let response = self.get(&next).await?;
            path = next_page(&response);
            let before = entries.len();
            entries.extend(pick(parse(response).await?));
            if entries.len() == before {
                // A page without entries leads nowhere, whatever it links to.
                break;
            }
        }
        Ok(entries)
    }

    /// All tags of a repository.
    pub(super) async fn tags(&self, repository: &RepositoryName) -> anyhow::Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Tags {
            tags: Vec<String>,
        }
        let first = format!("/v2/{repository}/tags/list?n={PAGE_ENTRIES}");
        self.pages(first, |page: Tags| page.tags).await
    }

    /// A manifest, if it is there.
    pub(super) async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> anyhow::Result<Option<Manifest>> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let response = self.send(Method::GET, &path).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let field = |name: &str| -> anyhow::Result<String> {
            let value = response.headers().get(name);
            let text = value.and_then(|value| value.to_str().ok());
            Ok(text
                .with_context(|| format!("answer has no {name}"))?
                .to_owned())
        };
        let digest = field("docker-content-digest")?
            .parse()
            .context("read manifest's digest")?;
        let media_type = field("content-type")?;
        Ok(Some(Manifest {
            digest,
            media_type,
            bytes: read(response).await?,
        }))
    }
}

/// The path that a `Link` with `rel="next"` names. Only paths are followed: what else would send requests elsewhere.
fn next_page(response: &Response) -> Option<String> {
    let link = response.headers().get(header::LINK)?.to_str().ok()?;
    next_path(link)
}

fn next_path(link: &str) -> Option<String> {
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    let good = path.starts_with("/v2/") && rest.contains("rel=\"next\"");
    good.then(|| path.to_owned())
}

/// The body, if it is not too long.
async fn read(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = response.chunk().await.context("read answer")? {
        if bytes.len() + frame.len() > ANSWER_BYTES_MAX {
            bail!("answer is longer than {ANSWER_BYTES_MAX} bytes");
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

async fn parse<T: DeserializeOwned>(response: Response) -> anyhow::Result<T> {
    let bytes = read(response).await?;
    serde_json::from_slice(&bytes).context("read answer: is the server a DVCR registry?")
}

/// What the server says about a request that it did not fulfil.
async fn refusal(response: Response) -> anyhow::Error {
    let status = response.status();
    let path = response.url().path().to_owned();
    let text = read(response).await.unwrap_or_default();
    let said = explain(&text).unwrap_or_else(|| format!("{path} failed"));
    anyhow::anyhow!("server says {status}: {said}")
}

/// The message of an OCI error document or a problem document.
fn explain(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let message = document
        .pointer("/errors/0/message")
        .or_else(|| document.get("detail"))?;
    Some(message.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_api_are_followed() {
        fn check(link: &str, expected: Option<&str>) {
            assert_eq!(next_path(link).as_deref(), expected, "{link}");
        }
        check(
            "</v2/a/tags/list?n=1&last=b>; rel=\"next\"",
            Some("/v2/a/tags/list?n=1&last=b"),
        );
        check("</v2/a/tags/list>; rel=\"prev\"", None);
        check("<http://elsewhere/v2/>; rel=\"next\"", None);
        check("<//elsewhere/v2/>; rel=\"next\"", None);
        check("", None);
    }

    #[test]
    fn refusals_are_explained() {
        fn check(body: &str, expected: Option<&str>) {
            assert_eq!(explain(body.as_bytes()).as_deref(), expected, "{body}");
        }
        check(
            r#"{"errors":[{"code":"X","message":"no such tag","detail":null}]}"#,
            Some("no such tag"),
        );
        check(
            r#"{"title":"Not Found","detail":"no such repository"}"#,
            Some("no such repository"),
        );
        check("{}", None);
        check("<html>", None);
    }
}
