//! What a person writes to say where a disk is.

use std::{fmt, path::PathBuf, str::FromStr};

use reqwest::Url;

/// Where a disk is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// `http://` or `https://`: a file on a web server.
    Http(Url),
    /// `s3://bucket/key`, `gs://bucket/name`, `az://container/name`: a file in an object store.
    Object(Url),
    /// `docker://host/repository:tag`: an image in a registry; what follows the scheme.
    Registry(String),
    /// A path, or `file://` and one: a file or a block device.
    File(PathBuf),
    /// `-`: standard input.
    Stdin,
}

/// Why text is no location; says what is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocationError {
    /// A scheme that is not read.
    #[error(
        "{0}:// is not read. A source is a path, `-`, or an address that begins with http://, https://, s3://, gs://, az:// \
         or docker://"
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

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(LocationError::Empty),
                "-" => Ok(Self::Stdin),
                path => Ok(Self::File(path.into())),
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
        let wrong = |reason: &str| LocationError::Address(text.to_owned(), reason.to_owned());
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
            "docker" => Ok(Self::Registry(rest.to_owned())),
            "file" if rest.starts_with('/') => Ok(Self::File(rest.into())),
            "file" => Err(wrong("an absolute path is wanted: file:///path")),
            other => Err(LocationError::Scheme(other.to_owned())),
        }
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
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("standard input"),
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
        let registry = Location::Registry("host:5000/a/b:1".to_owned());
        check("docker://host:5000/a/b:1", Ok(registry));
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
