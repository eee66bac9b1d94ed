//! Uploads: in one request, in two, in chunks, as a stream; out of order, with a wrong digest, cancelled.

use super::{
    bench::{Bench, Check, Outcome, blob, uploads},
    expect::equal,
};
use crate::support::{
    digest::Algorithm,
    http::{Request, Response, with_query},
};

pub const CHECKS: &[Check] = &[
    ("POST alone", post_alone),
    ("POST and PUT", post_and_put),
    ("POST with the algorithm announced, and PUT", announced),
    ("one chunk", one_chunk),
    ("three chunks", |b| chunks(b, Last::InPatch, Order::Right)),
    ("three chunks, the last in the PUT", |b| {
        chunks(b, Last::InPut, Order::Right)
    }),
    ("three chunks, each after one out of order", |b| {
        chunks(b, Last::InPatch, Order::WrongFirst)
    }),
    (
        "three chunks, each after one out of order, in the PUT",
        |b| chunks(b, Last::InPut, Order::WrongFirst),
    ),
    ("chunks of a few bytes are taken", tiny_chunks),
    (
        "a chunk sent twice is 416, the session survives",
        chunk_twice,
    ),
    ("a stream", stream),
    ("a stream in several requests", streams),
    ("an empty blob as a stream", empty_stream),
    ("wrong digest: POST alone", wrong_post_alone),
    ("wrong digest: POST and PUT", wrong_post_and_put),
    ("wrong digest: chunks", |b| wrong_chunks(b, Last::InPatch)),
    ("wrong digest: chunks, the last in the PUT", |b| {
        wrong_chunks(b, Last::InPut)
    }),
    ("wrong digest: stream", wrong_stream),
    ("malformed digests are refused", malformed_digest),
    ("a session without bytes tells its state", fresh_session),
    ("a cancelled session is gone", cancel),
    ("a finished session is gone", finished),
    ("a session is of one repository only", session_elsewhere),
    ("a session that never was is 404", no_session),
];

/// Where the last chunk goes.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    InPatch,
    InPut,
}

/// Whether a chunk out of order comes before each good one.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Right,
    WrongFirst,
}

/// A chunk at least as long as the registry asks for.
fn chunk_len(answer: &Response) -> Result<usize, String> {
    match answer.get("OCI-Chunk-Min-Length") {
        None => Ok(1024),
        Some(len) => match len.parse::<usize>() {
            Ok(len) => Ok(len.max(1024)),
            Err(_) => Err(format!("OCI-Chunk-Min-Length: {len:?} is no number")),
        },
    }
}

/// The upload is over: it can be read in every way.
fn stored(b: &Bench, repository: &str, session: &str, response: &Response, data: &[u8]) -> Outcome {
    let digest = b.digest(data);
    b.is_stored(session, response, &digest, data)?;
    b.blob_reads_back(repository, &digest, data)?;
    b.deletes(&blob(repository, &digest))
}

fn post_alone(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(512));
    let path = uploads(&repository);
    let request = Request::new("POST", &path).query("digest", &b.digest(&data));
    let response = b.send(request.octets(&data))?.status(&[201])?;
    stored(b, &repository, &path, &response, &data)
}

fn post_and_put(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(512));
    let (session, _) = b.start_upload(&repository)?;
    let response = b.finish_upload(&session, &b.digest(&data), &data)?;
    let response = response.status(&[201])?;
    stored(b, &repository, &session, &response, &data)
}

fn announced(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(512));
    let path = uploads(&repository);
    let request = Request::new("POST", &path).query("digest-algorithm", b.algorithm.name());
    let response = b.send(request)?.status(&[202])?;
    let session = b.location(&path, &response)?;
    let response = b.finish_upload(&session, &b.digest(&data), &data)?;
    let response = response.status(&[201])?;
    stored(b, &repository, &session, &response, &data)
}

fn one_chunk(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(512));
    let (session, _) = b.start_upload(&repository)?;
    let response = b.chunk("PATCH", &session, 0, &data)?.status(&[202])?;
    response.header("Range", "0-511")?;
    let session = b.location(&session, &response)?;
    let response = b.finish_upload(&session, &b.digest(&data), b"")?;
    let response = response.status(&[201])?;
    stored(b, &repository, &session, &response, &data)
}

fn chunks(b: &Bench, last: Last, order: Order) -> Outcome {
    let repository = b.repository();
    let (mut session, answer) = b.start_upload(&repository)?;
    let len = chunk_len(&answer)?;
    let data = b.content(3 * len - 5);
    let digest = b.digest(&data);
    let closing = |first: usize| last == Last::InPut && first + len >= data.len();
    let mut end = None;
    for first in (0..data.len()).step_by(len) {
        if order == Order::WrongFirst {
            // The one after next, or the first again near the end.
            let wrong = Some(first + len).filter(|n| *n < data.len()).unwrap_or(0);
            session = out_of_order(b, &session, &data, wrong, len, closing(wrong), first)?;
        }
        let piece = &data[first..data.len().min(first + len)];
        if closing(first) {
            let range = format!("{first}-{}", data.len() - 1);
            let request = Request::new("PUT", &session).query("digest", &digest);
            let request = request.header("Content-Range", range).octets(piece);
            end = Some(b.send(request)?);
        } else {
            let response = b.chunk("PATCH", &session, first, piece)?.status(&[202])?;
            response.header("Range", &format!("0-{}", first + piece.len() - 1))?;
            session = b.location(&session, &response)?;
        }
    }
    let response = match end {
        Some(response) => response,
        None => b.finish_upload(&session, &digest, b"")?,
    };
    let response = response.status(&[201])?;
    stored(b, &repository, &session, &response, &data)
}

/// Sends the chunk that starts at `wrong`, after which the session must still stand at `offset`; returns where to go on.
fn out_of_order(
    b: &Bench,
    session: &str,
    data: &[u8],
    wrong: usize,
    len: usize,
    closing: bool,
    offset: usize,
) -> Result<String, String> {
    let piece = &data[wrong..data.len().min(wrong + len)];
    let range = format!("{wrong}-{}", wrong + piece.len() - 1);
    let (method, path) = if closing {
        ("PUT", with_query(session, "digest", &b.digest(data)))
    } else {
        ("PATCH", session.to_owned())
    };
    let request = Request::new(method, &path).header("Content-Range", range);
    b.send(request.octets(piece))?.status(&[416])?;
    // Asked with the digest still in the query, as the newer suite does.
    session_stands_at(b, &path, offset)
}

/// `GET` of the session names what arrived; returns the session's path as told.
fn session_stands_at(b: &Bench, session: &str, offset: usize) -> Result<String, String> {
    let response = b.get(session)?.status(&[204])?;
    // Nothing has no such form: any 0-N is taken, and one registry says 0--1.
    match response.get("Range").and_then(|r| r.strip_prefix("0-")) {
        Some(last) if offset == 0 => last
            .parse::<i64>()
            .map(drop)
            .map_err(|_| format!("Range 0-{last} is no range"))?,
        _ => response.header("Range", &format!("0-{}", offset - 1))?,
    }
    b.location(session, &response)
}

fn tiny_chunks(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(42));
    let (mut session, _) = b.start_upload(&repository)?;
    for (first, end) in [(0, 1), (1, 22), (22, 42)] {
        let piece = &data[first..end];
        let response = b.chunk("PATCH", &session, first, piece)?.status(&[202])?;
        response.header("Range", &format!("0-{}", end - 1))?;
        session = b.location(&session, &response)?;
    }
    let response = b.finish_upload(&session, &b.digest(&data), b"")?;
    stored(b, &repository, &session, &response.status(&[201])?, &data)
}

fn chunk_twice(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(42));
    let (session, _) = b.start_upload(&repository)?;
    let (one, two) = data.split_at(22);
    let answer = b.chunk("PATCH", &session, 0, one)?.status(&[202])?;
    answer.header("Range", "0-21")?;
    b.chunk("PATCH", &session, 0, one)?.status(&[416])?;
    // The path that the upload began with still tells.
    let session = session_stands_at(b, &session, 22)?;
    let answer = b.chunk("PATCH", &session, 22, two)?.status(&[202])?;
    let session = b.location(&session, &answer)?;
    let response = b.finish_upload(&session, &b.digest(&data), b"")?;
    stored(b, &repository, &session, &response.status(&[201])?, &data)
}

fn stream(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(512));
    let (session, _) = b.start_upload(&repository)?;
    let response = b.stream(&session, &data)?.status(&[202])?;
    response.header("Range", "0-511")?;
    let session = b.location(&session, &response)?;
    let response = b.finish_upload(&session, &b.digest(&data), b"")?;
    stored(b, &repository, &session, &response.status(&[201])?, &data)
}

fn streams(b: &Bench) -> Outcome {
    let (repository, data) = (b.repository(), b.content(200_000));
    let (mut session, _) = b.start_upload(&repository)?;
    for (first, end) in [(0, 70_000), (70_000, 200_000)] {
        let answer = b.stream(&session, &data[first..end])?.status(&[202])?;
        answer.header("Range", &format!("0-{}", end - 1))?;
        session = b.location(&session, &answer)?;
    }
    let response = b.finish_upload(&session, &b.digest(&data), b"")?;
    stored(b, &repository, &session, &response.status(&[201])?, &data)
}

fn empty_stream(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (session, _) = b.start_upload(&repository)?;
    let response = b.stream(&session, b"")?.status(&[202])?;
    let session = b.location(&session, &response)?;
    let response = b.finish_upload(&session, &b.digest(b""), b"")?;
    stored(b, &repository, &session, &response.status(&[201])?, b"")
}

/// Content, and the digest of other content of the same length.
fn mismatch(b: &Bench, len: usize) -> (Vec<u8>, String) {
    (b.content(len), b.digest(&b.content(len)))
}

/// An upload with a wrong digest was refused, and nothing is stored under either digest.
fn refused(b: &Bench, repository: &str, response: Response, wrong: &str, data: &[u8]) -> Outcome {
    response.status(&[400])?.errors()?;
    b.is_absent(&blob(repository, wrong))?;
    b.is_absent(&blob(repository, &b.digest(data)))
}

fn wrong_post_alone(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (data, wrong) = mismatch(b, 3000);
    let request = Request::new("POST", uploads(&repository)).query("digest", &wrong);
    let response = b.send(request.octets(&data))?;
    refused(b, &repository, response, &wrong, &data)
}

fn wrong_post_and_put(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (data, wrong) = mismatch(b, 3000);
    let (session, _) = b.start_upload(&repository)?;
    let response = b.finish_upload(&session, &wrong, &data)?;
    refused(b, &repository, response, &wrong, &data)
}

fn wrong_chunks(b: &Bench, last: Last) -> Outcome {
    let repository = b.repository();
    let (session, answer) = b.start_upload(&repository)?;
    let len = chunk_len(&answer)?;
    let (data, wrong) = mismatch(b, 2 * len);
    let (one, two) = data.split_at(len);
    let answer = b.chunk("PATCH", &session, 0, one)?.status(&[202])?;
    let session = b.location(&session, &answer)?;
    let response = if last == Last::InPut {
        b.finish_upload(&session, &wrong, two)?
    } else {
        let answer = b.chunk("PATCH", &session, len, two)?.status(&[202])?;
        b.finish_upload(&b.location(&session, &answer)?, &wrong, b"")?
    };
    refused(b, &repository, response, &wrong, &data)
}

fn wrong_stream(b: &Bench) -> Outcome {
    let repository = b.repository();
    let (data, wrong) = mismatch(b, 3000);
    let (session, _) = b.start_upload(&repository)?;
    let answer = b.stream(&session, &data)?.status(&[202])?;
    let response = b.finish_upload(&b.location(&session, &answer)?, &wrong, b"")?;
    refused(b, &repository, response, &wrong, &data)
}

fn malformed_digest(b: &Bench) -> Outcome {
    let name = b.algorithm.name();
    let right = b.digest(b"x");
    let upper = format!("{name}:{}", right[name.len() + 1..].to_uppercase());
    for digest in [
        "",
        "x",
        &format!("{name}:baddigeststring"),
        &right[..right.len() - 1],
        &upper,
        &right.replace(name, "md5"),
    ] {
        let (session, _) = b.start_upload(&b.repository())?;
        b.finish_upload(&session, digest, b"x")?
            .status(&[400])?
            .errors()?;
    }
    let (session, _) = b.start_upload(&b.repository())?;
    b.send(Request::new("PUT", &session).octets(b"x"))?
        .status(&[400])?
        .errors()
}

fn fresh_session(b: &Bench) -> Outcome {
    let (session, _) = b.start_upload(&b.repository())?;
    session_stands_at(b, &session, 0)?;
    let (other, _) = b.start_upload(&b.repository())?;
    equal("sessions are of their own", session != other, true)
}

fn cancel(b: &Bench) -> Outcome {
    for bytes in [0, 2000] {
        let repository = b.repository();
        let (session, _) = b.start_upload(&repository)?;
        let data = b.content(bytes);
        if bytes > 0 {
            b.stream(&session, &data)?.status(&[202])?;
        }
        b.delete(&session)?.status(&[204])?.body(b"")?;
        b.get(&session)?.status(&[404])?.errors()?;
        b.stream(&session, b"more")?.status(&[404])?;
        b.finish_upload(&session, &b.digest(&data), b"")?
            .status(&[404])?;
        b.delete(&session)?.status(&[404])?;
        b.is_absent(&blob(&repository, &b.digest(&data)))?;
    }
    Ok(())
}

fn finished(b: &Bench) -> Outcome {
    let (session, _) = b.start_upload(&b.repository())?;
    let data = b.content(100);
    b.finish_upload(&session, &b.digest(&data), &data)?
        .status(&[201])?;
    b.get(&session)?.status(&[404])?;
    b.stream(&session, b"more")?.status(&[404])?;
    b.delete(&session)?.status(&[404])?;
    Ok(())
}

fn session_elsewhere(b: &Bench) -> Outcome {
    let (here, there) = (b.repository(), b.repository());
    let (session, _) = b.start_upload(&here)?;
    let stolen = session.replace(&here, &there);
    equal(
        "the session's path names its repository",
        stolen != session,
        true,
    )?;
    b.get(&stolen)?.status(&[404])?;
    b.stream(&stolen, b"x")?.status(&[404])?;
    b.finish_upload(&stolen, &b.digest(b"x"), b"x")?
        .status(&[404])?;
    b.delete(&stolen)?.status(&[404])?;
    session_stands_at(b, &session, 0).map(drop)
}

fn no_session(b: &Bench) -> Outcome {
    let digest = Algorithm::Sha256.digest(b"");
    for id in ["x", "00000000-0000-0000-0000-000000000000"] {
        let session = format!("{}{id}", uploads(&b.repository()));
        b.get(&session)?.status(&[404])?.errors()?;
        b.stream(&session, b"x")?.status(&[404])?;
        b.finish_upload(&session, &digest, b"")?.status(&[404])?;
        b.delete(&session)?.status(&[404])?;
    }
    Ok(())
}
