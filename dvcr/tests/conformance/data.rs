//! Manifests and the blobs they refer to, made up so that nobody has pushed them before.

use serde_json::{Value, json};

use super::bench::{Bench, Outcome};
use crate::support::{digest::Algorithm, layer};

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media type of the blob `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A manifest as it is pushed.
#[derive(Clone)]
pub struct Document {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
    /// The digest of what it refers to as its subject.
    pub subject: Option<String>,
}

/// What goes into one repository, in an order in which it can be pushed.
pub struct Data<'b> {
    bench: &'b Bench,
    /// Of every digest here.
    pub algorithm: Algorithm,
    /// Layers are gzip streams.
    pub gzip: bool,
    /// Descriptors carry the content.
    pub inline: bool,
    /// Configs and manifests have a field that no specification knows.
    pub unknown_fields: bool,
    /// Tags are given as parameters of the push by digest.
    pub tag_parameters: bool,
    /// Digests and contents.
    pub blobs: Vec<(String, Vec<u8>)>,
    /// Digests and documents, children first.
    pub manifests: Vec<(String, Document)>,
    /// Tags and the digests that they point to.
    pub tags: Vec<(String, String)>,
    /// Digests of subjects, and how each referrer must be listed.
    pub referrers: Vec<(String, Value)>,
}

impl<'b> Data<'b> {
    pub fn new(bench: &'b Bench) -> Self {
        Self {
            bench,
            algorithm: bench.algorithm,
            gzip: true,
            inline: false,
            unknown_fields: false,
            tag_parameters: false,
            blobs: Vec::new(),
            manifests: Vec::new(),
            tags: Vec::new(),
            referrers: Vec::new(),
        }
    }

    /// Pushes all blobs.
    pub fn push_blobs(&self, repository: &str) -> Outcome {
        for (digest, content) in &self.blobs {
            self.bench.push_blob_as(repository, digest, content)?;
        }
        Ok(())
    }

    /// Adds a blob; returns its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = self.algorithm.digest(&bytes);
        let mut descriptor =
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        if self.inline {
            descriptor["data"] = base64(&bytes).into();
        }
        if self.blobs.iter().all(|(known, _)| *known != digest) {
            self.blobs.push((digest, bytes));
        }
        descriptor
    }

    /// Adds a layer with one small file.
    pub fn layer(&mut self) -> Value {
        let text = format!("The word of this layer is {}.\n", self.bench.word());
        let tar = layer::tar(&[("conformance.txt", text.as_bytes())]);
        if self.gzip {
            self.blob(LAYER_GZIP, layer::gzip(&tar))
        } else {
            self.blob(LAYER, tar)
        }
    }

    /// Adds an image config.
    pub fn config(&mut self, architecture: &str) -> Value {
        let config = json!({
            "author": format!("conformance {}", self.bench.word()),
            "architecture": architecture,
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config = self.with_unknown_field(config);
        self.blob(CONFIG, config.to_string().into_bytes())
    }

    /// Adds an image of two layers; returns the descriptor of its manifest. `more` are further fields of it.
    pub fn image(&mut self, more: Value) -> Value {
        self.image_for("amd64", more)
    }

    /// Adds an image for an architecture.
    pub fn image_for(&mut self, architecture: &str, more: Value) -> Value {
        let config = self.config(architecture);
        let layers = [self.layer(), self.layer()];
        self.manifest(
            json!({ "mediaType": IMAGE, "config": config, "layers": layers }),
            more,
        )
    }

    /// Adds an artifact of one blob.
    pub fn artifact(&mut self, artifact_type: &str, more: Value) -> Value {
        let config = self.blob(EMPTY, b"{}".to_vec());
        let layer = self.bench.content(2048);
        let layer = self.blob(artifact_type, layer);
        let document = json!({
            "mediaType": IMAGE,
            "artifactType": artifact_type,
            "config": config,
            "layers": [layer],
        });
        self.manifest(document, more)
    }

    /// Adds an index of these manifests.
    pub fn index(&mut self, children: &[Value], more: Value) -> Value {
        self.manifest(json!({ "mediaType": INDEX, "manifests": children }), more)
    }

    /// Adds an index of two images.
    pub fn images(&mut self, more: Value) -> Value {
        let children = ["amd64", "arm64"].map(|architecture| {
            let mut image = self.image_for(architecture, json!({}));
            image["platform"] = json!({ "os": "linux", "architecture": architecture });
            image
        });
        self.index(&children, more)
    }

    /// Adds a manifest with the fields of both documents; returns its descriptor.
    pub fn manifest(&mut self, document: Value, more: Value) -> Value {
        let mut document = self.with_unknown_field(document);
        document["schemaVersion"] = 2.into();
        for (name, value) in more.as_object().into_iter().flatten() {
            document[name] = value.clone();
        }
        let media_type = if document["mediaType"] == INDEX {
            INDEX
        } else {
            IMAGE
        };
        let bytes = document.to_string().into_bytes();
        let digest = self.algorithm.digest(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        let subject = document["subject"]["digest"].as_str().map(str::to_owned);
        if let Some(subject) = &subject {
            let mut listed = descriptor.clone();
            let fields = [
                ("artifactType", &document["artifactType"]),
                ("artifactType", &document["config"]["mediaType"]),
                ("annotations", &document["annotations"]),
            ];
            for (name, value) in fields {
                if listed[name].is_null() && !value.is_null() {
                    listed[name] = value.clone();
                }
            }
            // Looking for a field has made it.
            if let Some(listed) = listed.as_object_mut() {
                listed.retain(|_, value| !value.is_null());
            }
            self.referrers.push((subject.clone(), listed));
        }
        let document = Document {
            media_type,
            bytes,
            subject,
        };
        self.manifests.push((digest, document));
        descriptor
    }

    /// Points a tag to what the descriptor names.
    pub fn tag(&mut self, tag: &str, descriptor: &Value) {
        self.tags.push((tag.to_owned(), digest_of(descriptor)));
    }

    /// Leaves a blob out of what is pushed.
    pub fn withhold(&mut self, descriptor: &Value) {
        let digest = digest_of(descriptor);
        self.blobs.retain(|(known, _)| *known != digest);
    }

    /// A descriptor of content that nobody has.
    pub fn nowhere(&self, media_type: &str) -> Value {
        let digest = self.algorithm.digest(&self.bench.content(64));
        json!({ "mediaType": media_type, "digest": digest, "size": 1024 })
    }

    /// An annotation that is the same for all, and one that nobody has used before.
    pub fn annotations(&self) -> Value {
        let name = format!("org.example.{}", self.bench.word());
        json!({ "org.opencontainers.conformance": "hello", name: self.bench.word() })
    }

    fn with_unknown_field(&self, mut document: Value) -> Value {
        if self.unknown_fields {
            let name = format!("org.example.{}", self.bench.word());
            document[name] = "unknown".into();
        }
        document
    }

    /// The document with this digest.
    pub fn document(&self, digest: &str) -> &Document {
        let mut documents = self.manifests.iter();
        &documents.find(|(known, _)| known == digest).unwrap().1
    }
}

/// The digest in a descriptor.
pub fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for n in 0..4 {
            let index = (bits >> (18 - 6 * n) & 63) as usize;
            text.push(if n <= group.len() {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    text
}
