//! Reading and deleting blobs.

use super::{
    bench::{Bench, Check, Outcome, blob},
    expect::equal,
};
use crate::support::http::Request;

pub const CHECKS: &[Check] = &[
    ("a blob nobody pushed is 404", absent),
    ("a blob of another repository is 404", foreign),
    ("a malformed digest is refused", malformed_digest),
    ("an empty blob reads back", |b| known(b, b"")),
    ("the two-byte blob {} reads back", |b| known(b, b"{}")),
    ("a blob of 3 MB reads back", |b| {
        known(b, &b.content(3_000_000))
    }),
    ("Range within the blob", |b| range(b, "500-1499", 500..1500)),
    ("Range to the end", |b| range(b, "500-", 500..LEN)),
    ("Range of the last bytes", |b| {
        range(b, "-500", LEN - 500..LEN)
    }),
    ("Range past the end is cut", |b| {
        range(b, "2000-5000", 2000..LEN)
    }),
    ("Range that ends before it begins is 416", |b| {
        no_range(b, "500-0")
    }),
    ("Range behind the end is 416", |b| no_range(b, "5000-10000")),
    ("a deleted blob is gone at once", delete),
    ("a deleted blob can be pushed again", delete_and_push),
    ("a blob deleted here stays elsewhere", delete_here),
    ("deleting what is not there is 404", delete_absent),
];

/// Length of the blob whose ranges are read.
const LEN: usize = 2048;

fn absent(b: &Bench) -> Outcome {
    let digest = b.digest(&b.content(512));
    let repository = b.repository();
    b.is_absent(&blob(&repository, &digest))?;
    b.push_blob(&repository, b"something")?;
    b.is_absent(&blob(&repository, &digest))?;
    b.get(&blob(&repository, &digest))?.errors()
}

fn foreign(b: &Bench) -> Outcome {
    let digest = b.push_blob(&b.repository(), &b.content(512))?;
    let other = b.repository();
    b.push_blob(&other, b"something")?;
    b.is_absent(&blob(&other, &digest))
}

fn malformed_digest(b: &Bench) -> Outcome {
    let digest = format!("{}:baddigeststring", b.algorithm.name());
    for method in ["HEAD", "GET"] {
        let request = Request::new(method, blob(&b.repository(), &digest));
        let response = b.send(request)?.status(&[400, 404])?;
        if method == "GET" {
            response.errors()?;
        }
    }
    Ok(())
}

fn known(b: &Bench, data: &[u8]) -> Outcome {
    let repository = b.repository();
    let digest = b.push_blob(&repository, data)?;
    b.blob_reads_back(&repository, &digest, data)?;
    b.deletes(&blob(&repository, &digest))
}

fn range(b: &Bench, asked: &str, wanted: std::ops::Range<usize>) -> Outcome {
    let data = b.content(LEN);
    let repository = b.repository();
    let digest = b.push_blob(&repository, &data)?;
    let request = Request::new("GET", blob(&repository, &digest));
    let response = b
        .send(request.header("Range", format!("bytes={asked}")))?
        .status(&[206])?;
    response.body(&data[wanted.clone()])?;
    response.header("Content-Length", &wanted.len().to_string())?;
    let range = format!("bytes {}-{}/{LEN}", wanted.start, wanted.end - 1);
    response.header("Content-Range", &range)
}

fn no_range(b: &Bench, asked: &str) -> Outcome {
    let repository = b.repository();
    let digest = b.push_blob(&repository, &b.content(LEN))?;
    let request = Request::new("GET", blob(&repository, &digest));
    b.send(request.header("Range", format!("bytes={asked}")))?
        .status(&[416])?;
    Ok(())
}

fn delete(b: &Bench) -> Outcome {
    let repository = b.repository();
    let digest = b.push_blob(&repository, &b.content(512))?;
    b.deletes(&blob(&repository, &digest))?;
    b.delete(&blob(&repository, &digest))?.status(&[404])?;
    Ok(())
}

fn delete_and_push(b: &Bench) -> Outcome {
    let repository = b.repository();
    let data = b.content(100_000);
    for _ in 0..2 {
        let digest = b.push_blob(&repository, &data)?;
        b.blob_reads_back(&repository, &digest, &data)?;
        b.deletes(&blob(&repository, &digest))?;
    }
    Ok(())
}

fn delete_here(b: &Bench) -> Outcome {
    let (here, there) = (b.repository(), b.repository());
    let data = b.content(512);
    let digest = b.push_blob(&here, &data)?;
    equal("digest", &b.push_blob(&there, &data)?, &digest)?;
    b.deletes(&blob(&here, &digest))?;
    b.blob_reads_back(&there, &digest, &data)
}

fn delete_absent(b: &Bench) -> Outcome {
    let repository = b.repository();
    let absent = blob(&repository, &b.digest(&b.content(512)));
    b.delete(&absent)?.status(&[404])?;
    b.push_blob(&repository, b"something")?;
    b.delete(&absent)?.status(&[404])?.errors()
}
