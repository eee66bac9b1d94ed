//! How blobs are cut into chunks.
