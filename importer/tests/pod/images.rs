//! Disks, and where they are to be had.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    reply::{Reply, Server},
    support::{
        disk::Disk,
        process::{run, tool_with},
    },
};

/// Length of the disks here: more than one request of any kind.
pub(crate) const LEN: u64 = 6 << 20;

/// A disk, and images of it.
pub(crate) struct Images {
    dir: tempfile::TempDir,
}

impl Images {
    pub(crate) fn new(seed: u64) -> Self {
        let images = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let mut bytes = vec![0; LEN as usize];
        Disk::new(seed, LEN).read(0, &mut bytes);
        fs::write(images.raw(), bytes).unwrap();
        images
    }

    /// The disk itself.
    pub(crate) fn raw(&self) -> PathBuf {
        self.path("raw")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The disk as a compressed qcow2.
    pub(crate) fn qcow2(&self) -> Vec<u8> {
        let path = self.path("qcow2");
        let (raw, out) = (self.raw(), path.clone());
        let args = ["convert", "-f", "raw", "-O", "qcow2", "-c"].map(Path::new);
        ok("qemu-img", args.into_iter().chain([&*raw, &*out]));
        fs::read(path).unwrap()
    }
}

/// Runs a tool, which must succeed.
pub(crate) fn ok<'a>(program: &str, arguments: impl IntoIterator<Item = &'a Path>) {
    let finished = run(
        tool_with(program, arguments),
        std::time::Duration::from_secs(120),
    );
    assert!(finished.success, "{program}: {}", finished.log);
}

/// An object store with one file in it, under every name.
pub(crate) fn object_store(file: Vec<u8>) -> Server {
    Server::start(move |request, _| {
        let len = file.len();
        let range = request.header("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let last = last.parse().unwrap_or(len - 1).min(len - 1);
            Some((first.parse::<usize>().ok()?, last))
        });
        let reply = match range {
            Some((first, last)) => Reply::new(206)
                .with("Content-Range", format!("bytes {first}-{last}/{len}"))
                .body(&file[first..=last]),
            None => Reply::new(200).body(file.clone()),
        };
        reply
            .with("ETag", "\"one\"")
            .with("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
    })
}

/// Sends a process a signal, as the kubelet does.
pub(crate) fn signal(child: &std::process::Child, name: &str) {
    let pid = child.id().to_string();
    ok("kill", ["-s", name, &pid].map(Path::new));
}
