//! A registry, and a repository in it.

use std::{fmt, sync::Arc};

use dvcr_core::oci::RepositoryName;
use reqwest::{Method, Url, header::HeaderName};

use crate::{
    Credentials, Error, Host, Retry, Transport,
    auth::Auth,
    request::{Answer, Fetched, Http, Request, Streamed},
    retry::Backoff,
    token::Scopes,
};

/// A client of one registry. Cheap to clone; clones share connections and login.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    base: Url,
    http: Http,
    auth: Auth,
}

impl Client {
    /// A client of the registry that references name so. Connects to nothing yet.
    pub fn new(
        host: &Host,
        credentials: Credentials,
        transport: &Transport,
    ) -> Result<Self, Error> {
        Self::build(host, transport.url(host)?, credentials, transport)
    }

    /// A client of the registry at a URL, `https://registry.example:5000`; without a scheme, like [`Client::new`].
    pub fn at(url: &str, credentials: Credentials, transport: &Transport) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::Settings(format!(
                "{url:?} is no address of a registry ({why}): write for example https://registry.example:5000"
            ))
        };
        if !url.contains("://") {
            let host: Host = url
                .trim_end_matches('/')
                .parse()
                .map_err(|_| wrong("no host"))?;
            return Self::new(&host, credentials, transport);
        }
        let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong("neither http nor https"));
        }
        if parsed.path() != "/" || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(wrong("the API is at the top of a host"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("credentials do not belong there"));
        }
        let host = match (parsed.host_str(), parsed.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(wrong("no host")),
        };
        let host: Host = host.parse().map_err(|_| wrong("no host"))?;
        Self::build(&host, parsed, credentials, transport)
    }

    fn build(
        host: &Host,
        base: Url,
        credentials: Credentials,
        transport: &Transport,
    ) -> Result<Self, Error> {
        let http = Http {
            client: transport.http(&base, host)?,
            stall: transport.stall_time,
            retry: transport.retry,
        };
        let auth = Auth::new(credentials, base.clone());
        Ok(Self(Arc::new(Inner { base, http, auth })))
    }

    /// One of its repositories, which need not exist.
    pub fn repository(&self, name: &RepositoryName) -> Repository {
        Repository {
            client: self.clone(),
            name: name.clone(),
        }
    }

    /// Where the API is.
    pub fn url(&self) -> &Url {
        &self.0.base
    }

    /// What asks there, for other APIs of the same server. Sends no credentials of its own, and waits for an answer as long as nobody ends
    /// the wait.
    pub fn http(&self) -> &reqwest::Client {
        &self.0.http.client
    }

    /// Whether a registry answers, and accepts the credentials for asking that. Where nobody listens, it says so within seconds.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut request = Request::new(Method::GET, self.join("v2/")?);
        request.first = true;
        let fetched = self.fetch(&request, PING_BYTES_MAX).await?;
        tracing::debug!(url = %fetched.url, "a registry answers");
        Ok(())
    }

    pub(crate) fn join(&self, path: &str) -> Result<Url, Error> {
        self.0
            .base
            .join(path)
            .map_err(|error| Error::Settings(format!("{path} makes no URL: {error}")))
    }

    /// Where an answer's `Location` leads. A registry that does not know of the TLS in front of it names itself `http:`; HTTPS is
    /// not left for that.
    pub(crate) fn location(&self, from: &Url, target: &str) -> Option<Url> {
        let mut url = from.join(target).ok()?;
        match (from.scheme(), url.scheme()) {
            (_, "https") | ("http", "http") => Some(url),
            ("https", "http") if url.host() == from.host() => {
                let port = url.port().filter(|_| from.port().is_some());
                url.set_scheme("https").ok()?;
                url.set_port(port).ok()?;
                Some(url)
            }
            _ => None,
        }
    }

    pub(crate) async fn fetch(&self, request: &Request, max: u64) -> Result<Fetched, Error> {
        self.0.http.fetch(&self.0.auth, request, max).await
    }

    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, Error> {
        self.0.http.send(&self.0.auth, request).await
    }

    pub(crate) async fn send_stream(
        &self,
        request: &Request,
        body: Streamed,
    ) -> Result<Answer, Error> {
        self.0.http.send_stream(&self.0.auth, request, body).await
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.retry().start()
    }

    fn retry(&self) -> Retry {
        self.0.http.retry
    }
}

/// Longest answer to a ping.
const PING_BYTES_MAX: u64 = 64 << 10;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client")
            .field(&self.0.base.as_str())
            .finish()
    }
}

/// One repository of a registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) client: Client,
    pub(crate) name: RepositoryName,
}

impl Repository {
    /// Its name.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// The registry.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A request below the repository, for reading.
    pub(crate) fn pull(&self, method: Method, path: &str) -> Result<Request, Error> {
        self.request(method, path, "pull")
    }

    /// A request below the repository, for changing something.
    pub(crate) fn push(&self, method: Method, path: &str) -> Result<Request, Error> {
        self.request(method, path, "pull,push")
    }

    /// A request below the repository, for removing something.
    pub(crate) fn delete(&self, path: &str) -> Result<Request, Error> {
        self.request(Method::DELETE, path, "delete")
    }

    fn request(&self, method: Method, path: &str, actions: &str) -> Result<Request, Error> {
        let url = self.client.join(&format!("v2/{}/{path}", self.name))?;
        let mut request = Request::new(method, url);
        request.scopes = self.scope(actions);
        Ok(request)
    }

    pub(crate) fn scope(&self, actions: &str) -> Scopes {
        Scopes::from([format!("repository:{}:{actions}", self.name)])
    }

    /// For messages: `registry/repository@digest` and such.
    pub(crate) fn shown(&self, rest: impl fmt::Display) -> String {
        let base = &self.client.0.base;
        let host = base.host_str().unwrap_or_default();
        match base.port() {
            Some(port) => format!("{host}:{port}/{}{rest}", self.name),
            None => format!("{host}/{}{rest}", self.name),
        }
    }
}

/// `Accept` and such take static names.
pub(crate) const ACCEPT: HeaderName = reqwest::header::ACCEPT;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, Error> {
        Client::at(url, Credentials::Anonymous, &Transport::default())
    }

    #[test]
    fn urls_of_registries_are_parsed_strictly() {
        fn check(url: &str, expected: Option<&str>) {
            let client = client(url).ok();
            assert_eq!(
                client.as_ref().map(|client| client.url().as_str()),
                expected,
                "{url}"
            );
        }
        check("http://127.0.0.1:5000", Some("http://127.0.0.1:5000/"));
        check("http://127.0.0.1:5000/", Some("http://127.0.0.1:5000/"));
        check("127.0.0.1:5000", Some("http://127.0.0.1:5000/"));
        check("[::1]:5000/", Some("http://[::1]:5000/"));
        check("http://127.0.0.1:5000/v2/", None);
        check("http://me:pw@127.0.0.1:5000", None);
        check("ftp://127.0.0.1", None);
        check("http://", None);
        check("", None);
    }

    #[test]
    fn https_is_not_left_for_a_registry_that_does_not_know_of_it() {
        let client = client("http://127.0.0.1").unwrap();
        let check = |from: &str, target: &str, expected: Option<&str>| {
            let from = Url::parse(from).unwrap();
            let found = client.location(&from, target);
            assert_eq!(found.as_ref().map(Url::as_str), expected, "{from} {target}");
        };
        let upload = "https://r.example/v2/a/blobs/uploads/1";
        check(upload, "/v2/x", Some("https://r.example/v2/x"));
        check(
            upload,
            "http://r.example/v2/x?y=z",
            Some("https://r.example/v2/x?y=z"),
        );
        check(
            upload,
            "http://r.example:80/v2/x",
            Some("https://r.example/v2/x"),
        );
        check(upload, "http://s.example/v2/x", None);
        check(
            upload,
            "https://s.example/v2/x",
            Some("https://s.example/v2/x"),
        );
        check(
            "http://r.example/",
            "http://s.example/x",
            Some("http://s.example/x"),
        );
        check(upload, "file:///etc/passwd", None);
    }
}
