//! Manifests that are refused, absent, moved; their tags and what deleting leaves.

use serde_json::json;

use super::{
    bench::{Bench, Check, Outcome, blob, manifest},
    data::{Data, Document, IMAGE},
    expect::equal,
};
use crate::support::http::{Body, Request, with_query};

pub const CHECKS: &[Check] = &[
    ("a manifest nobody pushed is 404", absent),
    ("what cannot be a tag is 404", impossible_name),
    ("what cannot be a digest is refused", malformed_digest),
    ("a wrong digest is 400", wrong_digest),
    ("what is no manifest is 400", no_manifest),
    ("a manifest that is too long is 413", too_long),
    ("a push by tag can be read by digest", by_digest),
    ("a tag moves", tag_moves),
    (
        "a deleted tag leaves the manifest and its other tags",
        delete_tag,
    ),
    (
        "a manifest deleted by digest takes its tags along",
        delete_digest,
    ),
    ("deleting what is not there is 404", delete_absent),
    ("a blob deleted first leaves the manifest", blob_first),
    (
        "the tag list outlives the last manifest's deletion",
        emptied,
    ),
    ("a malformed tag parameter is refused as a whole", wrong_tag),
];

/// Longer than any manifest that a registry must take (4 MB) or that one is known to take (8 MiB).
const TOO_LONG: usize = 9 << 20;

/// Pushes an image under these tags; returns its digest and itself.
fn image(b: &Bench, repository: &str, tags: &[&str]) -> Result<(String, Document), String> {
    let mut data = Data::new(b);
    data.image(json!({}));
    data.push_blobs(repository)?;
    let (digest, document) = data.manifests.remove(0);
    b.push_manifest(repository, &digest, &document, &digest)?;
    for tag in tags {
        b.push_manifest(repository, tag, &document, &digest)?;
    }
    Ok((digest, document))
}

fn absent(b: &Bench) -> Outcome {
    let repository = b.repository();
    let digest = b.digest(&b.content(64));
    for _ in 0..2 {
        for reference in [&digest[..], "missing"] {
            b.is_absent(&manifest(&repository, reference))?;
            b.get(&manifest(&repository, reference))?.errors()?;
        }
        // Once more in a repository that is there.
        image(b, &repository, &["latest"])?;
    }
    Ok(())
}

fn impossible_name(b: &Bench) -> Outcome {
    let repository = b.repository();
    image(b, &repository, &["latest"])?;
    b.is_absent(&manifest(&repository, ".INVALID_MANIFEST_NAME"))?;
    b.is_absent(&manifest(&repository, &"x".repeat(129)))
}

fn malformed_digest(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (_, document) = image(b, &repository, &["latest"])?;
    let nonsense = Document {
        bytes: b"blablabla".to_vec(),
        ..document.clone()
    };
    for reference in ["sha256:baddigeststring", "sha256:totallywrong"] {
        let path = manifest(&repository, reference);
        for document in [&document, &nonsense] {
            b.put_manifest(&path, document)?.status(&[400])?.errors()?;
        }
        b.head(&path)?.status(&[400, 404])?;
        b.get(&path)?.status(&[400, 404])?.errors()?;
    }
    Ok(())
}

fn wrong_digest(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (digest, mut document) = image(b, &repository, &[])?;
    b.deletes(&manifest(&repository, &digest))?;
    document.bytes.extend_from_slice(b"  ");
    let path = manifest(&repository, &digest);
    b.put_manifest(&path, &document)?.status(&[400])?.errors()?;
    b.is_absent(&path)
}

fn no_manifest(b: &Bench) -> Outcome {
    let repository = b.repository();
    image(b, &repository, &["latest"])?;
    for text in ["", "blablabla", "[]", "null", "{\"schemaVersion\":2"] {
        let document = Document {
            media_type: IMAGE,
            bytes: text.into(),
            subject: None,
        };
        let path = manifest(&repository, "broken");
        b.put_manifest(&path, &document)?.status(&[400])?.errors()?;
        b.is_absent(&path)?;
    }
    Ok(())
}

fn too_long(b: &Bench) -> Outcome {
    let repository = b.repository();
    let mut data = Data::new(b);
    data.image(json!({ "annotations": { "long": "A".repeat(TOO_LONG) } }));
    let (digest, document) = data.manifests.remove(0);
    let path = manifest(&repository, &digest);
    b.put_manifest(&path, &document)?.status(&[413])?.errors()?;
    b.is_absent(&path)
}

fn by_digest(b: &Bench) -> Outcome {
    let repository = b.repository();
    let mut data = Data::new(b);
    data.image(json!({}));
    data.push_blobs(&repository)?;
    let (digest, document) = &data.manifests[0];
    let path = manifest(&repository, "latest");
    let request = Request::new("PUT", &path).header("Content-Type", document.media_type);
    // With a length, this time.
    let response = b.send(request.body(Body::Sized(document.bytes.clone())))?;
    b.is_put(&path, &response.status(&[201])?, document, digest)?;
    b.manifest_reads_back(&manifest(&repository, digest), document, digest)
}

fn tag_moves(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (old_digest, old) = image(b, &repository, &["latest", "old"])?;
    let (digest, document) = image(b, &repository, &["latest"])?;
    for (reference, document, digest) in [
        ("latest", &document, &digest),
        ("old", &old, &old_digest),
        (&old_digest, &old, &old_digest),
    ] {
        b.manifest_reads_back(&manifest(&repository, reference), document, digest)?;
    }
    let mut tags = b.tags(&repository)?;
    tags.sort();
    equal("tags", tags, vec!["latest".to_owned(), "old".to_owned()])
}

fn delete_tag(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (digest, document) = image(b, &repository, &["gone", "stays"])?;
    let tags = b.tags(&repository)?.len();
    b.deletes(&manifest(&repository, "gone"))?;
    equal("tags", b.tags(&repository)?, vec!["stays".to_owned()])?;
    equal("number of tags", b.tags(&repository)?.len(), tags - 1)?;
    for reference in ["stays", &digest] {
        b.manifest_reads_back(&manifest(&repository, reference), &document, &digest)?;
    }
    b.delete(&manifest(&repository, "gone"))?
        .status(&[404])?
        .errors()
}

fn delete_digest(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (digest, _) = image(b, &repository, &["one", "two"])?;
    let (other, document) = image(b, &repository, &["three"])?;
    b.deletes(&manifest(&repository, &digest))?;
    for tag in ["one", "two"] {
        b.is_absent(&manifest(&repository, tag))?;
    }
    equal("tags", b.tags(&repository)?, vec!["three".to_owned()])?;
    b.manifest_reads_back(&manifest(&repository, "three"), &document, &other)
}

fn delete_absent(b: &Bench) -> Outcome {
    let repository = b.repository();
    let digest = b.digest(&b.content(64));
    for _ in 0..2 {
        for reference in [&digest[..], "missing"] {
            let path = manifest(&repository, reference);
            b.delete(&path)?.status(&[404])?.errors()?;
        }
        image(b, &repository, &["latest"])?;
    }
    Ok(())
}

/// The older suite can be told to clean up in this order, with blobs that manifests may lack allowed.
fn blob_first(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (digest, document) = image(b, &repository, &["latest"])?;
    let parsed: serde_json::Value = serde_json::from_slice(&document.bytes).unwrap();
    let config = super::data::digest_of(&parsed["config"]);
    b.deletes(&blob(&repository, &config))?;
    b.manifest_reads_back(&manifest(&repository, "latest"), &document, &digest)?;
    b.deletes(&manifest(&repository, &digest))
}

/// The older suite counts the tags of a repository right after it deleted the only manifest there. Its blobs are still held.
fn emptied(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (digest, _) = image(b, &repository, &["only"])?;
    equal("tags", b.tags(&repository)?.len(), 1)?;
    b.deletes(&manifest(&repository, "only"))?;
    b.deletes(&manifest(&repository, &digest))?;
    let response = b.get(&super::bench::tags(&repository))?.status(&[200])?;
    equal("tags", &response.json()?["tags"], &json!([]))
}

fn wrong_tag(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (digest, document) = image(b, &repository, &[])?;
    let path = with_query(&manifest(&repository, &digest), "tag", "fine");
    let path = with_query(&path, "tag", "not/a/tag");
    b.put_manifest(&path, &document)?.status(&[400])?.errors()?;
    b.send(Request::new("HEAD", manifest(&repository, "fine")))?
        .status(&[404])?;
    equal("tags", b.tags(&repository)?, vec![])
}
