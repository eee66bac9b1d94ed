//! The calls of the distribution API that the rows are made of, in the order in which real clients make them.

use anyhow::{Context, Result, ensure};

use crate::{
    data::digest_of,
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
pub(crate) fn push_blob(
    client: &mut Client,
    repo: &str,
    digest: &str,
    body: Body<'_>,
    upload: Upload,
) -> Result<()> {
    let opened = client
        .simple("POST", &format!("/v2/{repo}/blobs/uploads/"), &[])?
        .expect(202, "start upload")?;
    let mut location = location(&opened)?;
    let mut last = body;
    if upload == Upload::Streamed {
        let body = std::mem::replace(&mut last, Body::None);
        let patched = client
            .request("PATCH", &location, &[OCTETS], body, Sink::Discard)?
            .expect(202, "stream upload")?;
        location = self::location(&patched)?;
    }
    let separator = if location.contains('?') { '&' } else { '?' };
    client
        .request(
            "PUT",
            &format!("{location}{separator}digest={digest}"),
            &[OCTETS],
            last,
            Sink::Discard,
        )?
        .expect(201, "finish upload")?;
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

/// Pulls a whole blob; compares its length and samples of its bytes with what was pushed.
pub(crate) fn pull_blob(
    client: &mut Client,
    repo: &str,
    digest: &str,
    expected: &[u8],
) -> Result<()> {
    let path = format!("/v2/{repo}/blobs/{digest}");
    client
        .request("GET", &path, &[], Body::None, Sink::Sample(expected))?
        .expect(200, "pull blob")?;
    Ok(())
}

/// Pulls a blob and compares every byte. Not for timing.
pub(crate) fn verify_blob(
    client: &mut Client,
    repo: &str,
    digest: &str,
    expected: &[u8],
) -> Result<()> {
    let mut got = Vec::with_capacity(expected.len());
    let path = format!("/v2/{repo}/blobs/{digest}");
    client
        .request("GET", &path, &[], Body::None, Sink::Collect(&mut got))?
        .expect(200, "pull blob")?;
    ensure!(
        got == expected,
        "the registry returned other bytes than were pushed"
    );
    Ok(())
}

/// A config and the manifest that names it and one layer.
pub(crate) struct ImageDocs {
    pub(crate) config: Vec<u8>,
    pub(crate) config_digest: String,
    pub(crate) manifest: Vec<u8>,
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
        ImageDocs {
            config_digest,
            config,
            manifest,
        }
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
    push_docs(client, repo, tag, docs, upload)
}

/// Pushes the rest of an image whose layer is there: config, manifest under a tag.
pub(crate) fn push_docs(
    client: &mut Client,
    repo: &str,
    tag: &str,
    docs: &ImageDocs,
    upload: Upload,
) -> Result<()> {
    push_blob(
        client,
        repo,
        &docs.config_digest,
        Body::Slices(&[&docs.config]),
        upload,
    )?;
    put_manifest(
        client,
        &format!("/v2/{repo}/manifests/{tag}"),
        &docs.manifest,
    )
}

/// PUT of a manifest to a path that may carry `?tag=` parameters.
pub(crate) fn put_manifest(client: &mut Client, path: &str, manifest: &[u8]) -> Result<()> {
    let headers = [("Content-Type", MANIFEST_MEDIA_TYPE)];
    client
        .request(
            "PUT",
            path,
            &headers,
            Body::Slices(&[manifest]),
            Sink::Discard,
        )?
        .expect(201, "put manifest")?;
    Ok(())
}

/// Pulls a whole image as zb does: HEAD and GET of the manifest, the config and the layer.
pub(crate) fn pull_image(
    client: &mut Client,
    repo: &str,
    tag: &str,
    layer: (&str, &[u8]),
    docs: &ImageDocs,
) -> Result<()> {
    let path = format!("/v2/{repo}/manifests/{tag}");
    // distribution answers 404 to a manifest request that does not accept what is stored.
    let accept = [("Accept", MANIFEST_MEDIA_TYPE)];
    client
        .simple("HEAD", &path, &accept)?
        .expect(200, "manifest HEAD")?;
    client
        .request(
            "GET",
            &path,
            &accept,
            Body::None,
            Sink::Sample(&docs.manifest),
        )?
        .expect(200, "manifest GET")?;
    for (digest, bytes) in [(docs.config_digest.as_str(), docs.config.as_slice()), layer] {
        client
            .simple("HEAD", &format!("/v2/{repo}/blobs/{digest}"), &[])?
            .expect(200, "blob HEAD")?;
        pull_blob(client, repo, digest, bytes)?;
    }
    Ok(())
}
