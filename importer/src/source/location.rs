//! What a person writes to say where a disk is.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use dvcr_client::Reference;
use reqwest::Url;

/// Where a disk is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// `http://` or `https://`: a file on a web server.
    Http(Url),
    /// `s3://bucket/key`, `gs://bucket/name`, `az://container/name`: a file in an object store.
    Object(Url),
    /// `host/repository:tag`, with `docker://` in front or nothing: an image in a registry.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an image in a directory of the OCI image layout.
    Layout(PathBuf, Option<String>),
    /// A path, or `file://` and one: a file or a block device.
    File(PathBuf),
    /// `-`: standard input.
    Stdin,
    /// `blank:`: zeros.
    Blank,
}

/// Why text is no location; says what is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocationError {
    /// A scheme that is not read.
    #[error(
        "{0}:// is not read. A source is HOST/REPOSITORY:TAG, a path, `-`, oci:DIR, or an address that begins with http://, \
         https://, s3://, gs:// or az://"
    )]
    Scheme(String),
    /// A scheme that is read, and then nothing of use.
    #[error("{0} is no address: {1}")]
    Address(String, String),
    /// Nothing at all.
    #[error("the source is empty")]
    Empty,
}

impl FromStr for Location {
    type Err = LocationError;

    /// Told apart by form. What could be both a path and an image is a path if there is something.
    fn from_str(text: &str) -> Result<Self, LocationError> {
        let wrong = |reason: &str| LocationError::Address(without_secrets(text), reason.to_owned());
        let image = || {
            let reference = text.parse().map(Self::Registry);
            reference.map_err(|error: dvcr_client::ReferenceError| wrong(&error.to_string()))
        };
        match text {
            "" => return Err(LocationError::Empty),
            "-" => return Ok(Self::Stdin),
            "blank:" => return Ok(Self::Blank),
            _ => {}
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (dir, tag) = match rest.rsplit_once(':') {
                Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
                _ => (rest, None),
            };
            return Ok(Self::Layout(dir.into(), tag));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return if is_like_an_image(text) && !Path::new(text).exists() {
                image()
            } else {
                Ok(Self::File(text.into()))
            };
        };
        let is_scheme = |text: &str| {
            let mut bytes = text.bytes();
            bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        if !is_scheme(scheme) {
            return Ok(Self::File(text.into()));
        }
        let url = || text.parse::<Url>().map_err(|e| wrong(&e.to_string()));
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Ok(Self::Http(url()?)),
            "s3" | "gs" | "az" => {
                let url = url()?;
                let complete = url.host_str().is_some_and(|host| !host.is_empty());
                if !complete || url.path().trim_matches('/').is_empty() {
                    return Err(wrong("a bucket and the name of a file in it are wanted"));
                }
                Ok(Self::Object(url))
            }
            "docker" if rest.is_empty() => Err(wrong("host/repository:tag is wanted")),
            "docker" => image(),
            "file" if rest.starts_with('/') => Ok(Self::File(rest.into())),
            "file" => Err(wrong("an absolute path is wanted: file:///path")),
            other => Err(LocationError::Scheme(other.to_owned())),
        }
    }
}

/// Whether text without a scheme has a registry in front, as docker sees it: a name with a dot or a port, or `localhost`.
pub fn is_like_an_image(text: &str) -> bool {
    let host = text.split_once('/').map(|(host, _)| host);
    host.is_some_and(|host| {
        !host.starts_with('.') && (host.contains(['.', ':']) || host == "localhost")
    })
}

/// An address that cannot be parsed, as far as it can be shown: what is before an `@` may be a password.
fn without_secrets(text: &str) -> String {
    match (text.split_once("://"), text.rfind('@')) {
        (Some((scheme, _)), Some(at)) if scheme != "docker" => {
            format!("{scheme}://...{}", &text[at..])
        }
        _ => text.to_owned(),
    }
}

/// As messages may show it: without credentials and signatures.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) | Self::Object(url) => {
                let mut url = url.clone();
                // Neither can fail for an address with a host.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                url.set_query(None);
                url.set_fragment(None);
                write!(f, "{url}")
            }
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Layout(dir, None) => write!(f, "oci:{}", dir.display()),
            Self::Layout(dir, Some(tag)) => write!(f, "oci:{}:{tag}", dir.display()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("standard input"),
            Self::Blank => f.write_str("blank:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Location, &str>) {
        let found: Result<Location, _> = text.parse();
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{text}: {error}");
            }
            (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn locations() {
        let url = |text: &str| text.parse().unwrap();
        let http = "https://host:8443/a/b.qcow2?x=y";
        check(http, Ok(Location::Http(url(http))));
        let object = "s3://bucket/a/b.img";
        check(object, Ok(Location::Object(url(object))));
        let image = |text: &str| Location::Registry(text.parse().unwrap());
        check("docker://host:5000/a/b:1", Ok(image("host:5000/a/b:1")));
        check("docker://debian", Ok(image("docker.io/library/debian")));
        for text in [
            "127.0.0.1:5000/vi/debian:12",
            "[::1]:5000/debian",
            "localhost/debian",
            "registry.example/vi/debian",
        ] {
            check(text, Ok(image(text)));
        }
        let layout =
            |dir: &str, tag: Option<&str>| Location::Layout(dir.into(), tag.map(str::to_owned));
        check("oci:/srv/image", Ok(layout("/srv/image", None)));
        check("oci:/srv/image:v1", Ok(layout("/srv/image", Some("v1"))));
        check("oci:a:b/c", Ok(layout("a:b/c", None)));
        check("blank:", Ok(Location::Blank));
        for text in [
            "./no/such.file",
            "vi/debian:1",
            "../a/b",
            "../tests/import.rs",
        ] {
            check(text, Ok(Location::File(text.into())));
        }
        check("registry.example/UPPER", Err("no address"));
        check(
            "https://me:secret@:/x",
            Err("https://...@:/x is no address"),
        );
        check("/srv/disk.img", Ok(Location::File("/srv/disk.img".into())));
        check("disk.img", Ok(Location::File("disk.img".into())));
        check("./a://b", Ok(Location::File("./a://b".into())));
        check("file:///srv/x", Ok(Location::File("/srv/x".into())));
        check("-", Ok(Location::Stdin));
        check("", Err("empty"));
        check("ftp://host/file", Err("ftp:// is not read"));
        check("s3://bucket", Err("the name of a file"));
        check("docker://", Err("host/repository:tag"));
        check("file://host/x", Err("absolute"));
        check("http://", Err("no address"));
    }

    #[test]
    fn shown_without_secrets() {
        let location: Location = "https://me:secret@host/x?sig=abc".parse().unwrap();
        assert_eq!(location.to_string(), "https://host/x");
    }
}
