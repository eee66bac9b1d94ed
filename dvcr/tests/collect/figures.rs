//! What a server says about itself, and what lies on its disk.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::http::{Client, Request};

/// How often a server is asked whether it has come to rest.
const POLL: Duration = Duration::from_millis(100);

/// A figure of `/metrics`; 0 if there is none of that name.
pub(crate) fn metric(url: &str, name: &str) -> u64 {
    let answer = Client::new(url).send(&Request::new("GET", "/metrics"));
    let text = answer.unwrap().text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |number| number.parse::<f64>().unwrap() as u64)
}

/// A figure of the sizes of everything that is stored.
pub(crate) fn stat(url: &str, name: &str) -> u64 {
    let answer = Client::new(url).send(&Request::new("GET", "/api/v1/stats"));
    let stats: Value = answer.unwrap().json().unwrap();
    stats[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {stats}"))
}

/// Length of all files of packs.
pub(crate) fn pack_bytes(data: &Path) -> u64 {
    let files = fs::read_dir(data.join("packs")).unwrap();
    // One may be removed while this looks.
    let lens = files.filter_map(|file| file.ok()?.metadata().ok());
    lens.map(|metadata| metadata.len()).sum()
}

/// Length of everything else: metadata.
pub(crate) fn metadata_bytes(data: &Path) -> u64 {
    let files = fs::read_dir(data).unwrap();
    let lens = files.filter_map(|file| file.ok()?.metadata().ok());
    lens.filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

/// Waits until `condition` gives nothing to complain about.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + limit;
    while let Err(complaint) = condition() {
        assert!(
            Instant::now() < deadline,
            "still after {limit:?}: {complaint}"
        );
        thread::sleep(POLL);
    }
}
