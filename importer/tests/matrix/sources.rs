//! Where a file lies, and how `dvcr-importer` is told.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::{
    blackbox::layer::tar,
    cells::Cell,
    place::Place,
    registries::{Login, push},
    site::{Manners, Ranges, Site},
    stores::{AZURE_ACCOUNT, AZURE_KEY, Kind},
    support::{
        repository::{gzip, zstd},
        text,
        volume::LoopDevice,
    },
};

use clap::ValueEnum;
/// Where a file lies.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub(crate) enum Source {
    File,
    /// Standard input.
    Pipe,
    Device,
    /// A web server that does what it should.
    Http,
    /// One whose connections all break.
    HttpBreaks,
    /// One that sends other parts than it is asked for.
    HttpLies,
    /// One that knows neither ranges nor the length.
    HttpChunked,
    /// With keys.
    S3,
    /// Without.
    Google,
    /// With keys.
    Azure,
    /// As docker builds and pushes it; a registry with a login.
    ContainerGzip,
    /// A registry with a token service, like the next two.
    ContainerZstd,
    ContainerPlain,
    /// Several layers, of which later ones hide what earlier ones have.
    ContainerLayers,
    /// The file as a layer, as oras pushes it; a registry with a login.
    Artifact,
    /// Our layout with the file as it is in it; the registry is ours, with TLS.
    Dvcr,
}

use Source::*;

/// A file that can be had as long as this value is there.
#[derive(Default)]
pub(crate) struct Served {
    /// As it is typed.
    pub(crate) source: String,
    /// What goes to standard input.
    pub(crate) input: Option<PathBuf>,
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) options: Vec<String>,
    site: Option<Site>,
    _device: Option<LoopDevice>,
}

impl Served {
    fn at(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            ..Self::default()
        }
    }

    fn site(bytes: Vec<u8>, manners: Manners) -> Self {
        let site = Site::new(bytes, manners);
        Self {
            source: site.url.clone(),
            site: Some(site),
            ..Self::default()
        }
    }

    /// How many requests its web server got.
    pub(crate) fn requests(&self) -> usize {
        self.site.as_ref().map_or(0, |site| site.heads().len())
    }
}

/// Puts a cell's file where it belongs.
pub(crate) fn serve(place: &Place, cell: Cell) -> Served {
    let path = place.file(cell.format, cell.wrapping);
    let bytes = || fs::read(&path).unwrap();
    match cell.source {
        File => Served::at(text(&path)),
        Pipe => Served {
            input: Some(path),
            ..Served::at("-")
        },
        Device => {
            // Devices have whole sectors; what has its own end does not fill the last one.
            let mut bytes = bytes();
            let len = bytes.len() + usize::from(cell.wrapping.is_compressed());
            bytes.resize(len.next_multiple_of(512), 0);
            let copy = place.new_path("device");
            fs::write(&copy, bytes).unwrap();
            let device = LoopDevice::on(copy);
            Served {
                source: text(device.path()).to_owned(),
                _device: Some(device),
                ..Served::default()
            }
        }
        Http => Served::site(bytes(), Manners::default()),
        HttpBreaks => {
            let bytes = bytes();
            let manners = Manners {
                // No answer has more of the file.
                break_after: Some(bytes.len() as u64 * 2 / 5),
                ..Manners::default()
            };
            Served::site(bytes, manners)
        }
        HttpLies => {
            let manners = Manners {
                ranges: Ranges::Shifted,
                ..Manners::default()
            };
            Served {
                options: vec!["--no-ranges".to_owned()],
                ..Served::site(bytes(), manners)
            }
        }
        HttpChunked => {
            let manners = Manners {
                ranges: Ranges::Ignored,
                length: false,
                ..Manners::default()
            };
            Served::site(bytes(), manners)
        }
        S3 => object(
            place,
            cell,
            Kind::S3,
            &[
                ("AWS_ACCESS_KEY_ID", "key"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
            ],
        ),
        Google => object(place, cell, Kind::Google, &[]),
        Azure => object(
            place,
            cell,
            Kind::Azure,
            &[
                ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY),
            ],
        ),
        ContainerGzip | Artifact => image(place, cell, Login::Basic),
        ContainerZstd | ContainerPlain | ContainerLayers => image(place, cell, Login::Token),
        Dvcr => {
            let source = place.put(cell, || {
                let to = place
                    .dvcr()
                    .reference(&format!("verbatim/{}", place.name(cell)));
                let ca = place.dvcr().ca();
                place.ok(&["import", text(&path), &to, "--verbatim", "--ca", ca]);
                format!("docker://{to}")
            });
            Served {
                options: vec!["--source-ca".to_owned(), place.dvcr().ca().to_owned()],
                ..Served::at(source)
            }
        }
    }
}

fn object(place: &Place, cell: Cell, kind: Kind, keys: &[(&'static str, &str)]) -> Served {
    let store = place.store(kind);
    let bucket = if keys.is_empty() { "public" } else { "private" };
    let source = place.put(cell, || {
        let bytes = fs::read(place.file(cell.format, cell.wrapping)).unwrap();
        store.put(bucket, &format!("a%20b/{}", place.name(cell)), &bytes)
    });
    let keys = keys
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let endpoint = ("DVCR_S3_ENDPOINT", store.endpoint.clone());
    Served {
        variables: keys.chain([endpoint]).collect(),
        ..Served::at(source)
    }
}

fn image(place: &Place, cell: Cell, login: Login) -> Served {
    let peer = place.peer(login);
    let source = place.put(cell, || {
        let bytes = fs::read(place.file(cell.format, cell.wrapping)).unwrap();
        let disk = ("disk/disk.img", &*bytes);
        const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        const OCI: &str = "application/vnd.oci.image.layer.v1.tar";
        const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
        let layers = match cell.source {
            ContainerGzip => vec![(DOCKER, gzip(&tar(&[disk])))],
            ContainerZstd => vec![(OCI_ZSTD, zstd(&tar(&[disk])))],
            ContainerPlain => vec![(OCI, tar(&[disk]))],
            ContainerLayers => {
                let old = tar(&[("disk/old.img", &[7; 100_000]), ("etc/hosts", b"x")]);
                let new = tar(&[("disk/.wh.old.img", b""), disk]);
                let last = tar(&[("etc/.wh.hosts", b""), ("etc/motd", b"x")]);
                [old, new, last].map(|layer| (DOCKER, gzip(&layer))).into()
            }
            _ => vec![("application/octet-stream", bytes.clone())],
        };
        let config = match cell.source {
            ContainerGzip | ContainerLayers => "application/vnd.docker.container.image.v1+json",
            Artifact => "application/vnd.oci.empty.v1+json",
            _ => "application/vnd.oci.image.config.v1+json",
        };
        let labels = match cell.source {
            Artifact => json!({}),
            _ => json!({"os": "linux", "architecture": "amd64", "config": {}}),
        };
        let name = format!("vi/{}", place.name(cell));
        push(&place.runtime, peer, &name, (config, &labels), layers);
        format!("docker://{}/{name}:1", peer.address())
    });
    Served {
        // What `docker login` has noted.
        variables: vec![("DOCKER_CONFIG", text(peer.dir()).to_owned())],
        ..Served::at(source)
    }
}
