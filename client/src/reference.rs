//! The name of an image in a registry, as people write it.

use std::{fmt, str::FromStr};

use dvcr_core::oci::{
    self, Digest, DigestError, NAME_BYTES_MAX, NameError, RepositoryName, Tag, TagError,
};

use crate::{Host, HostError};

/// Why a text names no image.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReferenceError {
    /// It begins with another scheme than `docker://`.
    #[error(
        "{0:?} is no image reference: write HOST/REPOSITORY:TAG, with docker:// in front or nothing"
    )]
    Scheme(String),
    /// Longer than any reference can be.
    #[error("the image reference is longer than {max} bytes", max = TEXT_BYTES_MAX)]
    Length,
    /// The registry is malformed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The repository is malformed.
    #[error("in an image reference: {0}")]
    Repository(#[from] NameError),
    /// The tag is malformed.
    #[error("in an image reference: {0}")]
    Tag(#[from] TagError),
    /// The digest is malformed.
    #[error("in an image reference: {0}")]
    Digest(#[from] DigestError),
}

/// Longest text that is looked at: host (253 and a port), name, tag (128), digest (sha512: 135), scheme and separators.
const TEXT_BYTES_MAX: usize = 260 + NAME_BYTES_MAX + 128 + 135 + 16;

/// `[docker://][host[:port]/]repository[:tag][@digest]`.
///
/// As with docker, the first segment is a host if it has a dot or a colon or is `localhost`; without one the image is
/// Docker Hub's, and a single name there is in `library/`. A digest decides over a tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    host: Host,
    repository: RepositoryName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// A reference of parts.
    pub fn new(
        host: Host,
        repository: RepositoryName,
        tag: Option<Tag>,
        digest: Option<Digest>,
    ) -> Self {
        Self {
            host,
            repository,
            tag,
            digest,
        }
    }

    /// The registry.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The repository in it.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The tag, if one is written.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one is written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the repository for: the digest, else the tag, else the tag `latest`.
    pub fn manifest(&self) -> oci::Reference {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => oci::Reference::Digest(*digest),
            (None, Some(tag)) => oci::Reference::Tag(tag.clone()),
            (None, None) => {
                oci::Reference::Tag("latest".parse().expect("`latest` is a well-formed tag"))
            }
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ReferenceError::Length);
        }
        let rest = text.strip_prefix("docker://").unwrap_or(text);
        if rest.contains("://") {
            return Err(ReferenceError::Scheme(text.to_owned()));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let hub = || "docker.io".parse::<Host>();
        let (host, rest) = match rest.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':', '[']) || first == "localhost" => {
                (first.parse()?, rest)
            }
            _ => (hub()?, rest),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag.parse()?)),
            None => (rest, None),
        };
        let repository = if host.is_docker_hub() && !name.contains('/') {
            format!("library/{name}").parse()?
        } else {
            name.parse()?
        };
        Ok(Self {
            host,
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_does() {
        fn check(text: &str, expected: &str, manifest: &str) {
            let parsed: Reference = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.to_string(), expected, "{text}");
            assert_eq!(parsed.manifest().to_string(), manifest, "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{text}");
        }
        let digest = Digest::sha256(b"").to_string();
        check("debian", "docker.io/library/debian", "latest");
        check("debian:12", "docker.io/library/debian:12", "12");
        check("me/debian:12", "docker.io/me/debian:12", "12");
        check("docker.io/debian", "docker.io/library/debian", "latest");
        check("index.docker.io/a/b", "docker.io/a/b", "latest");
        check("docker://quay.io/a/b/c:d", "quay.io/a/b/c:d", "d");
        check("localhost/a", "localhost/a", "latest");
        check("localhost:5000/a:b", "localhost:5000/a:b", "b");
        check("[::1]:5000/a:b", "[::1]:5000/a:b", "b");
        check("dvcr:5000/vi/a", "dvcr:5000/vi/a", "latest");
        check("Dvcr:80/vi/a", "dvcr:80/vi/a", "latest");
        check(
            &format!("r.example/a:b@{digest}"),
            &format!("r.example/a:b@{digest}"),
            &digest,
        );
        check(
            &format!("a@{digest}"),
            &format!("docker.io/library/a@{digest}"),
            &digest,
        );
    }

    #[test]
    fn malformed_references_are_refused() {
        for bad in [
            "",
            "/",
            ":",
            "@",
            "a:",
            "a@",
            "a@sha256:0",
            "A",
            "r.example/",
            "r.example/:x",
            "r.example/a:b:c",
            "r.example/a//b",
            "https://r.example/a",
            "docker://https://r.example/a",
            "Dvcr/vi/a",
            "r.example:x/a",
            "a b",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        let long = "a".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(long.parse::<Reference>(), Err(ReferenceError::Length));
    }
}
