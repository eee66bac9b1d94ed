//! What refers to a manifest: signatures, SBOMs.

use dvcr_core::oci::{Descriptor, Digest, Reference, Tag};
use reqwest::{Method, StatusCode};

use crate::{Error, Pages, Repository, request::Fetched};

/// Most referrers of one manifest that are read.
const REFERRERS_MAX: usize = 100_000;

impl Repository {
    /// Descriptors of the manifests whose subject this is, of one artifact type or of all. Where the registry has no referrers API, those
    /// that clients listed under the fallback tag. Source: OCI distribution-spec, "Listing Referrers".
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut entries = match self.referrers_api(subject, artifact_type).await? {
            Some(entries) => entries,
            None => self.fallback_referrers(subject).await?,
        };
        // Servers may leave the filter to the client.
        if let Some(wanted) = artifact_type {
            entries.retain(|entry| entry.artifact_type.as_deref() == Some(wanted));
        }
        Ok(entries)
    }

    /// The same from the referrers API alone, as the server filtered it; `None` if the registry does not have that.
    pub async fn referrers_api(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let mut request = self.pull(Method::GET, &format!("referrers/{subject}"))?;
        if let Some(artifact_type) = artifact_type {
            let mut query = request.url.query_pairs_mut();
            query.append_pair("artifactType", artifact_type);
        }
        let mut pages = Pages::new(self.client.clone(), request.scopes, request.url, read);
        let mut entries = Vec::new();
        loop {
            match pages.next().await {
                Ok(Some(page)) => entries.extend(page),
                Ok(None) => return Ok(Some(entries)),
                // Registries without this API answer in all these ways.
                Err(error)
                    if matches!(
                        error.status(),
                        Some(
                            StatusCode::NOT_FOUND
                                | StatusCode::METHOD_NOT_ALLOWED
                                | StatusCode::BAD_REQUEST
                        )
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            if entries.len() > REFERRERS_MAX {
                return Err(Error::TooLarge {
                    request: self.shown(format_args!("@{subject}, its referrers")),
                    max: REFERRERS_MAX as u64,
                });
            }
        }
    }

    async fn fallback_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let tag = fallback_tag(subject);
        match self.manifest(&Reference::Tag(tag)).await {
            Ok(raw) => Ok(raw.parse()?.children),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn read(fetched: &Fetched) -> Result<Vec<Descriptor>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Option<Vec<Descriptor>>,
    }
    let index: Index = fetched.json()?;
    Ok(index.manifests.unwrap_or_default())
}

/// The tag under which clients list the referrers of a manifest where a registry does not: `sha256-<hex>`, the algorithm cut to 32 and
/// the hex part to 64 characters. Source: OCI distribution-spec, "Referrers Tag Schema".
fn fallback_tag(subject: &Digest) -> Tag {
    let mut hex = subject.hex();
    hex.truncate(64);
    let tag = format!("{}-{hex}", subject.algorithm());
    tag.parse().expect("letters, digits and a dash make a tag")
}

#[cfg(test)]
mod tests {
    use dvcr_core::oci::Algorithm;

    use super::*;

    #[test]
    fn fallback_tags_are_cut() {
        let tag = fallback_tag(&Digest::sha256(b""));
        assert_eq!(
            tag.as_str(),
            "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let tag = fallback_tag(&Digest::of(Algorithm::Sha512, b""));
        assert_eq!(
            tag.as_str(),
            "sha512-cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
        );
    }
}
