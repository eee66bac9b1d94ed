//! Where a disk comes from, and how that is reached.

use std::{env, error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;

use super::registry::{Wrong, read, read_all};
use crate::{
    import::Origin,
    source::{
        CONNECTIONS, CONNECTIONS_MAX, Location, RemoteOptions,
        http::{Http, HttpOptions, STALL, parse_header},
        object::{Object, ObjectOptions},
    },
};

/// How to reach the source.
#[derive(Args, Clone)]
#[command(next_help_heading = "Source")]
pub(super) struct SourceArgs {
    /// User (in object stores: access key id, or account) of the source
    #[arg(long, value_name = "NAME", env = "DVCR_SOURCE_USER")]
    pub(super) source_user: Option<String>,

    /// Password (in object stores: secret key) of the source
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "DVCR_SOURCE_PASSWORD",
        hide_env_values = true
    )]
    pub(super) source_password: Option<String>,

    /// A header for the web server, like `Authorization: Bearer ...`; it goes to no other host
    #[arg(long, value_name = "NAME: VALUE")]
    pub(super) source_header: Vec<String>,

    /// A file with one header; for secret ones
    #[arg(long, value_name = "FILE")]
    pub(super) source_header_file: Vec<PathBuf>,

    /// Certificate authority of the source, beside those of the system: a PEM file
    #[arg(long, value_name = "FILE")]
    pub(super) source_ca: Vec<PathBuf>,

    /// Take any certificate of the source
    #[arg(long)]
    pub(super) source_insecure: bool,

    /// Address of the object store, if it is not the provider's own
    #[arg(long, value_name = "URL", env = "DVCR_S3_ENDPOINT")]
    pub(super) s3_endpoint: Option<String>,

    /// Region of an S3 bucket
    #[arg(long, value_name = "NAME")]
    pub(super) s3_region: Option<String>,

    /// Ask the object store without credentials
    #[arg(long)]
    pub(super) anonymous: bool,

    /// Never ask for ranges: for web servers that answer them wrongly
    #[arg(long)]
    pub(super) no_ranges: bool,

    /// Requests in parallel
    #[arg(long, value_name = "NUMBER", default_value_t = CONNECTIONS, value_parser = connections)]
    pub(super) connections: usize,

    /// A connection without a byte for so many seconds is broken
    #[arg(long, value_name = "SECONDS", default_value_t = STALL.as_secs())]
    pub(super) stall: u64,
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
    /// Opens a source that is no image of a registry.
    pub(super) fn open(&self, location: Location) -> Result<Origin, Box<dyn Error>> {
        let keys = self.source_user.clone().map(|user| {
            let password = self.source_password.clone();
            (user, password.unwrap_or_default())
        });
        let stall = Some(Duration::from_secs(self.stall.max(1)));
        let ca = read_all(&self.source_ca)?;
        Ok(match location {
            Location::Http(url) => {
                let mut headers = self.source_header.clone();
                for path in &self.source_header_file {
                    let text = String::from_utf8(read(path)?);
                    let text = text.map_err(|_| Wrong(format!("{} is no text", path.display())))?;
                    headers.push(text.trim().to_owned());
                }
                let headers: Result<_, _> = headers.iter().map(|text| parse_header(text)).collect();
                let options = HttpOptions {
                    credentials: keys,
                    headers: headers.map_err(Wrong)?,
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
                    google_key: None,
                    ca,
                    insecure: self.source_insecure,
                    stall,
                };
                Origin::Server(Arc::new(Object::new(&url, &options)?))
            }
            Location::File(path) => {
                if !path.exists() {
                    let text = path.display();
                    return Err(Wrong(format!(
                        "there is no file {text}; an image of a registry is written docker://{text}"
                    ))
                    .into());
                }
                Origin::File(path)
            }
            Location::Stdin => Origin::Stream(Box::new(io::stdin())),
            Location::Registry(reference) => {
                return Err(Wrong(format!("docker://{reference} cannot be read here")).into());
            }
        })
    }

    /// How servers are read.
    pub(super) fn remote(&self, stop: tokio_util::sync::CancellationToken) -> RemoteOptions {
        RemoteOptions {
            connections: self.connections,
            stop,
            ..RemoteOptions::default()
        }
    }
}

/// Where imports keep what later tries go on with, unless somebody says: not /tmp, which may be memory, and is not there after a restart.
pub(super) fn default_work_dir() -> PathBuf {
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
