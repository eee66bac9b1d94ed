//! The rows of `zb`, the benchmark of the zot registry (`cmd/zb` there), under its names and with its data.
//!
//! A "request" is a whole image: blob, config and manifest pushed, or HEAD and GET of manifest, config and layer. Every
//! push goes to a repository of its own with a config of its own, but a size has one blob, 4 KiB of random bytes and then
//! zeros, which is pushed again and again: these rows measure requests, not storage.
//!
//! Not as in zb: digests and configs are made before the clock starts; choices between sizes and between push and pull come
//! from a seed; "Get Catalog" does not count the pushes that fill the catalog; its on-demand sync rows are for mirrors.

use std::path::Path;

use anyhow::Result;

use crate::{
    data::{Blob, Rng, zb_blob},
    load,
    oci::{self, ImageDocs, Upload},
    registry::{Program, Server},
    row::{Recorder, Row, Unit},
};

const SIZES: [usize; 3] = [1 << 20, 10 << 20, 100 << 20];

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Action {
    Catalog,
    Push(Upload),
    Pull,
    /// 75 % pulls, 25 % pushes.
    Mixed,
}

/// One row: what is done, how often each of [`SIZES`] in percent, and how many requests a full run makes.
type Spec = (&'static str, Action, [u64; 3], usize);

const SPECS: [Spec; 16] = {
    use Action::{Catalog, Mixed, Pull, Push};
    use Upload::{Monolith, Streamed};
    const SMALL: [u64; 3] = [100, 0, 0];
    const MEDIUM: [u64; 3] = [0, 100, 0];
    const LARGE: [u64; 3] = [0, 0, 100];
    const MOSTLY_MEDIUM: [u64; 3] = [20, 70, 10];
    [
        ("Get Catalog", Catalog, SMALL, 400),
        ("Push Monolith 1MB", Push(Monolith), SMALL, 400),
        ("Push Monolith 10MB", Push(Monolith), MEDIUM, 80),
        ("Push Monolith 100MB", Push(Monolith), LARGE, 16),
        ("Push Chunk Streamed 1MB", Push(Streamed), SMALL, 400),
        ("Push Chunk Streamed 10MB", Push(Streamed), MEDIUM, 80),
        ("Push Chunk Streamed 100MB", Push(Streamed), LARGE, 16),
        ("Pull 1MB", Pull, SMALL, 800),
        ("Pull 10MB", Pull, MEDIUM, 160),
        ("Pull 100MB", Pull, LARGE, 32),
        (
            "Pull Mixed 20% 1MB, 70% 10MB, 10% 100MB",
            Pull,
            MOSTLY_MEDIUM,
            80,
        ),
        (
            "Push Monolith Mixed 20% 1MB, 70% 10MB, 10% 100MB",
            Push(Monolith),
            MOSTLY_MEDIUM,
            40,
        ),
        (
            "Push Chunk Mixed 33% 1MB, 33% 10MB, 33% 100MB",
            Push(Streamed),
            [34, 33, 33],
            24,
        ),
        ("Pull 75% and Push 25% Mixed 1MB", Mixed, SMALL, 400),
        ("Pull 75% and Push 25% Mixed 10MB", Mixed, MEDIUM, 80),
        ("Pull 75% and Push 25% Mixed 100MB", Mixed, LARGE, 16),
    ]
};

/// Blobs and documents of all rows.
pub(crate) struct Zb {
    blobs: Vec<Blob>,
    /// Requests are divided by it.
    divisor: usize,
}

/// A request, decided beforehand.
struct Request {
    repo: String,
    /// Index into the sizes.
    size: usize,
    docs: ImageDocs,
    pull: bool,
}

impl Zb {
    pub(crate) fn new(divisor: usize) -> Zb {
        Zb {
            blobs: SIZES.iter().map(|&len| zb_blob(len as u64, len)).collect(),
            divisor,
        }
    }

    /// Measures all rows of one registry.
    ///
    /// # Errors
    /// It does not start, or does not take the images that are to be pulled.
    pub(crate) fn run(
        &self,
        program: &Program,
        home: &Path,
        recorder: &mut Recorder,
    ) -> Result<()> {
        let server = program.start(home)?;
        let docs: Vec<_> = self
            .blobs
            .iter()
            .map(|blob| ImageDocs::new(blob.len(), &blob.digest, blob.len()))
            .collect();
        for (blob, docs) in self.blobs.iter().zip(&docs) {
            oci::push_image(
                &mut server.client(),
                &pull_repo(blob),
                "tag",
                (&blob.digest, &blob.bytes),
                docs,
                Upload::Monolith,
            )?;
        }
        for (number, spec) in SPECS.iter().enumerate() {
            let requests = self.plan(number, spec);
            crate::machine::settle();
            let row = Row::new(spec.0, Unit::RequestsPerSecond);
            if spec.1 == Action::Catalog {
                // What zb lists: one repository a request.
                if let Err(error) =
                    self.go(&server, Action::Push(Upload::Monolith), &requests, &docs)
                {
                    recorder.measure::<f64>(row, &server, || Err(error));
                    continue;
                }
                recorder.measure(row, &server, || {
                    load::run(server.addr, requests.len(), |client, _| {
                        client
                            .simple("GET", "/v2/_catalog", &[])?
                            .expect(200, "catalog")?;
                        Ok(())
                    })
                });
                continue;
            }
            recorder.measure(row, &server, || self.go(&server, spec.1, &requests, &docs));
        }
        server.stop()
    }

    fn plan(&self, number: usize, &(_, action, shares, requests): &Spec) -> Vec<Request> {
        let mut rng = Rng::new(number as u64);
        let requests = (requests / self.divisor).max(load::CLIENTS);
        (0..requests)
            .map(|request| {
                let roll = rng.below(100);
                let size = if roll < shares[0] {
                    0
                } else {
                    2 - usize::from(roll < shares[0] + shares[1])
                };
                let pull =
                    action == Action::Pull || (action == Action::Mixed && rng.below(100) < 75);
                let blob = &self.blobs[size];
                let docs = ImageDocs::new(
                    (number * 100_000 + request) as u64,
                    &blob.digest,
                    blob.len(),
                );
                Request {
                    repo: format!("zb/{number}/{request}"),
                    size,
                    docs,
                    pull,
                }
            })
            .collect()
    }

    fn go(
        &self,
        server: &Server,
        action: Action,
        requests: &[Request],
        pulled: &[ImageDocs],
    ) -> Result<crate::row::Measured> {
        let upload = if let Action::Push(upload) = action {
            upload
        } else {
            Upload::Monolith
        };
        load::run(server.addr, requests.len(), |client, number| {
            let Request {
                repo,
                size,
                docs,
                pull,
            } = &requests[number];
            let blob = &self.blobs[*size];
            let layer = (blob.digest.as_str(), blob.bytes.as_slice());
            if *pull {
                oci::pull_image(client, &pull_repo(blob), "tag", layer, &pulled[*size])
            } else {
                oci::push_image(client, repo, "tag", layer, docs, upload)
            }
        })
    }
}

fn pull_repo(blob: &Blob) -> String {
    format!("zb/pull/{}", blob.len())
}
