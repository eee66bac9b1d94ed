//! The program, from sources to a real registry: what an import promises beside the disk that arrives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/registry.rs"]
mod registry;
#[path = "support/site.rs"]
mod site;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use registry::Registry;
use serde_json::Value;
use site::{Manners, Ranges, Site};
use support::{Bench, Pattern, Random, run, text};

/// A place for images, and where interrupted imports keep what they have.
struct Desk {
    registry: Registry,
    work: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            registry: Registry::start(),
            work: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, source: &str, destination: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dvcr-importer"));
        command
            .args(["import", source])
            .arg(format!("{}/{destination}", self.registry.address))
            .args(["--json", "--work-dir", text(self.work.path())])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn import(&self, source: &str, destination: &str, args: &[&str]) -> Value {
        made(self.command(source, destination, args).output().unwrap())
    }

    /// Nothing is left of imports that are over.
    fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.work.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The layer of a tag, checked against a raw disk.
    fn assert_disk(&self, name: &str, tag: &str, raw: &Path) {
        let dir = tempfile::tempdir().unwrap();
        let manifest = self.registry.manifest(name, tag).unwrap();
        let layer = dir.path().join("layer");
        self.registry.blob(name, &manifest.layers[0].digest, &layer);
        let unpack = if manifest.layers[0].media_type.ends_with("zstd") {
            "--zstd"
        } else {
            "--"
        };
        let args = [
            "-xf",
            text(&layer),
            "-C",
            text(dir.path()),
            "--no-same-owner",
        ];
        match unpack {
            "--zstd" => run("tar", &[&["--zstd"], &args[..]].concat()),
            _ => run("tar", &args),
        }
        let disk = dir.path().join("disk/disk.qcow2");
        run("qemu-img", &["check", "-q", "-f", "qcow2", text(&disk)]);
        run(
            "qemu-img",
            &[
                "compare",
                "-q",
                "-f",
                "qcow2",
                "-F",
                "raw",
                text(&disk),
                text(raw),
            ],
        );
    }

    fn labels(&self, name: &str, tag: &str) -> Value {
        let manifest = self.registry.manifest(name, tag).unwrap();
        let path = self.work.path().join("config");
        self.registry
            .blob(name, &manifest.config.unwrap().digest, &path);
        let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_file(path).unwrap();
        assert_eq!(config["os"], "linux");
        config["config"]["Labels"].clone()
    }
}

fn made(output: Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn wrapped(path: &Path, program: &str, suffix: &str) -> PathBuf {
    run(program, &["-k", "-q", "-f", text(path)]);
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What is received is compared on every way that there is; `tests/matrix` goes the same ways without.
#[test]
fn checksums_whatever_the_way() {
    let desk = Desk::new();
    let bench = Bench::new(Pattern::Mixed, (6 << 20) + 512);
    let qcow2 = bench.image("qcow2", &["-c"]);
    let no_ranges = Manners {
        ranges: Ranges::Ignored,
        length: false,
        ..Manners::default()
    };
    for file in [&bench.raw, &qcow2, &wrapped(&qcow2, "gzip", ".gz")] {
        let bytes = fs::read(file).unwrap();
        let sum = format!("sha256:{}", dvcr_core::oci::Digest::sha256(&bytes).hex());
        let ranges = Site::new(bytes.clone(), Manners::default());
        let chunked = Site::new(bytes.clone(), no_ranges.clone());
        for source in [text(file), &ranges.url, &chunked.url, "-"] {
            let mut command = desk.command(source, "vi/disk:1", &["--checksum", &sum]);
            command.stdin(fs::File::open(file).unwrap());
            let made = made(command.output().unwrap());
            assert_eq!(made["sourceSize"], bytes.len(), "{source}");
            desk.assert_disk("vi/disk", "1", &bench.raw);
            let labels = desk.labels("vi/disk", "1");
            assert_eq!(labels["io.dvcr.source-format"], made["format"]);
            assert_eq!(labels["source-image-format"], "qcow2");
        }
    }
    desk.assert_clean();
}

#[test]
fn what_the_registry_has_is_not_sent() {
    let desk = Desk::new();
    let bench = Bench::new(Pattern::Mixed, 8 << 20);
    let site = Site::new(fs::read(&bench.raw).unwrap(), Manners::default());
    let first = desk.import(&site.url, "vi/a:1", &["--tag", "2", "--tag", "stable"]);
    assert_eq!(first["sent"], first["layerSize"]);
    let again = desk.import(&site.url, "vi/a:3", &[]);
    assert_eq!(again["sent"], 0);
    assert_eq!(again["manifest"], first["manifest"]);
    for tag in ["1", "2", "stable", "3"] {
        assert!(desk.registry.manifest("vi/a", tag).is_some(), "{tag}");
    }
    let labels = desk.labels("vi/a", "1");
    assert_eq!(labels["source-image-size"], (8 << 20).to_string());
    assert_eq!(labels["source-image-virtual-size"], (8 << 20).to_string());
    // Of what is in the image, and of what it came from.
    assert_eq!(labels["source-image-format"], "qcow2");
    assert_eq!(labels["io.dvcr.source-format"], "raw");
}

#[test]
fn layers_without_compression_and_files_as_they_are() {
    let desk = Desk::new();
    let bench = Bench::new(Pattern::Mixed, (8 << 20) + 512);
    let site = Site::new(fs::read(&bench.raw).unwrap(), Manners::default());
    let none = ["--layer-compression", "none"];
    let network = desk.import(&site.url, "vi/plain:1", &none);
    let file = desk.import(text(&bench.raw), "vi/plain:2", &none);
    assert_eq!(network["manifest"], file["manifest"]);
    desk.assert_disk("vi/plain", "1", &bench.raw);

    let qcow2 = fs::read(bench.image("qcow2", &["-c"])).unwrap();
    let site = Site::new(qcow2.clone(), Manners::default());
    let network = desk.import(&site.url, "vi/verbatim:1", &["--verbatim"]);
    let file = desk.import(text(&bench.path("image")), "vi/verbatim:2", &["--verbatim"]);
    assert_eq!(network["manifest"], file["manifest"]);
    assert_eq!(network["format"], "qcow2");
    let manifest = desk.registry.manifest("vi/verbatim", "1").unwrap();
    let (layer, out) = (bench.path("layer"), bench.path("out"));
    desk.registry
        .blob("vi/verbatim", &manifest.layers[0].digest, &layer);
    fs::create_dir(&out).unwrap();
    run(
        "tar",
        &[
            "--zstd",
            "-xf",
            text(&layer),
            "-C",
            text(&out),
            "--no-same-owner",
        ],
    );
    assert!(fs::read(out.join("disk/disk.img")).unwrap() == qcow2);
    desk.assert_clean();
}

#[test]
fn what_fails_for_good_leaves_nothing() {
    let desk = Desk::new();
    let bench = Bench::new(Pattern::Mixed, 4 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    let wrong = "md5:00000000000000000000000000000000";
    let honest = Site::new(raw.clone(), Manners::default());
    let changing = Site::new(
        raw.clone(),
        Manners {
            change_at: Some(2),
            ..Manners::default()
        },
    );
    let empty = bench.path("empty.img");
    fs::write(&empty, "").unwrap();
    let html = Site::new(b"<html>no disk</html>".to_vec(), Manners::default());
    for (source, args, message) in [
        (
            text(&bench.raw),
            &["--checksum", wrong][..],
            "checksum mismatch: md5",
        ),
        (
            &honest.url,
            &["--checksum", wrong],
            "checksum mismatch: md5",
        ),
        (&changing.url, &[], "changed while it was read"),
        (&html.url, &[], "an HTML page"),
        (text(&empty), &[], text(&empty)),
        ("/nowhere/disk.img", &[], "there is no file"),
        ("ftp://host/file", &[], "ftp:// is not read"),
    ] {
        let output = desk.command(source, "vi/bad:1", args).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{source}: {errors}"
        );
        assert!(errors.contains(message), "{source}: {errors}");
        assert!(desk.registry.manifest("vi/bad", "1").is_none());
    }
    desk.assert_clean();
}

/// From one repository to another: mounted if it is ours, else unpacked and made ours.
#[test]
fn images_of_registries() {
    let desk = Desk::new();
    let bench = Bench::new(Pattern::Mixed, 4 << 20);
    let first = desk.import(text(&bench.raw), "vi/a:1", &[]);
    let at = |image: &str| format!("docker://{}/{image}", desk.registry.address);
    let copied = desk.import(&at("vi/a:1"), "vi/b:1", &[]);
    assert_eq!(copied["manifest"], first["manifest"]);
    assert_eq!(copied["sent"], 0);
    assert_eq!(copied["format"], "raw");
    assert_eq!(copied["virtualSize"], 4 << 20);
    desk.assert_disk("vi/b", "1", &bench.raw);

    desk.import(
        text(&bench.raw),
        "vi/plain:1",
        &["--layer-compression", "none"],
    );
    let other = desk.import(&at("vi/plain:1"), "vi/c:1", &[]);
    assert_eq!(other["layer"], first["layer"]);
    let image = bench.image("qcow2", &["-c"]);
    desk.import(text(&image), "vi/verbatim:1", &["--verbatim"]);
    desk.assert_clean();
}

/// Waits until a site has sent so much, or the process has ended.
fn until_sent(site: &Site, bytes: u64, child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    while site.sent() < bytes {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "the import does not go on");
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Most bytes that are fetched again after one interruption, whatever the length of the source: what is on its way in sockets
/// (some MiB each), 4 MiB read ahead, 4 MiB of pieces that are compressed. 5 % of an image of 400 MiB.
const LOST_BYTES_MAX: u64 = 20 << 20;

/// Killed or stopped several times, it fetches little twice, and makes the same layer.
#[test]
fn interrupted_imports_go_on() {
    let desk = Desk::new();
    let len = 256 << 20;
    let bench = Bench::new(Pattern::Empty, 4096);
    let (raw, gz) = (bench.path("disk"), bench.path("disk.gz"));
    fs::write(&raw, Random::new(7).bytes(len)).unwrap();
    let expected = desk.import(text(&raw), "vi/expected:1", &[])["layer"].clone();
    run("gzip", &["-k", "-1", text(&raw)]);
    for (path, name) in [(&raw, "raw"), (&gz, "gz")] {
        let bytes = fs::read(path).unwrap();
        let len = bytes.len() as u64;
        let site = Site::new(bytes, Manners::default());
        let destination = format!("vi/{name}:1");
        let args = ["--connections", "1"];
        for (i, signal) in ["-KILL", "-TERM", "-KILL"].iter().enumerate() {
            let mut child = desk
                .command(&site.url, &destination, &args)
                .spawn()
                .unwrap();
            let enough = len * (i as u64 + 1) / 5;
            assert!(until_sent(&site, enough, &mut child), "it ended too early");
            run("kill", &[signal, &child.id().to_string()]);
            let output = child.wait_with_output().unwrap();
            if *signal == "-TERM" {
                let errors = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(130), "{errors}");
                assert!(errors.contains("goes on where it was"), "{errors}");
            }
            assert!(desk.registry.manifest(&format!("vi/{name}"), "1").is_none());
        }
        let made = desk.import(&site.url, &destination, &args);
        assert_eq!(made["layer"], expected, "{name}");
        let twice = site.sent() - len;
        assert!(
            twice < 3 * LOST_BYTES_MAX,
            "{name}: {twice} of {len} bytes were sent twice"
        );
        println!("{name}: {twice} of {len} bytes were sent twice");
    }
    desk.assert_clean();
}
