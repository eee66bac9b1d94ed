//! Runs checks against a registry, and what most checks need done before they begin.

use std::{cell::RefCell, panic, time::Instant};

use super::{data::Document, expect::equal};
use crate::support::{
    digest::Algorithm,
    http::{Body, Client, Request, Response},
    random::Random,
    server::Server,
};

/// What a check found: nothing, or what is wrong.
pub type Outcome = Result<(), String>;

/// A name that says what must hold, and how it is found out.
pub type Check = (&'static str, fn(&Bench) -> Outcome);

/// The registry under test, and content for it.
pub struct Bench {
    client: Client,
    random: RefCell<Random>,
    /// The algorithm of the digests that this run of the checks uses.
    pub algorithm: Algorithm,
}

/// A name that says what must hold, and how it is found out, where a function alone cannot say it.
pub type BoxedCheck = (&'static str, Box<dyn Fn(&Bench) -> Outcome>);

/// Runs checks once, with SHA-256.
pub fn run<F: Fn(&Bench) -> Outcome>(checks: &[(&'static str, F)]) {
    with_registry(|bench| run_on(bench, checks, &[Algorithm::Sha256]));
}

/// Runs checks with each digest algorithm. The registry is never told beforehand which one it will be.
pub fn run_with_each_algorithm(checks: &[Check]) {
    with_registry(|bench| run_on(bench, checks, &[Algorithm::Sha256, Algorithm::Sha512]));
}

/// Runs checks on the program with its own settings: no manifest may refer to what is not there. They say what we promise
/// beyond the specification, so another registry has nothing to do with them.
pub fn run_strict<F: Fn(&Bench) -> Outcome>(checks: &[(&'static str, F)]) {
    let server = Server::start(&[]);
    run_on(Bench::new(&server.url()), checks, &[Algorithm::Sha256]);
}

/// The registry that `DVCR_CONFORMANCE_URL` names, or the program.
fn with_registry(run: impl FnOnce(Bench)) {
    if let Ok(url) = std::env::var("DVCR_CONFORMANCE_URL") {
        run(Bench::new(&url));
    } else {
        let server = Server::start(&[("DVCR_SPARSE", "all")]);
        run(Bench::new(&server.url()));
    }
}

fn run_on<F: Fn(&Bench) -> Outcome>(
    mut bench: Bench,
    checks: &[(&'static str, F)],
    algorithms: &[Algorithm],
) {
    let mut failed = Vec::new();
    for &algorithm in algorithms {
        bench.algorithm = algorithm;
        for (name, check) in checks {
            bench.client.clear_transcript();
            let begin = Instant::now();
            let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| check(&bench)))
                .unwrap_or_else(|_| Err("the check panicked".to_owned()));
            let name = format!("{} {name}", algorithm.name());
            match outcome {
                Ok(()) => println!("ok      {name} ({} ms)", begin.elapsed().as_millis()),
                Err(error) => {
                    println!(
                        "FAILED  {name}: {error}\n{}",
                        bench.client.transcript().replace("\n", "\n        ")
                    );
                    failed.push(format!("{name}: {error}"));
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} checks failed:\n{}",
        failed.len(),
        checks.len() * algorithms.len(),
        failed.join("\n")
    );
}

impl Bench {
    fn new(url: &str) -> Self {
        Self {
            client: Client::new(url),
            random: RefCell::new(Random::new()),
            algorithm: Algorithm::Sha256,
        }
    }

    /// A repository that nobody has used before.
    pub fn repository(&self) -> String {
        format!("conformance/{}", self.random.borrow_mut().word())
    }

    /// A word that nobody has used before.
    pub fn word(&self) -> String {
        self.random.borrow_mut().word()
    }

    /// Incompressible bytes that nobody has pushed before.
    pub fn content(&self, len: usize) -> Vec<u8> {
        self.random.borrow_mut().bytes(len)
    }

    /// The digest of some bytes by this run's algorithm.
    pub fn digest(&self, data: &[u8]) -> String {
        self.algorithm.digest(data)
    }

    pub fn send(&self, request: Request) -> Result<Response, String> {
        self.client.send(&request)
    }

    pub fn get(&self, path: &str) -> Result<Response, String> {
        self.send(Request::new("GET", path))
    }

    pub fn head(&self, path: &str) -> Result<Response, String> {
        self.send(Request::new("HEAD", path))
    }

    pub fn delete(&self, path: &str) -> Result<Response, String> {
        self.send(Request::new("DELETE", path))
    }

    /// The path that the `Location` of an answer to a request for `path` means.
    pub fn location(&self, path: &str, response: &Response) -> Result<String, String> {
        let location = response
            .get("Location")
            .ok_or("no Location in the answer")?;
        self.client.resolve(path, location)
    }

    /// Opens an upload session; returns its path and the answer.
    pub fn start_upload(&self, repository: &str) -> Result<(String, Response), String> {
        let path = uploads(repository);
        let response = self.send(Request::new("POST", &path))?.status(&[202])?;
        Ok((self.location(&path, &response)?, response))
    }

    /// Ends an upload session with a `PUT` of these bytes.
    pub fn finish_upload(
        &self,
        session: &str,
        digest: &str,
        data: &[u8],
    ) -> Result<Response, String> {
        self.send(
            Request::new("PUT", session)
                .query("digest", digest)
                .octets(data),
        )
    }

    /// Uploads a blob with `POST` and `PUT`; returns its digest.
    pub fn push_blob(&self, repository: &str, data: &[u8]) -> Result<String, String> {
        let digest = self.digest(data);
        self.push_blob_as(repository, &digest, data)?;
        Ok(digest)
    }

    /// Uploads a blob with `POST` and `PUT` under a digest that the caller has made.
    pub fn push_blob_as(&self, repository: &str, digest: &str, data: &[u8]) -> Outcome {
        let (session, _) = self.start_upload(repository)?;
        let response = self.finish_upload(&session, digest, data)?.status(&[201])?;
        self.is_stored(&session, &response, digest, data)
    }

    /// The answer to a finished upload names the digest, and its `Location` is where the same bytes can be read.
    pub fn is_stored(&self, path: &str, response: &Response, digest: &str, data: &[u8]) -> Outcome {
        response.header("Docker-Content-Digest", digest)?;
        let location = self.location(path, response)?;
        self.get(&location)?.status(&[200])?.body(data)
    }

    /// Pushes a manifest under a reference and makes sure that it is stored as it came; `digest` is the one it must get.
    pub fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        document: &Document,
        digest: &str,
    ) -> Outcome {
        let path = manifest(repository, reference);
        let response = self.put_manifest(&path, document)?;
        self.is_put(&path, &response.status(&[201])?, document, digest)
    }

    /// `PUT` of a manifest without a length, as the newer suite sends them.
    pub fn put_manifest(&self, path: &str, document: &Document) -> Result<Response, String> {
        self.send(
            Request::new("PUT", path)
                .header("Content-Type", document.media_type)
                .body(Body::Chunked(document.bytes.clone())),
        )
    }

    /// The answer to a pushed manifest names its digest and its subject, and its `Location` is where it can be read.
    pub fn is_put(
        &self,
        path: &str,
        response: &Response,
        document: &Document,
        digest: &str,
    ) -> Outcome {
        response.header("Docker-Content-Digest", digest)?;
        if let Some(subject) = &document.subject {
            response.header("OCI-Subject", subject)?;
        }
        let location = self.location(path, response)?;
        self.manifest_reads_back(&location, document, digest)
    }

    /// `HEAD` and `GET` of a manifest show it byte for byte, with its own media type.
    pub fn manifest_reads_back(&self, path: &str, document: &Document, digest: &str) -> Outcome {
        for method in ["HEAD", "GET"] {
            let request = Request::new(method, path)
                .header("Accept", "application/vnd.oci.image.index.v1+json")
                .header("Accept", "application/vnd.oci.image.manifest.v1+json");
            let response = self.send(request)?.status(&[200])?;
            response.header("Content-Type", document.media_type)?;
            response.header("Content-Length", &document.bytes.len().to_string())?;
            response.header("Docker-Content-Digest", digest)?;
            response.body(if method == "HEAD" {
                b""
            } else {
                &document.bytes
            })?;
        }
        Ok(())
    }

    /// The tags of a repository; none where the registry does not know it.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>, String> {
        let response = self.get(&tags(repository))?.status(&[200, 404])?;
        if response.status == 404 {
            response.errors()?;
            return Ok(Vec::new());
        }
        strings(&response.json()?["tags"])
    }

    /// `HEAD` and `GET` of a blob show it whole, with its length and digest.
    pub fn blob_reads_back(&self, repository: &str, digest: &str, data: &[u8]) -> Outcome {
        for method in ["HEAD", "GET"] {
            // Many clients offer this by themselves; a blob is a representation of its own and must come as it is.
            let request = Request::new(method, blob(repository, digest));
            let response = self.send(request.header("Accept-Encoding", "gzip"))?;
            let response = response.status(&[200])?;
            equal("Content-Encoding", response.get("Content-Encoding"), None)?;
            response.header("Content-Length", &data.len().to_string())?;
            response.header("Docker-Content-Digest", digest)?;
            response.body(if method == "HEAD" { b"" } else { data })?;
        }
        Ok(())
    }

    /// Deletes what is at the path, after which it must be gone at once.
    pub fn deletes(&self, path: &str) -> Outcome {
        self.delete(path)?.status(&[202])?;
        self.is_absent(path)
    }

    /// Nothing is at the path.
    pub fn is_absent(&self, path: &str) -> Outcome {
        self.head(path)?.status(&[404])?;
        self.get(path)?.status(&[404])?;
        Ok(())
    }

    /// A chunk of an upload, or its last with `PUT`.
    pub fn chunk(
        &self,
        method: &'static str,
        session: &str,
        first: usize,
        data: &[u8],
    ) -> Result<Response, String> {
        let range = format!("{first}-{}", first + data.len() - 1);
        self.send(
            Request::new(method, session)
                .header("Content-Range", range)
                .octets(data),
        )
    }

    /// A chunk without a length or a range.
    pub fn stream(&self, session: &str, data: &[u8]) -> Result<Response, String> {
        self.send(
            Request::new("PATCH", session)
                .header("Content-Type", "application/octet-stream")
                .body(Body::Chunked(data.to_vec())),
        )
    }
}

/// The path of a blob.
pub fn blob(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// The path at which uploads begin.
pub fn uploads(repository: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/")
}

/// The path of a manifest.
pub fn manifest(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// The path of the list of tags.
pub fn tags(repository: &str) -> String {
    format!("/v2/{repository}/tags/list")
}

/// A JSON list of strings. `null` is not one.
pub fn strings(list: &serde_json::Value) -> Result<Vec<String>, String> {
    let wrong = || format!("{list} is no list of strings");
    let list = list.as_array().ok_or_else(wrong)?;
    list.iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
        .collect()
}
