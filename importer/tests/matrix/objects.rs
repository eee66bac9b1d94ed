//! Files in object stores, asked with keys, with wrong ones, and without: what the table does not show.

use std::{io::Read as _, sync::Arc};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use dvcr_importer::source::{
    ReadAt as _, Remote,
    object::{Object, ObjectOptions},
    retry::SourceError,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    blackbox::http::{Client, Request},
    reply::{Reply, Server},
    site::impatient,
    stores::{AZURE_ACCOUNT, AZURE_KEY, Kind, Store},
    support::Random,
};

/// One who reads from stores.
struct Reader(Runtime);

impl Reader {
    fn new() -> Self {
        Self(Runtime::new().unwrap())
    }

    fn open(&self, url: &str, options: &ObjectOptions) -> Result<Remote, SourceError> {
        let object = Object::new(&url.parse().unwrap(), options).unwrap();
        Remote::open(Arc::new(object), self.0.handle().clone(), impatient())
    }

    /// It is refused for good, and says why.
    fn refused(&self, url: &str, options: &ObjectOptions, why: &str) {
        match self.open(url, options).unwrap_err() {
            SourceError::Final(text) => assert!(text.contains(why), "{url}: {text}"),
            error => panic!("{url}: {error:?}"),
        }
    }

    /// Files of a store as its owner reads them, and as anybody.
    fn check(&self, store: &Store, owner: &ObjectOptions, anybody: &ObjectOptions) {
        let file = Random::new(5).bytes((9 << 20) + 77);
        let url = store.put("private", "a%20b/disk.img", &file);
        let remote = self.open(&url, owner).unwrap();
        assert_eq!(remote.length(), Some(file.len() as u64));
        let mut found = vec![];
        let mut stream = remote.stream(0, blake3::Hasher::new());
        stream.read_to_end(&mut found).unwrap();
        assert!(found == file);
        let ranged = remote.ranged().unwrap();
        let mut random = Random::new(9);
        for _ in 0..20 {
            let at = random.below(file.len() as u64) as usize;
            let mut buf = vec![0; (random.below(2 << 20) as usize).min(file.len() - at)];
            ranged.read_at(at as u64, &mut buf).unwrap();
            assert!(buf == file[at..at + buf.len()]);
        }

        // Another file in its place is not mixed with the first.
        let mut changed = file.clone();
        changed[0] ^= 1;
        store.put("private", "a%20b/disk.img", &changed);
        let fresh = remote.ranged().unwrap();
        let error = fresh.read_at(5 << 20, &mut [0; 10]).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");

        let url = store.put("public", "public.img", &file);
        let remote = self.open(&url, anybody).unwrap();
        let mut buf = [0; 100];
        remote.ranged().unwrap().read_at(1000, &mut buf).unwrap();
        assert_eq!(buf, file[1000..1100]);

        let scheme = url.split_once(':').unwrap().0;
        for (path, options) in [
            ("private/nothing.img", owner),
            ("public/nothing.img", anybody),
            ("nothing/disk.img", owner),
        ] {
            self.refused(&format!("{scheme}://{path}"), options, "no such file");
        }
    }
}

fn options(store: &Store, keys: Option<(&str, &str)>) -> ObjectOptions {
    ObjectOptions {
        keys: keys.map(|(key, secret)| (key.to_owned(), secret.to_owned())),
        endpoint: Some(format!("{}/", store.endpoint)),
        anonymous: keys.is_none(),
        ..ObjectOptions::default()
    }
}

#[test]
fn s3() {
    let store = Store::start(Kind::S3);
    let owner = options(&store, Some(("key", "secret")));
    let anybody = options(&store, None);
    let reader = Reader::new();
    reader.check(&store, &owner, &anybody);
    reader.refused("s3://private/a%20b/disk.img", &anybody, "does not allow it");
}

#[test]
fn azure() {
    let store = Store::start(Kind::Azure);
    let owner = options(&store, Some((AZURE_ACCOUNT, AZURE_KEY)));
    // The account is a part of where the file is; who names no key has none.
    let anybody = options(&store, Some((AZURE_ACCOUNT, "")));
    let reader = Reader::new();
    reader.check(&store, &owner, &anybody);
    let url = "az://private/a%20b/disk.img";
    reader.refused(url, &anybody, "does not allow it");
    let stranger = options(&store, Some((AZURE_ACCOUNT, "c2VjcmV0")));
    reader.refused(url, &stranger, "does not allow it");
}

/// The server looks at no credentials, so somebody in front of it does.
#[test]
fn google() {
    let store = Store::start(Kind::Google);
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let key = json!({
        "type": "service_account",
        "client_email": "me@project.example",
        "private_key_id": "1",
        "private_key": format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        ),
    });
    let behind = store.endpoint.clone();
    let front = Server::start(move |request, _| {
        let mut forward = Request::new("GET", &request.target);
        for (name, value) in &request.headers {
            match name.as_str() {
                "range" => forward = forward.header("range", value),
                "if-match" => forward = forward.header("if-match", value),
                _ => {}
            }
        }
        let answer = Client::new(&behind).send(&forward).unwrap();
        let mut reply = Reply::new(answer.status);
        for name in ["Content-Range", "ETag", "Last-Modified"] {
            if let Some(value) = answer.get(name) {
                reply = reply.with(name, value);
            }
        }
        reply.body(answer.body)
    });
    let owner = ObjectOptions {
        endpoint: Some(front.url()),
        google_key: Some(key.to_string()),
        ..ObjectOptions::default()
    };
    Reader::new().check(&store, &owner, &options(&store, None));

    let asked = front.received();
    assert!(!asked.is_empty());
    for request in asked {
        let token = request.header("authorization").unwrap();
        let token = token.strip_prefix("Bearer ").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1);
        let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
        assert_eq!(claims["iss"], "me@project.example");
    }
}
