//! Disks, images, and the words that name them.

use bytes::Bytes;
use dvcr_core::oci::{Digest, RepositoryName};
use futures::{StreamExt as _, stream};

use crate::registry::Body;

/// A repository.
pub(crate) fn name(s: &str) -> RepositoryName {
    s.parse().unwrap()
}

/// A body that arrives in frames of uneven length.
pub(crate) fn body(data: &Bytes) -> Body {
    let mut frames = Vec::new();
    let (mut rest, mut len) = (data.clone(), 1);
    while !rest.is_empty() {
        frames.push(Ok(rest.split_to(rest.len().min(len))));
        len = len * 7 % 300_007 + 1;
    }
    stream::iter(frames).boxed()
}

/// Bytes that do not compress.
pub(crate) fn random(seed: u64, len: usize) -> Bytes {
    let mut x = seed | 1;
    let words = std::iter::repeat_with(move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.flatten().take(len).collect::<Vec<_>>().into()
}

/// Random bytes, text and zeros.
pub(crate) fn disk(seed: u64, len: usize) -> Bytes {
    let mut data = Vec::with_capacity(len);
    let mut n = seed;
    while data.len() < len {
        match n % 4 {
            0 => data.extend_from_slice(&random(n, 50_000)),
            1 => {
                let lines = (0..3000).map(|i| format!("line {i} of file {n}\n"));
                data.extend(lines.flat_map(String::into_bytes));
            }
            2 => data.resize(data.len() + 100_000, 0),
            _ => data.extend_from_slice(&random(n / 8, 30_000)),
        }
        n += 1;
    }
    data.truncate(len);
    data.into()
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image that differs from others by a number.
pub(crate) fn numbered(number: u32) -> Bytes {
    let text = String::from_utf8(image(&[]).to_vec()).unwrap();
    let rest = text.strip_prefix('{').unwrap();
    format!(r#"{{"annotations":{{"number":"{number}"}},{rest}"#).into()
}

/// An index that lists these manifests.
pub(crate) fn index(children: &[Digest]) -> Bytes {
    let children: Vec<_> = children
        .iter()
        .map(|digest| serde_json::json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 7}))
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    index.to_string().into()
}

/// A manifest about another one.
pub(crate) fn about(subject: Digest, number: u32) -> Bytes {
    let mut manifest: serde_json::Value = serde_json::from_slice(&numbered(number)).unwrap();
    manifest["subject"] =
        serde_json::json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 7});
    manifest.to_string().into()
}

/// An image with the config `{}` and these layers.
pub(crate) fn image(layers: &[&Bytes]) -> Bytes {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            let (digest, size) = (Digest::sha256(layer), layer.len());
            format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":{size}}}"#)
        })
        .collect();
    Bytes::from(format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"layers":[{}]}}"#,
        config(),
        layers.join(","),
    ))
}

/// The digest of the config of every [`image`].
pub(crate) fn config() -> Digest {
    Digest::sha256(b"{}")
}
