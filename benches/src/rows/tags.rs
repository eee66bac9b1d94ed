//! Listing a repository with very many tags.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    data::Blob,
    http::{Body, Client, Sink},
    load,
    oci::{self, ImageDocs, Upload},
    registry::Program,
    row::{Measured, Recorder, Row, Unit},
    stats,
};

const REPO: &str = "tags/many";
/// A registry that has not taken all tags by then is not listed; its cell says so.
const SET_UP_MAX: Duration = Duration::from_secs(900);
/// A page as user interfaces ask for it.
const PAGE: usize = 100;
const PAGES_TIMED: usize = 200;

/// Measures one registry with `count` tags of one manifest.
///
/// # Errors
/// It does not start or takes too long to take the tags.
pub(crate) fn run(
    count: usize,
    program: &Program,
    home: &Path,
    recorder: &mut Recorder,
) -> Result<()> {
    let server = program.start(home)?;
    let layer = Blob::of(vec![7; 1000]);
    let docs = ImageDocs::new(0, &layer.digest, layer.len());
    oci::push_image(
        &mut server.client(),
        REPO,
        "first",
        (&layer.digest, &layer.bytes),
        &docs,
        Upload::Monolith,
    )?;
    let name = |what: &str| format!("{what} at {count} tags");
    let begin = Instant::now();
    let row = Row::new(
        format!(
            "put {count} tags of one manifest, {} clients",
            load::CLIENTS
        ),
        Unit::RequestsPerSecond,
    );
    let mut complete = false;
    recorder.measure(row, &server, || {
        let measured = load::run(server.addr, count - 1, |client, number| {
            if begin.elapsed() > SET_UP_MAX {
                bail!("{number} of {count} tags after {SET_UP_MAX:?}");
            }
            oci::put_manifest(
                client,
                &format!("/v2/{REPO}/manifests/v{number:06}"),
                &docs.manifest,
            )
        })?;
        complete = true;
        Ok(measured)
    });
    if !complete {
        return Ok(());
    }
    let mut client = server.client();
    let row = Row::new(name("list all tags, page by page,"), Unit::Milliseconds);
    recorder.measure(row, &server, || {
        let begin = Instant::now();
        let mut listed = 0;
        let mut path = format!("/v2/{REPO}/tags/list");
        loop {
            let (tags, next) = list(&mut client, &path)?;
            listed += tags;
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        let elapsed = begin.elapsed().as_secs_f64() * 1e3;
        ensure!(listed == count, "{listed} of {count} tags listed");
        Ok(elapsed)
    });
    let row = Row::new(name("list a page of 100 tags, p50,"), Unit::Milliseconds);
    recorder.measure(row, &server, || {
        let mut latencies = Vec::new();
        for page in 0..PAGES_TIMED {
            let path = format!(
                "/v2/{REPO}/tags/list?n={PAGE}&last=v{:06}",
                page * count / PAGES_TIMED / 2
            );
            let begin = Instant::now();
            let (tags, _) = list(&mut client, &path)?;
            latencies.push(begin.elapsed().as_secs_f64() * 1e3);
            ensure!(tags == PAGE, "a page of {tags} tags");
        }
        Ok(Measured {
            value: stats::median(&latencies).context("no pages")?,
            latencies,
        })
    });
    server.stop()
}

/// Number of tags of a page, and the path of the next one.
fn list(client: &mut Client, path: &str) -> Result<(usize, Option<String>)> {
    let mut body = Vec::new();
    let response = client
        .request("GET", path, &[], Body::None, Sink::Collect(&mut body))?
        .expect(200, "list tags")?;
    let tags: serde_json::Value = serde_json::from_slice(&body)?;
    let tags = tags["tags"].as_array().context("no tags")?.len();
    let next = response
        .header("link")
        .and_then(|link| link.strip_prefix('<')?.split_once('>'));
    Ok((tags, next.map(|(path, _)| path.to_owned())))
}
