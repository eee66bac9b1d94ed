//! The management API of a DVCR server, `/api/v1`: what travels, and a client for it.
//!
//! One file a noun: its wire types, and the methods of [`Client`] that carry them. The types are those of the wire and of
//! nothing else: names, digests and sessions are texts here, which the server parses. `dvcr.json` beside this crate's `src` is the
//! document (OpenAPI 3.1) that `dvcr openapi` prints; a test of the server keeps it true.
//!
//! Rules that hold everywhere:
//! - a repository is a query parameter, because its name contains slashes;
//! - lists come in pages: [`PageQuery`] asks, [`Page`] answers;
//! - what takes long begins with a POST that answers 202 and a state to ask for again;
//! - bodies of requests are JSON and say so, which web pages of other sites cannot send unasked;
//! - failures are problem documents: [`Problem`];
//! - times are RFC 3339 in UTC ([`Timestamp`]), durations whole seconds (`*_seconds`), sizes bytes (`*_bytes`).

mod blob;
mod checkpoint;
mod client;
mod deletion;
mod gc;
mod manifest;
mod page;
mod problem;
mod repository;
mod retention;
mod scrub;
mod server;
mod stats;
mod tag;
mod timestamp;
mod upload;
mod usage;

pub use blob::*;
pub use checkpoint::*;
pub use client::{Client, Error, is_tls};
pub use deletion::*;
pub use gc::*;
pub use manifest::*;
pub use page::{Page, PageQuery, all};
pub use problem::Problem;
pub use repository::*;
pub use retention::*;
pub use scrub::*;
pub use server::*;
pub use stats::*;
pub use tag::*;
pub use timestamp::Timestamp;
pub use upload::*;
pub use usage::*;
