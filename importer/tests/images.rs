//! Images of every kind, opened as disks: what other tools build and push, and what is wrong with some.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::BTreeMap,
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dvcr_core::oci::{Descriptor, Reference};
use dvcr_importer::{
    format::Format,
    image::{Disk, Document, Image, ImageError, Kind, LayoutDir, Source},
    layout::{Content, write_layer},
    populate::{Options, Progress, populate, populate_stream},
    source::ReadAt,
    target::{Place, RawOptions, RawTarget},
};
use serde_json::{Value, json};
use support::{
    Bench, Pattern, Random, open,
    repository::{IMAGE_CONFIG, Repository, TAR, gzip, spool, zstd},
    tar::{Member, tar},
    volume::same_disk,
};

use Member::{Directory, File, HardLink, Special, Symlink};

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";

static GO_ON: AtomicBool = AtomicBool::new(false);

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(|error| error.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}

/// Writes what an image has to a file; the file's bytes.
fn contents(bench: &Bench, source: Source) -> Result<Vec<u8>, String> {
    let path = bench.path("out.img");
    let (progress, options) = (Progress::default(), Options::new(&GO_ON));
    let target = |len| RawTarget::open(&Place::of(&path).unwrap(), len, RawOptions::default());
    match source.disk {
        Disk::Image(image) => {
            let target = target(Some(image.virtual_len())).unwrap();
            populate(&image, &target, options, &progress).map_err(|error| chain(&error))?;
        }
        Disk::Stream(stream) => {
            let target = target(stream.virtual_len()).unwrap();
            populate_stream(stream, &target, options, &progress).map_err(|error| chain(&error))?;
        }
    }
    Ok(fs::read(path).unwrap())
}

fn open_image(bench: &Bench, image: &Image, file: Option<&str>) -> Result<Source, ImageError> {
    image.open(file, spool(bench.dir.path()), true)
}

/// Which file an image's disk is in, and its content.
fn disk(bench: &Bench, repository: &Repository, tag: &str) -> Result<(String, Vec<u8>), String> {
    let image = repository
        .resolve(tag, None)
        .map_err(|error| chain(&error))?;
    let source = open_image(bench, &image, None).map_err(|error| chain(&error))?;
    let name = source.file.clone();
    Ok((name, contents(bench, source)?))
}

#[test]
fn one_layer_in_every_compression() {
    let bench = Bench::new(Pattern::Mixed, (3 << 20) + 512);
    let raw = fs::read(&bench.raw).unwrap();
    let qcow2 = fs::read(bench.image("qcow2", &["-c"])).unwrap();
    let repository = Repository::new();
    type Compress = fn(&[u8]) -> Vec<u8>;
    let compressions: [Compress; 3] = [<[u8]>::to_vec, gzip, zstd];
    for (content, streamed) in [(&raw, true), (&qcow2, false), (&gzip(&raw), true)] {
        for compress in compressions {
            for (name, shown) in [
                ("disk/disk.img", "disk/disk.img"),
                ("./disk/x", "disk/x"),
                ("/disk/x", "disk/x"),
                ("disk", "disk"),
                ("disk.img", "disk.img"),
            ] {
                let archive = tar(&[
                    Directory("disk/"),
                    File("etc/hosts", b"x"),
                    File(name, content),
                ]);
                // The media type lies: bytes count.
                let layer = repository.blob(TAR, &compress(&archive));
                for config in [IMAGE_CONFIG, DOCKER_CONFIG] {
                    repository.image("v1", config, std::slice::from_ref(&layer));
                    let image = repository.resolve("v1", None).unwrap();
                    assert_eq!(image.kind(), Kind::ContainerDisk);
                    assert_eq!(image.labels().unwrap()["made"], "by hand");
                    let source = open_image(&bench, &image, None).unwrap();
                    assert_eq!(source.file, shown);
                    assert_eq!(matches!(source.disk, Disk::Stream(_)), streamed);
                    assert_eq!(source.spooled.is_some(), !streamed);
                    assert!(contents(&bench, source).unwrap() == raw, "{name}");
                }
            }
        }
    }
}

#[test]
fn the_last_layer_that_has_the_disk_counts() {
    let bench = Bench::new(Pattern::Empty, 512);
    let repository = Repository::new();
    let (one, two) = (&[1; 1024][..], &[2; 512][..]);
    // Layers from the first to the last; which disk is found.
    let check = |layers: &[&[Member<'_>]], expected: Result<&[u8], &str>| {
        let layers: Vec<_> = layers
            .iter()
            .map(|members| repository.blob(TAR, &gzip(&tar(members))))
            .collect();
        repository.image("v1", IMAGE_CONFIG, &layers);
        match (disk(&bench, &repository, "v1"), expected) {
            (Ok((_, found)), Ok(expected)) => assert!(found == expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    };
    let (first, second) = (File("disk/a", one), File("disk/b", two));
    check(&[&[File("disk/a", one)], &[File("disk/a", two)]], Ok(two));
    check(&[&[File("disk/a", one)], &[File("etc/x", two)]], Ok(one));
    check(&[&[File("disk/a", one)], &[], &[]], Ok(one));
    check(
        &[&[first, File("disk/b", two)], &[File("disk/.wh.a", b"")]],
        Ok(two),
    );
    check(
        &[&[File("disk/a", one)], &[File("disk/.wh.a", b"")]],
        Err("no disk"),
    );
    check(
        &[&[File("disk/a", one)], &[File(".wh.disk", b"")]],
        Err("no disk"),
    );
    check(
        &[&[File("disk/a", one)], &[File("disk/.wh..wh..opq", b"")]],
        Err("no disk"),
    );
    check(
        &[
            &[File("disk/a", one)],
            &[File("disk/.wh..wh..opq", b""), second],
        ],
        Ok(two),
    );
    check(
        &[&[File("disk/a", one)], &[File(".wh..wh..opq", b"")]],
        Err("no disk"),
    );
    check(
        &[&[File("disk/a", one)], &[Symlink("disk", "/etc")]],
        Err("no disk"),
    );
    check(&[&[File("disk/a", one)], &[Directory("disk/")]], Ok(one));
    check(
        &[&[File("disk/a", one), File("disk/b", two)]],
        Err("several disks; choose one with --file: disk/a, disk/b"),
    );
    check(&[&[File("disk/a", b""), File("disk/b", two)]], Ok(two));
    check(&[&[File("data/a", one)]], Err("--file"));
    check(
        &[&[File("data/a", one), HardLink("disk/a", "data/a")]],
        Err("hard link"),
    );
    check(&[&[Special("disk/a", b'4')]], Err("is a device"));
    check(
        &[&[File("disk/../../etc/shadow", one)]],
        Err("outside of itself"),
    );
    check(&[], Err("no disk"));

    // Whatever file is asked for by name.
    let layers = [
        repository.blob(TAR, &tar(&[File("data/one", one), File("disk/a", two)])),
        repository.blob(TAR, &tar(&[File("other", two)])),
    ];
    repository.image("v1", IMAGE_CONFIG, &layers);
    let image = repository.resolve("v1", None).unwrap();
    let source = open_image(&bench, &image, Some("/data/one")).unwrap();
    assert!(contents(&bench, source).unwrap() == one);
    let error = open_image(&bench, &image, Some("data/two")).unwrap_err();
    assert!(error.to_string().contains("no file data/two"), "{error}");
}

#[test]
fn an_index_has_an_image_for_each_platform() {
    let bench = Bench::new(Pattern::Empty, 512);
    let repository = Repository::new();
    let mut entries = vec![];
    for (number, architecture) in [(1, "amd64"), (2, "arm64"), (3, "s390x")] {
        let layer = repository.blob(TAR, &tar(&[File("disk/a", &[number; 512])]));
        let mut entry = repository.image(architecture, IMAGE_CONFIG, &[layer]);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.push(entry);
    }
    let lists = [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    for media_type in lists {
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        repository.document(
            media_type.split('.').next_back().unwrap(),
            media_type,
            &index,
        );
        let tag = media_type.split('.').next_back().unwrap().replace('+', "-");
        repository.document(&tag, media_type, &index);
        for (number, platform) in [(1, "linux/amd64"), (2, "linux/arm64"), (3, "linux/s390x")] {
            let image = repository
                .resolve(&tag, Some(&platform.parse().unwrap()))
                .unwrap();
            let source = open_image(&bench, &image, None).unwrap();
            assert!(contents(&bench, source).unwrap() == [number; 512]);
        }
        let error = repository
            .resolve(&tag, Some(&"linux/mips".parse().unwrap()))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("linux/amd64, linux/arm64, linux/s390x"),
            "{error}"
        );
    }
    assert!(repository.resolve("absent", None).is_err());
}

#[test]
fn artifacts_are_disks() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    let qcow2 = fs::read(bench.image("qcow2", &[])).unwrap();
    let repository = Repository::new();
    let annotated = |media_type: &str, bytes: &[u8], annotations: Value| {
        let mut layer = repository.blob(media_type, bytes);
        layer["annotations"] = annotations;
        layer
    };
    let title = |name: &str| json!({"org.opencontainers.image.title": name});
    // As oras pushes them: raw is read as it comes, with its length known.
    for (bytes, streamed) in [(&raw, true), (&qcow2, false)] {
        repository.image(
            "v1",
            EMPTY_CONFIG,
            &[annotated(TAR, bytes, title("disk.img"))],
        );
        let image = repository.resolve("v1", None).unwrap();
        assert_eq!(image.kind(), Kind::Artifact);
        let source = open_image(&bench, &image, None).unwrap();
        assert_eq!(source.file, "disk.img");
        match &source.disk {
            Disk::Stream(stream) => assert!(streamed && stream.virtual_len() == Some(2 << 20)),
            Disk::Image(_) => assert!(!streamed),
        }
        assert!(contents(&bench, source).unwrap() == raw);
    }
    // As KubeVirt exports them.
    let disk_type = "application/vnd.kubevirt.disk.raw+zstd";
    let exported = |name: &str, len: u64| {
        let annotations =
            json!({"io.kubevirt.disk.name": name, "io.kubevirt.disk.size": len.to_string()});
        annotated(disk_type, &zstd(&raw), annotations)
    };
    let layers = [
        annotated("text/plain", b"read me", title("README")),
        exported("root", 2 << 20),
    ];
    repository.image("v1", EMPTY_CONFIG, &layers);
    let image = repository.resolve("v1", None).unwrap();
    let source = open_image(&bench, &image, None).unwrap();
    let Disk::Stream(stream) = &source.disk else {
        panic!("{source:?}");
    };
    assert_eq!(stream.virtual_len(), Some(2 << 20));
    assert!(contents(&bench, source).unwrap() == raw);
    // Lies about lengths, and several disks.
    for len in [1 << 20, 3 << 20] {
        repository.image("v1", EMPTY_CONFIG, &[exported("root", len)]);
        let error = disk(&bench, &repository, "v1").unwrap_err();
        assert!(
            error.contains("than the image says") || error.contains("does not fit"),
            "{error}"
        );
    }
    repository.image(
        "v1",
        EMPTY_CONFIG,
        &[exported("root", 2 << 20), exported("data", 2 << 20)],
    );
    let image = repository.resolve("v1", None).unwrap();
    let error = open_image(&bench, &image, None).unwrap_err();
    assert!(error.to_string().contains("--file: root, data"), "{error}");
    let source = open_image(&bench, &image, Some("data")).unwrap();
    assert!(contents(&bench, source).unwrap() == raw);
}

/// A repository that counts what is read of it.
struct Counting {
    inner: LayoutDir,
    read: Arc<AtomicU64>,
}

struct Counted(Arc<dyn ReadAt>, Arc<AtomicU64>);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, buf)
    }
}

impl dvcr_importer::image::Repository for Counting {
    fn manifest(&self, reference: &Reference) -> io::Result<Document> {
        self.inner.manifest(reference)
    }

    fn blob(&self, blob: &Descriptor) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(Counted(self.inner.blob(blob)?, self.read.clone())))
    }
}

/// Our layer of a disk, stored, with its annotations.
fn indexed(bench: &Bench, repository: &Repository) -> Value {
    layer_of(
        repository,
        &Content::disk(&open(&bench.raw).unwrap()).unwrap(),
    )
}

fn layer_of(repository: &Repository, content: &Content) -> Value {
    let mut bytes = vec![];
    let layer = write_layer(content, 2, &mut bytes).unwrap();
    let mut descriptor = repository.blob("application/vnd.oci.image.layer.v1.tar+zstd", &bytes);
    descriptor["annotations"] = json!(layer.annotations().into_iter().collect::<BTreeMap<_, _>>());
    descriptor
}

#[test]
fn an_indexed_image_is_read_where_it_lies() {
    let bench = Bench::new(Pattern::Islands, 600 << 20);
    let repository = Repository::new();
    repository.image("v1", IMAGE_CONFIG, &[indexed(&bench, &repository)]);
    let read = Arc::new(AtomicU64::new(0));
    let counting = Counting {
        inner: LayoutDir::new(repository.dir.path()),
        read: read.clone(),
    };
    let image = Image::resolve(Arc::new(counting), &"v1".parse().unwrap(), None).unwrap();
    assert_eq!(image.kind(), Kind::Indexed);
    let len = image.manifest().layers[0].size;
    let archive = image.archive().unwrap().unwrap();
    let index = archive.index().unwrap();
    let index_len = len - index.frames().last().unwrap().stored.end;
    assert!(read.load(Ordering::Relaxed) < index_len + 100);

    read.store(0, Ordering::Relaxed);
    let source = open_image(&bench, &image, None).unwrap();
    assert_eq!(
        (source.file.as_str(), source.spooled),
        ("disk/disk.qcow2", None)
    );
    assert!(contents(&bench, source).unwrap() == fs::read(&bench.raw).unwrap());
    let read = read.load(Ordering::Relaxed);
    assert!(read < len + len / 10, "{read} bytes of {len}");
    same_disk("raw", &bench.path("out.img"), &bench.raw);
}

/// Another tool compressed the layer anew and kept its annotations: it is read like any other.
#[test]
fn an_index_that_does_not_fit_is_not_used() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    let repository = Repository::new();
    let layer = indexed(&bench, &repository);
    let bytes = fs::read(repository.blob_path(layer["digest"].as_str().unwrap())).unwrap();
    let archive = zstd::decode_all(io::Cursor::new(&bytes)).unwrap();
    for other in [
        gzip(&archive),
        archive,
        [&bytes[..], b"\x50\x2A\x4D\x18\0\0\0\0"].concat(),
    ] {
        let mut descriptor = repository.blob(TAR, &other);
        descriptor["annotations"] = layer["annotations"].clone();
        repository.image("v1", IMAGE_CONFIG, &[descriptor]);
        let image = repository.resolve("v1", None).unwrap();
        let source = open_image(&bench, &image, None).unwrap();
        assert!(source.spooled.is_some());
        assert!(contents(&bench, source).unwrap() == raw);
    }
    // Without annotations nobody vouches for the index.
    let mut plain = layer;
    plain.as_object_mut().unwrap().remove("annotations");
    repository.image("v1", IMAGE_CONFIG, &[plain]);
    let image = repository.resolve("v1", None).unwrap();
    assert_eq!(image.kind(), Kind::ContainerDisk);
    assert!(contents(&bench, open_image(&bench, &image, None).unwrap()).unwrap() == raw);
}

/// `import --verbatim` of `disk.img.gz` once became a volume with the compressed bytes on it.
#[test]
fn a_file_that_was_kept_in_its_wrapping_is_unwrapped() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    let qcow2 = fs::read(bench.image("qcow2", &["-c"])).unwrap();
    let repository = Repository::new();
    for file in [
        gzip(&raw),
        zstd(&qcow2),
        tar(&[File("disk.qcow2", &qcow2)]),
        qcow2,
    ] {
        let content = Content::Verbatim(Arc::new(file));
        repository.image("v1", IMAGE_CONFIG, &[layer_of(&repository, &content)]);
        let image = repository.resolve("v1", None).unwrap();
        assert_eq!(image.kind(), Kind::Indexed);
        assert!(contents(&bench, open_image(&bench, &image, None).unwrap()).unwrap() == raw);
    }
}

/// A fixed VHD shows at its very end.
#[test]
fn the_footer_of_a_vhd_in_an_image_is_left_out() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let vhd = fs::read(bench.image("vpc", &["-o", "subformat=fixed,force_size=on"])).unwrap();
    let repository = Repository::new();
    let layer = repository.blob(TAR, &gzip(&tar(&[File("disk/disk.vhd", &vhd)])));
    repository.image("v1", IMAGE_CONFIG, &[layer]);
    let image = repository.resolve("v1", None).unwrap();
    let source = open_image(&bench, &image, None).unwrap();
    let Disk::Stream(mut stream) = source.disk else {
        panic!("{source:?}");
    };
    assert_eq!(stream.virtual_len(), None);
    let mut found = vec![];
    io::Read::read_to_end(&mut stream, &mut found).unwrap();
    assert_eq!(stream.format(), Format::Vhd);
    stream.finish().unwrap();
    assert!(found == fs::read(&bench.raw).unwrap());
}

/// A byte that changed in the store is noticed before anything is declared whole.
#[test]
fn damaged_layers_are_never_whole() {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    let qcow2 = fs::read(bench.image("qcow2", &[])).unwrap();
    let repository = Repository::new();
    let archive = tar(&[File("disk/disk.img", &raw), File("etc/motd", &[b'x'; 5000])]);
    let layers = [
        ("plain", repository.blob(TAR, &archive)),
        ("gzip", repository.blob(TAR, &gzip(&archive))),
        ("zstd", repository.blob(TAR, &zstd(&archive))),
        (
            "qcow2",
            repository.blob(TAR, &tar(&[File("disk/a", &qcow2)])),
        ),
        ("indexed", indexed(&bench, &repository)),
    ];
    let mut random = Random::new(11);
    for (name, layer) in layers {
        let path = repository.blob_path(layer["digest"].as_str().unwrap());
        let bytes = fs::read(&path).unwrap();
        for config in [IMAGE_CONFIG, EMPTY_CONFIG] {
            repository.image("v1", config, std::slice::from_ref(&layer));
            assert!(disk(&bench, &repository, "v1").unwrap().1 == raw, "{name}");
        }
        for config in [IMAGE_CONFIG, EMPTY_CONFIG].into_iter().cycle().take(40) {
            repository.image("v1", config, std::slice::from_ref(&layer));
            let mut bent = bytes.clone();
            bent[random.below(bytes.len() as u64) as usize] ^= 1 << random.below(8);
            fs::write(&path, bent).unwrap();
            // What is never read of an indexed layer may be damaged: its padding.
            if let Ok((_, found)) = disk(&bench, &repository, "v1") {
                assert!(name == "indexed" && found == raw, "{name}");
            }
        }
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(disk(&bench, &repository, "v1").is_err());
        fs::write(&path, bytes).unwrap();
    }
    // Manifest and config as well.
    let descriptor = repository.image("v1", IMAGE_CONFIG, &[]);
    let path = repository.blob_path(descriptor["digest"].as_str().unwrap());
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        manifest.replace("schemaVersion\":2", "schemaVersion\": 2"),
    )
    .unwrap();
    let digest = descriptor["digest"].as_str().unwrap();
    let error = repository.resolve(digest, None).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::Digest {
                what: "manifest",
                ..
            }
        ),
        "{error}"
    );
}
