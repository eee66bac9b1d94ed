//! Manifests and indexes, byte for byte.

use bytes::Bytes;
use dvcr_core::oci::{
    Algorithm, Digest, MANIFEST_BYTES_MAX, Manifest, ManifestKind, Reference, Tag, media_type,
};
use reqwest::{Method, header};

use crate::{
    Error, Platform, Repository,
    blob::REPORT_BYTES_MAX,
    client::ACCEPT,
    fields::{self, OCI_TAG},
    platform,
};

/// What is asked for. Some registries convert, or refuse, what a client does not name; `*/*` is for artifacts of any type.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
    */*;q=0.1";

/// Deepest nesting of indexes that is followed. Real ones have one level.
const INDEX_DEPTH_MAX: usize = 4;

/// A manifest or index as the registry has it: its exact bytes, which have the digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawManifest {
    media_type: String,
    digest: Digest,
    bytes: Bytes,
}

impl RawManifest {
    /// A manifest to be pushed.
    pub fn new(
        algorithm: Algorithm,
        media_type: impl Into<String>,
        bytes: impl Into<Bytes>,
    ) -> Self {
        let bytes = bytes.into();
        Self {
            media_type: media_type.into(),
            digest: Digest::of(algorithm, &bytes),
            bytes,
        }
    }

    /// The type it is served with.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Its digest: that which was asked for, or SHA-256.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The document.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What it refers to.
    pub fn parse(&self) -> Result<Manifest, Error> {
        Manifest::parse(Some(&self.media_type), &self.bytes).map_err(|source| Error::Manifest {
            what: self.digest.to_string(),
            source,
        })
    }
}

impl Repository {
    /// A manifest by tag or digest, verified. At most [`MANIFEST_BYTES_MAX`] long.
    pub async fn manifest(&self, reference: &Reference) -> Result<RawManifest, Error> {
        let path = format!("manifests/{reference}");
        let request = self.pull(Method::GET, &path)?.with(ACCEPT, ACCEPTED);
        let fetched = self
            .client
            .fetch(&request, MANIFEST_BYTES_MAX as u64)
            .await?;
        // A tag's digest is the server's to tell, as long as it is true.
        let expected = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => fields::digest(&fetched.headers),
        };
        let algorithm = expected.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let media_type = fields::text(&fetched.headers, header::CONTENT_TYPE)
            .map(media_type::essence)
            .unwrap_or_default();
        let manifest = RawManifest::new(algorithm, media_type, fetched.body);
        match expected {
            Some(expected) if expected != manifest.digest => Err(Error::Digest {
                what: self.shown(separated(reference)),
                expected,
                found: manifest.digest,
            }),
            _ => Ok(manifest),
        }
    }

    /// The digest that a tag has, or that a manifest has been stored under; `None` if there is no such manifest.
    pub async fn manifest_digest(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        let path = format!("manifests/{reference}");
        let request = self.pull(Method::HEAD, &path)?.with(ACCEPT, ACCEPTED);
        let fetched = match self.client.fetch(&request, REPORT_BYTES_MAX).await {
            Ok(fetched) => fetched,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        match (reference, fields::digest(&fetched.headers)) {
            (Reference::Digest(digest), _) => Ok(Some(*digest)),
            (Reference::Tag(_), Some(digest)) => Ok(Some(digest)),
            // The field is optional: then only the document tells.
            (Reference::Tag(_), None) => Ok(Some(*self.manifest(reference).await?.digest())),
        }
    }

    /// The image for a platform: the manifest itself, or what its index has for the platform.
    pub async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(RawManifest, Manifest), Error> {
        let mut reference = reference.clone();
        for _ in 0..=INDEX_DEPTH_MAX {
            let raw = self.manifest(&reference).await?;
            let manifest = raw.parse()?;
            if manifest.kind == ManifestKind::Image {
                return Ok((raw, manifest));
            }
            let Some(entry) = platform.choose(&manifest.children) else {
                return Err(Error::Platform {
                    what: self.shown(separated(&reference)),
                    platform: platform.to_string(),
                    has: platform::listed(&manifest.children),
                });
            };
            reference = Reference::Digest(entry.digest);
        }
        Err(Error::Platform {
            what: self.shown(separated(&reference)),
            platform: platform.to_string(),
            has: format!("indexes within indexes, more than {INDEX_DEPTH_MAX} deep"),
        })
    }

    /// Stores a manifest and lets tags point to it; without tags it is there by its digest. What it refers to must be there.
    pub async fn push_manifest(&self, manifest: &RawManifest, tags: &[Tag]) -> Result<(), Error> {
        let sha256 = manifest.digest.algorithm() == Algorithm::Sha256;
        match tags {
            // The form that every registry knows.
            [tag] if sha256 => {
                return self
                    .put_manifest(manifest, tag.as_str(), &[])
                    .await
                    .map(drop);
            }
            _ => {}
        }
        let reference = manifest.digest.to_string();
        // The specification asks for at least 10 tags a request.
        const TAGS_MAX: usize = 10;
        let mut chunks: Vec<&[Tag]> = tags.chunks(TAGS_MAX).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let told = self.put_manifest(manifest, &reference, chunk).await?;
            // Registries that do not know the parameter ignore it.
            for tag in chunk.iter().filter(|tag| !told.contains(tag)) {
                self.put_manifest(manifest, tag.as_str(), &[]).await?;
            }
        }
        Ok(())
    }

    /// One PUT; the tags that the server says it has set.
    async fn put_manifest(
        &self,
        manifest: &RawManifest,
        reference: &str,
        tags: &[Tag],
    ) -> Result<Vec<Tag>, Error> {
        let mut request = self.push(Method::PUT, &format!("manifests/{reference}"))?;
        if !tags.is_empty() {
            let mut query = request.url.query_pairs_mut();
            for tag in tags {
                query.append_pair("tag", tag.as_str());
            }
        }
        let mut request = request.with(header::CONTENT_TYPE, &manifest.media_type);
        request.body = manifest.bytes.clone();
        request.slow = true;
        let fetched = self.client.fetch(&request, REPORT_BYTES_MAX).await?;
        match fields::digest(&fetched.headers) {
            // Over a tag the server chooses the algorithm.
            Some(found)
                if found != manifest.digest && found.algorithm() == manifest.digest.algorithm() =>
            {
                Err(Error::Digest {
                    what: self.shown(format_args!(":{reference}, as pushed,")),
                    expected: manifest.digest,
                    found,
                })
            }
            _ => Ok(fetched
                .headers
                .get_all(OCI_TAG)
                .iter()
                .filter_map(|tag| tag.to_str().ok()?.parse().ok())
                .collect()),
        }
    }

    /// Removes a tag, or a manifest with its tags. False if it was not there.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<bool, Error> {
        let request = self.delete(&format!("manifests/{reference}"))?;
        match self.client.fetch(&request, REPORT_BYTES_MAX).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `:tag` or `@digest`.
fn separated(reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!(":{tag}"),
        Reference::Digest(digest) => format!("@{digest}"),
    }
}
