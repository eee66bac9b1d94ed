//! The core stays pure: no I/O, no async, no clock, no randomness. This is what lets every program use it and every test
//! of it be a table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Direct dependencies. A new one needs a reason: ask first what a hundred plain lines would do.
const ALLOWED: [&str; 7] = [
    "blake3",
    "hex",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "xxhash-rust",
];

/// What must not appear at any depth.
const FORBIDDEN: [&str; 12] = [
    "axum",
    "getrandom",
    "hyper",
    "kube",
    "mio",
    "rand",
    "redb",
    "reqwest",
    "rustix",
    "tokio",
    "tracing",
    "zstd",
];

/// Parts of the standard library that do I/O or read a clock.
const FORBIDDEN_STD: [&str; 7] = ["env", "fs", "io", "net", "process", "thread", "time"];

fn packages(depth: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            "dvcr-core",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--no-dedupe", "--depth", depth])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let names = lines
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty());
    names
        .filter(|name| *name != "dvcr-core")
        .map(str::to_owned)
        .collect()
}

#[test]
fn only_allowed_dependencies() {
    let direct = packages("1");
    assert!(
        direct.iter().all(|name| ALLOWED.contains(&name.as_str())),
        "{direct:?}"
    );
}

#[test]
fn nothing_forbidden_at_any_depth() {
    let all = packages("99");
    assert!(
        all.contains("blake3") && all.len() > ALLOWED.len(),
        "{all:?}"
    );
    for name in FORBIDDEN {
        assert!(!all.contains(name), "{name} is in the core's tree");
    }
}

#[test]
fn nothing_forbidden_of_the_standard_library() {
    fn check(directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                check(&path);
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            // Tests come last in a file and may measure.
            let code = source.split("#[cfg(test)]").next().unwrap();
            for module in FORBIDDEN_STD {
                assert!(
                    !code.contains(&format!("std::{module}")),
                    "{}: std::{module}",
                    path.display()
                );
            }
        }
    }
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
}
