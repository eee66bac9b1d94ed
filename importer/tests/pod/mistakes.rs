//! What people get wrong, and whether they are told what to do: at once, and in words.

use std::fs;

use serde_json::Value;

use crate::{
    container::Container,
    images::{Images, ok},
    site::{Manners, Ranges, Site},
    support::server::Server,
    tls::Authority,
    volume::LoopDevice,
};

#[test]
fn ten_mistakes() {
    let images = Images::new(41);
    let site = Site::new(images.qcow2(), Manners::default());
    let address = site.url["http://".len()..]
        .trim_end_matches("/disk.img")
        .to_owned();
    let closed = Site::new(
        vec![],
        Manners {
            authorization: Some("Basic x".to_owned()),
            ..Manners::default()
        },
    );
    let nothing = crate::reply::Server::start(|_, _| crate::reply::Reply::new(404));
    let front = Authority::new().front(&address);
    let server = Server::start(&[]);
    let text = images.path("notes.txt");
    fs::write(&text, "no disk at all").unwrap();
    let tar = images.path("notes.tar");
    let dir = text.parent().unwrap();
    ok(
        "tar",
        [
            "-cf".as_ref(),
            &*tar,
            "-C".as_ref(),
            dir,
            "notes.txt".as_ref(),
        ],
    );
    let notes = Site::new(fs::read(tar).unwrap(), Manners::default());
    let endless = Site::new(
        vec![1; 24 << 20],
        Manners {
            ranges: Ranges::Ignored,
            length: false,
            ..Manners::default()
        },
    );
    let device = LoopDevice::new(dir, 1 << 20, 0xAA);
    let target = "/data/disk.img";
    let missing = format!("{}/disk.img", nothing.url());
    let https = format!("https://{}/disk.img", front.at("files.test"));
    let swapped = format!("http://{}/disk.img", front.at("files.test"));
    let unencrypted = format!("https://{}/disk.img", server.address());
    let tag = format!("{}/vi/absent:7", server.address());
    let wrong = format!("sha256:{}", "0".repeat(64));
    let place = format!("{}/vi/disk:1", server.address());
    let check = |container: &Container, source: &str, more: &[&str], parts: &[&str]| {
        let arguments = [&["populate", source, target], more].concat();
        let ended = container.command(&[], &arguments);
        assert_eq!(ended.code, Some(1), "{source}: {}", ended.log);
        for part in parts {
            assert!(
                ended.log.contains(part),
                "{source}: no {part:?} in {}",
                ended.log
            );
        }
        assert_eq!(
            ended.log.trim().lines().count(),
            1,
            "{source}: {}",
            ended.log
        );
        assert!(!container.path(target).exists(), "{source}");
    };
    let container = Container::new().trusting(&Authority::new());
    let cases: [(&str, &[&str], &[&str]); 12] = [
        (
            "https://nowhere.test/disk.img",
            &[],
            &["name is unknown", "check the address"],
        ),
        (
            "htps://files.test/disk.img",
            &[],
            &["htps:// is not read", "https://"],
        ),
        (
            &missing,
            &[],
            &["there is no such file (404", "check the address"],
        ),
        (
            &closed.url,
            &[],
            &["wants a user and a password", "--source-user"],
        ),
        (
            &https,
            &[],
            &[
                "certificate",
                "name the authority that signed it",
                "--source-ca",
            ],
        ),
        (&swapped, &[], &["does not speak HTTP", "https://"]),
        (&unencrypted, &[], &["does not speak TLS", "http://"]),
        (&notes.url, &[], &["no disk"]),
        (
            &site.url,
            &["--size", "3Mi"],
            &["the disk has 6291456 bytes", "--size"],
        ),
        (
            &site.url,
            &["--checksum", &wrong],
            &["checksum mismatch", "sha256"],
        ),
        (&tag, &[], &["vi/absent", "404", "check"]),
        (
            "/no/such/file.qcow2",
            &[],
            &[
                "there is no file /no/such/file.qcow2",
                "HOST/REPOSITORY:TAG",
            ],
        ),
    ];
    for (source, more, parts) in cases {
        // Wrong arguments have a code of their own.
        if source.starts_with("htps") {
            let ended = container.command(&[], &["populate", source, target]);
            assert_eq!(ended.code, Some(2), "{}", ended.log);
            assert!(
                parts.iter().all(|part| ended.log.contains(part)),
                "{}",
                ended.log
            );
            continue;
        }
        check(&container, source, more, parts);
    }
    let small = Container::with_device(device.path());
    let ended = small.command(&[], &["populate", &site.url, "/dev/cdi-block-volume"]);
    ended.failed("a larger device");
    assert!(
        fs::read(device.path())
            .unwrap()
            .iter()
            .all(|byte| *byte == 0xAA)
    );
    let full = Container::new().with_room("16m");
    let ended = full.command(&[], &["populate", &endless.url, target]);
    ended.failed("the disk does not fit: the target holds");
    // The same on the way in.
    let ended = container.command(&[], &["import", &missing, &place]);
    ended.failed("there is no such file (404");
}

/// Controllers give their pods `-v=N`, which Go's logger takes. It was a wrong argument, of which only the log told.
#[test]
fn the_verbosity_of_controllers_ended_pods() {
    let images = Images::new(43);
    let site = Site::new(images.qcow2(), Manners::default());
    let server = Server::start(&[]);
    let place = format!("{}/vi/disk:1", server.address());
    let source = ("IMPORTER_ENDPOINT", site.url.as_str());
    let cdi = [("IMPORTER_SOURCE", "http"), source];
    let deckhouse = [
        ("IMPORTER_SOURCE", "http"),
        source,
        ("IMPORTER_DESTINATION_ENDPOINT", place.as_str()),
    ];
    for verbosity in [&["-v=1"][..], &["--v=3"], &["-v", "5"]] {
        for variables in [&cdi[..], &deckhouse] {
            let container = Container::new();
            container.end(container.start(variables, verbosity)).done();
        }
    }
    let wrong = |variables| {
        let container = Container::new();
        let ended = container.end(container.start(variables, &["--no-such-flag"]));
        ended.failed("--no-such-flag");
        ended.message
    };
    assert!(wrong(&cdi[..]).contains("--no-such-flag"));
    let message: Value = serde_json::from_str(&wrong(&deckhouse)).unwrap();
    let text = message["error-message"].as_str().unwrap();
    assert!(text.contains("--no-such-flag"), "{text}");
}
