//! What the server's process takes: at rest, and under parallel pushes of new data.

use std::{path::Path, thread, time::Duration};

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::{
    data::{Kind as Data, PIECE_BYTES, digest_text},
    http::Body,
    load,
    oci::{self, Upload},
    registry::Program,
    row::{Budget, Recorder, Row, Unit},
};

/// After the start, before "idle" is read: garbage of the start may be gone by then.
const REST: Duration = Duration::from_secs(2);

/// Digests of one blob for each client. The bytes are made while they are sent: 8 GiB need not fit into memory.
pub(crate) struct Memory {
    pieces: u64,
    digests: Vec<String>,
}

impl Memory {
    pub(crate) fn new(pieces: u64) -> Memory {
        let digests = thread::scope(|scope| {
            let threads: Vec<_> = (0..load::CLIENTS as u64)
                .map(|client| scope.spawn(move || digest(client, pieces)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_default())
                .collect()
        });
        Memory { pieces, digests }
    }

    /// Measures one registry.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn run(
        &self,
        program: &Program,
        home: &Path,
        recorder: &mut Recorder,
    ) -> Result<()> {
        let server = program.start(home)?;
        thread::sleep(REST);
        let row = Row::new("memory idle after start", Unit::Mebibytes).must(Budget::AtMost(40.0));
        recorder.measure(row, &server, || Ok(server.memory()?.resident));
        let size = format!("{} pushes of {} MiB at once", load::CLIENTS, self.pieces);
        let bytes = self.pieces * PIECE_BYTES as u64;
        recorder.measure(
            Row::new(
                format!("{size}, incompressible, all together"),
                Unit::MegabytesPerSecond,
            ),
            &server,
            || {
                let begin = std::time::Instant::now();
                load::run(server.addr, load::CLIENTS, |client, number| {
                    let mut piece = 0;
                    let mut fill = |buffer: &mut Vec<u8>| {
                        buffer.resize(PIECE_BYTES, 0);
                        Data::Incompressible.fill(seed(number as u64), piece, buffer);
                        piece += 1;
                    };
                    let body = Body::Made {
                        len: bytes,
                        fill: &mut fill,
                    };
                    oci::push_blob(
                        client,
                        &format!("memory/{number}"),
                        &self.digests[number],
                        body,
                        Upload::Streamed,
                    )
                })?;
                Ok(bytes as f64 * load::CLIENTS as f64 / begin.elapsed().as_secs_f64() / 1e6)
            },
        );
        let row =
            Row::new(format!("memory peak of {size}"), Unit::Mebibytes).must(Budget::AtMost(256.0));
        recorder.measure(row, &server, || Ok(server.memory()?.peak));
        thread::sleep(REST);
        let row = Row::new(format!("memory at rest after {size}"), Unit::Mebibytes);
        recorder.measure(row, &server, || Ok(server.memory()?.resident));
        server.stop()
    }
}

fn seed(client: u64) -> u64 {
    0x6D65_6D00 + client
}

fn digest(client: u64, pieces: u64) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    for piece in 0..pieces {
        Data::Incompressible.fill(seed(client), piece, &mut buffer);
        hash.update(&buffer);
    }
    digest_text(&hash.finalize())
}
