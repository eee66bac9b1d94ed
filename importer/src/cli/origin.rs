//! Where a disk comes from, as it is typed, and opening it.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use dvcr_client::{Client, Credentials, DockerConfig, Platform, Reference, Transport};
use dvcr_importer::{
    image::{Disk, DiskStream, Image, LayoutDir, Registry, Repository, Source},
    input::{Input, Spool},
    kept::Received,
    populate::Ahead,
    source::{
        FileSource, Location, ReadAt, Reader, Remote, RemoteOptions,
        http::{Http, HttpOptions, parse_header},
        object::{Object, ObjectOptions},
    },
    wrapping::{Unwrapped, Wrapping},
};
use tokio::runtime::Handle;

use super::{keep::Keep, size::parse_size};

/// What is said about a source beside its name.
#[derive(Args, Clone, Debug)]
pub(crate) struct OriginArgs {
    /// Image of an index, such as linux/arm64; this machine's if not said
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<Platform>,
    /// File in the image, or name of the artifact's layer, if it is not the usual one
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// User of the registry or web server
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File with credentials, as `docker login` and `podman login` write it and Kubernetes mounts it
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    authfile: Option<PathBuf>,
    /// Certificates to trust beside those of the system: a PEM file, or a directory of them
    #[arg(long, value_name = "PATH")]
    ca: Option<PathBuf>,
    /// Plain HTTP for the registry, or any certificate. On loopback plain HTTP needs no permission
    #[arg(long)]
    insecure: bool,
    /// A header for the web server, like `Authorization: Bearer ...`; it goes to no other host
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Never ask for ranges: for web servers that answer them wrongly
    #[arg(long)]
    no_ranges: bool,
    /// Address of the object store, if it is not the provider's own
    #[arg(long, value_name = "URL", env = "DVCR_S3_ENDPOINT")]
    s3_endpoint: Option<String>,
    /// Directory of temporary files, for what cannot be read where it lies
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    spool: PathBuf,
    /// Most bytes of a temporary file
    #[arg(long, value_name = "SIZE", default_value = "64Gi", value_parser = parse_size)]
    spool_max: u64,
    /// Most bytes that may come out of a compressed disk
    #[arg(long, value_name = "SIZE", default_value = "16Ti", value_parser = parse_size)]
    unpacked_max: u64,
}

/// What was typed.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// An image in a registry.
    Image(Reference),
    /// An image in a directory of the OCI image layout: `oci:DIR[:TAG]`.
    Layout(PathBuf, Option<String>),
    /// A file anywhere else.
    Location(Location),
    /// A disk of zeros: `blank:`.
    Blank,
}

/// Told apart by form; what could be a path and a reference is a path if there is something.
pub(crate) fn parse_origin(text: &str) -> Result<Origin, String> {
    if text == "blank:" {
        return Ok(Origin::Blank);
    }
    if let Some(rest) = text.strip_prefix("oci:") {
        let (dir, tag) = match rest.rsplit_once(':') {
            Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
            _ => (rest, None),
        };
        return Ok(Origin::Layout(dir.into(), tag));
    }
    let path = text.starts_with(['/', '.', '-']) || Path::new(text).exists();
    let docker = text.starts_with("docker://");
    if docker || !path && !text.contains("://") && text.contains('/') {
        return match text.parse() {
            Ok(reference) => Ok(Origin::Image(reference)),
            Err(error) => Err(error.to_string()),
        };
    }
    text.parse()
        .map(Origin::Location)
        .map_err(|error: dvcr_importer::source::location::LocationError| error.to_string())
}

/// A disk that was opened.
pub(crate) struct Opened {
    /// The disk.
    pub(crate) disk: Disk,
    /// What identifies its content: only then can a populate go on where it was.
    pub(crate) identity: Option<String>,
    /// The image that it is in.
    pub(crate) image: Option<(Image, String)>,
    /// Bytes of data that went to a temporary file.
    pub(crate) spooled: Option<u64>,
}

impl OriginArgs {
    /// Opens a disk. Without `streams` one that could be read once goes to a temporary file. What has to be received from start to
    /// end is kept as `keep` says.
    pub(crate) fn open(
        &self,
        origin: &Origin,
        runtime: &Handle,
        streams: bool,
        keep: &Keep,
    ) -> anyhow::Result<Opened> {
        let location = match origin {
            Origin::Image(reference) => {
                let image = self.image(reference, runtime)?;
                return self.open_image(image, streams, keep);
            }
            Origin::Layout(dir, tag) => {
                let image = self.layout(dir, tag.as_deref())?;
                return self.open_image(image, streams, &Keep::default());
            }
            Origin::Location(location) => location,
            Origin::Blank => bail!("blank: is no image; populate makes blank disks"),
        };
        match location {
            Location::File(path) => {
                let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                let metadata = file.metadata()?;
                let identity = identity(&metadata);
                if metadata.is_dir() {
                    bail!(
                        "{} is a directory; an image in it is written oci:{0}",
                        path.display()
                    );
                }
                match FileSource::new(file) {
                    Ok(source) => self.open_source(Arc::new(source), identity, streams, || None),
                    // A pipe, such as /dev/stdin or what a shell substitutes.
                    Err(_) => self.open_stream(File::open(path)?, None, streams),
                }
            }
            Location::Stdin => self.open_stream(io::stdin(), None, streams),
            Location::Http(_) | Location::Object(_) => {
                let remote = Arc::new(self.remote(location, runtime)?);
                let version = remote.version();
                let told = version.etag.as_ref().or(version.modified.as_ref());
                let identity = told.map(|told| format!("{location} {told}"));
                match remote.ranged() {
                    Some(ranged) => self
                        .open_source(Arc::new(ranged), identity, streams, || keep.remote(&remote)),
                    None => {
                        let stream = remote.stream(0, Default::default());
                        self.open_stream(stream, identity, streams)
                    }
                }
            }
            Location::Registry(text) => {
                let image = self.image(&text.parse()?, runtime)?;
                self.open_image(image, streams, keep)
            }
        }
    }

    /// A source as a stream of bytes, unopened: an archive, for example.
    pub(crate) fn stream(
        &self,
        origin: &Origin,
        runtime: &Handle,
    ) -> anyhow::Result<Box<dyn Read + Send>> {
        Ok(match origin {
            Origin::Location(Location::Stdin) => Box::new(io::stdin()),
            Origin::Location(Location::File(path)) => {
                Box::new(File::open(path).with_context(|| format!("open {}", path.display()))?)
            }
            Origin::Location(location @ (Location::Http(_) | Location::Object(_))) => Box::new(
                self.remote(location, runtime)?
                    .stream(0, Default::default()),
            ),
            _ => bail!(
                "an archive comes from a file, a web server, an object store or standard input"
            ),
        })
    }

    /// Most bytes that may come out of a compressed source.
    pub(crate) fn unpacked_max(&self) -> u64 {
        self.unpacked_max
    }

    /// The image under a reference.
    pub(crate) fn image(
        &self,
        reference: &Reference,
        runtime: &Handle,
    ) -> anyhow::Result<(Image, String)> {
        let host = reference.host();
        let transport = Transport {
            ca_pems: self.ca_pems()?,
            insecure: self.insecure,
            plain_http: self
                .insecure
                .then(|| host.as_str().to_owned())
                .into_iter()
                .collect(),
            ..Transport::default()
        };
        let client = Client::new(host, self.credentials(reference)?, &transport)?;
        let repository = client.repository(reference.repository());
        let repository = Registry::new(repository, runtime.clone());
        let image = Image::resolve(
            Arc::new(repository),
            &reference.manifest(),
            self.platform.as_ref(),
        );
        Ok((
            image.with_context(|| reference.to_string())?,
            reference.to_string(),
        ))
    }

    fn layout(&self, dir: &Path, tag: Option<&str>) -> anyhow::Result<(Image, String)> {
        let layout = LayoutDir::new(dir);
        let shown = format!("oci:{}", dir.display());
        let reference = match tag {
            Some(tag) => tag.parse()?,
            None => layout.only().with_context(|| shown.clone())?.into(),
        };
        let repository: Arc<dyn Repository> = Arc::new(layout);
        let image = Image::resolve(repository, &reference, self.platform.as_ref());
        Ok((image.with_context(|| shown.clone())?, shown))
    }

    fn spool(&self) -> Spool<'_> {
        Spool {
            dir: &self.spool,
            bytes_max: self.spool_max,
            unwrapped_bytes_max: self.unpacked_max,
        }
    }

    fn open_image(
        &self,
        image: (Image, String),
        streams: bool,
        keep: &Keep,
    ) -> anyhow::Result<Opened> {
        let image = (keep.image(image.0), image.1);
        let opened = image.0.open(self.file.as_deref(), self.spool(), streams);
        let Source {
            disk,
            file,
            layer,
            spooled,
        } = opened.with_context(|| image.1.clone())?;
        Ok(Opened {
            disk,
            identity: Some(format!("{} {file}", layer.digest)),
            image: Some(image),
            spooled,
        })
    }

    fn open_source(
        &self,
        source: Arc<dyn ReadAt>,
        identity: Option<String>,
        streams: bool,
        kept: impl FnOnce() -> Option<Received>,
    ) -> anyhow::Result<Opened> {
        // What is compressed is a stream, and needs no temporary file if the disk in it can be read once.
        let mut head = vec![0; source.len().min(512) as usize];
        source.read_at(0, &mut head)?;
        let wrapping = Wrapping::detect(&head);
        if wrapping.is_some_and(|wrapping| wrapping != Wrapping::Tar) {
            if let Some(received) = kept() {
                return self.open_stream(received, identity, streams);
            }
            if streams {
                return self.open_stream(Reader::new(source), identity, streams);
            }
        }
        let input = Input::open(source, self.spool())?;
        Ok(Opened {
            disk: Disk::Image(input.image),
            identity,
            image: None,
            spooled: input.spooled,
        })
    }

    fn open_stream(
        &self,
        stream: impl Read + Send + 'static,
        identity: Option<String>,
        streams: bool,
    ) -> anyhow::Result<Opened> {
        let stream = Unwrapped::new(Ahead::new(stream), self.unpacked_max)?;
        let stream = if streams {
            match DiskStream::unverified(stream)? {
                Ok(stream) => {
                    return Ok(Opened {
                        disk: Disk::Stream(stream),
                        identity,
                        image: None,
                        spooled: None,
                    });
                }
                Err(stream) => stream,
            }
        } else {
            stream
        };
        let input = Input::spool(stream, self.spool())?;
        Ok(Opened {
            disk: Disk::Image(input.image),
            identity,
            image: None,
            spooled: input.spooled,
        })
    }

    fn remote(&self, location: &Location, runtime: &Handle) -> anyhow::Result<Remote> {
        let (ca, insecure) = (self.ca_pems()?, self.insecure);
        let keys = self.user()?;
        let options = RemoteOptions::default();
        Ok(match location {
            Location::Http(url) => {
                let headers: Result<_, _> = self.header.iter().map(|h| parse_header(h)).collect();
                let http = HttpOptions {
                    credentials: keys,
                    headers: headers.map_err(anyhow::Error::msg)?,
                    ca,
                    insecure,
                    no_ranges: self.no_ranges,
                    ..HttpOptions::default()
                };
                let http = Http::new(url.clone(), http)?;
                Remote::open(Arc::new(http), runtime.clone(), options)?
            }
            Location::Object(url) => {
                let object = ObjectOptions {
                    keys,
                    endpoint: self.s3_endpoint.clone(),
                    ca,
                    insecure,
                    ..ObjectOptions::default()
                };
                let object = Object::new(url, &object)?;
                Remote::open(Arc::new(object), runtime.clone(), options)?
            }
            _ => bail!("{location} is not on the network"),
        })
    }

    fn user(&self) -> anyhow::Result<Option<(String, String)>> {
        let Some((user, file)) = self.username.as_ref().zip(self.password_file.as_ref()) else {
            return Ok(None);
        };
        let read = fs::read_to_string(file);
        let password = read.with_context(|| format!("read the password in {}", file.display()))?;
        Ok(Some((
            user.clone(),
            password.trim_end_matches(['\r', '\n']).to_owned(),
        )))
    }

    fn credentials(&self, reference: &Reference) -> anyhow::Result<Credentials> {
        if let Some((user, password)) = self.user()? {
            return Ok(Credentials::basic(user, password));
        }
        let Some(path) = &self.authfile else {
            return Ok(Credentials::Anonymous);
        };
        let shown = || format!("read the credentials in {}", path.display());
        let config = DockerConfig::parse(&fs::read(path).with_context(shown)?)?;
        Ok(config.credentials(reference.host(), Some(reference.repository()))?)
    }

    fn ca_pems(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let Some(path) = &self.ca else {
            return Ok(vec![]);
        };
        let shown = || format!("read the certificates in {}", path.display());
        if !path.is_dir() {
            return Ok(vec![fs::read(path).with_context(shown)?]);
        }
        let mut pems = vec![];
        for entry in fs::read_dir(path).with_context(shown)? {
            let path = entry?.path();
            // As Kubernetes mounts them, beside links and directories of its own.
            let is_pem = path.extension().is_some_and(|e| e == "crt" || e == "pem");
            if is_pem && path.is_file() {
                pems.push(fs::read(&path).with_context(shown)?);
            }
        }
        Ok(pems)
    }
}

/// A file that is not changed keeps all of these.
fn identity(metadata: &fs::Metadata) -> Option<String> {
    metadata.is_file().then(|| {
        format!(
            "file {}:{} {} {}.{:09}",
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_apart() {
        for (text, expected) in [
            ("127.0.0.1:5000/vi/debian:12", "image"),
            (
                "docker://registry.example/vi/debian@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "image",
            ),
            ("registry.example/vi/debian", "image"),
            ("oci:/srv/image", "layout"),
            ("oci:/srv/image:v1", "layout"),
            ("oci:a:b/c", "layout"),
            ("/srv/disk.img", "file"),
            ("./no/such/file", "file"),
            ("Cargo.toml", "file"),
            ("https://host/disk.qcow2", "web"),
            ("s3://bucket/disk", "object"),
            ("-", "stdin"),
            ("blank:", "blank"),
            ("docker://", "error"),
            ("ftp://host/file", "error"),
            ("registry.example/UPPER", "error"),
        ] {
            let found = match parse_origin(text) {
                Ok(Origin::Image(_)) => "image",
                Ok(Origin::Layout(..)) => "layout",
                Ok(Origin::Location(Location::File(_))) => "file",
                Ok(Origin::Location(Location::Http(_))) => "web",
                Ok(Origin::Location(Location::Object(_))) => "object",
                Ok(Origin::Location(Location::Stdin)) => "stdin",
                Ok(Origin::Location(Location::Registry(_))) => "registry",
                Ok(Origin::Blank) => "blank",
                Err(_) => "error",
            };
            assert_eq!(found, expected, "{text}");
        }
    }
}
