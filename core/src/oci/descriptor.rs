//! Descriptors: how a manifest refers to content.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Digest, media_type};

/// A reference to content by digest. Unknown fields are ignored, `null` counts as absent.
/// Source: OCI image-spec, descriptor.md.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content. Empty only in documents of a type that the registry does not know.
    #[serde(default, deserialize_with = "null_as_default")]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size: u64,
    /// Where else the content can be fetched; the registry never does.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// Arbitrary metadata.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Type of an artifact, if the content is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Where an index entry runs; kept as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<serde_json::Value>,
    /// The content itself in base64; not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Descriptor {
    /// Whether this is a layer that is never pushed: judged by its media type alone, because ordinary layers may carry
    /// `urls` too and must be held.
    pub fn is_foreign_layer(&self) -> bool {
        media_type::is_foreign_layer(&self.media_type)
    }
}

/// Some clients write `null` for an empty list or map.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_clients_write() {
        let text = format!(
            r#"{{"mediaType":"a/b","digest":"{}","size":3,"urls":null,"annotations":null,"x":[1],"data":null}}"#,
            Digest::sha256(b"abc")
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(descriptor.size, 3);
        let written = serde_json::to_string(&descriptor).unwrap();
        assert_eq!(
            written,
            format!(
                r#"{{"mediaType":"a/b","digest":"{}","size":3}}"#,
                Digest::sha256(b"abc")
            )
        );
    }

    #[test]
    fn refuses_what_cannot_be_checked() {
        fn check(size: &str) {
            let text = format!(
                r#"{{"mediaType":"a/b","digest":"{}","size":{size}}}"#,
                Digest::sha256(b"abc")
            );
            assert!(serde_json::from_str::<Descriptor>(&text).is_err(), "{size}");
        }
        for size in ["-1", "1.5", "1e3", "\"3\"", "null", "18446744073709551616"] {
            check(size);
        }
    }
}
