//! What is pushed and pulled.

use bytes::Bytes;
use dvcr_client::{Error, RawManifest, Repository};
use dvcr_core::oci::{Algorithm, Descriptor, Digest, Tag, media_type};
use serde_json::json;

/// A descriptor of bytes.
pub(crate) fn descriptor(algorithm: Algorithm, media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = Digest::of(algorithm, bytes);
    let value = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    serde_json::from_value(value).unwrap()
}

/// An image of one layer.
pub(crate) struct Image {
    pub(crate) layer: Bytes,
    pub(crate) config: Bytes,
    pub(crate) blobs: [Descriptor; 2],
    pub(crate) manifest: RawManifest,
}

impl Image {
    pub(crate) fn new(algorithm: Algorithm, layer: Vec<u8>) -> Self {
        Self::about(algorithm, layer, None)
    }

    /// An image that refers to another manifest.
    pub(crate) fn about(
        algorithm: Algorithm,
        layer: Vec<u8>,
        subject: Option<&RawManifest>,
    ) -> Self {
        let config = Bytes::from_static(b"{}");
        let blobs = [
            descriptor(algorithm, "application/vnd.oci.empty.v1+json", &config),
            descriptor(algorithm, "application/octet-stream", &layer),
        ];
        let mut document = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_IMAGE,
            "artifactType": "application/vnd.example",
            "config": blobs[0],
            "layers": [blobs[1]],
        });
        if let Some(subject) = subject {
            let algorithm = subject.digest().algorithm();
            let subject = descriptor(algorithm, subject.media_type(), subject.bytes());
            document["subject"] = json!(subject);
        }
        let bytes = document.to_string().into_bytes();
        Self {
            layer: layer.into(),
            config,
            blobs,
            manifest: RawManifest::new(algorithm, media_type::OCI_IMAGE, bytes),
        }
    }

    pub(crate) async fn push(&self, repository: &Repository, tags: &[Tag]) -> Result<(), Error> {
        for (blob, bytes) in self.blobs.iter().zip([&self.config, &self.layer]) {
            repository.push_blob(blob, bytes, None).await?;
        }
        repository.push_manifest(&self.manifest, tags).await
    }

    /// Panics unless the repository has all of it.
    pub(crate) async fn assert_at(&self, repository: &Repository, reference: &str) {
        let reference = reference.parse().unwrap();
        let found = repository.manifest(&reference).await.unwrap();
        assert_eq!(found, self.manifest);
        for (blob, bytes) in self.blobs.iter().zip([&self.config, &self.layer]) {
            assert!(pull(repository, blob).await.unwrap() == *bytes);
        }
    }
}

pub(crate) async fn pull(repository: &Repository, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut reader = repository.blob(&blob.digest, Some(blob.size)).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}
