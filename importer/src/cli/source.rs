//! Where a disk comes from, and how that is reached.

use std::{env, io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use dvcr_client::{Platform, Reference};
use dvcr_importer::{
    image::{Image, Registry},
    import::Origin,
    source::{
        CONNECTIONS, CONNECTIONS_MAX, Location, RemoteOptions,
        http::{Http, HttpOptions, STALL, parse_header},
        object::{Object, ObjectOptions},
    },
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::registry::{RegistryArgs, read, read_pems};

/// How to reach the source.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Source")]
pub(crate) struct SourceArgs {
    /// User (in object stores: access key id, or account) of the source
    #[arg(long, value_name = "NAME", env = "DVCR_SOURCE_USER")]
    pub(crate) source_user: Option<String>,

    /// Password (in object stores: secret key) of the source
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "DVCR_SOURCE_PASSWORD",
        hide_env_values = true
    )]
    pub(crate) source_password: Option<String>,

    /// A header for the web server, like `Authorization: Bearer ...`; it goes to no other host
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) source_header: Vec<String>,

    /// A file with one header; for secret ones
    #[arg(long, value_name = "FILE")]
    pub(crate) source_header_file: Vec<PathBuf>,

    /// Certificate authority of the source, beside those of the system: a PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) source_ca: Vec<PathBuf>,

    /// Take any certificate of the source
    #[arg(long)]
    pub(crate) source_insecure: bool,

    /// Address of the object store, if it is not the provider's own
    #[arg(long, value_name = "URL", env = "DVCR_S3_ENDPOINT")]
    pub(crate) s3_endpoint: Option<String>,

    /// Region of an S3 bucket
    #[arg(long, value_name = "NAME")]
    pub(crate) s3_region: Option<String>,

    /// Ask the object store without credentials
    #[arg(long)]
    pub(crate) anonymous: bool,

    /// File of credentials for a registry that is the source
    #[arg(long, value_name = "FILE")]
    pub(crate) source_authfile: Option<PathBuf>,

    /// Image of an index, such as linux/arm64; this machine's if not said
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub(crate) platform: Option<Platform>,

    /// File in the image or archive, if it is not the usual one
    #[arg(long, value_name = "NAME")]
    pub(crate) file: Option<String>,

    /// Key of a Google service account, a JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) google_key: Option<PathBuf>,

    /// Never ask for ranges: for web servers that answer them wrongly
    #[arg(long)]
    pub(crate) no_ranges: bool,

    /// Requests in parallel
    #[arg(long, value_name = "NUMBER", default_value_t = CONNECTIONS, value_parser = connections)]
    pub(crate) connections: usize,

    /// A connection without a byte for so many seconds is broken
    #[arg(long, value_name = "SECONDS", default_value_t = STALL.as_secs())]
    pub(crate) stall: u64,
}

fn connections(text: &str) -> Result<usize, String> {
    let wrong = || format!("a number from 1 to {CONNECTIONS_MAX} is wanted");
    let number = text.parse().map_err(|_| wrong())?;
    (1..=CONNECTIONS_MAX)
        .contains(&number)
        .then_some(number)
        .ok_or_else(wrong)
}

impl SourceArgs {
    /// What is imported from there.
    pub(crate) fn open(&self, location: Location, runtime: &Handle) -> anyhow::Result<Origin> {
        let keys = self.source_user.clone().map(|user| {
            let password = self.source_password.clone();
            (user, password.unwrap_or_default())
        });
        let stall = Some(Duration::from_secs(self.stall.max(1)));
        let ca = read_pems(&self.source_ca)?;
        Ok(match location {
            Location::Http(url) => {
                let mut headers = self.source_header.clone();
                for path in &self.source_header_file {
                    let text = String::from_utf8(read(path)?);
                    let text = text.with_context(|| format!("{} is no text", path.display()))?;
                    headers.push(text.trim().to_owned());
                }
                let headers: Result<_, _> = headers.iter().map(|text| parse_header(text)).collect();
                let options = HttpOptions {
                    credentials: keys,
                    headers: headers.map_err(|reason: String| anyhow!(reason))?,
                    ca,
                    insecure: self.source_insecure,
                    no_ranges: self.no_ranges,
                    stall,
                };
                Origin::Server(Arc::new(Http::new(url, options)?))
            }
            Location::Object(url) => {
                let options = ObjectOptions {
                    keys,
                    anonymous: self.anonymous,
                    endpoint: self.s3_endpoint.clone(),
                    region: self.s3_region.clone(),
                    google_key: self.google_key.as_deref().map(read_text).transpose()?,
                    ca,
                    insecure: self.source_insecure,
                    stall,
                };
                Origin::Server(Arc::new(Object::new(&url, &options)?))
            }
            Location::File(path) => {
                if !path.exists() {
                    let text = path.display();
                    bail!(
                        "there is no file {text}; an image of a registry is written docker://{text}"
                    );
                }
                Origin::File(path)
            }
            Location::Stdin => Origin::Stream(Box::new(io::stdin())),
            Location::Registry(text) => {
                let reference: Reference = text.parse()?;
                let args = RegistryArgs {
                    user: self.source_user.clone(),
                    password: self.source_password.clone(),
                    authfile: self.source_authfile.clone(),
                    ca: self.source_ca.clone(),
                    insecure: self.source_insecure,
                };
                let repository = args.repository(runtime, &reference)?;
                let registry = Arc::new(Registry::new(repository.clone(), runtime.clone()));
                let manifest = reference.manifest();
                let image = Image::resolve(registry, &manifest, self.platform.as_ref());
                Origin::Image {
                    image: Box::new(image.with_context(|| reference.to_string())?),
                    name: reference.to_string(),
                    repository,
                    file: self.file.clone(),
                }
            }
        })
    }

    /// How servers are read.
    pub(crate) fn remote(&self, stop: CancellationToken) -> RemoteOptions {
        RemoteOptions {
            connections: self.connections,
            stop,
            ..RemoteOptions::default()
        }
    }
}

/// Where imports keep what later tries go on with, unless somebody says: not /tmp, which may be memory, and is not there after a restart.
pub(crate) fn default_work_dir() -> PathBuf {
    let dir = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    dir("XDG_CACHE_HOME")
        .or_else(|| Some(dir("HOME")?.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("dvcr-importer")
}

fn read_text(path: &std::path::Path) -> anyhow::Result<String> {
    String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))
}
