//! The body of the fuzz target `container`: what is found in a container's layers, against a model of whiteouts.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use dvcr_core::oci::{Descriptor, Digest, Reference};
use dvcr_importer::{
    image::{Disk, Document, Image, Repository},
    input::Spool,
    source::ReadAt,
};

use super::tar_files::{self, Member};

/// Names in a container's layers.
const NAMES: [&str; 12] = [
    "disk/a",
    "disk/b",
    "disk",
    "disk.img",
    "./disk/a",
    "disk/.wh.a",
    "disk/.wh..wh..opq",
    ".wh.disk",
    ".wh..wh..opq",
    "disk/sub/a",
    "etc/passwd",
    "disk/.hidden",
];

/// A container of up to four layers, each byte an entry of one: what is found is what is left when the layers are laid over
/// each other.
pub(crate) fn container(data: &[u8]) {
    let mut repository = Blobs::default();
    let mut layers = vec![];
    let mut models = vec![];
    let inputs: Vec<_> = data.split(|byte| *byte == 0xFF).take(4).collect();
    let contents = |number: usize| {
        let content = move |i| format!("content of {number} {i}").repeat(40).into_bytes();
        (0..32).map(content).collect::<Vec<_>>()
    };
    let contents: Vec<_> = (0..inputs.len()).map(contents).collect();
    for (entries, contents) in inputs.iter().zip(&contents) {
        let members: Vec<Member<'_>> = entries
            .iter()
            .zip(contents)
            .map(|(entry, content)| {
                let name = NAMES[usize::from(entry % 16) % NAMES.len()];
                match entry / 16 % 8 {
                    0 => Member::Directory(name),
                    1 => Member::Symlink(name, "/etc/passwd"),
                    2 => Member::HardLink(name, "etc/passwd"),
                    3 => Member::Special(name, b'3'),
                    4 => Member::File(name, b""),
                    _ => Member::File(name, content),
                }
            })
            .collect();
        layers.push(repository.add(&tar_files::tar(&members)));
        models.push(members);
    }
    let config = repository.add(b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},"layers":[{}]}}"#,
        layers
            .iter()
            .map(|layer| format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar",{layer}}}"#
            ))
            .collect::<Vec<_>>()
            .join(",")
    );
    repository.manifest = manifest.into_bytes();
    let tag = "tag".parse().expect("a tag");
    let image = Image::resolve(Arc::new(repository), &tag, None).expect("a manifest of ours");
    let spool = Spool {
        dir: Path::new("/nonexistent"),
        bytes_max: 0,
        unwrapped_bytes_max: 1 << 30,
    };
    let found = image.open(None, spool, true).ok().and_then(|source| {
        let Disk::Stream(mut stream) = source.disk else {
            panic!("text is no image");
        };
        let mut content = vec![];
        stream.read_to_end(&mut content).ok()?;
        Some(content)
    });
    let expected = visible_disk(&models);
    let padded = expected.map(|content| {
        let mut content = content.to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content
    });
    assert_eq!(found, padded);
}

/// The one disk in the last layer that shows any; `None` if there is none, several, or something else in its place.
fn visible_disk<'a>(layers: &'a [Vec<Member<'_>>]) -> Option<&'a [u8]> {
    let normal = |name: &str| name.trim_start_matches("./").to_owned();
    let is_disk = |name: &str| {
        name == "disk"
            || name == "disk.img"
            || name
                .strip_prefix("disk/")
                .is_some_and(|name| !name.contains('/') && !name.starts_with('.'))
    };
    let (mut removed, mut emptied, mut directories) = (vec![], vec![], vec![]);
    for layer in layers.iter().rev() {
        let hidden = |name: &str| {
            let below =
                |parent: &String| parent.is_empty() || name.starts_with(&format!("{parent}/"));
            directories.iter().any(|other| name == other)
                || removed.iter().any(|other| name == other || below(other))
                || emptied.iter().any(below)
        };
        let mut disks = vec![];
        for member in layer {
            match member {
                Member::File(name, content) => {
                    let name = normal(name);
                    if is_disk(&name) && !hidden(&name) && !content.is_empty() {
                        disks.push(*content);
                    }
                }
                Member::HardLink(name, _) | Member::Special(name, _) => {
                    let name = normal(name);
                    if is_disk(&name) && !hidden(&name) {
                        return None;
                    }
                }
                Member::Directory(_) | Member::Symlink(..) => {}
            }
        }
        match disks[..] {
            [] => {}
            [disk] => return Some(disk),
            _ => return None,
        }
        for member in layer {
            let (name, directory) = match member {
                Member::Directory(name) => (name, true),
                Member::File(name, _)
                | Member::Symlink(name, _)
                | Member::HardLink(name, _)
                | Member::Special(name, _) => (name, false),
            };
            let name = normal(name);
            let (parent, base) = name.rsplit_once('/').unwrap_or(("", &name));
            if base == ".wh..wh..opq" {
                emptied.push(parent.to_owned());
            } else if directory && !base.starts_with(".wh.") {
                directories.push(name);
            } else if let Some(base) = base.strip_prefix(".wh.") {
                removed.push(
                    format!("{parent}/{base}")
                        .trim_start_matches('/')
                        .to_owned(),
                );
            } else {
                removed.push(name);
            }
        }
    }
    None
}

/// A repository in memory with one image.
#[derive(Default)]
struct Blobs {
    manifest: Vec<u8>,
    blobs: HashMap<Digest, Vec<u8>>,
}

impl Blobs {
    /// Digest and size of a blob, as JSON.
    fn add(&mut self, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes);
        self.blobs.insert(digest, bytes.to_vec());
        format!(r#""digest":"{digest}","size":{}"#, bytes.len())
    }
}

impl Repository for Blobs {
    fn manifest(&self, _: &Reference) -> io::Result<Document> {
        Ok(Document {
            media_type: None,
            bytes: self.manifest.clone(),
        })
    }

    fn blob(&self, blob: &Descriptor) -> io::Result<Arc<dyn ReadAt>> {
        let bytes = self.blobs.get(&blob.digest);
        Ok(Arc::new(bytes.ok_or(io::ErrorKind::NotFound)?.clone()))
    }
}
