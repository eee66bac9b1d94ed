//! Registries as processes: two of others, with a login and with a token service, and ours, with TLS.

use std::{fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use dvcr_client::{Client, Credentials, RawManifest, Transport};
use dvcr_core::oci::{Algorithm, Descriptor, Digest};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    blackbox::{
        distribution::{Distribution, Version},
        process::Process,
        server::serve,
    },
    support::text,
    tokens::TokenService,
};

/// A server that is not ready after this long has failed.
const START_LIMIT: Duration = Duration::from_secs(60);

/// `me:secret`, hashed by bcrypt with its lowest cost.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// How clients log in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Login {
    /// docker-registry 2.8, with a file of passwords.
    Basic,
    /// Distribution 3, with a token service.
    Token,
}

/// A registry of somebody else, and what `docker login` notes of it.
pub(crate) struct Peer {
    registry: Distribution,
    _tokens: Option<TokenService>,
    dir: tempfile::TempDir,
}

impl Peer {
    pub(crate) fn start(login: Login) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (registry, tokens) = match login {
            Login::Basic => {
                let file = dir.path().join("htpasswd");
                fs::write(&file, HTPASSWD).unwrap();
                let more = format!(
                    "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                    text(&file)
                );
                (Distribution::start(Version::V2, &more), None)
            }
            Login::Token => {
                let tokens = TokenService::start();
                let more = tokens.configuration();
                (Distribution::start(Version::V3, &more), Some(tokens))
            }
        };
        let auth = STANDARD.encode("me:secret");
        let config = json!({"auths": {registry.address(): {"auth": auth}}});
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        Self {
            registry,
            _tokens: tokens,
            dir,
        }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> &str {
        self.registry.address()
    }

    /// Where docker's configuration is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Pushes an image under the tag `1`: media type and content of its configuration and of each layer.
pub(crate) fn push(
    runtime: &Runtime,
    peer: &Peer,
    name: &str,
    config: (&str, &Value),
    layers: Vec<(&str, Vec<u8>)>,
) {
    let url = format!("http://{}", peer.address());
    let me = Credentials::basic("me", "secret");
    let client = Client::at(&url, me, &Transport::default()).unwrap();
    let repository = client.repository(&name.parse().unwrap());
    let put = |media_type: &str, bytes: Vec<u8>| {
        let digest = Digest::sha256(&bytes);
        let blob = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        let descriptor: Descriptor = serde_json::from_value(blob.clone()).unwrap();
        let bytes = Bytes::from(bytes);
        let pushed = repository.push_blob(&descriptor, &bytes, None);
        runtime.block_on(pushed).unwrap();
        blob
    };
    let media_type = match config.0.contains("docker") {
        true => "application/vnd.docker.distribution.manifest.v2+json",
        false => "application/vnd.oci.image.manifest.v1+json",
    };
    let config = put(config.0, config.1.to_string().into_bytes());
    let layers: Vec<_> = layers
        .into_iter()
        .map(|(kind, bytes)| put(kind, bytes))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers,
    });
    let manifest = RawManifest::new(
        Algorithm::Sha256,
        media_type,
        manifest.to_string().into_bytes(),
    );
    let tags = ["1".parse().unwrap()];
    let pushed = repository.push_manifest(&manifest, &tags);
    runtime.block_on(pushed).unwrap();
}

/// `dvcr serve` with a certificate.
pub(crate) struct Dvcr {
    _server: Process,
    address: String,
    ca: String,
    _dir: tempfile::TempDir,
}

impl Dvcr {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join("crt"), dir.path().join("key"));
        fs::write(&certificate, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let settings = [
            ("DVCR_TLS_CERTIFICATE", text(&certificate)),
            ("DVCR_TLS_KEY", text(&key)),
        ];
        let mut server = Process::start(serve(&dir.path().join("data"), &settings));
        let port = server.wait_for(START_LIMIT, |server| {
            let log = server.log();
            let rest = log.split("127.0.0.1:").nth(1)?;
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            Some(rest[..end].to_owned()).filter(|port| port != "0")
        });
        Self {
            _server: server,
            address: format!("127.0.0.1:{port}"),
            ca: text(&certificate).to_owned(),
            _dir: dir,
        }
    }

    /// An image in it, by its repository.
    pub(crate) fn reference(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.address)
    }

    /// The file of the authority that signed its certificate.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }
}
