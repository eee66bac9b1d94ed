//! Images made from nothing, and OCI layout directories to hand them to clients.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::{
    site::{INDEX_OCI, MANIFEST_OCI, Site},
    support::{
        digest::sha256,
        layer::{gzip, tar},
        random::Random,
    },
};

/// Bytes of the disk in an image: some tens of chunks.
const DISK_BYTES: usize = 3 << 20;

/// Blobs and manifests by digest.
pub(crate) type Content = BTreeMap<String, Vec<u8>>;

/// An image or an index with everything it refers to.
pub(crate) struct Image {
    pub(crate) content: Content,
    /// Descriptor of its manifest.
    pub(crate) descriptor: Value,
}

impl Image {
    /// A disk image for an architecture, its layers in gzip's framing: random and repeated bytes, zeros, and a layer that is
    /// small enough to be kept beside the metadata.
    pub(crate) fn new(random: &mut Random, architecture: &str) -> Self {
        Self::with_layers(random, architecture, "+gzip", gzip)
    }

    /// Such an image with plain layers, which deduplicate best.
    pub(crate) fn plain(random: &mut Random, architecture: &str) -> Self {
        Self::with_layers(random, architecture, "", <[u8]>::to_vec)
    }

    fn with_layers(
        random: &mut Random,
        architecture: &str,
        suffix: &str,
        framed: fn(&[u8]) -> Vec<u8>,
    ) -> Self {
        let mut disk = random.bytes(DISK_BYTES);
        disk.extend_from_within(..DISK_BYTES / 2);
        let (zeros, word) = (vec![0; 1 << 20], random.word());
        let archives = [
            tar(&[("disk/disk.img", &disk)]),
            tar(&[("disk/zeros", &zeros)]),
            tar(&[("note", word.as_bytes())]),
        ];
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let mut content = Content::new();
        let mut descriptors = Vec::new();
        let mut diff_ids = Vec::new();
        for archive in archives {
            diff_ids.push(sha256(&archive));
            descriptors.push(add(&mut content, &media_type, framed(&archive)));
        }
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/note"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "test"})).collect::<Vec<_>>(),
        });
        let config = config.to_string().into_bytes();
        let config = add(
            &mut content,
            "application/vnd.oci.image.config.v1+json",
            config,
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_OCI,
            "config": config,
            "layers": descriptors,
        });
        let mut descriptor = add(
            &mut content,
            MANIFEST_OCI,
            manifest.to_string().into_bytes(),
        );
        descriptor["platform"] = json!({"architecture": architecture, "os": "linux"});
        Self {
            content,
            descriptor,
        }
    }

    /// An index of images.
    pub(crate) fn index(images: Vec<Self>) -> Self {
        let manifests: Vec<&Value> = images.iter().map(|image| &image.descriptor).collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_OCI, "manifests": manifests});
        let mut content = Content::new();
        let descriptor = add(&mut content, INDEX_OCI, index.to_string().into_bytes());
        for image in images {
            content.extend(image.content);
        }
        Self {
            content,
            descriptor,
        }
    }

    pub(crate) fn digest(&self) -> &str {
        self.descriptor["digest"]
            .as_str()
            .expect("a descriptor has a digest")
    }

    /// Writes an OCI layout directory with the image under a tag.
    pub(crate) fn write_layout(&self, directory: &Path, tag: &str) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("create the layout's directory");
        for (digest, bytes) in &self.content {
            fs::write(blobs.join(hex_of(digest)), bytes).expect("write a blob");
        }
        let mut descriptor = self.descriptor.clone();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_OCI, "manifests": [descriptor]});
        fs::write(directory.join("index.json"), index.to_string()).expect("write the index");
        let version = json!({"imageLayoutVersion": "1.0.0"});
        fs::write(directory.join("oci-layout"), version.to_string()).expect("write the version");
    }

    /// Panics unless the repository has the image under the reference, every byte of it.
    pub(crate) fn assert_stored(&self, site: &Site, repository: &str, reference: &str) {
        let manifest = site.manifest(repository, reference);
        assert_eq!(manifest.digest, self.digest());
        assert_eq!(manifest.media_type, self.descriptor["mediaType"]);
        self.assert_children(site, repository, &manifest.json());
    }

    fn assert_children(&self, site: &Site, repository: &str, manifest: &Value) {
        let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
        for child in list("manifests") {
            let digest = child["digest"].as_str().expect("a digest");
            let manifest = site.manifest(repository, digest);
            assert!(
                manifest.bytes == self.content[digest],
                "manifest {digest} of {repository}"
            );
            self.assert_children(site, repository, &manifest.json());
        }
        for child in list("layers").iter().chain(manifest.get("config")) {
            let digest = child["digest"].as_str().expect("a digest");
            assert!(
                site.blob(repository, digest) == self.content[digest],
                "blob {digest} of {repository}"
            );
        }
    }
}

fn add(content: &mut Content, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = sha256(&bytes);
    let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    content.insert(digest, bytes);
    descriptor
}

fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").expect("a SHA-256 digest")
}

/// The blobs of an OCI layout directory; each is what its name says.
pub(crate) fn read_layout(directory: &Path) -> Content {
    let mut content = Content::new();
    for entry in fs::read_dir(directory.join("blobs/sha256")).expect("the layout's blobs") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("read a blob");
        let digest = sha256(&bytes);
        let name = path.file_name().and_then(|name| name.to_str());
        assert_eq!(name, Some(hex_of(&digest)), "in {}", directory.display());
        content.insert(digest, bytes);
    }
    content
}

/// Panics unless an OCI layout directory has exactly this content.
pub(crate) fn assert_layout(directory: &Path, expected: &Content) {
    let found = read_layout(directory);
    // Names are digests, which `read_layout` has checked: equal names are equal bytes.
    let names = |content: &Content| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(expected));
}
