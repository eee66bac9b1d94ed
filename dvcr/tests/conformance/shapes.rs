//! Every shape of content: pushed, listed, read, found by its subject, and deleted again.

use serde_json::json;

use super::{
    bench::{Bench, BoxedCheck, Outcome, blob, manifest, strings, tags},
    data::{Data, EMPTY, IMAGE, digest_of},
    expect::equal,
    referrers,
};
use crate::support::{digest::Algorithm, http::with_query};

/// Makes content of some shape.
type Fill = fn(&mut Data<'_>);

const SHAPES: &[(&str, Fill)] = &[
    ("image", image),
    ("image with plain layers", |d| {
        d.gzip = false;
        image(d);
    }),
    ("image with a manifest of 3.9 MB", large_manifest),
    ("index", index),
    ("index of indexes", nested_index),
    ("index of nothing", empty_index),
    ("artifact", artifact),
    ("artifact without layers", artifact_without_layers),
    ("index of artifacts", artifact_index),
    ("artifacts with a subject", with_subject),
    ("index with a subject", index_with_subject),
    ("artifact whose subject is missing", missing_subject),
    ("content inside descriptors", |d| {
        d.inline = true;
        image(d);
    }),
    ("layers that are never pushed", foreign_layers),
    ("unknown fields", |d| {
        d.unknown_fields = true;
        index(d);
    }),
    ("image without layers", no_layers),
    ("sha512", sha512),
    ("tag parameters", tag_parameters),
    ("tag parameters, sha512", |d| {
        d.algorithm = Algorithm::Sha512;
        tag_parameters(d);
    }),
];

/// Content that a registry need not take.
const SPARSE: &[(&str, Fill)] = &[
    ("image with a missing layer", sparse_image),
    ("index with a missing image", sparse_index),
];

/// Each shape in a repository of its own, then all in one, where some share blobs.
pub fn checks() -> Vec<BoxedCheck> {
    let shapes = SHAPES.iter().chain(SPARSE);
    let mut checks: Vec<BoxedCheck> = shapes.map(|(name, fill)| alone(name, *fill)).collect();
    checks.push((
        "all, one after the other in one repository",
        Box::new(|b| {
            let repository = b.repository();
            let mut shapes = SHAPES.iter().chain(SPARSE);
            shapes.try_for_each(|(name, fill)| {
                lives(b, &repository, *fill).map_err(|error| format!("{name}: {error}"))
            })
        }),
    ));
    checks
}

/// The shapes that do not depend on a setting.
pub fn complete() -> Vec<BoxedCheck> {
    SHAPES
        .iter()
        .map(|(name, fill)| alone(name, *fill))
        .collect()
}

fn alone(name: &'static str, fill: Fill) -> BoxedCheck {
    (name, Box::new(move |b| lives(b, &b.repository(), fill)))
}

const TYPE_1: &str = "application/vnd.example.oci.conformance.v1";
const TYPE_2: &str = "application/vnd.example.oci.conformance.v2";

fn image(d: &mut Data<'_>) {
    let image = d.image(json!({}));
    d.tag("image", &image);
}

fn large_manifest(d: &mut Data<'_>) {
    let annotations: serde_json::Map<_, _> = (0..390)
        .map(|n| (format!("large-annotation-{n}"), "A".repeat(10_000).into()))
        .collect();
    let image = d.image(json!({ "annotations": annotations }));
    d.tag("large-manifest", &image);
}

fn index(d: &mut Data<'_>) {
    let index = d.images(json!({}));
    d.tag("index", &index);
}

fn nested_index(d: &mut Data<'_>) {
    let children = [d.images(json!({})), d.images(json!({}))];
    let index = d.index(&children, json!({}));
    d.tag("index-of-index", &index);
}

fn empty_index(d: &mut Data<'_>) {
    let index = d.index(&[], json!({}));
    d.tag("index", &index);
}

fn artifact(d: &mut Data<'_>) {
    let artifact = d.artifact(TYPE_1, json!({}));
    d.tag("artifact", &artifact);
}

fn artifact_without_layers(d: &mut Data<'_>) {
    let empty = d.blob(EMPTY, b"{}".to_vec());
    let document = json!({
        "mediaType": IMAGE, "artifactType": TYPE_1, "config": empty, "layers": [empty],
    });
    let artifact = d.manifest(document, json!({}));
    d.tag("artifact-without-layers", &artifact);
}

fn artifact_index(d: &mut Data<'_>) {
    let children = [d.artifact(TYPE_1, json!({})), d.artifact(TYPE_1, json!({}))];
    let index = d.index(&children, json!({ "artifactType": TYPE_1 }));
    d.tag("artifact-index", &index);
}

fn with_subject(d: &mut Data<'_>) {
    let subject = d.image(json!({}));
    d.tag("image", &subject);
    d.image(json!({ "subject": subject }));
    for (artifact_type, tag) in [(TYPE_1, "tagged-1"), (TYPE_2, "tagged-2")] {
        let more = json!({ "subject": subject, "annotations": d.annotations() });
        let artifact = d.artifact(artifact_type, more);
        d.tag(tag, &artifact);
    }
}

fn index_with_subject(d: &mut Data<'_>) {
    let subject = d.images(json!({}));
    d.tag("index", &subject);
    let annotations = d.annotations();
    let typed = json!({ "artifactType": TYPE_1, "subject": subject, "annotations": annotations });
    let children = [d.artifact(TYPE_1, json!({}))];
    let index = d.index(&children, typed);
    d.tag("tagged-artifact", &index);
    // Without an artifact type of its own an index has none: there is no config to take one from.
    d.index(&children, json!({ "subject": subject }));
}

fn missing_subject(d: &mut Data<'_>) {
    let subject = d.nowhere(IMAGE);
    let annotations = d.annotations();
    let more = json!({ "subject": subject, "annotations": annotations });
    let artifact = d.artifact(TYPE_1, more);
    d.tag("tagged-artifact", &artifact);
}

fn foreign_layers(d: &mut Data<'_>) {
    let types = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ];
    let mut layers = Vec::from(types.map(|media_type| {
        let mut layer = d.nowhere(media_type);
        layer["urls"] = json!(["https://store.example.com/layer"]);
        layer
    }));
    layers.push(d.layer());
    let config = d.config("amd64");
    let document = json!({ "mediaType": IMAGE, "config": config, "layers": layers });
    let image = d.manifest(document, json!({}));
    d.tag("non-distributable-image", &image);
}

fn no_layers(d: &mut Data<'_>) {
    let config = d.config("amd64");
    let document = json!({ "mediaType": IMAGE, "config": config, "layers": [] });
    let image = d.manifest(document, json!({}));
    d.tag("no-layers", &image);
}

fn sparse_image(d: &mut Data<'_>) {
    let config = d.config("amd64");
    let layers = [d.layer(), d.layer()];
    d.withhold(&layers[0]);
    let document = json!({ "mediaType": IMAGE, "config": config, "layers": layers });
    let image = d.manifest(document, json!({}));
    d.tag("sparse-image", &image);
}

fn sparse_index(d: &mut Data<'_>) {
    let children = [d.image(json!({})), d.nowhere(IMAGE)];
    let index = d.index(&children, json!({}));
    d.tag("sparse-index", &index);
}

fn sha512(d: &mut Data<'_>) {
    d.algorithm = Algorithm::Sha512;
    // No tag: a push by tag cannot say which algorithm is meant.
    d.images(json!({}));
}

/// Every manifest gets a tag, and the index as many as a registry should take at least.
fn tag_parameters(d: &mut Data<'_>) {
    d.tag_parameters = true;
    let index = d.images(json!({}));
    for n in 0..9 {
        d.tag(&format!("more-{n}"), &index);
    }
    let digests: Vec<String> = d
        .manifests
        .iter()
        .map(|(digest, _)| digest.clone())
        .collect();
    for (n, digest) in digests.into_iter().enumerate() {
        d.tags.push((format!("tag-{n}"), digest));
    }
    equal("tags", d.tags.len(), 12).unwrap();
    equal("index", d.tags[11].1.clone(), digest_of(&index)).unwrap();
}

/// Goes through the whole life of some content.
fn lives(b: &Bench, repository: &str, fill: Fill) -> Outcome {
    let mut data = Data::new(b);
    fill(&mut data);
    push(b, repository, &data)?;
    list(b, repository, &data)?;
    read(b, repository, &data)?;
    referrers::are_listed(b, repository, &data)?;
    delete(b, repository, &data)
}

fn push(b: &Bench, repository: &str, data: &Data<'_>) -> Outcome {
    data.push_blobs(repository)?;
    for (digest, document) in &data.manifests {
        let tags = data.tags.iter().filter(|_| data.tag_parameters);
        let tags: Vec<&String> = tags.filter(|(_, d)| d == digest).map(|(t, _)| t).collect();
        let mut path = manifest(repository, digest);
        for tag in &tags {
            path = with_query(&path, "tag", tag);
        }
        let response = b.put_manifest(&path, document)?.status(&[201])?;
        b.is_put(&path, &response, document, digest)?;
        let told: Vec<&str> = response.all("OCI-Tag").flat_map(|v| v.split(',')).collect();
        for tag in tags {
            if !told.iter().any(|told| told.trim() == tag) {
                return Err(format!("OCI-Tag: {told:?} lacks {tag}"));
            }
        }
    }
    for (tag, digest) in data.tags.iter().filter(|_| !data.tag_parameters) {
        b.push_manifest(repository, tag, data.document(digest), digest)?;
    }
    Ok(())
}

fn list(b: &Bench, repository: &str, data: &Data<'_>) -> Outcome {
    let mut pushed: Vec<String> = data.tags.iter().map(|(tag, _)| tag.clone()).collect();
    pushed.sort();
    let mut listed = b.tags(repository)?;
    listed.sort();
    equal("tags", &listed, &pushed)?;
    let Some(last) = pushed.len().checked_sub(1).map(|n| n / 2) else {
        return Ok(());
    };
    let path = with_query(&tags(repository), "last", &pushed[last]);
    let response = b.get(&path)?.status(&[200])?;
    let mut rest = strings(&response.json()?["tags"])?;
    rest.sort();
    equal("tags after last", &rest[..], &pushed[last + 1..])
}

fn read(b: &Bench, repository: &str, data: &Data<'_>) -> Outcome {
    for (tag, digest) in &data.tags {
        let path = manifest(repository, tag);
        b.manifest_reads_back(&path, data.document(digest), digest)?;
    }
    for (digest, document) in &data.manifests {
        b.manifest_reads_back(&manifest(repository, digest), document, digest)?;
    }
    for (digest, content) in &data.blobs {
        b.blob_reads_back(repository, digest, content)?;
    }
    Ok(())
}

/// Tags, then manifests from the last to the first, then blobs: each is gone at once.
fn delete(b: &Bench, repository: &str, data: &Data<'_>) -> Outcome {
    for (tag, digest) in &data.tags {
        b.deletes(&manifest(repository, tag))?;
        b.head(&manifest(repository, digest))?.status(&[200])?;
    }
    for (digest, _) in data.manifests.iter().rev() {
        let path = manifest(repository, digest);
        // An index may take along what only it refers to.
        b.delete(&path)?.status(&[202, 404])?;
        b.is_absent(&path)?;
    }
    for (subject, _) in &data.referrers {
        equal("referrers", referrers::of(b, repository, subject)?, vec![])?;
    }
    for (digest, _) in &data.blobs {
        b.deletes(&blob(repository, digest))?;
    }
    equal("tags", b.tags(repository)?, vec![])
}
