//! The image around a layer: its configuration and its manifest.

use std::collections::BTreeMap;

use dvcr_core::oci::Digest;
use serde_json::{Value, json};

use crate::layout::Layer;

/// Label of the configuration: bytes of the source as it was received.
pub const LABEL_SOURCE_SIZE: &str = "source-image-size";

/// Label of the configuration: bytes of the disk as a guest sees it.
pub const LABEL_VIRTUAL_SIZE: &str = "source-image-virtual-size";

/// Label of the configuration: the format of the disk in the image. Deckhouse's controller and its importer of volumes take the format
/// under this name for that of the file that they will find.
pub const LABEL_FORMAT: &str = "source-image-format";

/// Label of the configuration: the format that the source had.
pub const LABEL_SOURCE_FORMAT: &str = "io.dvcr.source-format";

/// Media type of the configuration.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// Media type of the manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Media type of a layer in zstd frames.
pub const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Media type of a layer without compression.
pub const PLAIN_LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer is stored.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Compression {
    /// In zstd frames, with an index.
    #[default]
    Zstd,
    /// Not at all: for docker engines before 23.
    None,
}

impl Compression {
    /// Media type of such a layer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zstd => LAYER_MEDIA_TYPE,
            Self::None => PLAIN_LAYER_MEDIA_TYPE,
        }
    }
}

/// What is known of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFacts {
    /// Bytes as they were received.
    pub len: u64,
    /// Bytes of the disk as a guest sees it.
    pub virtual_len: u64,
    /// Name of the format that it had.
    pub format: &'static str,
    /// Name of the format in which its disk is stored.
    pub stored: &'static str,
}

/// A layer that a registry has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerFacts {
    /// How it is stored.
    pub compression: Compression,
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub len: u64,
    /// Digest of the archive in it.
    pub diff_id: Digest,
    /// What its descriptor says.
    pub annotations: BTreeMap<String, String>,
}

impl LayerFacts {
    /// Of a layer in zstd frames.
    pub fn zstd(layer: &Layer) -> Self {
        Self {
            compression: Compression::Zstd,
            digest: layer.digest,
            len: layer.len,
            diff_id: layer.diff_id,
            annotations: layer.annotations(),
        }
    }

    /// Of a layer that is an archive as it is.
    pub fn plain(digest: Digest, len: u64) -> Self {
        Self {
            compression: Compression::None,
            digest,
            len,
            diff_id: digest,
            annotations: BTreeMap::new(),
        }
    }
}

/// The configuration of the image. Says nothing of when and where it was made: equal sources have equal ones.
pub fn config(layer: &LayerFacts, source: &SourceFacts, architecture: &str) -> Vec<u8> {
    let labels: BTreeMap<&str, String> = [
        (LABEL_SOURCE_SIZE, source.len.to_string()),
        (LABEL_VIRTUAL_SIZE, source.virtual_len.to_string()),
        (LABEL_FORMAT, source.stored.to_owned()),
        (LABEL_SOURCE_FORMAT, source.format.to_owned()),
    ]
    .into();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id.to_string()] },
        "history": [{ "created_by": "dvcr-importer" }],
    });
    config.to_string().into_bytes()
}

/// The manifest of the image.
pub fn manifest(layer: &LayerFacts, config: &[u8]) -> Vec<u8> {
    let mut descriptor = json!({
        "mediaType": layer.compression.media_type(),
        "digest": layer.digest.to_string(),
        "size": layer.len,
    });
    if !layer.annotations.is_empty() {
        let annotations: BTreeMap<_, _> = layer
            .annotations
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
            .collect();
        descriptor["annotations"] = json!(annotations);
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": {
            "mediaType": CONFIG_MEDIA_TYPE,
            "digest": Digest::sha256(config).to_string(),
            "size": config.len(),
        },
        "layers": [descriptor],
    });
    manifest.to_string().into_bytes()
}

/// The name that images use for this machine's processor.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
