//! What we promise beyond the specification where nothing says otherwise: what is committed reads back in full.

use serde_json::json;

use super::{
    bench::{Bench, Check, Outcome, blob, manifest},
    data::{Data, Document, IMAGE, digest_of},
    expect::equal,
    workflow,
};
use crate::support::http::{Request, Response};

pub const CHECKS: &[Check] = &[
    ("an image needs its blobs", image_needs_blobs),
    ("an index needs its images", index_needs_images),
    (
        "a blob of another repository is no blob of this one",
        foreign_blob,
    ),
    (
        "an image that says another size than its blob has cannot be pulled, nor pushed",
        wrong_size,
    ),
    ("a blob in use cannot be deleted", blob_in_use),
    (
        "what a client has already is not sent again, and not said to be empty",
        not_modified,
    ),
    ("two ranges of one chunk are refused", two_ranges),
    ("what was pushed cannot run in a browser", no_active_content),
    ("the older suite, manifests deleted first", |b| {
        workflow::all(b, workflow::Delete::ManifestsFirst, &[201, 400])
    }),
    ("the older suite, blobs deleted first", |b| {
        workflow::all(b, workflow::Delete::BlobsFirst, &[201, 400])
    }),
];

fn wrong_size(b: &Bench) -> Outcome {
    let repository = b.repository();
    let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": b.push_blob(&repository, b"{}")?, "size": 2 });
    let layer = json!({ "mediaType": "application/octet-stream", "digest": b.push_blob(&repository, b"abc")?, "size": 3 });
    let path = manifest(&repository, "latest");
    let put = |config_size: u64, layer_size: u64| {
        let (mut config, mut layer) = (config.clone(), layer.clone());
        config["size"] = config_size.into();
        layer["size"] = layer_size.into();
        let document =
            json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer] });
        b.put_manifest(
            &path,
            &Document {
                media_type: IMAGE,
                bytes: document.to_string().into(),
                subject: None,
            },
        )
    };
    for (config_size, layer_size, wrong) in [(99_999, 3, &config), (2, 0, &layer), (2, 4, &layer)] {
        let response = put(config_size, layer_size)?.status(&[400])?;
        let error = &response.json()?["errors"][0];
        equal("code", &error["code"], &json!("SIZE_INVALID"))?;
        let message = error["message"].as_str().unwrap_or_default();
        equal("it is named", message.contains(&digest_of(wrong)), true)?;
    }
    b.is_absent(&path)?;
    put(2, 3)?.status(&[201]).map(drop)
}

fn not_modified(b: &Bench) -> Outcome {
    let repository = b.repository();
    let mut data = Data::new(b);
    data.image(json!({}));
    data.push_blobs(&repository)?;
    let (digest, document) = &data.manifests[0];
    b.push_manifest(&repository, "latest", document, digest)?;
    let (layer, content) = &data.blobs[0];
    for (path, digest, len) in [
        (blob(&repository, layer), layer, content.len()),
        (
            manifest(&repository, "latest"),
            digest,
            document.bytes.len(),
        ),
    ] {
        let request = || Request::new("HEAD", &path);
        b.send(request())?.status(&[200])?;
        for known in [format!("\"{digest}\""), "*".to_owned()] {
            let response = b.send(request().header("If-None-Match", known))?;
            let response = response.status(&[304])?;
            response.header("Content-Length", &len.to_string())?;
            response.header("ETag", &format!("\"{digest}\""))?;
        }
        let request = Request::new("GET", &path).header("If-None-Match", "*");
        let response = b.send(request)?.status(&[304])?;
        equal("Content-Length", response.get("Content-Length"), None)?;
    }
    Ok(())
}

fn two_ranges(b: &Bench) -> Outcome {
    let (session, _) = b.start_upload(&b.repository())?;
    let request = |ranges: [&str; 2]| {
        let [one, two] = ranges;
        Request::new("PATCH", &session)
            .header("Content-Range", one)
            .header("Content-Range", two)
            .octets(b"ab")
    };
    for ranges in [["0-1", "5-6"], ["5-6", "0-1"], ["0-1", "0-1"]] {
        b.send(request(ranges))?.status(&[400])?.errors()?;
    }
    // Nothing of it counts.
    let response = b.chunk("PATCH", &session, 0, b"ab")?.status(&[202])?;
    response.header("Range", "0-1")
}

fn no_active_content(b: &Bench) -> Outcome {
    let repository = b.repository();
    let layer = b.push_blob(&repository, b"<script>alert(1)</script>")?;
    let response = b.get(&blob(&repository, &layer))?.status(&[200])?;
    response.header("X-Content-Type-Options", "nosniff")?;
    let policy = response.get("Content-Security-Policy").unwrap_or_default();
    for part in [
        "default-src 'none'",
        "sandbox",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        equal(part, policy.split("; ").any(|found| found == part), true)?;
    }
    Ok(())
}

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
    data.push_blobs(&repository)?;
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
    data.push_blobs(&repository)?;
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
