//! The calls of the distribution API that the rows are made of, in the order in which real clients make them.

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::{
    data::{digest_of, digest_text},
    http::{Body, Client, Response, Sink},
};

/// Media type of every manifest pushed here.
pub(crate) const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const OCTETS: (&str, &str) = ("Content-Type", "application/octet-stream");

/// How the body of a blob travels.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// POST, then one PUT with everything.
    Monolith,
    /// POST, PATCH with everything, PUT without a body: docker, skopeo, podman and crane push so.
    Streamed,
}

/// Pushes one blob and checks that it was acknowledged with 201.
pub(crate) fn push_blob(client: &mut Client, repo: &str, digest: &str, body: Body<'_>, upload: Upload) -> Result<()> {
    let opened = client.simple("POST", &format!("/v2/{repo}/blobs/uploads/"), &[])?.expect(202, "start upload")?;
    let mut location = location(&opened)?;
    let mut last = body;
    if upload == Upload::Streamed {
        let body = std::mem::replace(&mut last, Body::None);
        let patched = client.request("PATCH", &location, &[OCTETS], body, Sink::Discard)?.expect(202, "stream upload")?;
        location = self::location(&patched)?;
    }
    let separator = if location.contains('?') { '&' } else { '?' };
    client.request("PUT", &format!("{location}{separator}digest={digest}"), &[OCTETS], last, Sink::Discard)?.expect(201, "finish upload")?;
    Ok(())
}

/// Path and query of the Location header, absolute or relative.
fn location(response: &Response) -> Result<String> {
    let location = response.header("location").context("no Location")?;
    Ok(match location.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
        None => location.to_owned(),
    })
}

/// Pulls a whole blob and drops it; fails unless `len` bytes came.
pub(crate) fn pull_blob(client: &mut Client, repo: &str, digest: &str, len: u64) -> Result<()> {
    let response = client.simple("GET", &format!("/v2/{repo}/blobs/{digest}"), &[])?.expect(200, "pull blob")?;
    ensure!(response.body_len == len, "{} bytes of {len} came", response.body_len);
    Ok(())
}

/// Pulls a blob and compares its digest. Not for timing: the digest costs more than the pull.
pub(crate) fn verify_blob(client: &mut Client, repo: &str, digest: &str) -> Result<()> {
    let mut hash = Sha256::new();
    client.request("GET", &format!("/v2/{repo}/blobs/{digest}"), &[], Body::None, Sink::Hash(&mut hash))?.expect(200, "pull blob")?;
    let got = digest_text(&hash.finalize());
    ensure!(got == digest, "the registry returned other bytes: {got} instead of {digest}");
    Ok(())
}

/// A config and the manifest that names it and one layer.
pub(crate) struct ImageDocs {
    pub(crate) config: Vec<u8>,
    pub(crate) config_digest: String,
    pub(crate) manifest: Vec<u8>,
    pub(crate) manifest_digest: String,
}

impl ImageDocs {
    /// `unique` makes the config (and so the manifest) differ from every other image's.
    pub(crate) fn new(unique: u64, layer_digest: &str, layer_len: u64) -> ImageDocs {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","author":"benchmark {unique:016x}","rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
        )
        .into_bytes();
        let config_digest = digest_of(&config);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_MEDIA_TYPE}","config":{{"mediaType":"{CONFIG_MEDIA_TYPE}","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"{LAYER_MEDIA_TYPE}","digest":"{layer_digest}","size":{layer_len}}}]}}"#,
            config.len()
        )
        .into_bytes();
        ImageDocs { config_digest, manifest_digest: digest_of(&manifest), config, manifest }
    }
}

/// Pushes a whole image: layer, config, manifest under a tag.
pub(crate) fn push_image(
    client: &mut Client,
    repo: &str,
    tag: &str,
    layer: (&str, &[u8]),
    docs: &ImageDocs,
    upload: Upload,
) -> Result<()> {
    push_blob(client, repo, layer.0, Body::Slices(&[layer.1]), upload)?;
    push_blob(client, repo, &docs.config_digest, Body::Slices(&[&docs.config]), upload)?;
    put_manifest(client, &format!("/v2/{repo}/manifests/{tag}"), &docs.manifest)
}

/// PUT of a manifest to a path that may carry `?tag=` parameters.
pub(crate) fn put_manifest(client: &mut Client, path: &str, manifest: &[u8]) -> Result<()> {
    let headers = [("Content-Type", MANIFEST_MEDIA_TYPE)];
    client.request("PUT", path, &headers, Body::Slices(&[manifest]), Sink::Discard)?.expect(201, "put manifest")?;
    Ok(())
}

/// Pulls a whole image as zb does: manifest HEAD, manifest GET, config, layer.
pub(crate) fn pull_image(client: &mut Client, repo: &str, tag: &str, layer: (&str, u64), docs: &ImageDocs) -> Result<()> {
    let path = format!("/v2/{repo}/manifests/{tag}");
    let accept = [("Accept", MANIFEST_MEDIA_TYPE)];
    client.simple("HEAD", &path, &accept)?.expect(200, "manifest HEAD")?;
    client.simple("GET", &path, &accept)?.expect(200, "manifest GET")?;
    pull_blob(client, repo, &docs.config_digest, docs.config.len() as u64)?;
    pull_blob(client, repo, layer.0, layer.1)
}
