//! Manifests, what they are made of, and what refers to them.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Client, Error, Page, PageQuery, RepositoryQuery, Timestamp};

/// What a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ManifestKind {
    /// Config and layers.
    Image,
    /// A list of manifests.
    Index,
}

/// A manifest in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// Its digest.
    pub digest: String,
    /// Its media type.
    #[schema(example = "application/vnd.oci.image.manifest.v1+json")]
    pub media_type: String,
    /// What it is; null where a later version stored something that this one cannot read.
    pub kind: Option<ManifestKind>,
    /// Its artifact type, or the media type of its config.
    pub artifact_type: Option<String>,
    /// Digest of what it refers to by `subject`.
    pub subject: Option<String>,
    /// When it was first pushed.
    pub created_at: Timestamp,
    /// Length of the document.
    pub manifest_bytes: u64,
    /// What a pull of all of it transfers: configs and layers of it and the manifests below it, each once.
    pub content_bytes: u64,
    /// Its tags, at most 20.
    pub tags: Vec<String>,
}

/// A manifest and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestDetail {
    /// What a list tells of it.
    pub manifest: Manifest,
    /// What it refers to, in its order.
    pub children: Vec<ManifestChild>,
    /// Number of manifests whose subject it is.
    pub referrers: u64,
}

/// What something is to the manifest that refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChildRole {
    /// Its config.
    Config,
    /// One of its layers.
    Layer,
    /// A manifest that it lists.
    Manifest,
}

/// Something that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestChild {
    /// What it is to the manifest.
    pub role: ChildRole,
    /// Its digest.
    pub digest: String,
    /// Its media type, as the manifest says.
    pub media_type: String,
    /// Its length, as the manifest says.
    pub bytes: u64,
    /// Whether the repository holds it. Foreign layers, and what is missing in sparse repositories, it does not.
    pub present: bool,
}

/// What refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReferrersQuery {
    /// Name of the repository.
    #[param(example = "vi/debian")]
    pub repository: String,
    /// Digest of the subject, which need not be there.
    pub digest: String,
    /// Only those of this artifact type.
    pub artifact_type: Option<String>,
}

/// A manifest whose subject is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Referrer {
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its artifact type, or the media type of its config.
    pub artifact_type: Option<String>,
    /// Length of the document.
    pub manifest_bytes: u64,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Client {
    /// Manifests of a repository, in the order of their digests.
    pub async fn manifests(
        &self,
        repository: &str,
        page: &PageQuery,
    ) -> Result<Page<Manifest>, Error> {
        self.call(Method::GET, "/api/v1/manifests")
            .query(&RepositoryQuery::of(repository))
            .query(page)
            .answer()
            .await
    }

    /// A manifest by tag or digest.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<ManifestDetail, Error> {
        self.call(Method::GET, &format!("/api/v1/manifests/{reference}"))
            .query(&RepositoryQuery::of(repository))
            .answer()
            .await
    }

    /// Manifests whose subject is a given one.
    pub async fn referrers(
        &self,
        query: &ReferrersQuery,
        page: &PageQuery,
    ) -> Result<Page<Referrer>, Error> {
        self.call(Method::GET, "/api/v1/referrers")
            .query(query)
            .query(page)
            .answer()
            .await
    }
}
