//! What clients push: few layers that share much, and images of them.

use serde_json::json;

use crate::support::{digest::sha256, random::Random};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What layers are made of: a few chunks each.
const BLOCK_BYTES: usize = 160 << 10;
const BLOCKS: usize = 48;
/// So few that clients meet in them all the time, so many that each is without any image now and then.
const LAYERS: usize = 200;
/// Blobs up to 4 KiB take another way through the registry.
const SMALL_BYTES: u64 = 4 << 10;

/// A blob.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: std::sync::Arc<[u8]>,
}

impl Blob {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: sha256(&bytes),
            bytes: bytes.into(),
        }
    }
}

/// All layers there are.
pub(crate) struct Layers(Vec<Blob>);

impl Layers {
    pub(crate) fn new(random: &mut Random) -> Self {
        // Half of the blocks are as compressible as text.
        let blocks: Vec<Vec<u8>> = (0..BLOCKS)
            .map(|block| match block % 2 {
                0 => random.bytes(BLOCK_BYTES),
                _ => hex::encode(random.bytes(BLOCK_BYTES / 2)).into_bytes(),
            })
            .collect();
        let layer = |number: usize| {
            if number.is_multiple_of(4) {
                let len = random.next() % SMALL_BYTES + 1;
                return Blob::new(random.bytes(len as usize));
            }
            let own = random.next() % BLOCK_BYTES as u64;
            let mut bytes = random.bytes(own as usize + 1);
            for _ in 0..random.next() % 4 {
                bytes.extend_from_slice(&blocks[(random.next() % BLOCKS as u64) as usize]);
            }
            Blob::new(bytes)
        };
        Self((0..LAYERS).map(layer).collect())
    }

    pub(crate) fn any(&self, random: &mut Random) -> &Blob {
        &self.0[(random.next() % self.0.len() as u64) as usize]
    }
}

/// An image: blobs and the manifest that names them.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) digest: String,
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: Vec<Blob>,
}

impl Image {
    /// An image of these layers, like no other: its config names `author`.
    pub(crate) fn new(author: &str, layers: Vec<Blob>) -> Self {
        let config = json!({"architecture": "amd64", "os": "linux", "author": author});
        let config = Blob::new(config.to_string().into_bytes());
        let descriptor = |media_type: &str, blob: &Blob| json!({"mediaType": media_type, "digest": blob.digest, "size": blob.bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let mut blobs = layers;
        blobs.push(config);
        Self {
            digest: sha256(&manifest),
            manifest,
            blobs,
        }
    }
}
