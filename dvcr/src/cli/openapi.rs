//! `dvcr openapi`.

use std::io::Write as _;

use anyhow::Context as _;

use crate::http::api;

pub(super) const EXAMPLES: &str = "Examples:
  dvcr openapi > dvcr.json          OpenAPI 3.1, for generators of clients

A server answers the same at /api/v1/openapi.json, and shows it to people at /api/docs/.";

pub(super) fn run() -> anyhow::Result<()> {
    let text = api::document_text().context("write JSON")?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("print document")
}
