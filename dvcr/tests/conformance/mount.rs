//! Blobs that another repository has already.

use super::{
    bench::{Bench, Check, Outcome, blob, uploads},
    expect::equal,
};
use crate::support::http::{Request, Response};

pub const CHECKS: &[Check] = &[
    ("from another repository", |b| mounted(b, true)),
    ("from any repository that has it", |b| mounted(b, false)),
    ("what the other repository lacks begins an upload", |b| {
        missing(b, true)
    }),
    ("what no repository has begins an upload", |b| {
        missing(b, false)
    }),
    ("what is here already is mounted again", again),
    ("a malformed digest is 400", malformed),
];

fn mount(b: &Bench, to: &str, digest: &str, from: Option<&str>) -> Result<Response, String> {
    let mut request = Request::new("POST", uploads(to)).query("mount", digest);
    if let Some(from) = from {
        request = request.query("from", from);
    }
    b.send(request)
}

fn mounted(b: &Bench, named: bool) -> Outcome {
    let (from, to) = (b.repository(), b.repository());
    let data = b.content(512);
    let digest = b.push_blob(&from, &data)?;
    let response = mount(b, &to, &digest, named.then_some(&*from))?.status(&[201])?;
    b.is_stored(&uploads(&to), &response, &digest, &data)?;
    let location = b.location(&uploads(&to), &response)?;
    equal("Location", &location, &blob(&to, &digest))?;
    b.blob_reads_back(&to, &digest, &data)?;
    // The mounted blob is the repository's own.
    b.deletes(&blob(&from, &digest))?;
    b.blob_reads_back(&to, &digest, &data)?;
    b.deletes(&blob(&to, &digest))
}

fn missing(b: &Bench, named: bool) -> Outcome {
    let (from, to) = (b.repository(), b.repository());
    b.push_blob(&from, b"something else")?;
    let data = b.content(512);
    let digest = b.digest(&data);
    let response = mount(b, &to, &digest, named.then_some(&*from))?.status(&[202])?;
    b.is_absent(&blob(&to, &digest))?;
    let session = b.location(&uploads(&to), &response)?;
    let prefix = session.starts_with(&uploads(&to));
    equal("Location is an upload session", prefix, true)?;
    let response = b.finish_upload(&session, &digest, &data)?.status(&[201])?;
    b.is_stored(&session, &response, &digest, &data)?;
    b.blob_reads_back(&to, &digest, &data)
}

fn again(b: &Bench) -> Outcome {
    let (from, to) = (b.repository(), b.repository());
    let data = b.content(512);
    let digest = b.push_blob(&from, &data)?;
    for _ in 0..2 {
        mount(b, &to, &digest, Some(&from))?.status(&[201])?;
    }
    b.blob_reads_back(&to, &digest, &data)
}

fn malformed(b: &Bench) -> Outcome {
    let digest = format!("{}:baddigeststring", b.algorithm.name());
    let response = mount(b, &b.repository(), &digest, Some(&b.repository()))?;
    response.status(&[400])?.errors()
}
