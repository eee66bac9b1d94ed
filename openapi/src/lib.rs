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

mod client;
mod deletion;
mod gc;
mod page;
mod problem;
mod repository;
mod retention;
mod stats;
mod timestamp;

pub use client::{Client, Error, is_tls};
pub use deletion::*;
pub use gc::*;
pub use page::{Page, PageQuery, all};
pub use problem::Problem;
pub use repository::*;
pub use retention::*;
pub use stats::*;
pub use timestamp::Timestamp;
