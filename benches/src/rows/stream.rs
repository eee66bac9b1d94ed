//! One stream: a blob of 1 GiB pushed, pushed again, pulled whole and in pieces.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{
    data::{Blob, Kind as Data, Rng},
    http::{Body, Client, Sink},
    machine,
    oci::{self, ImageDocs, Upload},
    registry::{Kind, Program, Server},
    row::{Budget, Measured, Recorder, Row, Unit, rate},
};

const REPO: &str = "stream/first";
/// Gets the same blob again, as when somebody pushes to a repository of their own what another one holds.
const REPO_AGAIN: &str = "stream/second";
const RANGE_BYTES: usize = 64 << 10;

/// The blob and how much is done with it.
pub(crate) struct Stream {
    data: Data,
    blob: Blob,
    ranges: usize,
}

impl Stream {
    pub(crate) fn new(data: Data, mib: usize, ranges: usize) -> Stream {
        Stream {
            data,
            blob: Blob::make(data, 1, mib),
            ranges,
        }
    }

    /// Measures all rows of one registry.
    ///
    /// # Errors
    /// It does not start, or returns wrong bytes.
    pub(crate) fn run(
        &self,
        program: &Program,
        home: &Path,
        recorder: &mut Recorder,
    ) -> Result<()> {
        let server = program.start(home)?;
        let (data, blob) = (self.data.name(), &self.blob);
        let size = blob.len() >> 20;
        let name = |what: &str| format!("{what} {size} MiB, {data}");
        let (push_again_hot, pull_hot) = (
            Budget::Times(2.5),
            Budget::Times(if self.data == Data::Disk { 0.6 } else { 0.9 }),
        );

        let row = Row::new(name("push"), Unit::MegabytesPerSecond).must(Budget::Times(1.3));
        recorder.measure(row, &server, || self.push(&mut server.client(), REPO));
        // An image of it: olareg forgets at a restart what no manifest refers to.
        let docs = ImageDocs::new(1, &blob.digest, blob.len());
        oci::push_docs(&mut server.client(), REPO, "disk", &docs, Upload::Monolith)?;
        machine::settle();
        let row =
            Row::new(name("push, already stored,"), Unit::MegabytesPerSecond).must(push_again_hot);
        recorder.measure(row, &server, || self.push(&mut server.client(), REPO_AGAIN));
        machine::settle();
        let row = Row::new(name("disk taken by two pushes of"), Unit::Mebibytes);
        recorder.measure(row, &server, || {
            Ok(machine::disk_usage(&server.data_dir())? as f64 / f64::from(1 << 20))
        });
        // Also fills whatever caches there are.
        oci::verify_blob(&mut server.client(), REPO, &blob.digest, &blob.bytes)?;
        let row = Row::new(name("pull hot"), Unit::MegabytesPerSecond).must(pull_hot);
        recorder.measure(row, &server, || self.pull(&server));
        if server.kind() == Kind::Dvcr {
            let budget = Budget::Times(if self.data == Data::Disk { 1.5 } else { 0.9 });
            let row = Row::new(name("pull hot as zstd,"), Unit::MegabytesPerSecond).must(budget);
            recorder.measure(row, &server, || self.pull_zstd(&server));
        }
        let row = Row::new(format!("Range of 64 KiB, p50, {data}"), Unit::Milliseconds)
            .must(Budget::AtMost(0.25));
        recorder.measure(row, &server, || self.ranges(&server));

        let server = server.restart(machine::drop_page_cache)?;
        let row = Row::new(name("pull cold"), Unit::MegabytesPerSecond).must(Budget::Times(1.0));
        recorder.measure(row, &server, || self.pull(&server));
        server.stop()
    }

    fn push(&self, client: &mut Client, repo: &str) -> Result<f64> {
        rate(self.blob.len(), || {
            oci::push_blob(
                client,
                repo,
                &self.blob.digest,
                Body::Slices(&[&self.blob.bytes]),
                Upload::Streamed,
            )
        })
    }

    fn pull(&self, server: &Server) -> Result<f64> {
        rate(self.blob.len(), || {
            oci::pull_blob(
                &mut server.client(),
                REPO,
                &self.blob.digest,
                &self.blob.bytes,
            )
        })
    }

    /// The rate counts decoded bytes, though nothing is decoded here: a client that stores what it gets has them all.
    fn pull_zstd(&self, server: &Server) -> Result<f64> {
        let path = format!("/v2/{REPO}/blobs/{}", self.blob.digest);
        let mut client = server.client();
        let mut body = Vec::with_capacity(self.blob.bytes.len() * 11 / 10);
        let mut pull = |sink: Sink<'_>| -> Result<()> {
            let response = client
                .request(
                    "GET",
                    &path,
                    &[("Accept-Encoding", "zstd")],
                    Body::None,
                    sink,
                )?
                .expect(200, "pull as zstd")?;
            let coding = response.header("content-encoding");
            ensure!(
                coding == Some("zstd") || self.data == Data::Incompressible,
                "Content-Encoding {coding:?}"
            );
            Ok(())
        };
        let rate = rate(self.blob.len(), || pull(Sink::Discard))?;
        pull(Sink::Collect(&mut body))?;
        let same = body == self.blob.bytes
            || zstd::decode_all(body.as_slice()).context("decode the pull")? == self.blob.bytes;
        ensure!(same, "the registry returned other bytes than were pushed");
        Ok(rate)
    }

    fn ranges(&self, server: &Server) -> Result<Measured> {
        let path = format!("/v2/{REPO}/blobs/{}", self.blob.digest);
        let mut client = server.client();
        // The same places for every registry.
        let mut rng = Rng::new(2);
        let mut latencies = Vec::with_capacity(self.ranges);
        for _ in 0..self.ranges {
            let from = rng.below(self.blob.len() - RANGE_BYTES as u64) as usize;
            let to = from + RANGE_BYTES;
            let header = format!("bytes={from}-{}", to - 1);
            let begin = std::time::Instant::now();
            client
                .request(
                    "GET",
                    &path,
                    &[("Range", &header)],
                    Body::None,
                    Sink::Sample(&self.blob.bytes[from..to]),
                )?
                .expect(206, "pull range")?;
            latencies.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let value = crate::stats::median(&latencies).context("no ranges")?;
        Ok(Measured { value, latencies })
    }
}
