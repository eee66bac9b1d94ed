//! The older suite's four workflows one after the other in one repository, where all images share a layer: what one leaves
//! behind must not be in the way of the next.

use serde_json::{Value, json};

use super::{
    bench::{Bench, Check, Outcome, blob, manifest, strings, tags, uploads},
    data::{Data, Document, EMPTY, IMAGE, digest_of},
    expect::equal,
    referrers,
};
use crate::support::http::Request;

pub const CHECKS: &[Check] = &[
    ("the older suite, manifests deleted first", |b| {
        all(b, Delete::ManifestsFirst, &[201])
    }),
    ("the older suite, blobs deleted first", |b| {
        all(b, Delete::BlobsFirst, &[201])
    }),
];

/// The order in which a workflow cleans up.
#[derive(Clone, Copy, PartialEq)]
pub enum Delete {
    ManifestsFirst,
    BlobsFirst,
}

/// The statuses of a delete that may meet blobs in use, or what is deleted already.
const GONE_OR_REFUSED: [u16; 3] = [202, 404, 405];

struct Workflows<'b> {
    b: &'b Bench,
    repository: String,
    delete: Delete,
    /// Five images with a config each and the layer of all.
    images: Vec<(String, Document)>,
    configs: Vec<(String, Vec<u8>)>,
    layer: (String, Vec<u8>),
}

/// Goes through them. `incomplete` are the statuses that a manifest may get whose layer is not there.
pub fn all(b: &Bench, delete: Delete, incomplete: &[u16]) -> Outcome {
    let mut data = Data::new(b);
    let layer = data.layer();
    for _ in 0..5 {
        let config = data.config("amd64");
        let document = json!({ "mediaType": IMAGE, "config": config, "layers": [layer] });
        data.manifest(document, json!({}));
    }
    let layer = data.blobs.remove(0);
    let w = Workflows {
        b,
        repository: b.repository(),
        delete,
        images: data.manifests,
        configs: data.blobs,
        layer,
    };
    w.pull()?;
    w.push(incomplete)?;
    w.discover()?;
    w.manage()
}

impl Workflows<'_> {
    fn path(&self, reference: &str) -> String {
        manifest(&self.repository, reference)
    }

    fn blob(&self, digest: &str) -> String {
        blob(&self.repository, digest)
    }

    /// Pushes the config of an image, and the layer.
    fn blobs(&self, n: usize) -> Outcome {
        for (digest, content) in [&self.configs[n], &self.layer] {
            self.b.push_blob_as(&self.repository, digest, content)?;
        }
        Ok(())
    }

    fn tag(&self, n: usize, tag: &str) -> Outcome {
        let (digest, document) = &self.images[n];
        self.b
            .push_manifest(&self.repository, tag, document, digest)
    }

    /// Deletes manifests and blobs, in the order of this run.
    fn clean(&self, manifests: &[&str], blobs: &[&str]) -> Outcome {
        let manifests = || {
            manifests.iter().try_for_each(|digest| {
                let answer = self.b.delete(&self.path(digest))?;
                answer.status(&[202, 404]).map(drop)
            })
        };
        let (blob_statuses, late) = match self.delete {
            Delete::ManifestsFirst => (&GONE_OR_REFUSED[..2], false),
            Delete::BlobsFirst => (&GONE_OR_REFUSED[..], true),
        };
        if !late {
            manifests()?;
        }
        for digest in blobs {
            self.b.delete(&self.blob(digest))?.status(blob_statuses)?;
        }
        if late { manifests() } else { Ok(()) }
    }

    fn pull(&self) -> Outcome {
        let (b, (digest, document)) = (self.b, &self.images[0]);
        self.blobs(0)?;
        self.tag(0, "tagtest0")?;
        let tags = b.tags(&self.repository)?;
        let tag = tags.first().ok_or("no tag is listed")?;
        b.is_absent(&self.blob(&b.digest(b"hello world")))?;
        b.blob_reads_back(&self.repository, &self.configs[0].0, &self.configs[0].1)?;
        b.is_absent(&self.path(".INVALID_MANIFEST_NAME"))?;
        for reference in [digest, tag] {
            b.manifest_reads_back(&self.path(reference), document, digest)?;
        }
        self.clean(&[digest], &[&self.configs[0].0, &self.layer.0])
    }

    fn push(&self, incomplete: &[u16]) -> Outcome {
        let (b, (digest, _)) = (self.b, &self.images[1]);
        let shared = b.content(42);
        let shared_digest = b.push_blob(&self.repository, &shared)?;
        self.blobs(1)?;
        self.mount(&shared, &shared_digest)?;
        for tag in ["test0", "test1", "test2", "test3"] {
            self.tag(1, tag)?;
        }
        // An image whose only layer is the blob {}, which this repository does not have.
        let mut data = Data::new(b);
        let empty = data.blob(EMPTY, b"{}".to_vec());
        let config = &self.configs[1];
        let config = data.blob("application/vnd.oci.image.config.v1+json", config.1.clone());
        let document = json!({ "mediaType": IMAGE, "config": config, "layers": [empty] });
        data.manifest(document, json!({}));
        let (no_layers, document) = &data.manifests[0];
        b.put_manifest(&self.path("emptylayer"), document)?
            .status(incomplete)?;
        self.clean(&[digest, no_layers], &[&self.configs[1].0, &self.layer.0])
    }

    fn mount(&self, data: &[u8], digest: &str) -> Outcome {
        let (b, to) = (self.b, self.b.repository());
        let mount = |digest: &str| Request::new("POST", uploads(&to)).query("mount", digest);
        let absent = b.digest(&b.content(64));
        let answer = b.send(mount(&absent))?.status(&[202])?;
        let session = b.location(&uploads(&to), &answer)?;
        equal("session", session.starts_with(&uploads(&to)), true)?;
        let from = mount(digest).query("from", &self.repository);
        let answer = b.send(from)?.status(&[201])?;
        equal("Location", b.location("/", &answer)?, blob(&to, digest))?;
        b.send(mount(digest))?.status(&[201])?;
        b.blob_reads_back(&to, digest, data)
    }

    fn discover(&self) -> Outcome {
        let (b, repository) = (self.b, &self.repository);
        self.blobs(2)?;
        for tag in ["test0", "test1", "test2", "test3"] {
            self.tag(2, tag)?;
        }
        // What refers to image 4 is partly there before it, and something refers to image 3, which never comes.
        let subject = |n: usize| {
            let (digest, document) = &self.images[n];
            json!({ "mediaType": IMAGE, "digest": digest, "size": document.bytes.len() })
        };
        let mut data = Data::new(b);
        data.artifact("a/a", json!({ "subject": subject(4) }));
        let child = data.artifact("b/b", json!({ "subject": subject(4) }));
        data.index(
            &[child],
            json!({ "subject": subject(4), "artifactType": "i/i" }),
        );
        data.artifact("a/a", json!({ "subject": subject(3) }));
        data.push_blobs(repository)?;
        for (digest, document) in &data.manifests {
            b.push_manifest(repository, digest, document, digest)?;
        }
        self.blobs(4)?;
        self.tag(4, "tagtest0")?;
        self.tag_pages()?;
        referrers::are_listed(b, repository, &data)?;
        let nobody = b.digest(&b.content(64));
        let none: Vec<Value> = referrers::of(b, repository, &nobody)?;
        equal("referrers", none, vec![])?;

        let mut manifests: Vec<&str> = data.manifests.iter().rev().map(|(d, _)| &**d).collect();
        manifests.extend([2, 4].map(|n| &*self.images[n].0));
        let mut blobs: Vec<&str> = data.blobs.iter().map(|(d, _)| &**d).collect();
        blobs.extend([&*self.configs[2].0, &*self.configs[4].0, &*self.layer.0]);
        self.clean(&manifests, &blobs)?;
        equal("subject", digest_of(&subject(4)), self.images[4].0.clone())
    }

    /// Half of the tags, then the other half.
    fn tag_pages(&self) -> Outcome {
        let b = self.b;
        let list = |query: &str| {
            let path = format!("{}{query}", tags(&self.repository));
            strings(&b.get(&path)?.status(&[200])?.json()?["tags"])
        };
        let all = list("")?;
        let n = all.len() / 2;
        let first = list(&format!("?n={n}"))?;
        equal("first page", &first[..], &all[..n])?;
        let second = list(&format!("?n={n}&last={}", first[n - 1]))?;
        equal("second page", &second[..], &all[n..2 * n])
    }

    fn manage(&self) -> Outcome {
        let (b, (digest, _)) = (self.b, &self.images[3]);
        self.blobs(3)?;
        self.tag(3, "tagtest0")?;
        let before = b.tags(&self.repository)?.len();
        b.delete(&self.path("tagtest0"))?.status(&[202])?;
        b.delete(&self.path(digest))?.status(&[202])?;
        b.is_absent(&self.path(digest))?;
        let list = b.get(&tags(&self.repository))?.status(&[200])?;
        let after = strings(&list.json()?["tags"])?.len();
        equal("number of tags", after, before - 1)?;
        for digest in [&self.configs[3].0, &self.layer.0] {
            b.deletes(&self.blob(digest))?;
        }
        Ok(())
    }
}
