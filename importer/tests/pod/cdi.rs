//! The contract of `cdi-importer`.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    container::Container,
    images::{Images, LEN, object_store, ok},
    site::{Manners, Ranges, Site},
    support::server::Server,
    tls::Authority,
    volume::{LoopDevice, same_disk},
};

/// Size of the claims here.
const CLAIM: u64 = 8 << 20;

/// A container disk as `docker build` makes it, with a variable that is to become a label.
fn push_container_disk(images: &Images, server: &Server) -> String {
    let reference = format!("{}/vi/disk:1", server.address());
    let (dir, layer) = (images.path("disk"), images.path("layer.tar"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("disk.qcow2"), images.qcow2()).unwrap();
    let parent = dir.parent().unwrap();
    ok(
        "tar",
        [
            "-cf".as_ref(),
            &*layer,
            "-C".as_ref(),
            parent,
            "disk".as_ref(),
        ],
    );
    let image = Path::new(&reference);
    ok(
        "crane",
        ["append", "--insecure", "-f"]
            .map(Path::new)
            .into_iter()
            .chain([&*layer, "-t".as_ref(), image]),
    );
    let variable = "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.small";
    let args = [
        "mutate",
        "--insecure",
        "--env",
        variable,
        "--set-platform",
        "linux/amd64",
        "-t",
    ];
    ok(
        "crane",
        args.map(Path::new).into_iter().chain([image, image]),
    );
    reference
}

#[test]
fn every_source_onto_both_kinds_of_volumes() {
    let images = Images::new(1);
    let server = Server::start(&[]);
    let image = format!("docker://{}", push_container_disk(&images, &server));
    let site = Site::new(images.qcow2(), Manners::default());
    let store = object_store(images.qcow2());
    let object = format!("{}/bucket/disk.qcow2", store.url());
    let sources = [
        ("http", site.url.as_str()),
        ("s3", &object),
        ("gcs", &object),
        ("registry", &image),
        ("none", ""),
    ];
    let zeros = images.path("zeros");
    fs::File::create(&zeros).unwrap().set_len(LEN).unwrap();
    for (kind, endpoint) in sources {
        let mut variables = vec![
            ("IMPORTER_SOURCE", kind),
            ("IMPORTER_ENDPOINT", endpoint),
            ("IMPORTER_CONTENTTYPE", "kubevirt"),
            ("IMPORTER_IMAGE_SIZE", "8Mi"),
            ("FILESYSTEM_OVERHEAD", "0.06"),
            ("PREALLOCATION", "false"),
            ("INSECURE_TLS", "false"),
            ("OWNER_UID", "some-uid"),
        ];
        if kind == "s3" {
            variables.push(("IMPORTER_ACCESS_KEY_ID", "the-key"));
            variables.push(("IMPORTER_SECRET_KEY", "very-secret"));
        }
        if kind == "registry" {
            variables.push(("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE", "amd64"));
        }
        let content = if kind == "none" {
            zeros.clone()
        } else {
            images.raw()
        };
        let container = Container::new().secret("very-secret");
        let message = container.run(&variables).done();
        let labels = match kind {
            "registry" => {
                serde_json::json!({"instancetype.kubevirt.io/default-instancetype": "u1.small"})
            }
            _ => Value::Null,
        };
        assert_eq!(message["labels"], labels, "{message}");
        assert_eq!(message["scratchSpaceRequired"], false);
        assert_eq!(message["preallocationApplied"], false);
        assert_eq!(message["message"], "Import Complete");
        let disk = container.path("data/disk.img");
        let metadata = fs::metadata(&disk).unwrap();
        // As much of the claim as its file system leaves.
        assert_eq!(
            metadata.len(),
            (CLAIM as f64 / 1.06) as u64 >> 20 << 20,
            "{kind}"
        );
        assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o660, 107));
        same_disk("raw", &disk, &content);
        assert_eq!(fs::read_dir(container.path("data")).unwrap().count(), 1);

        let device = LoopDevice::new(&images.path("."), CLAIM, 0xAA);
        let container = Container::with_device(device.path()).secret("very-secret");
        container.run(&variables).done();
        same_disk("raw", device.path(), &content);
        assert!(!container.path("data/disk.img").exists());
    }
    let signed = store.received();
    assert!(!signed.is_empty());
    let signatures = signed
        .iter()
        .filter_map(|request| request.header("authorization"));
    let by_key = signatures.filter(|text| text.starts_with("AWS4-HMAC-SHA256 Credential=the-key/"));
    assert!(by_key.count() > 0, "{signed:?}");
}

#[test]
fn archives_and_preallocation() {
    let images = Images::new(2);
    let content = images.path("content");
    fs::create_dir_all(content.join("a")).unwrap();
    fs::write(content.join("a/file"), "one").unwrap();
    let archive = images.path("archive.tgz");
    ok(
        "tar",
        [
            "-czf".as_ref(),
            &*archive,
            "-C".as_ref(),
            &*content,
            ".".as_ref(),
        ],
    );
    let site = Site::new(fs::read(archive).unwrap(), Manners::default());
    let variables = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_CONTENTTYPE", "archive"),
    ];
    let container = Container::new();
    container.run(&variables).done();
    assert_eq!(fs::read(container.path("data/a/file")).unwrap(), b"one");
    assert!(!container.path("data/disk.img").exists());
    let device = LoopDevice::new(&images.path("."), CLAIM, 0);
    Container::with_device(device.path())
        .run(&variables)
        .failed("a file system");

    let container = Container::new();
    let message = container.run(&[
        ("IMPORTER_SOURCE", "none"),
        ("IMPORTER_IMAGE_SIZE", "2Mi"),
        ("PREALLOCATION", "true"),
    ]);
    assert_eq!(message.done()["preallocationApplied"], true);
    let disk = fs::metadata(container.path("data/disk.img")).unwrap();
    assert_eq!(
        (disk.len(), disk.blocks() * 512 >= 2 << 20),
        (2 << 20, true)
    );
}

/// Wherever a certificate is mounted, and however it is called, its server is trusted; and no other.
#[test]
fn certificates() {
    let images = Images::new(3);
    let site = Site::new(fs::read(images.raw()).unwrap(), Manners::default());
    let authority = Authority::new();
    let front = authority.front(site.url.trim_end_matches("/disk.img"));
    let endpoint = format!("https://{}/disk.img", front.at("files.test"));
    let source = ("IMPORTER_ENDPOINT", endpoint.as_str());
    let other = Authority::new();
    for (variable, file) in [
        ("IMPORTER_CERT_DIR", "ca.crt"),
        ("IMPORTER_CERT_DIR", "bundle.pem"),
        ("IMPORTER_CERT_DIR", "tls.crt"),
        ("IMPORTER_PROXY_CERT_DIR", "ca.crt"),
    ] {
        let container = Container::new();
        container.file(
            &format!("certs/{file}"),
            [authority.pem(), other.pem()].concat(),
        );
        container.run(&[source, (variable, "/certs")]).done();
        same_disk("raw", &container.path("data/disk.img"), &images.raw());
    }
    Container::new()
        .run(&[source, ("INSECURE_TLS", "true")])
        .done();
    Container::new().run(&[source]).failed("certificate");
    let container = Container::new();
    container.file("certs/ca.crt", other.pem());
    let ended = container.run(&[source, ("IMPORTER_CERT_DIR", "/certs")]);
    ended.failed("name the authority that signed it");
    assert!(!container.path("data/disk.img").exists());
}

/// User, password and headers go to the server that was named and to no other, and are told to nobody.
#[test]
fn credentials_and_headers() {
    let images = Images::new(4);
    let raw = fs::read(images.raw()).unwrap();
    let mirror = Site::new(raw.clone(), Manners::default());
    let site = Site::new(
        raw,
        Manners {
            redirect: Some(mirror.url.clone()),
            ..Manners::default()
        },
    );
    let container = Container::new()
        .secret("very-secret")
        .secret("a-hidden-token")
        .secret("another-token");
    container.file("extraheaders/0/token", "X-Hidden: a-hidden-token\n");
    let variables = [
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_ACCESS_KEY_ID", "me"),
        ("IMPORTER_SECRET_KEY", "very-secret"),
        ("IMPORTER_EXTRA_HEADER_0", "X-Extra: another-token"),
    ];
    container.run(&variables).done();
    same_disk("raw", &container.path("data/disk.img"), &images.raw());
    let basic = "authorization: basic bwu6dmvyes1zzwnyzxq=";
    let shown = [basic, "x-hidden: a-hidden-token", "x-extra: another-token"];
    for part in shown {
        assert!(site.heads()[0].contains(part), "{part}: {:?}", site.heads());
        let heads = mirror.heads();
        assert!(heads.iter().all(|head| !head.contains(part)), "{heads:?}");
    }

    let closed = Site::new(
        vec![],
        Manners {
            authorization: Some("Basic other".to_owned()),
            ..Manners::default()
        },
    );
    let mut variables = variables;
    variables[0].1 = &closed.url;
    container
        .run(&variables)
        .failed("does not take this user and password");
    // In the address, as well.
    let with_user = closed.url.replace("http://", "http://me:very-secret@");
    let address = [("IMPORTER_ENDPOINT", with_user.as_str())];
    container
        .run(&address)
        .failed("does not take this user and password");
}

#[test]
fn checksums() {
    let images = Images::new(5);
    let image = images.qcow2();
    let site = Site::new(image.clone(), Manners::default());
    let whole = Site::new(
        fs::read(images.raw()).unwrap(),
        Manners {
            ranges: Ranges::Ignored,
            length: false,
            ..Manners::default()
        },
    );
    let sum = |program: &str, content: &[u8]| {
        let file = images.path("summed");
        fs::write(&file, content).unwrap();
        let output = std::process::Command::new(program)
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(' ').next().unwrap().to_owned()
    };
    for algorithm in ["md5", "sha1", "sha256", "sha512"] {
        let checksum = format!("{algorithm}:{}", sum(&format!("{algorithm}sum"), &image));
        let container = Container::new();
        let variables = [
            ("IMPORTER_ENDPOINT", &*site.url),
            ("IMPORTER_CHECKSUM", &checksum),
        ];
        container.run(&variables).done();
        same_disk("raw", &container.path("data/disk.img"), &images.raw());
    }
    let wrong = format!("sha256:{}", "0".repeat(64));
    for site in [&site, &whole] {
        let variables = [
            ("IMPORTER_ENDPOINT", &*site.url),
            ("IMPORTER_CHECKSUM", &wrong),
        ];
        let container = Container::new();
        // 0: nobody is to try again; and this is how CDI learns why.
        let message = container.run(&variables).done();
        let text = message["message"].as_str().unwrap();
        assert!(
            text.contains("checksum mismatch: sha256 of the source is"),
            "{text}"
        );
        assert_eq!(fs::read_dir(container.path("data")).unwrap().count(), 0);

        let device = LoopDevice::new(&images.path("."), CLAIM, 0);
        Container::with_device(device.path()).run(&variables).done();
        assert!(
            fs::read(device.path())
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

/// A server in the same pod says by files when it is ready and what to fetch, and is told when it may end.
#[test]
fn a_server_in_the_same_pod() {
    let images = Images::new(6);
    let site = Site::new(fs::read(images.raw()).unwrap(), Manners::default());
    let container = Container::new();
    let variables = [
        ("IMPORTER_SOURCE", "http"),
        ("IMPORTER_ENDPOINT", site.url.as_str()),
        ("IMPORTER_READY_FILE", "/work/ready"),
        ("IMPORTER_DONE_FILE", "/work/done"),
    ];
    let child = container.start(&variables, &[]);
    assert!(site.heads().is_empty());
    fs::write(container.path("work/new"), "the-name.qcow2").unwrap();
    fs::rename(container.path("work/new"), container.path("work/ready")).unwrap();
    container.end(child).done();
    assert!(
        site.heads()[0].starts_with("get /the-name.qcow2 "),
        "{:?}",
        site.heads()
    );
    assert!(container.path("work/done").exists());
    same_disk("raw", &container.path("data/disk.img"), &images.raw());
}

/// Labels of an image that the node has pulled come from the server beside the importer; too many of them still leave a message.
#[test]
fn labels_of_a_pulled_image() {
    let images = Images::new(8);
    let disk = images.qcow2();
    for (filler, left) in [(10, 2), (5000, 1)] {
        let disk = disk.clone();
        let server = crate::reply::Server::start(move |request, _| match &*request.target {
            "/info" => {
                let filler = "x".repeat(filler);
                let small = "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.small";
                let large = format!("INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE={filler}");
                let info = serde_json::json!({"Env": ["PATH=/bin", small, large]});
                crate::reply::Reply::new(200).body(info.to_string())
            }
            _ => crate::reply::Reply::new(200).body(disk.clone()),
        });
        let container = Container::new();
        let endpoint = format!("{}/disk.img", server.url());
        fs::write(container.path("work/ready"), "disk.qcow2").unwrap();
        let variables = [
            ("IMPORTER_SOURCE", "http"),
            ("IMPORTER_ENDPOINT", endpoint.as_str()),
            ("IMPORTER_PULL_METHOD", "node"),
            ("IMPORTER_READY_FILE", "/work/ready"),
        ];
        let message = container.run(&variables).done();
        let labels = message["labels"].as_object().unwrap();
        assert_eq!(
            labels["instancetype.kubevirt.io/default-instancetype"],
            "u1.small"
        );
        assert_eq!(labels.len(), left, "{message}");
        assert_eq!(message["message"], "Import Complete");
    }
}

/// Metrics are where controllers look for them, from the start; and a container that waits can be told to stop.
#[test]
fn the_port_of_the_metrics() {
    /// 8443, and that it listens, as `/proc/net/tcp6` has it.
    const LISTENS: (&str, &str) = (":20FB ", " 0A ");
    let container = Container::new().without_network();
    let variables = [
        ("IMPORTER_ENDPOINT", "http://127.0.0.1/disk.img"),
        ("IMPORTER_READY_FILE", "/work/ready"),
    ];
    let child = container.start(&variables, &[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let listens = || {
        ["tcp", "tcp6"].into_iter().any(|table| {
            let path = format!("/proc/{}/net/{table}", child.id());
            let text = fs::read_to_string(path).unwrap_or_default();
            let mut lines = text.lines();
            lines.any(|line| line.contains(LISTENS.0) && line.contains(LISTENS.1))
        })
    };
    while !listens() {
        assert!(Instant::now() < deadline, "nobody listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    crate::images::signal(&child, "TERM");
    container.end(child).failed("stopped");
}

/// What CDI looks for in a message is there.
#[test]
fn failures() {
    let images = Images::new(7);
    let site = Site::new(images.qcow2(), Manners::default());
    let gone = object_store(vec![]);
    let image = format!("docker://{}/vi/disk:1", &gone.url()["http://".len()..]);
    let check = |variables: &[(&str, &str)], begin: &str, part: &str| {
        let container = Container::new();
        let ended = container.run(variables);
        ended.failed(part);
        assert!(ended.message.starts_with(begin), "{}", ended.message);
        assert_eq!(fs::read_dir(container.path("data")).unwrap().count(), 0);
    };
    let address = ("IMPORTER_ENDPOINT", site.url.as_str());
    let small = "is larger than the reported available storage 3145728. A larger PVC is required.";
    check(
        &[address, ("IMPORTER_IMAGE_SIZE", "3Mi")],
        "Unable to process data: Virtual image size",
        small,
    );
    let registry = [
        ("IMPORTER_SOURCE", "registry"),
        ("IMPORTER_ENDPOINT", &*image),
    ];
    check(
        &registry,
        "Unable to process data: failed to pull image",
        "vi/disk",
    );
    // That the volume is too small is not the image's fault.
    let server = Server::start(&[]);
    let image = format!("docker://{}", push_container_disk(&images, &server));
    check(
        &[
            ("IMPORTER_SOURCE", "registry"),
            ("IMPORTER_ENDPOINT", &image),
            ("IMPORTER_IMAGE_SIZE", "3Mi"),
        ],
        "Unable to process data: Virtual image size",
        small,
    );
    check(
        &[address, ("PREALLOCATION", "maybe")],
        "PREALLOCATION",
        "true or false",
    );
    for (source, part) in [("imageio", "oVirt"), ("vddk", "VMware")] {
        check(
            &[("IMPORTER_SOURCE", source), address],
            "imports from",
            part,
        );
    }
    let blank = [
        ("IMPORTER_SOURCE", "none"),
        ("IMPORTER_CONTENTTYPE", "archive"),
    ];
    check(
        &blank,
        "Cannot create empty disk with content type archive",
        "",
    );
}

/// Told to stop, it says so, and the next container goes on with what is there.
#[test]
fn stopping() {
    let stalled = Site::new(
        vec![1; 1 << 20],
        Manners {
            stall: true,
            ..Manners::default()
        },
    );
    let registry = stalled
        .url
        .replace("http://", "")
        .replace("/disk.img", "/vi/disk:1");
    for (kind, endpoint) in [("http", &stalled.url), ("registry", &registry)] {
        let asked = stalled.heads().len();
        let container = Container::new();
        let variables = [("IMPORTER_SOURCE", kind), ("IMPORTER_ENDPOINT", endpoint)];
        let child = container.start(&variables, &[]);
        let deadline = Instant::now() + Duration::from_secs(60);
        while stalled.heads().len() <= asked {
            assert!(Instant::now() < deadline, "it does not ask");
            std::thread::sleep(Duration::from_millis(20));
        }
        crate::images::signal(&child, "TERM");
        let ended = container.end(child);
        ended.failed("stopped");
        let begin = "Unable to process data";
        assert!(ended.message.starts_with(begin), "{}", ended.message);
    }
}
