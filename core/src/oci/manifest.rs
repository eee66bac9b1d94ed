//! Manifests and indexes: what a pushed document refers to.
//!
//! The registry stores and returns a document's exact bytes; this module only reads what it must know to keep the
//! content that the document refers to. It is *not* a validator of images: configs and layers are opaque.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Descriptor, media_type};

/// Largest document in bytes. The specification asks for at least 4 MiB; twice that leaves room for annotations.
pub const MANIFEST_BYTES_MAX: usize = 8 << 20;

/// Most descriptors in one document. Each becomes a row of one transaction; real images have at most a few hundred.
pub const DESCRIPTORS_MAX: usize = 10_000;

/// Most JSON values in one document. A parsed value takes up to 100 bytes, so that 8 MiB of `[0,0,0,...]` would become
/// hundreds of MiB; with this bound it is 20 MB. A full index has about ten values a descriptor.
pub const JSON_VALUES_MAX: usize = 200_000;

/// What a document is, by its fields.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ManifestKind {
    /// Refers to blobs: an image or an artifact.
    Image,
    /// Refers to manifests: an image index or a manifest list.
    Index,
}

/// What the registry knows of a pushed document.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// Image or index.
    pub kind: ManifestKind,
    /// The type it is served with, without parameters; well-formed.
    pub media_type: String,
    /// The config of an image.
    pub config: Option<Descriptor>,
    /// The layers of an image and the `blobs` of an artifact of a type that the registry does not know, in their
    /// order, foreign ones included. May be empty.
    pub layers: Vec<Descriptor>,
    /// The entries of an index, in their order. May be empty.
    pub children: Vec<Descriptor>,
    /// The manifest that this one is about. It need not exist.
    pub subject: Option<Descriptor>,
    /// The document's own `artifactType`, if not empty.
    pub artifact_type: Option<String>,
    /// The document's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Why a document cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MANIFEST_BYTES_MAX`].
    #[error(
        "manifest has {0} bytes, at most {MANIFEST_BYTES_MAX} are accepted: move large data into a blob"
    )]
    TooLarge(usize),
    /// Not JSON, not UTF-8, nested too deeply, or not an object.
    #[error("manifest is not a JSON object: {0}")]
    Json(#[source] serde_json::Error),
    /// More than a bound allows.
    #[error("manifest has more than {max} {what}: split it into several manifests under an index")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The type is not a well-formed media type, or none was given and the document does not tell.
    #[error("manifest has no usable media type: send its type, for example {expected}, as Content-Type", expected = media_type::OCI_IMAGE)]
    MediaType,
    /// The two types differ: clients would read different things from the same bytes.
    #[error(
        "Content-Type is {content_type:?} but the manifest's mediaType is {media_type:?}: send the manifest's mediaType as \
         Content-Type"
    )]
    MediaTypeMismatch {
        /// What the request said, without parameters.
        content_type: String,
        /// What the document says.
        media_type: String,
    },
    /// Both an image and an index, or the other one than the type says: CVE-2021-41190.
    #[error("manifest is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// Docker's first schema, without content-addressed configs.
    #[error(
        "docker schema 1 manifests are not supported: push with docker 1.10 or newer, or convert with `skopeo copy`"
    )]
    Schema1,
    /// `schemaVersion` is absent or another number.
    #[error("manifest's schemaVersion must be 2")]
    SchemaVersion,
    /// A field is absent or has another form than the specification says.
    #[error("manifest field {field:?} is invalid: {reason}")]
    Field {
        /// Name of the top-level field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Manifest {
    /// Reads a document as it was pushed.
    ///
    /// Known types are OCI image manifest and index, Docker schema 2 manifest and manifest list; their form is checked.
    /// Any other type's document is opaque except for the fields `config`, `layers`, `blobs`, `manifests` and `subject`,
    /// of which what has a `digest` is a descriptor. Without a Content-Type the document's `mediaType` counts, else its
    /// fields do. Unknown fields are tolerated, and of duplicate fields the last counts, as for Go clients.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        if values_at_most(bytes) > JSON_VALUES_MAX {
            return Err(ManifestError::TooMany {
                what: "JSON values",
                max: JSON_VALUES_MAX,
            });
        }
        let mut document: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        // Go clients write null for an empty list.
        document.retain(|_, value| !value.is_null());

        let media_type = resolve_media_type(content_type, &mut document)?;
        let has = |field: &str| document.contains_key(field);
        if has("manifests") && (has("layers") || has("config")) {
            return Err(ManifestError::Ambiguous(
                "it has both `manifests` and `layers` or `config`; keep one kind",
            ));
        }
        let kind = match media_type.as_str() {
            media_type::OCI_IMAGE | media_type::DOCKER_IMAGE if has("manifests") => {
                return Err(ManifestError::Ambiguous(
                    "its type is an image but it has `manifests`; send an index's type",
                ));
            }
            media_type::OCI_INDEX | media_type::DOCKER_LIST if has("layers") || has("config") => {
                return Err(ManifestError::Ambiguous(
                    "its type is an index but it has `layers` or `config`; send an image's type",
                ));
            }
            media_type::OCI_IMAGE | media_type::DOCKER_IMAGE => Kind::Known(ManifestKind::Image),
            media_type::OCI_INDEX | media_type::DOCKER_LIST => Kind::Known(ManifestKind::Index),
            _ if has("manifests") => Kind::Opaque(ManifestKind::Index),
            _ => Kind::Opaque(ManifestKind::Image),
        };
        let manifest = match kind {
            Kind::Known(kind) => known(kind, media_type, document)?,
            Kind::Opaque(kind) => opaque(kind, media_type, document)?,
        };
        let descriptors = manifest.layers.len() + manifest.children.len();
        if descriptors > DESCRIPTORS_MAX {
            return Err(ManifestError::TooMany {
                what: "descriptors",
                max: DESCRIPTORS_MAX,
            });
        }
        Ok(manifest)
    }

    /// The blobs that the registry must hold before it accepts the document: config and layers without foreign layers,
    /// which clients never push. May repeat a digest.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config
            .iter()
            .chain(self.layers.iter().filter(|layer| !layer.is_foreign_layer()))
    }

    /// The `artifactType` of this document's entry in a list of referrers: its own, else for an image its config's media
    /// type. Source: OCI distribution-spec, "Listing Referrers".
    pub fn referrer_artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref().or(match self.kind {
            ManifestKind::Image => self
                .config
                .as_ref()
                .map(|config| config.media_type.as_str()),
            ManifestKind::Index => None,
        })
    }
}

/// How strictly a document is read.
enum Kind {
    /// Of a known type.
    Known(ManifestKind),
    /// Of any other type.
    Opaque(ManifestKind),
}

/// An upper bound of the number of JSON values in `bytes`, keys not counted: every value is the document, or follows a
/// comma, or is the first of a list or object. What is in strings does not count.
fn values_at_most(bytes: &[u8]) -> usize {
    let mut count = 1;
    let mut in_string = false;
    let mut escaped = false;
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b',' | b'[' | b'{' => count += 1,
                _ => {}
            }
        }
    }
    count
}

/// The document's type: what request and document agree on.
fn resolve_media_type(
    content_type: Option<&str>,
    document: &mut Map<String, Value>,
) -> Result<String, ManifestError> {
    let claimed = content_type
        .map(media_type::essence)
        .filter(|claimed| !claimed.is_empty());
    let written = take::<String>(document, "mediaType")?.filter(|written| !written.is_empty());
    let media_type = match (claimed, written) {
        (Some(claimed), Some(written)) if claimed != written => {
            return Err(ManifestError::MediaTypeMismatch {
                content_type: claimed.to_owned(),
                media_type: written,
            });
        }
        (_, Some(written)) => written,
        (Some(claimed), None) => claimed.to_owned(),
        (None, None) if document.contains_key("fsLayers") => return Err(ManifestError::Schema1),
        (None, None) if document.contains_key("manifests") => media_type::OCI_INDEX.to_owned(),
        (None, None) if document.contains_key("config") || document.contains_key("layers") => {
            media_type::OCI_IMAGE.to_owned()
        }
        (None, None) => return Err(ManifestError::MediaType),
    };
    // It goes back to clients as a header.
    if !media_type::is_well_formed(&media_type) {
        return Err(ManifestError::MediaType);
    }
    let schema1 = document.contains_key("fsLayers")
        && document.get("schemaVersion").and_then(Value::as_u64) == Some(1);
    if schema1
        || matches!(
            media_type.as_str(),
            media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED
        )
    {
        return Err(ManifestError::Schema1);
    }
    Ok(media_type)
}

/// Reads a document of a known type.
fn known(
    kind: ManifestKind,
    media_type: String,
    mut document: Map<String, Value>,
) -> Result<Manifest, ManifestError> {
    match document.get("schemaVersion").and_then(Value::as_u64) {
        Some(2) => {}
        Some(1) => return Err(ManifestError::Schema1),
        _ => return Err(ManifestError::SchemaVersion),
    }
    let manifest = Manifest {
        kind,
        media_type,
        config: take(&mut document, "config")?,
        layers: take(&mut document, "layers")?.unwrap_or_default(),
        children: take(&mut document, "manifests")?.unwrap_or_default(),
        subject: take(&mut document, "subject")?,
        artifact_type: take(&mut document, "artifactType")?
            .filter(|text: &String| !text.is_empty()),
        annotations: take(&mut document, "annotations")?.unwrap_or_default(),
    };
    if kind == ManifestKind::Image && manifest.config.is_none() {
        let reason =
            "an image manifest must have one; artifacts use the empty config `{}`".to_owned();
        return Err(ManifestError::Field {
            field: "config",
            reason,
        });
    }
    let fields = [
        ("config", manifest.config.as_slice()),
        ("layers", &manifest.layers),
        ("manifests", &manifest.children),
        ("subject", manifest.subject.as_slice()),
    ];
    for (field, descriptors) in fields {
        if descriptors
            .iter()
            .any(|descriptor| descriptor.media_type.is_empty())
        {
            return Err(ManifestError::Field {
                field,
                reason: "a descriptor must have a mediaType".to_owned(),
            });
        }
    }
    Ok(manifest)
}

/// Reads a document of any other type: only what is certainly a descriptor is one.
fn opaque(
    kind: ManifestKind,
    media_type: String,
    mut document: Map<String, Value>,
) -> Result<Manifest, ManifestError> {
    let text = |value: Value| {
        if let Value::String(text) = value {
            Some(text)
        } else {
            None
        }
    };
    let mut layers = take_descriptors(&mut document, "layers")?;
    layers.append(&mut take_descriptors(&mut document, "blobs")?);
    Ok(Manifest {
        kind,
        media_type,
        config: take_descriptors(&mut document, "config")?.pop(),
        layers,
        children: take_descriptors(&mut document, "manifests")?,
        subject: take_descriptors(&mut document, "subject")?.pop(),
        artifact_type: document
            .remove("artifactType")
            .and_then(text)
            .filter(|text| !text.is_empty()),
        annotations: match document.remove("annotations") {
            Some(Value::Object(map)) => map
                .into_iter()
                .filter_map(|(key, value)| Some((key, text(value)?)))
                .collect(),
            _ => BTreeMap::new(),
        },
    })
}

/// Takes a field of a form that the specification fixes.
fn take<T: DeserializeOwned>(
    document: &mut Map<String, Value>,
    field: &'static str,
) -> Result<Option<T>, ManifestError> {
    document
        .remove(field)
        .map(|value| from_value(field, value))
        .transpose()
}

/// Takes the descriptors of an opaque document's field, which is one or a list of them. What has no `digest` is something
/// else and left alone; what has one must be a descriptor that the registry can keep, or it would lose content.
fn take_descriptors(
    document: &mut Map<String, Value>,
    field: &'static str,
) -> Result<Vec<Descriptor>, ManifestError> {
    let values = match document.remove(field) {
        Some(Value::Array(values)) if !matches!(field, "config" | "subject") => values,
        Some(value @ Value::Object(_)) if matches!(field, "config" | "subject") => vec![value],
        _ => return Ok(Vec::new()),
    };
    values
        .into_iter()
        .filter(|value| value.get("digest").is_some_and(Value::is_string))
        .map(|value| from_value(field, value))
        .collect()
}

fn from_value<T: DeserializeOwned>(field: &'static str, value: Value) -> Result<T, ManifestError> {
    serde_json::from_value(value).map_err(|error| ManifestError::Field {
        field,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
