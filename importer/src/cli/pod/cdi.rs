//! The contract of `cdi-importer`: a source goes onto the volume that is mounted, in one hop and without scratch space.
//!
//! | variable | meaning |
//! |---|---|
//! | `IMPORTER_SOURCE` | `http` (also for what is unknown), `s3`, `gcs`, `registry`, `none` (a disk of zeros) |
//! | `IMPORTER_ENDPOINT`, `IMPORTER_CONTENTTYPE` | address of the source; `kubevirt` or `archive` |
//! | `IMPORTER_CHECKSUM` | `algorithm:hex` of the source's bytes |
//! | `IMPORTER_IMAGE_SIZE`, `FILESYSTEM_OVERHEAD`, `PREALLOCATION` | how large the disk becomes |
//! | `IMPORTER_ACCESS_KEY_ID`, `IMPORTER_SECRET_KEY`, `INSECURE_TLS`, `IMPORTER_EXTRA_HEADER_<n>` | how to reach the source |
//! | `IMPORTER_CERT_DIR`, `IMPORTER_PROXY_CERT_DIR` | directories of certificates to trust |
//! | `IMPORTER_REGISTRY_IMAGE_ARCHITECTURE` | which image of an index |
//! | `IMPORTER_PULL_METHOD` | `node`: labels come from `/info` of the server beside us |
//! | `IMPORTER_READY_FILE`, `IMPORTER_DONE_FILE` | the server is a container of the same pod: when it is ready, and that it may end |
//! | `OWNER_UID` | label of the metrics |
//! | `DVCR_WORK_DIR` | ours: temporary files, and what a restarted container goes on with on a block volume |
//!
//! The target is `/dev/cdi-block-volume` if that exists, else `/data/disk.img`; archives go to `/data`. Exit code 0 is success, with JSON as
//! termination message, or a checksum that does not fit, which nobody is to try again; 1 is anything else, with one line of text.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use dvcr_importer::{
    checksum::Mismatch,
    image::ImageError,
    import::{find, in_one_line},
    populate::PopulateError,
    source::Location,
    target::TargetError,
};
use serde::Deserialize;

use super::{
    Environment, MESSAGE_BYTES_MAX, endpoint::Endpoint, first_line, in_variables, leave,
    serve_metrics, shortened,
};
use crate::cli::{populate::PopulateArgs, process::Process, source::SourceArgs};

/// Where a block volume is.
const BLOCK_VOLUME: &str = "/dev/cdi-block-volume";

/// Where a file system volume is.
const VOLUME: &str = "/data";

/// What the disk in there is called, and in an address the name that [`Ready`] replaces.
const DISK_FILE: &str = "disk.img";

/// Who may use the disk, whatever the umask: its owner and its group, to which QEMU belongs.
const DISK_MODE: u32 = 0o660;

/// Idle time after which a connection is broken.
const STALL_SECONDS: u64 = 600;

/// Longest wait for the server beside us, as CDI has it.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Longest wait for what it says of its image, and longest answer.
const INFO_TIME: Duration = Duration::from_secs(30);
const INFO_BYTES_MAX: usize = 1 << 20;

/// How often is looked whether it is there.
const READY_POLL: Duration = Duration::from_millis(200);

/// What the environment asks for, as the command `populate`.
#[derive(Debug)]
pub(crate) struct Settings {
    environment: Environment,
    kind: &'static str,
    populate: PopulateArgs,
    ready_file: Option<PathBuf>,
    done_file: Option<PathBuf>,
    /// The node has pulled the image, and a container beside us serves what is in it.
    node_pull: bool,
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
        let mut source = SourceArgs {
            source_user: environment.text("IMPORTER_ACCESS_KEY_ID"),
            source_password: environment.text("IMPORTER_SECRET_KEY"),
            source_header: environment.headers()?,
            source_ca: environment.certificates(&["IMPORTER_CERT_DIR", "IMPORTER_PROXY_CERT_DIR"]),
            source_insecure: environment.flag("INSECURE_TLS")?,
            stall: STALL_SECONDS,
            ..SourceArgs::default()
        };
        if let Some(architecture) = environment.get("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE") {
            source.platform = Some(format!("linux/{architecture}").parse()?);
        }
        let Endpoint {
            kind,
            location,
            service,
            region,
        } = Endpoint::parse(environment)?;
        source.s3_endpoint = service;
        source.s3_region = region;
        let archive = match environment.get("IMPORTER_CONTENTTYPE") {
            None | Some("kubevirt") => false,
            Some("archive") => true,
            Some(other) => bail!("IMPORTER_CONTENTTYPE is kubevirt or archive, not {other:?}"),
        };
        let disk = format!("{VOLUME}/{DISK_FILE}");
        // The place itself is not for clap, which would tell what is wrong with it, password and all.
        let mut arguments = vec!["-"];
        match (archive, block) {
            (true, _) if kind == "none" => {
                bail!("Cannot create empty disk with content type archive")
            }
            (true, _) if kind == "registry" => {
                bail!("Unsupported content type archive when importing from registry")
            }
            (true, true) => bail!("an archive needs a volume with a file system"),
            (true, false) => arguments.extend([VOLUME, "--archive"]),
            (false, true) => arguments.push(BLOCK_VOLUME),
            (false, false) => arguments.push(&disk),
        }
        let preallocate = match environment.get("PREALLOCATION") {
            Some("true") => true,
            Some("false") | None => false,
            Some(other) => bail!("PREALLOCATION is true or false, not {other:?}"),
        };
        let state = environment
            .path("DVCR_WORK_DIR")
            .map(|dir| dir.join("populate"));
        let state = state.map(|path| path.to_string_lossy().into_owned());
        if !archive {
            let options = [
                ("--size", environment.get("IMPORTER_IMAGE_SIZE")),
                (
                    "--filesystem-overhead",
                    environment.get("FILESYSTEM_OVERHEAD"),
                ),
                ("--state", state.as_deref().filter(|_| block)),
            ];
            for (option, value) in options {
                if let Some(value) = value {
                    arguments.extend([option, value]);
                }
            }
            if preallocate {
                arguments.push("--preallocate");
            }
        }
        if let Some(checksum) = environment.get("IMPORTER_CHECKSUM") {
            arguments.extend(["--checksum", checksum]);
        }
        let mut populate = Populate::try_parse_from(arguments)
            .map_err(|error| anyhow::anyhow!("{}", first_line(&error)))?
            .args;
        populate.source = location;
        populate.disk.source = source;
        populate.disk.work = environment.work();
        Ok(Self {
            environment: environment.clone(),
            kind,
            populate,
            ready_file: environment.path("IMPORTER_READY_FILE"),
            done_file: environment.path("IMPORTER_DONE_FILE"),
            node_pull: environment.get("IMPORTER_PULL_METHOD") == Some("node"),
            preallocate,
            owner: environment.text("OWNER_UID").unwrap_or_default(),
        })
    }

    pub(super) fn run(self, process: &Process) -> ExitCode {
        let (kind, preallocate) = (self.kind, self.preallocate);
        let message = |text: String, labels| {
            let mut message = serde_json::json!({
                "scratchSpaceRequired": false,
                "preallocationApplied": preallocate,
                "message": text,
            });
            with_labels(&mut message, labels);
            leave(&message.to_string());
        };
        match self.populate(process) {
            Ok(labels) => {
                message("Import Complete".to_owned(), labels);
                ExitCode::SUCCESS
            }
            Err(error) => {
                let text = shortened(&format!(
                    "{}: {}",
                    what_failed(kind, &error),
                    in_variables(&reason(&error))
                ));
                if find::<Mismatch>(error.as_ref()).is_some() {
                    // This way CDI learns that it is final.
                    message(text, Default::default());
                    return ExitCode::SUCCESS;
                }
                leave(&text);
                ExitCode::from(1)
            }
        }
    }

    /// Does it; labels for the volume.
    fn populate(mut self, process: &Process) -> anyhow::Result<Labels> {
        let progress = self.populate.progress();
        let gauge = move || (progress.percent(), progress.written());
        serve_metrics(process, &self.environment, &self.owner, Arc::new(gauge));
        if let (Some(file), false) = (&self.ready_file, self.kind == "none") {
            let image = wait_for(file, process)?;
            if let (Location::Http(url), false) = (&mut self.populate.source, image.is_empty()) {
                let path = url
                    .path()
                    .strip_suffix(DISK_FILE)
                    .map(|dir| format!("{dir}{image}"));
                if let Some(path) = path {
                    url.set_path(&path);
                }
            }
        }
        let beside = self.image_beside(process);
        let image = self.populate.run(process)?;
        let disk = Path::new(VOLUME).join(DISK_FILE);
        if self.populate.target == disk {
            let mode = fs::Permissions::from_mode(DISK_MODE);
            fs::set_permissions(&disk, mode).context("let QEMU use the disk")?;
        }
        if let Some(file) = &self.done_file {
            fs::write(file, "").with_context(|| file.display().to_string())?;
        }
        let environment = match image {
            Some(image) => image.environment()?,
            None => beside,
        };
        Ok(labels(&environment))
    }

    /// Variables of the image that a container beside us serves the disk of: the node has pulled it.
    fn image_beside(&self, process: &Process) -> Vec<String> {
        let (true, Location::Http(url)) = (self.node_pull, &self.populate.source) else {
            return vec![];
        };
        process
            .runtime()
            .block_on(served_environment(url))
            .unwrap_or_else(|error| {
                eprintln!("dvcr-importer: no labels: {error:#}");
                vec![]
            })
    }
}

/// What the server of a pulled image says of it at `/info`: `{"Env": ["NAME=value"]}`. Source: CDI `tools/cdi-containerimage-server`.
async fn served_environment(disk: &reqwest::Url) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default, rename = "Env", alias = "env")]
        environment: Vec<String>,
    }
    let mut url = disk.clone();
    url.set_path("/info");
    url.set_query(None);
    // It is in the same pod, and needs neither a proxy nor authorities, of which a slim container has none.
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(INFO_TIME);
    let mut answer = client.build()?.get(url).send().await?.error_for_status()?;
    let mut text = vec![];
    while let Some(part) = answer.chunk().await? {
        text.extend_from_slice(&part);
        if text.len() > INFO_BYTES_MAX {
            bail!("the answer is too long");
        }
    }
    Ok(serde_json::from_slice::<Info>(&text)?.environment)
}

/// Labels for the volume.
type Labels = serde_json::Map<String, serde_json::Value>;

/// Puts labels into a message, the longest of them only if there is room: what the kubelet cuts is no JSON.
fn with_labels(message: &mut serde_json::Value, mut labels: Labels) {
    while !labels.is_empty() {
        message["labels"] = labels.clone().into();
        if message.to_string().len() <= MESSAGE_BYTES_MAX {
            return;
        }
        let len = |name: &str, value: &serde_json::Value| name.len() + value.to_string().len();
        let longest = labels
            .iter()
            .max_by_key(|(name, value)| len(name, value))
            .map(|(name, _)| name.clone());
        let Some(name) = longest else { break };
        labels.remove(&name);
        eprintln!("dvcr-importer: no room in the termination message for the label {name:.100}");
    }
    if let Some(message) = message.as_object_mut() {
        message.remove("labels");
    }
}

/// What went wrong, as CDI begins it. Of images it has a reason of its own, which is not for volumes that are too small.
fn what_failed(kind: &str, error: &anyhow::Error) -> &'static str {
    let error = error.as_ref();
    let of_image =
        find::<ImageError>(error).is_some() || find::<dvcr_client::Error>(error).is_some();
    match kind {
        "registry" if of_image => "Unable to process data: failed to pull image",
        _ => "Unable to process data",
    }
}

/// Why, with the words that CDI looks for.
fn reason(error: &anyhow::Error) -> String {
    let text = in_one_line(error.as_ref());
    if let Some(TargetError::TooSmall {
        needed, available, ..
    }) = find(error.as_ref())
    {
        return format!(
            "Virtual image size {needed} is larger than the reported available storage {available}. A larger PVC is required. ({text})"
        );
    }
    if let Some(PopulateError::TooSmall(available)) = find(error.as_ref()) {
        return format!(
            "Virtual image size is larger than the reported available storage {available}. A larger PVC is required. ({text})"
        );
    }
    match find::<std::io::Error>(error.as_ref()) {
        Some(io) if io.kind() == std::io::ErrorKind::StorageFull => {
            format!("no space left on device: {text}")
        }
        _ => text,
    }
}

/// Waits for a file; what is in it.
fn wait_for(path: &Path, process: &Process) -> anyhow::Result<String> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            Err(_) if process.cancel.load(Ordering::Relaxed) => bail!("stopped"),
            Err(_) if Instant::now() >= deadline => {
                bail!("Timeout waiting for file {}", path.display())
            }
            Err(_) => thread::sleep(READY_POLL),
        }
    }
}

/// Variables of an image's environment become labels of its volume: `INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE` is
/// `instancetype.kubevirt.io/default-instancetype`.
fn labels(environment: &[String]) -> Labels {
    const MARK: &str = "KUBEVIRT_IO_";
    let mut labels = Labels::new();
    for entry in environment {
        let Some((name, value)) = entry.split_once('=') else {
            continue;
        };
        let Some(at) = name.find(MARK) else { continue };
        let (domain, rest) = name.split_at(at + MARK.len());
        let domain = domain.trim_end_matches('_').replace('_', ".");
        let label = format!("{domain}/{}", rest.replace('_', "-")).to_lowercase();
        labels.insert(label, value.into());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<const N: usize>(
        variables: [(&str, &str); N],
        block: bool,
    ) -> anyhow::Result<Settings> {
        Settings::parse_for(&Environment::from(variables), block)
    }

    #[test]
    fn where_it_goes() {
        fn check<const N: usize>(variables: [(&str, &str); N], block: bool, expected: &str) {
            let populate = parse(variables, block).unwrap().populate;
            let found = format!("{} {}", populate.source, populate.target.display());
            assert_eq!(found, expected);
        }
        let http = ("IMPORTER_ENDPOINT", "https://host/disk.img");
        check([http], false, "https://host/disk.img /data/disk.img");
        check([http], true, "https://host/disk.img /dev/cdi-block-volume");
        let archive = ("IMPORTER_CONTENTTYPE", "archive");
        check([http, archive], false, "https://host/disk.img /data");
        let blank = [("IMPORTER_SOURCE", "none"), ("IMPORTER_IMAGE_SIZE", "1Gi")];
        check(blank, false, "blank: /data/disk.img");
    }

    #[test]
    fn what_is_said_beside() {
        let settings = parse(
            [
                ("IMPORTER_ENDPOINT", "https://host/disk.img"),
                ("IMPORTER_IMAGE_SIZE", "10Gi"),
                ("FILESYSTEM_OVERHEAD", "0.06"),
                ("PREALLOCATION", "true"),
                ("IMPORTER_CHECKSUM", "md5:900150983cd24fb0d6963f7d28e17f72"),
                ("IMPORTER_ACCESS_KEY_ID", "me"),
                ("IMPORTER_SECRET_KEY", "secret"),
                ("IMPORTER_CERT_DIR", "/certs"),
                ("IMPORTER_PROXY_CERT_DIR", "/proxycerts/"),
                ("INSECURE_TLS", "true"),
                ("IMPORTER_EXTRA_HEADER_0", "X-A: b"),
                ("IMPORTER_REGISTRY_IMAGE_ARCHITECTURE", "arm64"),
            ],
            false,
        )
        .unwrap();
        let populate = format!("{:?}", settings.populate);
        for part in [
            "size: Some(10737418240)",
            "filesystem_overhead: 0.06",
            "preallocate: true",
            "algorithm: Md5",
        ] {
            assert!(populate.contains(part), "{part}: {populate}");
        }
        assert!(!populate.contains("secret"), "{populate}");
        let source = &settings.populate.disk.source;
        assert_eq!(source.source_user.as_deref(), Some("me"));
        assert_eq!(source.source_password.as_deref(), Some("secret"));
        assert_eq!(
            source.source_ca,
            [Path::new("/certs"), Path::new("/proxycerts/")]
        );
        assert_eq!(source.source_header, ["X-A: b"]);
        assert!(source.source_insecure);
        assert_eq!(source.platform.as_ref().unwrap().to_string(), "linux/arm64");
    }

    #[test]
    fn what_cannot_be() {
        let endpoint = ("IMPORTER_ENDPOINT", "https://host/x");
        let kind = |kind| ("IMPORTER_SOURCE", kind);
        for (variables, part) in [
            ([kind("http"), kind("http")], "IMPORTER_ENDPOINT is not set"),
            ([endpoint, ("PREALLOCATION", "maybe")], "true or false"),
            ([endpoint, ("INSECURE_TLS", "maybe")], "true or false"),
            (
                [endpoint, ("IMPORTER_CONTENTTYPE", "tar")],
                "kubevirt or archive",
            ),
            (
                [endpoint, ("IMPORTER_CHECKSUM", "md5:00")],
                "32 hexadecimal digits",
            ),
            ([endpoint, ("IMPORTER_IMAGE_SIZE", "1.5GB")], "is no size"),
            ([endpoint, ("FILESYSTEM_OVERHEAD", "2")], "from 0 to 1"),
            (
                [kind("none"), ("IMPORTER_CONTENTTYPE", "archive")],
                "Cannot create empty disk",
            ),
        ] {
            let error = format!("{:#}", parse(variables, false).unwrap_err());
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
