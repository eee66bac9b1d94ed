//! What a registry acknowledged, to be read again later.

use serde_json::json;

use super::{
    digest::sha256,
    http::{Body, Client, Request, Response},
    random::Random,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Paths, and the bytes that they must answer with.
#[derive(Clone, Default)]
pub(crate) struct Stored(Vec<(String, Vec<u8>)>);

impl Stored {
    pub(crate) fn add(&mut self, path: impl Into<String>, bytes: Vec<u8>) {
        self.0.push((path.into(), bytes));
    }

    pub(crate) fn forget(&mut self, path: &str) {
        self.0.retain(|(known, _)| known != path);
    }

    /// Forgets everything whose path begins so.
    pub(crate) fn forget_all(&mut self, beginning: &str) {
        self.0.retain(|(known, _)| !known.starts_with(beginning));
    }

    /// All paths with this ending, in the order in which they came.
    pub(crate) fn paths(&self, ending: &str) -> Vec<String> {
        let paths = self.0.iter().map(|(path, _)| path);
        paths
            .filter(|path| path.ends_with(ending))
            .cloned()
            .collect()
    }

    /// The newest path with this ending, and its bytes.
    pub(crate) fn newest(&self, ending: &str) -> (String, Vec<u8>) {
        let found = self.0.iter().rfind(|(path, _)| path.ends_with(ending));
        found
            .cloned()
            .unwrap_or_else(|| panic!("nothing is stored as {ending}"))
    }

    /// Reads everything.
    pub(crate) fn verify(&self, url: &str) {
        for (path, response) in self.read(url) {
            assert_eq!(response.status, 200, "GET {path}: {}", response.text());
        }
    }

    /// Reads everything from a server whose device fails: nothing may be said to be absent.
    pub(crate) fn verify_or_unavailable(&self, url: &str) {
        for (path, response) in self.read(url) {
            let text = response.text();
            assert!(matches!(response.status, 200 | 503), "GET {path}: {text}");
        }
    }

    /// Reads everything; what answers 200 has the right bytes.
    fn read<'a>(&'a self, url: &str) -> impl Iterator<Item = (&'a str, Response)> {
        let client = Client::new(url);
        self.0.iter().map(move |(path, bytes)| {
            let response = client.send(&Request::new("GET", path.clone()));
            let response = response.unwrap_or_else(|error| panic!("GET {path}: {error}"));
            client.clear_transcript();
            let right = response.status != 200 || response.body == *bytes;
            assert!(right, "{path} has other bytes");
            (path.as_str(), response)
        })
    }

    /// Pushes an image with a layer of random bytes under the tag `v1`; the refusal if a step is refused.
    pub(crate) fn push(
        &mut self,
        client: &Client,
        repository: &str,
        layer_bytes: usize,
        random: &mut Random,
    ) -> Result<(), Response> {
        let mut blob = |bytes: Vec<u8>| {
            let digest = sha256(&bytes);
            let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            acknowledged(client, &Request::new("POST", path).octets(&bytes))?;
            let size = bytes.len();
            self.add(format!("/v2/{repository}/blobs/{digest}"), bytes);
            Ok(json!({"mediaType": "application/octet-stream", "digest": digest, "size": size}))
        };
        let layer = blob(random.bytes(layer_bytes))?;
        let config = blob(random.bytes(300))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
        });
        let path = format!("/v2/{repository}/manifests/v1");
        self.put_manifest(client, &path, manifest.to_string().into_bytes())
    }

    /// Puts a manifest.
    pub(crate) fn put_manifest(
        &mut self,
        client: &Client,
        path: &str,
        manifest: Vec<u8>,
    ) -> Result<(), Response> {
        let put = Request::new("PUT", path).header("Content-Type", MANIFEST);
        acknowledged(client, &put.body(Body::Sized(manifest.clone())))?;
        self.add(path, manifest);
        Ok(())
    }
}

/// Sends a request that is answered with 201 or refused by the server.
fn acknowledged(client: &Client, request: &Request) -> Result<(), Response> {
    let response = client.send(request);
    let response = response.unwrap_or_else(|error| panic!("{error}\n{}", client.transcript()));
    client.clear_transcript();
    if response.status == 201 {
        Ok(())
    } else {
        Err(response)
    }
}
