//! From a reference to the image that it stands for.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use dvcr_client::Platform;
use dvcr_core::{
    disk::{ANNOTATION_INDEX_DIGEST, ANNOTATION_LAYOUT, LAYOUT_VERSION},
    oci::{Descriptor, Digest, Manifest, ManifestKind, Reference},
};
use serde::Deserialize;

use super::{ImageError, Repository, platform::choose, verified::Verified};

/// Indexes in indexes that are followed.
const DEPTH_MAX: usize = 4;

/// Longest config that is read: those of images with hundreds of layers stay below 1 MiB.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Types of configs that describe the file system of a container.
const CONTAINER_CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// How an image holds its disk.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A layer of our layout, with an index.
    Indexed,
    /// A file in the file system of a container.
    ContainerDisk,
    /// A layer that is the disk.
    Artifact,
}

impl Kind {
    /// The name that tables use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Indexed => "indexed disk",
            Self::ContainerDisk => "container disk",
            Self::Artifact => "artifact",
        }
    }
}

/// An image, found and checked, but nothing of its layers read.
#[derive(Clone)]
pub struct Image {
    pub(super) repository: Arc<dyn Repository>,
    pub(super) manifest: Manifest,
    digest: Digest,
}

impl Image {
    /// Fetches the manifest; of an index, that of the image for `platform`.
    pub fn resolve(
        repository: Arc<dyn Repository>,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<Self, ImageError> {
        let mut reference = reference.clone();
        for _ in 0..DEPTH_MAX {
            let document = repository.manifest(&reference)?;
            let digest = match &reference {
                Reference::Tag(_) => Digest::sha256(&document.bytes),
                Reference::Digest(expected) => {
                    let found = Digest::of(expected.algorithm(), &document.bytes);
                    if found != *expected {
                        return Err(ImageError::Digest {
                            what: "manifest",
                            expected: *expected,
                            found,
                        });
                    }
                    found
                }
            };
            let manifest = Manifest::parse(document.media_type.as_deref(), &document.bytes)?;
            if manifest.kind == ManifestKind::Image {
                return Ok(Self {
                    repository,
                    manifest,
                    digest,
                });
            }
            reference = choose(&manifest.children, platform)?.digest.into();
        }
        Err(ImageError::refused(format!(
            "indexes are nested more than {DEPTH_MAX} deep"
        )))
    }

    /// The same image, its blobs read by way of another repository.
    #[must_use]
    pub fn through<R: Repository + 'static>(
        self,
        repository: impl FnOnce(Arc<dyn Repository>) -> R,
    ) -> Self {
        Self {
            repository: Arc::new(repository(self.repository)),
            ..self
        }
    }

    /// Digest of the image's manifest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How it holds its disk, as far as the manifest tells.
    pub fn kind(&self) -> Kind {
        if self.indexed_layer().is_some() {
            return Kind::Indexed;
        }
        let config = self.manifest.config.as_ref();
        let container = config.is_some_and(|c| CONTAINER_CONFIGS.contains(&c.media_type.as_str()));
        if container && self.manifest.artifact_type.is_none() {
            Kind::ContainerDisk
        } else {
            Kind::Artifact
        }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Labels of the image's config; none if it is no container's.
    pub fn labels(&self) -> Result<BTreeMap<String, String>, ImageError> {
        Ok(self.container_config()?.labels.unwrap_or_default())
    }

    /// Variables, as `NAME=value`, of the image's config; none if it is no container's.
    pub fn environment(&self) -> Result<Vec<String>, ImageError> {
        Ok(self.container_config()?.environment.unwrap_or_default())
    }

    fn container_config(&self) -> Result<Config, ImageError> {
        let config = self.manifest.config.as_ref();
        let Some(config) = config.filter(|c| CONTAINER_CONFIGS.contains(&c.media_type.as_str()))
        else {
            return Ok(Config::default());
        };
        if config.size > CONFIG_BYTES_MAX {
            return Err(ImageError::refused("the image's config is too large"));
        }
        let mut bytes = vec![];
        let mut stream = Verified::new(self.repository.stream_from(config, 0)?, config);
        stream.read_to_end(&mut bytes)?;
        let document: ConfigDocument = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::refused(format!("the image's config: {error}")))?;
        Ok(document.config.unwrap_or_default())
    }

    /// The layer of our layout, and the digest of its index. The last one counts, as the last file in `disk/` does.
    pub(super) fn indexed_layer(&self) -> Option<(&Descriptor, Digest)> {
        let layer = self.manifest.layers.last()?;
        let annotation = |key: &str| layer.annotations.get(key).map(String::as_str);
        let index_digest = annotation(ANNOTATION_INDEX_DIGEST)?.parse().ok()?;
        (annotation(ANNOTATION_LAYOUT) == Some(LAYOUT_VERSION)).then_some((layer, index_digest))
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("digest", &self.digest)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct ConfigDocument {
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "Env")]
    environment: Option<Vec<String>>,
}
