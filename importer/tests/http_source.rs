//! Files on web servers that break, lie, change, redirect and say little.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/site.rs"]
mod site;
mod support;

use std::{
    io::Read,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dvcr_importer::source::{
    ReadAt, Remote, RemoteOptions,
    http::{Http, HttpOptions, parse_header},
    retry::{SourceError, Verdict, verdict},
};
use site::{Manners, Ranges, Site, impatient};
use support::Random;
use tokio::runtime::Runtime;

fn open_with(
    runtime: &Runtime,
    site: &Site,
    http: HttpOptions,
    options: RemoteOptions,
) -> Result<Remote, SourceError> {
    let http = Http::new(site.url.parse().unwrap(), http).unwrap();
    Remote::open(Arc::new(http), runtime.handle().clone(), options)
}

fn open(runtime: &Runtime, site: &Site) -> Result<Remote, SourceError> {
    open_with(runtime, site, HttpOptions::default(), impatient())
}

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

fn read_all(remote: &Remote) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    remote
        .stream(0, blake3::Hasher::new())
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Length that is no multiple of anything, and takes several requests.
const LEN: usize = (9 << 20) + 4321;

fn file() -> Vec<u8> {
    Random::new(1).bytes(LEN)
}

#[test]
fn every_manner_gives_the_same_file() {
    let (runtime, file) = (runtime(), file());
    for ranges in [Ranges::Honest, Ranges::Ignored] {
        for length in [true, false] {
            for etag in [true, false] {
                let manners = Manners {
                    ranges,
                    length,
                    etag,
                    ..Manners::default()
                };
                let site = Site::new(file.clone(), manners.clone());
                let remote = open(&runtime, &site).unwrap();
                assert!(read_all(&remote).unwrap() == file, "{manners:?}");
                let received = impatient().received;
                assert_eq!(received.load(Ordering::Relaxed), 0);
                assert_eq!(remote.ranged().is_some(), ranges == Ranges::Honest);
                let len = (ranges == Ranges::Honest || length).then_some(LEN as u64);
                assert_eq!(remote.length(), len, "{manners:?}");
            }
        }
    }
}

#[test]
fn breaks_cost_little() {
    let (runtime, file) = (runtime(), file());
    let manners = Manners {
        break_after: Some(300_000),
        busy: 2,
        ..Manners::default()
    };
    let site = Site::new(file.clone(), manners);
    let remote = open(&runtime, &site).unwrap();
    assert!(read_all(&remote).unwrap() == file);
    assert!(site.heads().len() > LEN / 300_000);
    // The probe, and what was on its way when connections broke.
    let twice = site.sent() - LEN as u64;
    assert!(twice < LEN as u64 / 20, "{twice} bytes were sent twice");
    assert!(
        site.heads()
            .iter()
            .skip(3)
            .all(|head| head.contains("if-range: \"one\""))
    );

    let ranged = remote.ranged().unwrap();
    let mut random = Random::new(2);
    for _ in 0..200 {
        let at = random.below(LEN as u64) as usize;
        let mut buf = vec![0; (random.below(3 << 20) as usize).min(LEN - at)];
        ranged.read_at(at as u64, &mut buf).unwrap();
        assert!(buf == file[at..at + buf.len()]);
    }
    assert!(ranged.read_at(LEN as u64, &mut [0]).is_err());
}

/// Without ranges the whole file comes again: what was read already is compared and left out.
#[test]
fn breaks_without_ranges() {
    let (runtime, file) = (runtime(), file());
    for length in [true, false] {
        let manners = Manners {
            ranges: Ranges::Ignored,
            length,
            // Within the buffers, so that the reader has something of each answer.
            break_after: Some(LEN as u64 - 1000),
            ..Manners::default()
        };
        let site = Site::new(file.clone(), manners);
        let remote = open(&runtime, &site).unwrap();
        // It never gets to the end.
        let error = read_all(&remote).unwrap_err();
        assert_eq!(verdict(&error), Some(Verdict::Later), "{error}");
    }
}

#[test]
fn reading_forward_is_read_ahead_and_nothing_twice() {
    let (runtime, file) = (runtime(), file());
    let site = Site::new(file.clone(), Manners::default());
    let remote = open(&runtime, &site).unwrap();
    let ranged = remote.ranged().unwrap();
    let mut found = vec![];
    while found.len() < LEN {
        let mut buf = vec![0; 100_000.min(LEN - found.len())];
        ranged.read_at(found.len() as u64, &mut buf).unwrap();
        found.extend(buf);
    }
    assert!(found == file);
    // Of the probe's answer not all may have been sent.
    let probe = 64 << 10;
    assert!((LEN as u64..=LEN as u64 + probe).contains(&site.sent()));
    // One for each MiB, and some at the begin.
    let requests = site.heads().len();
    assert!(requests <= 4 + LEN.div_ceil(1 << 20), "{requests} requests");
}

#[test]
fn liars_are_noticed() {
    let (runtime, file) = (runtime(), file());
    for ranges in [Ranges::Shifted, Ranges::TooMuch] {
        for length in [true, false] {
            let manners = Manners {
                ranges,
                length,
                ..Manners::default()
            };
            let site = Site::new(file.clone(), manners);
            let remote = open(&runtime, &site).unwrap();
            let mut buf = vec![0; 1000];
            let result = remote.ranged().unwrap().read_at(5 << 20, &mut buf);
            match result {
                // What was announced is right, and the rest is nobody's business.
                Ok(()) => assert!(ranges == Ranges::TooMuch && buf == file[5 << 20..][..1000]),
                Err(error) => {
                    assert_eq!(verdict(&error), Some(Verdict::Final), "{ranges:?}: {error}");
                }
            }
            // Without ranges it is as good as any.
            let http = HttpOptions {
                no_ranges: true,
                ..HttpOptions::default()
            };
            let remote = open_with(&runtime, &site, http, impatient()).unwrap();
            assert!(read_all(&remote).unwrap() == file);
        }
    }
    // Who never says which part it sends is asked for none.
    let manners = Manners {
        ranges: Ranges::Silent,
        ..Manners::default()
    };
    let site = Site::new(file.clone(), manners);
    let remote = open(&runtime, &site).unwrap();
    assert!(remote.ranged().is_none());
    assert!(read_all(&remote).unwrap() == file);
}

#[test]
fn a_changed_file_is_final() {
    let (runtime, file) = (runtime(), file());
    for (ranges, etag) in [
        (Ranges::Honest, true),
        (Ranges::Ignored, true),
        (Ranges::Ignored, false),
    ] {
        let manners = Manners {
            ranges,
            etag,
            break_after: Some(3 << 20),
            change_at: Some(3),
            ..Manners::default()
        };
        let site = Site::new(file.clone(), manners);
        let remote = open(&runtime, &site).unwrap();
        let error = read_all(&remote).unwrap_err();
        // Without a tag and without ranges, bytes that were read already show it.
        if ranges == Ranges::Honest || etag {
            assert_eq!(verdict(&error), Some(Verdict::Final), "{error}");
            assert!(error.to_string().contains("changed"), "{error}");
        }
    }
}

/// Credentials and headers stay with the host that was named; another port is another host.
#[test]
fn redirects_carry_no_secrets() {
    let (runtime, file) = (runtime(), file());
    let other = Site::new(file.clone(), Manners::default());
    let manners = Manners {
        redirect: Some(other.url.clone()),
        ..Manners::default()
    };
    let first = Site::new(vec![], manners);
    let http = || HttpOptions {
        credentials: Some(("me".to_owned(), "secret".to_owned())),
        headers: [parse_header("X-Token: secret2").unwrap()]
            .into_iter()
            .collect(),
        ..HttpOptions::default()
    };
    let remote = open_with(&runtime, &first, http(), impatient()).unwrap();
    assert!(read_all(&remote).unwrap() == file);
    for head in first.heads() {
        assert!(head.contains("authorization: basic") && head.contains("x-token: secret2"));
    }
    for head in other.heads() {
        assert!(
            !head.contains("authorization") && !head.contains("x-token"),
            "{head}"
        );
        assert!(!head.contains("referer"), "{head}");
    }
    // Where it led is remembered.
    assert_eq!(first.heads().len(), 1);

    let manners = Manners {
        authorization: Some("Basic bWU6c2VjcmV0".to_owned()),
        ..Manners::default()
    };
    let site = Site::new(file.clone(), manners);
    assert!(open_with(&runtime, &site, http(), impatient()).is_ok());
    let error = open(&runtime, &site).unwrap_err();
    assert!(
        matches!(&error, SourceError::Final(text) if text.contains("password")),
        "{error}"
    );
}

#[test]
fn redirects_end() {
    let runtime = runtime();
    let manners = Manners {
        redirect: Some("/disk.img".to_owned()),
        ..Manners::default()
    };
    let site = Site::new(vec![], manners);
    let error = open(&runtime, &site).unwrap_err();
    assert_eq!(
        error,
        SourceError::Final("more than 20 redirects".to_owned())
    );
    let manners = Manners {
        redirect: Some("file:///etc/passwd".to_owned()),
        ..Manners::default()
    };
    let site = Site::new(vec![], manners);
    assert!(matches!(open(&runtime, &site), Err(SourceError::Final(_))));
}

#[test]
fn a_stall_is_a_break() {
    let runtime = runtime();
    let manners = Manners {
        stall: true,
        ..Manners::default()
    };
    let site = Site::new(vec![1; 100_000], manners);
    let http = HttpOptions {
        stall: Some(Duration::from_secs(1)),
        ..HttpOptions::default()
    };
    let remote = open_with(&runtime, &site, http, impatient()).unwrap();
    let error = read_all(&remote).unwrap_err();
    assert_eq!(verdict(&error), Some(Verdict::Later));
    assert!(error.to_string().contains("no byte for"), "{error}");
}

#[test]
fn stopping_ends_waiting() {
    let runtime = runtime();
    let manners = Manners {
        stall: true,
        ..Manners::default()
    };
    let site = Site::new(vec![1; 100_000], manners);
    let options = impatient();
    let remote = open_with(&runtime, &site, HttpOptions::default(), options.clone()).unwrap();
    let mut stream = remote.stream(0, blake3::Hasher::new());
    options.stop.cancel();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(verdict(&error), Some(Verdict::Stopped));
}

#[test]
fn empty_files() {
    let runtime = runtime();
    let manners = Manners {
        ranges: Ranges::Ignored,
        ..Manners::default()
    };
    let site = Site::new(vec![], manners);
    let remote = open(&runtime, &site).unwrap();
    assert!(read_all(&remote).unwrap().is_empty());
}
