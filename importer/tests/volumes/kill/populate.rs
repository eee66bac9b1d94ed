//! Populates that are killed.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use dvcr_importer::source::{FileSource, ReadAt, Reader};

use super::{
    Made, Scale,
    world::{World, names, tell},
};
use crate::{
    importer::text,
    support::process::run,
    volume::LoopDevice,
    web::{Manners, Site},
};

const SEED: u64 = 12;

/// Populates from `source`, of which `len` bytes are to be fetched and `fetched` counts them.
fn check(
    what: &str,
    world: &mut World,
    source: &str,
    (len, fetched): (u64, &dyn Fn(&World) -> u64),
    target: &Path,
    options: &[&str],
) {
    let scale = Scale::from_environment();
    let before = fetched(world);
    let arguments = [&["populate", source, text(target)], options].concat();
    let ordeal = world.run(scale, len, fetched, &arguments);
    same(target, &Made::new(SEED, scale.len));
    world.assert_clean();
    let twice = (fetched(world) - before).saturating_sub(len);
    tell(what, &ordeal, &[("fetched", twice, len)]);
    assert!(twice <= scale.twice_max(len), "{twice}");
}

/// Panics unless a target has a disk's bytes.
fn same(target: &Path, made: &Made) {
    let found = FileSource::new(File::open(target).unwrap()).unwrap();
    assert_eq!(found.len(), made.len());
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..made.len()).step_by(one.len()) {
        found.read_at(at, &mut one).unwrap();
        made.read_at(at, &mut other).unwrap();
        assert!(one == other, "bytes from {at} on differ");
    }
}

/// The disk as an image in the registry; what a populate fetches of it.
fn imported(world: &World, made: Made) -> u64 {
    let site = Site::new(made, Manners::default());
    let destination = world.reference("vi/disk:1");
    let import = world.importer(&["import", &site.url, &destination]);
    let finished = run(import, std::time::Duration::from_secs(600));
    assert!(finished.success, "{}", finished.log);
    world.layer_len("vi/disk", "1")
}

#[test]
fn a_registry_onto_a_file() {
    let mut world = World::new(5);
    let len = imported(&world, Made::new(SEED, Scale::from_environment().len));
    let volume = world.path("volume");
    fs::create_dir(&volume).unwrap();
    let target = volume.join("disk.img");
    let source = world.reference("vi/disk:1");
    let fetched = |world: &World| world.proxy.down();
    check(
        "registry to disk.img",
        &mut world,
        &source,
        (len, &fetched),
        &target,
        &[],
    );
    assert_eq!(
        names(&volume),
        [text(&target)],
        "nothing else is left there"
    );
}

#[test]
fn a_registry_onto_a_device() {
    let mut world = World::new(6);
    let made = Made::new(SEED, Scale::from_environment().len);
    let len = imported(&world, made.clone());
    let file = world.path("device");
    // Old bytes, which must not show again.
    let device = File::create(&file).unwrap();
    device.set_len(made.len()).unwrap();
    for at in (0..made.len()).step_by(64 << 20) {
        device.write_all_at(&[0xAA; 1 << 20], at).unwrap();
    }
    drop(device);
    let device = LoopDevice::on(file);
    let (source, state) = (world.reference("vi/disk:1"), world.path("state"));
    let fetched = |world: &World| world.proxy.down();
    let options = ["--state", text(&state)];
    check(
        "registry to a device",
        &mut world,
        &source,
        (len, &fetched),
        device.path(),
        &options,
    );
    assert!(!state.exists());
}

#[test]
fn a_compressed_disk_of_a_web_server() {
    let mut world = World::new(7);
    let made = Made::new(SEED, Scale::from_environment().len);
    let path = world.path("disk.zst");
    let mut encoder = zstd::Encoder::new(File::create(&path).unwrap(), 1).unwrap();
    std::io::copy(&mut Reader::new(made), &mut encoder).unwrap();
    encoder.finish().unwrap();
    let file = FileSource::new(File::open(&path).unwrap()).unwrap();
    let len = file.len();
    let site = Site::new(file, Manners::default());
    let target = world.path("disk.img");
    let fetched = |_: &World| site.sent();
    check(
        "zstd over HTTP to disk.img",
        &mut world,
        &site.url,
        (len, &fetched),
        &target,
        &[],
    );
}
