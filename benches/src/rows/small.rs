//! Many small images, all different: what durability costs when there is little to store.

use std::path::Path;

use anyhow::Result;

use crate::{
    data::{Blob, Rng},
    load, machine,
    oci::{self, ImageDocs, Upload},
    registry::Program,
    row::{Budget, Recorder, Row, Unit},
};

/// Images of one repository.
const PER_REPOSITORY: usize = 100;

struct Image {
    layer: Blob,
    docs: ImageDocs,
}

/// Images of two sizes.
pub(crate) struct Small {
    sets: [(&'static str, Vec<Image>); 2],
}

impl Small {
    /// `images` of 16 KiB, and a tenth as many of 1 MiB.
    pub(crate) fn new(images: usize) -> Small {
        let make = |seed: u64, count: usize, len: usize| {
            let mut rng = Rng::new(seed);
            let image = |number: usize| {
                let mut bytes = vec![0; len];
                rng.fill(&mut bytes);
                let layer = Blob::of(bytes);
                Image {
                    docs: ImageDocs::new(seed << 32 | number as u64, &layer.digest, layer.len()),
                    layer,
                }
            };
            (0..count).map(image).collect()
        };
        Small {
            sets: [
                ("16 KiB", make(3, images, 16 << 10)),
                ("1 MiB", make(4, images / 10, 1 << 20)),
            ],
        }
    }

    /// Measures pushes and pulls of one registry.
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
        for (size, images) in &self.sets {
            let place = |number: usize| {
                (
                    format!("small/{}/{}", images.len(), number / PER_REPOSITORY),
                    format!("t{number}"),
                )
            };
            let name = |what: &str| {
                format!(
                    "{what} {} images of {size}, {} clients",
                    images.len(),
                    load::CLIENTS
                )
            };
            let row = Row::new(name("push"), Unit::RequestsPerSecond).must(Budget::Times(2.0));
            recorder.measure(row, &server, || {
                load::run(server.addr, images.len(), |client, number| {
                    let Image { layer, docs } = &images[number];
                    let (repo, tag) = place(number);
                    oci::push_image(
                        client,
                        &repo,
                        &tag,
                        (&layer.digest, &layer.bytes),
                        docs,
                        Upload::Monolith,
                    )
                })
            });
            machine::settle();
            let row = Row::new(name("pull"), Unit::RequestsPerSecond);
            recorder.measure(row, &server, || {
                load::run(server.addr, images.len(), |client, number| {
                    let Image { layer, docs } = &images[number];
                    let (repo, tag) = place(number);
                    oci::pull_image(client, &repo, &tag, (&layer.digest, &layer.bytes), docs)
                })
            });
        }
        server.stop()
    }
}
