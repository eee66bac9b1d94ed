//! Imports that are killed.

use std::{
    fs::File,
    io::{self, Read as _, Write},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use dvcr_client::{Client, Credentials, RawManifest, Repository, Transport, Upload};
use dvcr_core::oci::{Algorithm, Descriptor, Digest};
use dvcr_importer::{
    format::DiskImage,
    layout::{Content, write_layer},
    source::{FileSource, ReadAt as _, Reader},
};
use flate2::{Compression, write::GzEncoder};
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use super::{
    Made, Scale,
    world::{World, tell},
};
use crate::{
    importer::text,
    support::process::Process,
    web::{Manners, Site},
};

const SEED: u64 = 11;

/// A small import takes some seconds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The layer that the disk becomes: its digest and length.
fn expected() -> &'static (String, u64) {
    static LAYER: OnceLock<(String, u64)> = OnceLock::new();
    LAYER.get_or_init(|| layer_of(Made::new(SEED, Scale::from_environment().len)))
}

fn layer_of(made: Made) -> (String, u64) {
    let image = DiskImage::open(Arc::new(made)).unwrap();
    let content = Content::disk(&image).unwrap();
    let layer = write_layer(&content, 2, &mut io::sink()).unwrap();
    (layer.digest.to_string(), layer.len)
}

/// Imports from `source`, of which `len` bytes are to be fetched and `fetched` counts them.
fn check(
    what: &str,
    mut world: World,
    source: &str,
    len: u64,
    fetched: impl Fn(&World) -> u64,
    options: &[&str],
) {
    let scale = Scale::from_environment();
    let (digest, layer_len) = expected();
    let (up, down) = (world.proxy.up(), fetched(&world));
    let destination = world.reference("vi/disk:1");
    let arguments = [&["import", source, &destination], options].concat();
    let ordeal = world.run(
        scale,
        len + layer_len,
        |world| world.proxy.up() + fetched(world),
        &arguments,
    );
    assert_eq!(world.layer("vi/disk", "1"), *digest);
    world.assert_clean();
    let sent_twice = (world.proxy.up() - up).saturating_sub(*layer_len);
    let fetched_twice = (fetched(&world) - down).saturating_sub(len);
    tell(
        what,
        &ordeal,
        &[
            ("fetched", fetched_twice, len.max(1)),
            ("sent", sent_twice, *layer_len),
        ],
    );
    assert!(fetched_twice <= scale.twice_max(len), "{fetched_twice}");
    assert!(sent_twice <= scale.twice_max(*layer_len), "{sent_twice}");
}

#[test]
fn a_raw_disk_of_a_web_server() {
    let made = Made::new(SEED, Scale::from_environment().len);
    let len = made.len();
    let site = Site::new(made, Manners::default());
    let world = World::new(1);
    check("raw over HTTP", world, &site.url, len, |_| site.sent(), &[]);
}

#[test]
fn a_compressed_disk_with_a_checksum() {
    let world = World::new(2);
    let made = Made::new(SEED, Scale::from_environment().len);
    let path = world.path("disk.gz");
    let mut gz = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
    io::copy(&mut Reader::new(made), &mut gz).unwrap();
    gz.finish().unwrap();
    let (mut hash, mut part) = (Sha256::new(), vec![0; 1 << 20]);
    let mut received = File::open(&path).unwrap();
    while let len @ 1.. = received.read(&mut part).unwrap() {
        hash.update(&part[..len]);
    }
    let sum = format!("sha256:{}", hex::encode(hash.finalize()));
    let file = FileSource::new(File::open(&path).unwrap()).unwrap();
    let len = file.len();
    let site = Site::new(file, Manners::default());
    let options = ["--checksum", &sum];
    check(
        "gzip over HTTP, checksum",
        world,
        &site.url,
        len,
        |_| site.sent(),
        &options,
    );
}

#[test]
fn a_file() {
    let world = World::new(3);
    let made = Made::new(SEED, Scale::from_environment().len);
    let path = world.path("disk.img");
    io::copy(&mut Reader::new(made), &mut File::create(&path).unwrap()).unwrap();
    check("file", world, text(&path), 0, |_| 0, &[]);
}

/// What the registry has of an upload is of the old disk, whatever its name and length: the new one is sent from its start.
#[test]
fn a_file_that_changed_meanwhile() {
    const LEN: u64 = 96 << 20;
    let world = World::new(8);
    let path = world.path("disk.img");
    let fill = |made| {
        let mut file = File::create(&path).unwrap();
        io::copy(&mut Reader::new(made), &mut file).unwrap();
    };
    fill(Made::new(SEED, LEN));
    let destination = world.reference("vi/disk:1");
    let arguments = ["import", text(&path), &destination];
    let mut importer = Process::start(world.importer(&arguments));
    // Some requests were answered by then, and not all.
    world.proxy.hold_at(32 << 20);
    importer.wait_for(LIMIT, |_| (world.proxy.up() > 32 << 20).then_some(()));
    importer.signal(Signal::KILL);
    assert!(!importer.wait(LIMIT));
    world.proxy.hold_at(u64::MAX);
    let other = Made::new(SEED + 1, LEN);
    fill(other.clone());
    let mut importer = Process::start(world.importer(&arguments));
    assert!(importer.wait(LIMIT), "{}", importer.log());
    assert_eq!(world.layer("vi/disk", "1"), layer_of(other).0);
    world.assert_clean();
}

/// A container disk, of the registry that it goes to: both directions break at once.
#[test]
fn an_image_of_another_layout() {
    let world = World::new(4);
    let made = Made::new(SEED, Scale::from_environment().len);
    let len = push_container_disk(&world, made);
    let source = format!("docker://{}", world.reference("other/disk:1"));
    check(
        "container disk",
        world,
        &source,
        len,
        |world| world.proxy.down(),
        &[],
    );
}

/// Pushes what `docker build` makes of a raw disk; length of its layer.
fn push_container_disk(world: &World, made: Made) -> u64 {
    let runtime = Runtime::new().unwrap();
    let client = Client::at(&world.url(), Credentials::Anonymous, &Transport::default()).unwrap();
    let repository = client.repository(&"other/disk".parse().unwrap());
    let upload = runtime.block_on(repository.upload(Algorithm::Sha256));
    let out = Pushing {
        runtime: &runtime,
        upload: upload.unwrap(),
        hash: Sha256::new(),
    };
    let mut layer = zstd::Encoder::new(io::BufWriter::with_capacity(8 << 20, out), 1).unwrap();
    let len = made.len();
    layer.write_all(&header("disk/disk.img", len)).unwrap();
    io::copy(&mut Reader::new(made), &mut layer).unwrap();
    // The disk ends with a sector; two more end the archive.
    layer.write_all(&[0; 1024]).unwrap();
    let pushing = layer
        .finish()
        .unwrap()
        .into_inner()
        .map_err(|_| ())
        .unwrap();
    let Pushing {
        mut upload, hash, ..
    } = pushing;
    let digest = Digest::new(Algorithm::Sha256, &hash.finalize()).unwrap();
    let len = upload.offset();
    runtime.block_on(upload.finish(&digest)).unwrap();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}});
    let config = Bytes::from(config.to_string());
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": Digest::sha256(&config), "size": config.len(),
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor,
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "digest": digest, "size": len,
        }],
    });
    runtime.block_on(put(&repository, &descriptor, &config, &manifest));
    len
}

async fn put(
    repository: &Repository,
    config: &serde_json::Value,
    bytes: &Bytes,
    manifest: &serde_json::Value,
) {
    let config: Descriptor = serde_json::from_value(config.clone()).unwrap();
    repository.push_blob(&config, bytes, None).await.unwrap();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = manifest.to_string().into_bytes();
    let raw = RawManifest::new(Algorithm::Sha256, media_type, manifest);
    let tags = ["1".parse().unwrap()];
    repository.push_manifest(&raw, &tags).await.unwrap();
}

/// What is written goes into an upload.
struct Pushing<'a> {
    runtime: &'a Runtime,
    upload: Upload,
    hash: Sha256,
}

impl Write for Pushing<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.hash.update(buf);
        let sent = self.upload.append(Bytes::copy_from_slice(buf));
        self.runtime.block_on(sent).map_err(io::Error::other)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A header of tar (ustar) of a file that may be large.
fn header(name: &str, len: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{len:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
