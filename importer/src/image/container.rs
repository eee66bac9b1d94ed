//! The disk in the file system that a container image's layers make.
//!
//! Layers are read from the last to the first, until one has the disk: what a later layer has or removes hides what earlier
//! ones have. Source: OCI image-spec, layer.md, "Whiteouts"; the place of the disk is KubeVirt's.

use std::{
    collections::BTreeSet,
    io::{self, Read},
};

use dvcr_core::oci::Descriptor;

use super::{
    Image, ImageError,
    verified::{Verdict, Verified},
};
use crate::wrapping::{
    Unwrapped, Wrapping,
    tar::{Entries, Entry, EntryKind, normal},
};

/// Where the disk is, unless somebody says.
const DIRECTORY: &[u8] = b"disk";

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Names that later layers hide: more of them around one disk are no image that anybody built.
const HIDDEN_MAX: usize = 10_000;

/// A disk that was found, about to be read.
pub(super) struct Found {
    pub(super) layer: Descriptor,
    /// Its path in the file system, without a leading slash.
    pub(super) name: String,
    pub(super) len: u64,
    /// Its bytes. At its end the rest of the layer was read and verified.
    pub(super) file: LayerFile,
    pub(super) verdict: Verdict,
}

/// Looks for the disk, or for the file of this name.
pub(super) fn find(
    image: &Image,
    wanted: Option<&str>,
    bytes_max: u64,
) -> Result<Found, ImageError> {
    let mut search = Search {
        wanted: wanted.map(|name| normal(name.as_bytes())),
        hidden: Hidden::default(),
    };
    for layer in image.manifest.layers.iter().rev() {
        if layer.is_foreign_layer() {
            return Err(ImageError::refused(format!(
                "layer {} of the image is kept elsewhere; push the image with all its layers",
                layer.digest
            )));
        }
        let verified = Verified::new(image.repository.stream_from(layer, 0)?, layer);
        let verdict = verified.verdict();
        let mut stream = Unwrapped::decoded(verified, bytes_max)?;
        let head = stream.head();
        // An archive of nothing is its end mark only.
        if head.iter().all(|byte| *byte == 0) {
            io::copy(&mut stream, &mut io::sink())?;
            verdict.check()?;
            continue;
        }
        if Wrapping::detect(head) != Some(Wrapping::Tar) {
            return Err(ImageError::refused(format!(
                "layer {} of the image is no archive",
                layer.digest
            )));
        }
        let mut entries = Entries::new(stream);
        let mut hidden = Hidden::default();
        while let Some(entry) = entries.next()? {
            let name = normal(&entry.name);
            if search.is_disk(&name, &entry)? {
                return Ok(Found {
                    layer: layer.clone(),
                    name: String::from_utf8_lossy(&name).into_owned(),
                    len: entry.len,
                    file: LayerFile {
                        entries,
                        search,
                        name,
                        done: false,
                    },
                    verdict,
                });
            }
            if search.concerns(&name) {
                hidden.note(&name, &entry.kind)?;
            }
        }
        entries.drain()?;
        verdict.check()?;
        search.hidden.merge(hidden);
    }
    Err(ImageError::refused(match wanted {
        Some(name) => format!("the image has no file {name}"),
        None => "the image has no disk: no file in /disk, none called disk; if it is elsewhere, \
                 say where with --file"
            .to_owned(),
    }))
}

/// What is looked for, and what of it later layers hide.
struct Search {
    wanted: Option<Vec<u8>>,
    hidden: Hidden,
}

impl Search {
    /// Whether an entry is the disk.
    fn is_disk(&self, name: &[u8], entry: &Entry) -> Result<bool, ImageError> {
        let right_place = match &self.wanted {
            Some(wanted) => name == wanted,
            None => is_disk_name(name),
        };
        if !right_place || self.hidden.hides(name) {
            return Ok(false);
        }
        let shown = String::from_utf8_lossy(name);
        match entry.kind {
            EntryKind::File => Ok(entry.len > 0),
            EntryKind::HardLink(_) => Err(ImageError::refused(format!(
                "{shown} in the image is a hard link; name the file itself with --file"
            ))),
            EntryKind::Device => Err(ImageError::refused(format!(
                "{shown} in the image is a device"
            ))),
            _ => Ok(false),
        }
    }

    /// Whether what happens to this name can matter.
    fn concerns(&self, name: &[u8]) -> bool {
        let first = |name: &[u8]| name.split(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
        let name = name.strip_prefix(WHITEOUT).unwrap_or(name);
        // ".wh..wh..opq" in the root.
        name == &OPAQUE[WHITEOUT.len()..]
            || match &self.wanted {
                Some(wanted) => first(wanted) == first(name),
                None => name.starts_with(DIRECTORY),
            }
    }
}

/// `disk/NAME`, `disk` or `disk.EXTENSION`.
fn is_disk_name(name: &[u8]) -> bool {
    match name.strip_prefix(DIRECTORY) {
        Some([]) => true,
        Some([b'.', ..]) => !name.contains(&b'/'),
        Some([b'/', name @ ..]) => !name.contains(&b'/') && !name.starts_with(b"."),
        _ => false,
    }
}

/// Names that earlier layers have in vain.
#[derive(Default)]
struct Hidden {
    /// Removed or replaced, with everything below.
    names: BTreeSet<Vec<u8>>,
    /// Replaced by a directory: files of that name are gone, but not what is in such a directory.
    directories: BTreeSet<Vec<u8>>,
    /// Directories of whose content nothing is left.
    opaque: BTreeSet<Vec<u8>>,
}

impl Hidden {
    /// Takes an entry of a layer into account, for the layers before it.
    fn note(&mut self, name: &[u8], kind: &EntryKind) -> Result<(), ImageError> {
        let (parent, base) = match name.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&name[..slash], &name[slash + 1..]),
            None => (&name[..0], name),
        };
        if base == OPAQUE {
            self.opaque.insert(parent.to_vec());
        } else if let Some(removed) = base.strip_prefix(WHITEOUT) {
            self.names.insert(normal(&[parent, removed].join(&b'/')));
        } else if *kind == EntryKind::Directory {
            self.directories.insert(name.to_vec());
        } else {
            self.names.insert(name.to_vec());
        }
        if self.names.len() + self.directories.len() + self.opaque.len() > HIDDEN_MAX {
            return Err(ImageError::refused(
                "the image removes too many files in /disk",
            ));
        }
        Ok(())
    }

    fn merge(&mut self, mut earlier: Self) {
        self.names.append(&mut earlier.names);
        self.directories.append(&mut earlier.directories);
        self.opaque.append(&mut earlier.opaque);
    }

    fn hides(&self, name: &[u8]) -> bool {
        let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut parents = slashes.map(|(slash, _)| &name[..slash]);
        self.opaque.contains(&b""[..])
            || self.names.contains(name)
            || self.directories.contains(name)
            || parents.any(|parent| self.names.contains(parent) || self.opaque.contains(parent))
    }
}

/// A file in a layer. At its end the rest of the layer is read: a second disk there is an error, and so are other bytes than
/// the layer's digest says.
pub(super) struct LayerFile {
    entries: Entries<Unwrapped>,
    search: Search,
    name: Vec<u8>,
    done: bool,
}

impl LayerFile {
    fn finish(&mut self) -> io::Result<()> {
        let invalid = |error: ImageError| io::Error::new(io::ErrorKind::InvalidData, error);
        while let Some(entry) = self.entries.next()? {
            let name = normal(&entry.name);
            if self.search.is_disk(&name, &entry).map_err(invalid)? {
                return Err(invalid(ImageError::refused(format!(
                    "the image has several disks; choose one with --file: {}, {}",
                    String::from_utf8_lossy(&self.name),
                    String::from_utf8_lossy(&name)
                ))));
            }
        }
        self.entries.drain()
    }
}

impl Read for LayerFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.done || buf.is_empty() {
            return Ok(0);
        }
        let len = self.entries.read(buf)?;
        if len == 0 {
            self.finish()?;
            self.done = true;
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_disks() {
        for (name, expected) in [
            ("disk/disk.qcow2", true),
            ("./disk/disk.img", true),
            ("/disk/x", true),
            ("disk", true),
            ("disk.img", true),
            ("disk/.hidden", false),
            ("disk/sub/disk.img", false),
            ("disks/disk.img", false),
            ("diskfoo", false),
            ("disk.d/x", false),
            ("etc/disk", false),
            ("", false),
        ] {
            assert_eq!(is_disk_name(&normal(name.as_bytes())), expected, "{name}");
        }
    }

    /// Which of the names are hidden by these entries of a later layer.
    fn check(later: &[&str], names: &[(&str, bool)]) {
        let search = Search {
            wanted: None,
            hidden: Hidden::default(),
        };
        let mut hidden = Hidden::default();
        for name in later {
            let kind = if name.ends_with('/') {
                EntryKind::Directory
            } else {
                EntryKind::File
            };
            let name = normal(name.as_bytes());
            if search.concerns(&name) {
                hidden.note(&name, &kind).unwrap();
            }
        }
        for (name, expected) in names {
            assert_eq!(hidden.hides(name.as_bytes()), *expected, "{later:?} {name}");
        }
    }

    #[test]
    fn later_layers_hide_earlier_ones() {
        check(&["disk/"], &[("disk/a", false), ("disk", true)]);
        check(&["disk/.wh.a"], &[("disk/a", true), ("disk/b", false)]);
        check(
            &[".wh.disk"],
            &[("disk/a", true), ("disk", true), ("disk.img", false)],
        );
        check(&["disk/.wh..wh..opq"], &[("disk/a", true), ("disk", false)]);
        check(&[".wh..wh..opq"], &[("disk/a", true), ("disk", true)]);
        check(&[".wh.disk.img"], &[("disk.img", true), ("disk/a", false)]);
        check(&["disk"], &[("disk/a", true)]);
        check(&["disk/a"], &[("disk/a", true), ("disk/b", false)]);
        check(&["etc/.wh.disk", "etc/.wh..wh..opq"], &[("disk/a", false)]);
    }
}
