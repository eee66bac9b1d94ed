//! SOURCE: what every command says about where a disk comes from, and how that is reached.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use dvcr_client::{Platform, Reference, Repository};
use dvcr_importer::{
    image::{Image, LayoutDir, Registry},
    import::Origin,
    source::{
        CONNECTIONS, CONNECTIONS_MAX, Location, RemoteOptions,
        http::{Http, HttpOptions, STALL, parse_header},
        object::{Object, ObjectOptions},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    process::Process,
    registry::{RegistryArgs, read, read_password, read_pems},
};

/// How to reach the source.
#[derive(Args, Clone)]
#[command(next_help_heading = "Source")]
pub(crate) struct SourceArgs {
    /// User of a web server or registry, access key id of an object store, or account there
    #[arg(long, value_name = "NAME", env = "DVCR_SOURCE_USER")]
    pub(crate) source_user: Option<String>,

    /// Password or token of that user, or secret key. Everybody on this machine sees command lines: better in the environment, or
    /// a file
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "DVCR_SOURCE_PASSWORD",
        hide_env_values = true,
        requires = "source_user"
    )]
    pub(crate) source_password: Option<String>,

    /// File with that password
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "source_password",
        requires = "source_user"
    )]
    pub(crate) source_password_file: Option<PathBuf>,

    /// Credentials for registries as `docker login` and `podman login` write them and Kubernetes mounts them [default: where these
    /// two, and REGISTRY_AUTH_FILE, have them]
    #[arg(long, value_name = "FILE")]
    pub(crate) source_authfile: Option<PathBuf>,

    /// Certificates to trust beside those of the system: a PEM file, or a directory of them; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) source_ca: Vec<PathBuf>,

    /// Trust any certificate, and speak plain HTTP to a registry that has none. On loopback HTTP needs no permission
    #[arg(long)]
    pub(crate) source_insecure: bool,

    /// A header for the web server, like `Accept: text/plain`; it goes to no other host; may be given several times
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) source_header: Vec<String>,

    /// A file with such a header, for secret ones
    #[arg(long, value_name = "FILE")]
    pub(crate) source_header_file: Vec<PathBuf>,

    /// Address of the object store, if it is not the provider's own
    #[arg(long, value_name = "URL", env = "DVCR_S3_ENDPOINT")]
    pub(crate) s3_endpoint: Option<String>,

    /// Region of an S3 bucket
    #[arg(long, value_name = "NAME")]
    pub(crate) s3_region: Option<String>,

    /// Ask the object store without credentials
    #[arg(long)]
    pub(crate) anonymous: bool,

    /// Key of a Google service account, a JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) google_key: Option<PathBuf>,

    /// Image of an index, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub(crate) platform: Option<Platform>,

    /// File in the image or archive, or name of the artifact's layer, if it is not the usual one
    #[arg(long, value_name = "NAME")]
    pub(crate) file: Option<String>,

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

/// As without any flag.
impl Default for SourceArgs {
    fn default() -> Self {
        Self {
            source_user: None,
            source_password: None,
            source_password_file: None,
            source_authfile: None,
            source_ca: vec![],
            source_insecure: false,
            source_header: vec![],
            source_header_file: vec![],
            s3_endpoint: None,
            s3_region: None,
            anonymous: false,
            google_key: None,
            platform: None,
            file: None,
            no_ranges: false,
            connections: CONNECTIONS,
            stall: STALL.as_secs(),
        }
    }
}

/// Without secrets.
impl fmt::Debug for SourceArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceArgs")
            .field("source_user", &self.source_user)
            .finish_non_exhaustive()
    }
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
    /// What there is at a place. Of servers only registries are asked yet.
    pub(crate) fn open(&self, location: &Location, process: &Process) -> anyhow::Result<Origin> {
        Ok(match location {
            Location::Http(url) => {
                let options = HttpOptions {
                    credentials: self.keys()?,
                    headers: self.headers()?,
                    ca: read_pems(&self.source_ca)?,
                    insecure: self.source_insecure,
                    no_ranges: self.no_ranges,
                    stall: self.stall(),
                };
                let http = Http::new(url.clone(), options);
                Origin::Server(Arc::new(http.with_context(|| location.to_string())?))
            }
            Location::Object(url) => {
                let options = ObjectOptions {
                    keys: self.keys()?,
                    anonymous: self.anonymous,
                    endpoint: self.s3_endpoint.clone(),
                    region: self.s3_region.clone(),
                    google_key: self.google_key.as_deref().map(read_text).transpose()?,
                    ca: read_pems(&self.source_ca)?,
                    insecure: self.source_insecure,
                    stall: self.stall(),
                };
                let object = Object::new(url, &options);
                Origin::Server(Arc::new(object.with_context(|| location.to_string())?))
            }
            Location::File(path) if path.is_dir() => bail!(
                "{} is a directory; an image in it is written oci:{0}",
                path.display()
            ),
            Location::File(path) if path.exists() => Origin::File(path.clone()),
            Location::File(path) => bail!(
                "there is no file {0}; an image of a registry is written HOST/REPOSITORY:TAG, or docker://{0}",
                path.display()
            ),
            Location::Stdin => Origin::Stream(Box::new(io::stdin())),
            Location::Registry(reference) => {
                let (image, repository) = self.image(reference, process)?;
                Origin::Image {
                    image: Box::new(image),
                    name: reference.to_string(),
                    repository: Some(repository),
                    file: self.file.clone(),
                }
            }
            Location::Layout(dir, tag) => {
                let layout = LayoutDir::new(dir);
                let opened = match tag {
                    Some(tag) => tag.parse().map_err(anyhow::Error::from),
                    None => layout.only().map(Into::into).map_err(Into::into),
                }
                .and_then(|tag| {
                    let layout = Arc::new(layout);
                    Ok(Image::resolve(layout, &tag, self.platform.as_ref())?)
                });
                Origin::Image {
                    image: Box::new(opened.with_context(|| location.to_string())?),
                    name: location.to_string(),
                    repository: None,
                    file: self.file.clone(),
                }
            }
            Location::Blank => bail!("blank: has no content: only populate makes blank disks"),
        })
    }

    /// The image under a reference.
    pub(crate) fn image(
        &self,
        reference: &Reference,
        process: &Process,
    ) -> anyhow::Result<(Image, Repository)> {
        let args = RegistryArgs {
            user: self.source_user.clone(),
            password: self.source_password.clone(),
            password_file: self.source_password_file.clone(),
            authfile: self.source_authfile.clone(),
            ca: self.source_ca.clone(),
            insecure: self.source_insecure,
        };
        let runtime = process.runtime();
        let repository = args.repository(runtime, reference)?;
        let registry = Registry::new(repository.clone(), runtime.clone(), process.stop.clone());
        let image = Image::resolve(
            Arc::new(registry),
            &reference.manifest(),
            self.platform.as_ref(),
        );
        Ok((image.with_context(|| reference.to_string())?, repository))
    }

    /// How servers are read.
    pub(crate) fn remote(&self, stop: CancellationToken) -> RemoteOptions {
        RemoteOptions {
            connections: self.connections,
            stop,
            ..RemoteOptions::default()
        }
    }

    fn keys(&self) -> anyhow::Result<Option<(String, String)>> {
        let Some(user) = &self.source_user else {
            return Ok(None);
        };
        let password = read_password(&self.source_password, &self.source_password_file)?;
        Ok(Some((user.clone(), password)))
    }

    fn headers(&self) -> anyhow::Result<reqwest::header::HeaderMap> {
        let mut lines = self.source_header.clone();
        for path in &self.source_header_file {
            lines.push(read_text(path)?.trim().to_owned());
        }
        let headers: Result<_, _> = lines.iter().map(|line| parse_header(line)).collect();
        headers.map_err(|reason: String| anyhow!(reason))
    }

    fn stall(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.stall.max(1)))
    }
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))
}
