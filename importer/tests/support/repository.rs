//! Images made by hand, in a directory.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use dvcr_client::Platform;
use dvcr_core::oci::Digest;
use dvcr_importer::image::{Image, ImageError, LayoutDir};
use serde_json::{Value, json};

pub(crate) const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A directory in the OCI image layout.
pub(crate) struct Repository {
    pub(crate) dir: tempfile::TempDir,
    tags: std::cell::RefCell<Vec<Value>>,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        let repository = Self {
            dir,
            tags: vec![].into(),
        };
        repository.write_index();
        repository
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir.path().join("blobs/sha256").join(hex)
    }

    /// Stores bytes; their descriptor.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes).to_string();
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Stores an image under a tag; its descriptor.
    pub(crate) fn image(&self, tag: &str, config_type: &str, layers: &[Value]) -> Value {
        let labels = json!({"config": {"Labels": {"made": "by hand"}}, "os": "linux"});
        let config = self.blob(config_type, labels.to_string().as_bytes());
        let docker = config_type.contains("docker");
        let media_type = if docker {
            "application/vnd.docker.distribution.manifest.v2+json"
        } else {
            "application/vnd.oci.image.manifest.v1+json"
        };
        self.document(
            tag,
            media_type,
            &json!({
                "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers,
            }),
        )
    }

    pub(crate) fn document(&self, tag: &str, media_type: &str, document: &Value) -> Value {
        let descriptor = self.blob(media_type, document.to_string().as_bytes());
        let mut entry = descriptor.clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let mut tags = self.tags.borrow_mut();
        tags.retain(|old| old["annotations"] != entry["annotations"]);
        tags.push(entry);
        drop(tags);
        self.write_index();
        descriptor
    }

    fn write_index(&self) {
        let index = json!({"schemaVersion": 2, "manifests": *self.tags.borrow()});
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    pub(crate) fn resolve(
        &self,
        tag: &str,
        platform: Option<&Platform>,
    ) -> Result<Image, ImageError> {
        let repository = Arc::new(LayoutDir::new(self.dir.path()));
        Image::resolve(repository, &tag.parse().unwrap(), platform)
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// Where spooled images go in tests.
pub(crate) fn spool(dir: &Path) -> dvcr_importer::input::Spool<'_> {
    dvcr_importer::input::Spool {
        dir,
        bytes_max: 1 << 30,
        unwrapped_bytes_max: 1 << 32,
    }
}
