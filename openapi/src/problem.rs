//! What went wrong with a request.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document, RFC 9457, with the member `code` besides those of the RFC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem: always `about:blank`, which means that the status says it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// What happened to this request, and what to do about it.
    #[schema(example = "repository not known to registry")]
    pub detail: String,
    /// Error code for programs: one of the OCI distribution specification, or `UNAVAILABLE` (try again) or `UNKNOWN`.
    #[serde(default)]
    #[schema(example = "NAME_UNKNOWN")]
    pub code: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.title, self.detail)
    }
}
