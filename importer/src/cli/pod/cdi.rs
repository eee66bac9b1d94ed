//! The contract of `cdi-importer`: a source goes onto the volume that is mounted, in one hop and without scratch space.
//!
//! | variable | meaning |
//! |---|---|
//! | `IMPORTER_SOURCE` | `http` (also for what is unknown), `s3`, `gcs`, `registry`, `none` (a disk of zeros) |
//! | `IMPORTER_ENDPOINT`, `IMPORTER_CONTENTTYPE` | address of the source; `kubevirt` or `archive` |
//! | `IMPORTER_IMAGE_SIZE`, `FILESYSTEM_OVERHEAD`, `PREALLOCATION` | how large the disk becomes |
//! | `IMPORTER_ACCESS_KEY_ID`, `IMPORTER_SECRET_KEY`, `IMPORTER_CERT_DIR`, `INSECURE_TLS`, `IMPORTER_EXTRA_HEADER_<n>` | how to reach the source |
//! | `IMPORTER_REGISTRY_IMAGE_ARCHITECTURE` | which image of an index |
//! | `OWNER_UID` | label of the metrics |
//!
//! The target is `/dev/cdi-block-volume` if that exists, else `/data/disk.img`; archives go to `/data`. Exit code 0 is success, with JSON as
//! termination message; 1 is anything else, with one line of text.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use clap::Parser;
use dvcr_importer::import::in_one_line;

use super::{Environment, leave, serve_metrics};
use crate::cli::{populate::PopulateArgs, process::Process};

/// Where a block volume is.
const BLOCK_VOLUME: &str = "/dev/cdi-block-volume";

/// Where a file system volume is.
const VOLUME: &str = "/data";

/// Where the password goes, for its reader.
const PASSWORD_FILE: &str = "dvcr-importer-password";

/// What the environment asks for, as arguments of the command `populate`.
#[derive(Debug)]
pub(crate) struct Settings {
    environment: Environment,
    kind: &'static str,
    arguments: Vec<String>,
    password: Option<String>,
    preallocate: bool,
    owner: String,
}

/// The command by itself.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Populate {
    #[command(flatten)]
    args: PopulateArgs,
}

impl Settings {
    pub(super) fn parse(environment: &Environment) -> anyhow::Result<Self> {
        let block = Path::new(BLOCK_VOLUME).exists();
        Self::parse_for(environment, block)
    }

    fn parse_for(environment: &Environment, block: bool) -> anyhow::Result<Self> {
        let endpoint = environment.get("IMPORTER_ENDPOINT");
        let wanted = || endpoint.context("IMPORTER_ENDPOINT is not set");
        let mut arguments: Vec<String> = vec![];
        let mut push =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        if environment.get("IMPORTER_CHECKSUM").is_some() {
            bail!(
                "IMPORTER_CHECKSUM is compared on the way into a registry only; import the image there, and populate the volume from it"
            );
        }
        let kind = match environment.get("IMPORTER_SOURCE").unwrap_or("http") {
            "none" => {
                push(&["blank:"]);
                "none"
            }
            "registry" => {
                let endpoint = wanted()?;
                let image = endpoint.strip_prefix("docker://").unwrap_or(endpoint);
                push(&[&format!("docker://{image}")]);
                "registry"
            }
            kind @ ("s3" | "gcs") => {
                let (scheme, kind) = if kind == "s3" {
                    ("s3", "s3")
                } else {
                    ("gs", "gcs")
                };
                let (object, service) = object(wanted()?, scheme)?;
                push(&[&object]);
                if let Some(service) = service {
                    push(&["--s3-endpoint", &service]);
                }
                kind
            }
            "imageio" | "vddk" => bail!("imports from oVirt and vSphere are not done"),
            _ => {
                push(&[wanted()?]);
                "http"
            }
        };
        let archive = match environment.get("IMPORTER_CONTENTTYPE") {
            None | Some("kubevirt") => false,
            Some("archive") => true,
            Some(other) => bail!("IMPORTER_CONTENTTYPE is kubevirt or archive, not {other:?}"),
        };
        match (archive, block) {
            (true, true) => bail!("an archive needs a volume with a file system"),
            (true, false) => push(&[VOLUME, "--archive"]),
            (false, true) => push(&[BLOCK_VOLUME]),
            (false, false) => push(&[&format!("{VOLUME}/disk.img")]),
        }
        let preallocate = match environment.get("PREALLOCATION") {
            Some("true") => true,
            Some("false") | None => false,
            Some(other) => bail!("PREALLOCATION is true or false, not {other:?}"),
        };
        if !archive {
            if let Some(size) = environment.get("IMPORTER_IMAGE_SIZE") {
                push(&["--size", size]);
            }
            if let Some(overhead) = environment.get("FILESYSTEM_OVERHEAD") {
                push(&["--filesystem-overhead", overhead]);
            }
            if preallocate {
                push(&["--preallocate"]);
            }
        }
        if let Some(dir) = environment.get("IMPORTER_CERT_DIR") {
            push(&["--ca", dir]);
        }
        if environment.flag("INSECURE_TLS")? {
            push(&["--insecure"]);
        }
        if let Some(architecture) = environment.get("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE") {
            push(&["--platform", &format!("linux/{architecture}")]);
        }
        for header in environment.headers()? {
            push(&["--header", &header]);
        }
        let password = environment.text("IMPORTER_SECRET_KEY");
        if let (Some(user), Some(_)) = (environment.get("IMPORTER_ACCESS_KEY_ID"), &password) {
            let file = std::env::temp_dir().join(PASSWORD_FILE);
            push(&[
                "--username",
                user,
                "--password-file",
                &file.to_string_lossy(),
            ]);
        }
        Ok(Self {
            environment: environment.clone(),
            kind,
            arguments,
            password,
            preallocate,
            owner: environment.text("OWNER_UID").unwrap_or_default(),
        })
    }

    pub(super) fn run(&self, process: &Process) -> ExitCode {
        match self.populate(process) {
            Ok(()) => {
                let message = serde_json::json!({
                    "scratchSpaceRequired": false,
                    "preallocationApplied": self.preallocate,
                    "message": "Import Complete",
                });
                leave(&message.to_string());
                ExitCode::SUCCESS
            }
            Err(error) => {
                let text = in_one_line(error.as_ref());
                let what = match self.kind {
                    "registry" => "Unable to process data: failed to pull image".to_owned(),
                    _ => "Unable to process data".to_owned(),
                };
                leave(&format!("{what}: {text}"));
                ExitCode::from(1)
            }
        }
    }

    fn populate(&self, process: &Process) -> anyhow::Result<()> {
        let args = Populate::try_parse_from(&self.arguments);
        let args = args
            .context("the environment asks for something that cannot be")?
            .args
            .frugal();
        if let Some(password) = &self.password {
            let file = std::env::temp_dir().join(PASSWORD_FILE);
            let mut options = fs::File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&file).context("keep the password")?;
            std::io::Write::write_all(&mut file, password.as_bytes())
                .context("keep the password")?;
        }
        let progress = args.progress();
        let gauge = move || {
            let (done, total) = (progress.done(), progress.total());
            let percent = 100.0 * done as f64 / total.max(1) as f64;
            (percent.min(100.0), progress.written())
        };
        serve_metrics(process, &self.environment, &self.owner, Arc::new(gauge));
        args.run(process.runtime(), &process.cancel)
    }
}

/// An object's address as ours, and the service that has it: CDI writes both `s3://bucket/key` and `https://service/bucket/key`.
fn object(endpoint: &str, scheme: &str) -> anyhow::Result<(String, Option<String>)> {
    match endpoint.split_once("://") {
        Some((found, _)) if found == scheme => Ok((endpoint.to_owned(), None)),
        Some((http @ ("http" | "https"), rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let public = [
                "storage.googleapis.com",
                "storage.cloud.google.com",
                "s3.amazonaws.com",
            ];
            let service = (!public.contains(&host)).then(|| format!("{http}://{host}"));
            Ok((format!("{scheme}://{path}"), service))
        }
        _ => bail!("IMPORTER_ENDPOINT is no address of an object: {endpoint:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<const N: usize>(variables: [(&str, &str); N], block: bool, expected: &str) {
        let settings = Settings::parse_for(&Environment::from(variables), block);
        let arguments = settings.unwrap().arguments;
        assert_eq!(arguments.join(" "), expected);
        if let Err(error) = Populate::try_parse_from(&arguments) {
            panic!("{expected}: {error}");
        }
    }

    #[test]
    fn arguments() {
        check(
            [
                ("IMPORTER_SOURCE", "http"),
                ("IMPORTER_ENDPOINT", "https://host/disk.img"),
                ("IMPORTER_IMAGE_SIZE", "10Gi"),
                ("FILESYSTEM_OVERHEAD", "0.06"),
                ("PREALLOCATION", "true"),
            ],
            false,
            "https://host/disk.img /data/disk.img --size 10Gi --filesystem-overhead 0.06 --preallocate",
        );
        check(
            [
                ("IMPORTER_SOURCE", "registry"),
                ("IMPORTER_ENDPOINT", "docker://host/disk:1"),
                ("INSECURE_TLS", "true"),
                ("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE", "arm64"),
            ],
            true,
            "docker://host/disk:1 /dev/cdi-block-volume --insecure --platform linux/arm64",
        );
        check(
            [
                ("IMPORTER_SOURCE", "s3"),
                ("IMPORTER_ENDPOINT", "http://minio:9000/bucket/disk.img"),
                ("IMPORTER_EXTRA_HEADER_0", "X-A: b"),
            ],
            true,
            "s3://bucket/disk.img --s3-endpoint http://minio:9000 /dev/cdi-block-volume --header X-A: b",
        );
        check(
            [("IMPORTER_SOURCE", "none"), ("IMPORTER_IMAGE_SIZE", "1Gi")],
            false,
            "blank: /data/disk.img --size 1Gi",
        );
        check(
            [
                ("IMPORTER_ENDPOINT", "https://host/x.tar"),
                ("IMPORTER_CONTENTTYPE", "archive"),
            ],
            false,
            "https://host/x.tar /data --archive",
        );
    }

    #[test]
    fn what_cannot_be() {
        for variables in [
            [("IMPORTER_SOURCE", "http"), ("PREALLOCATION", "false")],
            [("IMPORTER_SOURCE", "none"), ("PREALLOCATION", "maybe")],
            [("IMPORTER_SOURCE", "none"), ("IMPORTER_CHECKSUM", "md5:00")],
            [("IMPORTER_SOURCE", "vddk"), ("IMPORTER_ENDPOINT", "x")],
        ] {
            let settings = Settings::parse_for(&Environment::from(variables), false);
            assert!(settings.is_err(), "{variables:?}");
        }
    }
}
