//! A client of the OCI distribution API.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use dvcr_client::{Client, Credentials, Reference, Transport};
//!
//! let image: Reference = "registry.example/vi/debian:12".parse()?;
//! let client = Client::new(image.host(), Credentials::Anonymous, &Transport::default())?;
//! let repository = client.repository(image.repository());
//! let manifest = repository.manifest(&image.manifest()).await?;
//! for layer in manifest.parse()?.layers {
//!     let mut blob = repository.blob(&layer.digest, Some(layer.size)).await?;
//!     while let Some(bytes) = blob.chunk().await? {
//!         println!("{} bytes", bytes.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] talks to one registry, a [`Repository`] is one of its repositories. What comes in is verified: a manifest or
//! blob that does not have the digest it was asked for is an error, never data. Interrupted pulls go on at the offset
//! they reached, interrupted pushes at the offset that the registry has. Nothing is buffered without a bound.
//!
//! Credentials go to the registry and to the token service that it names, and nowhere else: redirects to other hosts are
//! followed without them, and HTTPS is never left for HTTP.
//!
//! Errors say whether trying again may help ([`Error::is_retryable`]); the client itself has done so within its
//! [`Retry`] before it returns one.
//!
//! It does not execute credential helpers, keep a cache, or read configuration files by itself.

mod auth;
mod blob;
mod challenge;
mod client;
mod credentials;
mod docker_config;
mod error;
mod fields;
mod host;
mod link;
mod list;
mod manifest;
mod platform;
mod reader;
mod reference;
mod referrers;
mod request;
mod retry;
mod source;
mod stall;
mod tls;
mod token;
mod transport;
mod upload;
mod verify;

pub use blob::{Begun, BlobInfo, Pushed};
pub use client::{Client, Repository};
pub use credentials::{Credentials, Secret};
pub use docker_config::{DockerConfig, DockerConfigError};
pub use error::{BoxError, Error};
pub use host::{Host, HostError};
pub use list::Pages;
pub use manifest::RawManifest;
pub use platform::{Platform, PlatformError};
pub use reader::BlobReader;
pub use reference::{Reference, ReferenceError};
pub use request::printable;
pub use retry::Retry;
pub use source::{BlobSource, BlobStream, RemoteBlob};
pub use tls::{HTTP_1, HTTP_1_AND_2, trust};
pub use transport::Transport;
pub use upload::Upload;
pub use verify::Hasher;
