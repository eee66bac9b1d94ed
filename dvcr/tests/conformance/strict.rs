//! What we promise beyond the specification where nothing says otherwise: what is committed reads back in full.

use serde_json::json;

use super::{
    bench::{Bench, Check, Outcome, blob, manifest},
    data::{Data, IMAGE, digest_of},
    expect::equal,
    workflow,
};
use crate::support::http::Response;

pub const CHECKS: &[Check] = &[
    ("an image needs its blobs", image_needs_blobs),
    ("an index needs its images", index_needs_images),
    (
        "a blob of another repository is no blob of this one",
        foreign_blob,
    ),
    ("a blob in use cannot be deleted", blob_in_use),
    ("the older suite, manifests deleted first", |b| {
        workflow::all(b, workflow::Delete::ManifestsFirst, &[201, 400])
    }),
    ("the older suite, blobs deleted first", |b| {
        workflow::all(b, workflow::Delete::BlobsFirst, &[201, 400])
    }),
];

/// The answer says which content is missing.
fn names_missing(response: Response, digest: &str) -> Outcome {
    let response = response.status(&[400])?;
    response.errors()?;
    let error = &response.json()?["errors"][0];
    equal("code", &error["code"], &json!("MANIFEST_BLOB_UNKNOWN"))?;
    let message = error["message"].as_str().unwrap_or_default();
    equal("the message names it", message.contains(digest), true)
}

fn image_needs_blobs(b: &Bench) -> Outcome {
    let repository = b.repository();
    let mut data = Data::new(b);
    data.image(json!({}));
    let (digest, document) = &data.manifests[0];
    let path = manifest(&repository, "latest");
    // The config, then the layers: each is missed until it is there.
    for (blob, content) in &data.blobs {
        names_missing(b.put_manifest(&path, document)?, blob)?;
        b.is_absent(&path)?;
        b.is_absent(&manifest(&repository, digest))?;
        b.push_blob_as(&repository, blob, content)?;
    }
    b.push_manifest(&repository, "latest", document, digest)
}

fn index_needs_images(b: &Bench) -> Outcome {
    let repository = b.repository();
    let mut data = Data::new(b);
    data.images(json!({}));
    for (digest, content) in &data.blobs {
        b.push_blob_as(&repository, digest, content)?;
    }
    let (index, images) = data.manifests.split_last().unwrap();
    let path = manifest(&repository, "latest");
    for (digest, document) in images {
        names_missing(b.put_manifest(&path, &index.1)?, digest)?;
        b.push_manifest(&repository, digest, document, digest)?;
    }
    b.push_manifest(&repository, "latest", &index.1, &index.0)
}

fn foreign_blob(b: &Bench) -> Outcome {
    let (here, there) = (b.repository(), b.repository());
    let mut data = Data::new(b);
    let config = data.config("amd64");
    let document = json!({ "mediaType": IMAGE, "config": config, "layers": [] });
    data.manifest(document, json!({}));
    b.push_blob_as(&there, &data.blobs[0].0, &data.blobs[0].1)?;
    let response = b.put_manifest(&manifest(&here, "latest"), &data.manifests[0].1)?;
    names_missing(response, &digest_of(&config))
}

fn blob_in_use(b: &Bench) -> Outcome {
    let repository = b.repository();
    let mut data = Data::new(b);
    data.image(json!({}));
    for (digest, content) in &data.blobs {
        b.push_blob_as(&repository, digest, content)?;
    }
    let (digest, document) = &data.manifests[0];
    b.push_manifest(&repository, "latest", document, digest)?;
    for (digest, content) in &data.blobs {
        let response = b.delete(&blob(&repository, digest))?.status(&[405])?;
        response.errors()?;
        response.header("Allow", "GET, HEAD")?;
        b.blob_reads_back(&repository, digest, content)?;
    }
    // A tag less is not yet a manifest less.
    b.deletes(&manifest(&repository, "latest"))?;
    let path = blob(&repository, &data.blobs[0].0);
    b.delete(&path)?.status(&[405])?;
    b.deletes(&manifest(&repository, digest))?;
    for (digest, _) in &data.blobs {
        b.deletes(&blob(&repository, digest))?;
    }
    Ok(())
}
