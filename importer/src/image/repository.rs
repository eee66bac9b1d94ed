//! Where images come from.

use std::{
    io::{self, Read},
    sync::Arc,
};

use dvcr_core::oci::{Descriptor, Reference};

use crate::source::{ReadAt, Reader};

/// A manifest as it was stored.
#[derive(Clone, Debug)]
pub struct Document {
    /// Type under which it was served, if anybody said.
    pub media_type: Option<String>,
    /// Its bytes. [`Image::resolve`](super::Image::resolve) compares them with the digest.
    pub bytes: Vec<u8>,
}

/// One repository: a registry's, or a directory. May be asked from several threads at once.
pub trait Repository: Send + Sync {
    /// The manifest or index under a tag or digest.
    fn manifest(&self, reference: &Reference) -> io::Result<Document>;

    /// A blob, to be read at random; its length is what the descriptor says. Nothing is verified.
    fn blob(&self, blob: &Descriptor) -> io::Result<Arc<dyn ReadAt>>;

    /// A blob from `start` on, to be read once. Nothing is verified.
    fn stream_from(&self, blob: &Descriptor, start: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Reader::starting_at(self.blob(blob)?, start)))
    }
}
