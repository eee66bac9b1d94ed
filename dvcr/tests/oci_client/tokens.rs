//! A token service as Distribution wants it: tokens are JWTs signed with ES256 (RFC 7515, 7519).

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;

use crate::reply::{Received, Reply, Server};

/// A running token service. `me:secret` and the identity token `refresh` may do everything.
pub(crate) struct TokenService {
    server: Server,
    directory: tempfile::TempDir,
}

impl TokenService {
    pub(crate) fn start() -> Self {
        let pair = rcgen::generate_simple_self_signed(["issuer".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("issuer.pem"), pair.cert.pem()).unwrap();
        let key = pair.signing_key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).unwrap();
        let certificate = STANDARD.encode(pair.cert.der());
        let server = Server::start(move |request, _| {
            let scopes = match request.method.as_str() {
                "GET" if request.header("authorization") == Some("Basic bWU6c2VjcmV0") => {
                    scopes(request.target.split_once('?').unwrap().1)
                }
                "POST" => {
                    let form = String::from_utf8(request.body.clone()).unwrap();
                    if !form.contains("refresh_token=refresh&") {
                        return Reply::new(401);
                    }
                    scopes(&form)
                }
                _ => {
                    return Reply::new(401).body(r#"{"details":"incorrect username or password"}"#);
                }
            };
            let token = token(&key, &certificate, &scopes);
            Reply::new(200).body(json!({"token": token, "expires_in": 300}).to_string())
        });
        Self { server, directory }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// For Distribution, whose clients reach the service at `url`.
    pub(crate) fn configuration(&self, url: &str) -> String {
        format!(
            "auth: {{token: {{realm: \"{url}/token\", service: registry, issuer: issuer, rootcertbundle: {}}}}}\n",
            self.directory.path().join("issuer.pem").display(),
        )
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Received> {
        self.server.received()
    }
}

/// The scopes in a query or form, which hold no other escapes than these.
fn scopes(text: &str) -> Vec<String> {
    let text = text.replace("%3A", ":").replace("%2F", "/");
    let text = text.replace("%2C", ",").replace("%2A", "*");
    let scopes = text
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="));
    let scopes = scopes.flat_map(|scopes| scopes.split('+'));
    scopes
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect()
}

fn token(key: &EcdsaKeyPair, certificate: &str, scopes: &[String]) -> String {
    let access: Vec<_> = scopes
        .iter()
        .map(|scope| {
            let mut parts = scope.split(':');
            let mut part = || parts.next().unwrap();
            json!({"type": part(), "name": part(), "actions": part().split(',').collect::<Vec<_>>()})
        })
        .collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [certificate]});
    let claims = json!({
        "iss": "issuer", "sub": "me", "aud": "registry", "exp": now + 300, "nbf": now - 60, "iat": now, "jti": "1",
        "access": access,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
