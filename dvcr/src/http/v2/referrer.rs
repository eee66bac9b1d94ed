//! What refers to a manifest: signatures, SBOMs, attestations.
//!
//! Source: OCI distribution-spec, end-12.

use axum::http::{HeaderValue, StatusCode, header};
use dvcr_core::oci::{Digest, RepositoryName, media_type};
use serde::Serialize;

use super::{
    Answer, Call, FILTERS_APPLIED, encode, json,
    page::{entries, link},
};
use crate::http::error::RequestError;

/// `GET /v2/NAME/referrers/DIGEST`. Never 404: nothing refers to what does not exist.
pub(super) async fn list(call: &Call, repository: &RepositoryName, subject: &Digest) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: &'a str,
        manifests: &'a [serde_json::Value],
    }

    let n = entries(call.query.get("n"))?;
    let filter = call
        .query
        .get("artifactType")
        .filter(|artifact_type| !artifact_type.is_empty());
    let last: Option<Digest> = call
        .last()
        .map(|text| {
            text.parse().map_err(|source| RequestError::Digest {
                parameter: "last",
                source,
            })
        })
        .transpose()?;
    let page = call
        .app
        .registry
        .referrers(
            &call.who,
            repository,
            subject,
            filter,
            last.as_ref(),
            n.max(1),
        )
        .await?;
    let manifests = &page.items[..page.items.len().min(n)];
    let document = encode(&Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX,
        manifests,
    })?;
    let mut response = json(StatusCode::OK, document);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(media_type::OCI_INDEX),
    );
    if filter.is_some() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    let last = manifests
        .last()
        .filter(|_| page.more)
        .and_then(|descriptor| descriptor.get("digest"))
        .and_then(serde_json::Value::as_str);
    if let Some(last) = last {
        let n = n.to_string();
        let mut parameters = vec![("n", n.as_str()), ("last", last)];
        // The filter goes along, or the next page would be of another list.
        parameters.extend(filter.map(|filter| ("artifactType", filter)));
        let path = format!("/v2/{repository}/referrers/{subject}");
        headers.insert(header::LINK, link(&path, &parameters)?);
    }
    Ok(response)
}
