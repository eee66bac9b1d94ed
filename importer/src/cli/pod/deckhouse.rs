//! The contract of Deckhouse's importer: a source becomes an image in a registry.
//!
//! | variable | meaning |
//! |---|---|
//! | `IMPORTER_SOURCE` | `http`, `registry`, `dvcr` (the same registry), `blockDevice` (`/dev/xvda`), `filesystem` (`/tmp/fs/disk.img`) |
//! | `IMPORTER_ENDPOINT` | address of the source |
//! | `IMPORTER_CHECKSUMS` | `algorithm:hex`, separated by commas; also `IMPORTER_SHA256SUM`, `IMPORTER_MD5SUM` |
//! | `IMPORTER_CERT_DIR`, `INSECURE_TLS` | what to trust of the source |
//! | `IMPORTER_ACCESS_KEY_ID`, `IMPORTER_SECRET_KEY`, `IMPORTER_AUTH_CONFIG` | credentials for the source |
//! | `IMPORTER_DESTINATION_ENDPOINT`, `..._ACCESS_KEY_ID`, `..._SECRET_KEY`, `..._AUTH_CONFIG`, `..._CERT_DIR`, `DESTINATION_INSECURE_TLS` | where it goes |
//! | `OWNER_UID` | label of the metrics |
//!
//! The termination message is JSON. Its format is that of the stored disk: the controller copies it into the status of the image, and
//! compares it with the format that a volume wants.
//! Exit code 0 is success; after any other the pod is to be started again: it goes on where it was
//! if its work directory is still there.

use std::{process::ExitCode, thread, time::Instant};

use anyhow::{Context as _, bail};
use dvcr_client::Reference;
use dvcr_importer::{
    checksum::Checksum,
    import::{Import, ImportError, Imported, Options, Progress, in_one_line},
    push::{Compression, Destination, architecture},
    source::Location,
};

use super::{Environment, in_variables, leave, serve_metrics, shortened};
use crate::cli::{
    outcome,
    process::Process,
    registry::{RegistryArgs, parse_destination},
    source::SourceArgs,
};

/// Where the pod has a block device that is a source.
const BLOCK_DEVICE: &str = "/dev/xvda";

/// Where the pod has the disk of a volume that is a source.
const FILESYSTEM_DISK: &str = "/tmp/fs/disk.img";

/// Idle time after which a connection is broken.
const STALL_SECONDS: u64 = 600;

/// What the environment asks for.
#[derive(Debug)]
pub(crate) struct Settings {
    environment: Environment,
    source: Location,
    source_args: SourceArgs,
    checksums: Vec<Checksum>,
    destination: Reference,
    registry: RegistryArgs,
    owner: String,
    /// The source is in the destination's registry: the message says nothing of sizes.
    copy: bool,
}

impl Settings {
    pub(super) fn parse(environment: &Environment) -> anyhow::Result<Self> {
        let registry = RegistryArgs {
            user: environment.text("IMPORTER_DESTINATION_ACCESS_KEY_ID"),
            password: environment.text("IMPORTER_DESTINATION_SECRET_KEY"),
            password_file: None,
            authfile: environment.path("IMPORTER_DESTINATION_AUTH_CONFIG"),
            ca: environment.certificates(&["IMPORTER_DESTINATION_CERT_DIR"]),
            insecure: environment.flag("DESTINATION_INSECURE_TLS")?,
        };
        let kind = environment.get("IMPORTER_SOURCE").unwrap_or("http");
        let endpoint = environment.get("IMPORTER_ENDPOINT");
        let wanted = || endpoint.context("IMPORTER_ENDPOINT is not set");
        let image = |endpoint: &str| endpoint.parse().map(Location::Registry);
        let source = match kind {
            "http" => wanted()?.parse()?,
            "registry" | "dvcr" => image(wanted()?).context("IMPORTER_ENDPOINT")?,
            "blockDevice" => Location::File(BLOCK_DEVICE.into()),
            "filesystem" => Location::File(FILESYSTEM_DISK.into()),
            other => bail!(
                "IMPORTER_SOURCE is http, registry, dvcr, blockDevice or filesystem, not {other:?}"
            ),
        };
        let copy = kind == "dvcr";
        let source_args = SourceArgs {
            source_user: environment.text("IMPORTER_ACCESS_KEY_ID"),
            source_password: environment.text("IMPORTER_SECRET_KEY"),
            source_authfile: environment.path("IMPORTER_AUTH_CONFIG"),
            source_header: environment.headers()?,
            source_ca: environment.certificates(&["IMPORTER_CERT_DIR"]),
            source_insecure: environment.flag("INSECURE_TLS")?,
            stall: STALL_SECONDS,
            ..SourceArgs::default()
        };
        let source_args = if copy {
            SourceArgs {
                source_user: registry.user.clone(),
                source_password: registry.password.clone(),
                source_authfile: registry.authfile.clone(),
                source_ca: registry.ca.clone(),
                source_insecure: registry.insecure,
                ..source_args
            }
        } else {
            source_args
        };
        let mut checksums = vec![];
        let list = environment.get("IMPORTER_CHECKSUMS").unwrap_or_default();
        for text in list.split(',').filter(|text| !text.trim().is_empty()) {
            checksums.push(text.parse().context("IMPORTER_CHECKSUMS")?);
        }
        for (name, algorithm) in [("IMPORTER_SHA256SUM", "sha256"), ("IMPORTER_MD5SUM", "md5")] {
            if let Some(digits) = environment.get(name) {
                checksums.push(format!("{algorithm}:{digits}").parse().context(name)?);
            }
        }
        let destination = environment.get("IMPORTER_DESTINATION_ENDPOINT");
        let destination = destination.context("IMPORTER_DESTINATION_ENDPOINT is not set")?;
        Ok(Self {
            environment: environment.clone(),
            source,
            source_args,
            checksums,
            destination: parse_destination(destination).context("IMPORTER_DESTINATION_ENDPOINT")?,
            registry,
            owner: environment.text("OWNER_UID").unwrap_or_default(),
            copy,
        })
    }

    pub(super) fn run(&self, process: &Process) -> ExitCode {
        let begin = Instant::now();
        let progress = Progress::default();
        let watched = progress.clone();
        let gauge = move || (watched.state().percent(), watched.moved());
        serve_metrics(
            process,
            &self.environment,
            &self.owner,
            std::sync::Arc::new(gauge),
        );
        let result = self.import(process, &progress);
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        match result {
            Ok(imported) => {
                let seconds = begin.elapsed().as_secs_f64().max(0.001);
                leave(&self.message(&imported, nanoseconds, seconds));
                ExitCode::SUCCESS
            }
            Err(error) => {
                let mut text = in_variables(&in_one_line(error.as_ref()));
                let full = error.downcast_ref::<ImportError>();
                if full.is_some_and(ImportError::is_registry_full) {
                    text = format!("no space left on device: {text}");
                }
                leave(&serde_json::json!({ "error-message": shortened(&text) }).to_string());
                ExitCode::from(outcome::code(&error))
            }
        }
    }

    fn import(&self, process: &Process, progress: &Progress) -> anyhow::Result<Imported> {
        let runtime = process.runtime();
        let repository = self.registry.repository(runtime, &self.destination)?;
        let latest = || "latest".parse().expect("`latest` is a well-formed tag");
        let destination = Destination {
            repository,
            tags: vec![self.destination.tag().cloned().unwrap_or_else(latest)],
            architecture: architecture().to_owned(),
        };
        let work = self.environment.work();
        let options = Options {
            checksums: self.checksums.clone(),
            compression: Compression::Zstd,
            verbatim: false,
            file: None,
            work_dir: work.dir(),
            work_bytes_max: work.bytes_max(),
            threads: thread::available_parallelism().map_or(2, usize::from),
            remote: self.source_args.remote(process.stop.clone()),
        };
        let from = self.source_args.open(&self.source, process)?;
        let import = Import {
            options: &options,
            destination: &destination,
            runtime,
            progress,
        };
        Ok(import.run(from, std::time::SystemTime::now())?)
    }

    fn message(&self, imported: &Imported, nanoseconds: u64, seconds: f64) -> String {
        let source = &imported.source;
        let message = if self.copy {
            serde_json::json!({ "duration": nanoseconds })
        } else {
            serde_json::json!({
                "source-image-size": source.len,
                "source-image-virtual-size": source.virtual_len,
                "source-image-format": source.stored,
                "duration": nanoseconds,
                "average-speed": (source.len as f64 / seconds) as u64,
            })
        };
        message.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn sources() {
        let destination = ("IMPORTER_DESTINATION_ENDPOINT", "dvcr.example/vi/a:1");
        for (kind, endpoint, shown) in [
            ("http", "https://host/disk.img", "https://host/disk.img"),
            ("registry", "docker://host:1/a:1", "docker://host:1/a:1"),
            (
                "dvcr",
                "dvcr.example/cvi/b:2",
                "docker://dvcr.example/cvi/b:2",
            ),
            ("blockDevice", "", BLOCK_DEVICE),
            ("filesystem", "", FILESYSTEM_DISK),
        ] {
            let variables = [
                ("IMPORTER_SOURCE", kind),
                ("IMPORTER_ENDPOINT", endpoint),
                destination,
            ];
            let settings = Settings::parse(&Environment::from(variables)).unwrap();
            assert_eq!(settings.source.to_string(), shown);
            assert_eq!(settings.destination.to_string(), "dvcr.example/vi/a:1");
        }
        for wrong in [
            [("IMPORTER_SOURCE", "ftp"), destination],
            [("IMPORTER_SOURCE", "http"), destination],
            [
                ("IMPORTER_SOURCE", "http"),
                ("IMPORTER_ENDPOINT", "https://host/x"),
            ],
        ] {
            assert!(
                Settings::parse(&Environment::from(wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn credentials_and_checksums() {
        let settings = Settings::parse(&Environment::from([
            ("IMPORTER_SOURCE", "http"),
            ("IMPORTER_ENDPOINT", "https://host/disk.img"),
            ("IMPORTER_ACCESS_KEY_ID", "me"),
            ("IMPORTER_SECRET_KEY", "secret"),
            ("IMPORTER_CERT_DIR", "/certs"),
            (
                "IMPORTER_CHECKSUMS",
                "md5:900150983cd24fb0d6963f7d28e17f72, ",
            ),
            ("IMPORTER_DESTINATION_ENDPOINT", "dvcr.example/vi/a:1"),
            (
                "IMPORTER_DESTINATION_AUTH_CONFIG",
                "/auth/.dockerconfigjson",
            ),
            ("DESTINATION_INSECURE_TLS", "true"),
            ("OWNER_UID", "uid"),
        ]))
        .unwrap();
        assert_eq!(settings.source_args.source_user.as_deref(), Some("me"));
        assert_eq!(settings.source_args.source_ca, [PathBuf::from("/certs")]);
        assert_eq!(settings.checksums.len(), 1);
        assert!(settings.registry.insecure && settings.registry.authfile.is_some());
        assert_eq!(settings.owner, "uid");
    }
}
