//! Which endpoint a request path names.
//!
//! Repository names contain slashes and may contain segments like `blobs` or `manifests`, so paths are read from the
//! right, where the grammar is fixed. Nothing is built from a path; nothing is decoded except the colon of a digest.

use super::{Digest, Reference, RepositoryName};

/// An endpoint of the distribution API with its parsed parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// end-1, `/v2/`: is there a registry?
    Ping,
    /// `/v2/_catalog`: all repositories.
    Catalog,
    /// `/v2/_oci/ext/discover`: extensions.
    ExtDiscover,
    /// end-8, `/v2/NAME/tags/list`.
    Tags(RepositoryName),
    /// end-2 and end-10, `/v2/NAME/blobs/DIGEST`.
    Blob(RepositoryName, Digest),
    /// end-4 and end-11, `/v2/NAME/blobs/uploads/`, with or without the last slash.
    UploadStart(RepositoryName),
    /// end-5, end-6, end-13 and end-14, `/v2/NAME/blobs/uploads/SESSION`. The session is as received and not empty.
    Upload(RepositoryName, String),
    /// end-3, end-7 and end-9, `/v2/NAME/manifests/REFERENCE`.
    Manifest(RepositoryName, Reference),
    /// end-12, `/v2/NAME/referrers/DIGEST`.
    Referrers(RepositoryName, Digest),
}

/// Why a path names no endpoint. Each text is the offending part of the path, cut to 300 characters.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RouteError {
    /// No such endpoint.
    #[error("no such endpoint")]
    NotFound,
    /// An endpoint, but its repository name is malformed.
    #[error(
        "invalid repository name {0:?}: use lower-case letters and digits, joined by '/', '.', '_', '__' or dashes, at most 255 bytes"
    )]
    Name(String),
    /// An endpoint, but its digest is malformed.
    #[error("invalid digest {0:?}: use sha256: and 64, or sha512: and 128 lower-case hex digits")]
    Digest(String),
    /// A manifest's endpoint, but what names the manifest is neither a tag nor a digest.
    #[error(
        "invalid reference {0:?}: use a tag (at most 128 letters, digits, '_', '.', '-') or a digest"
    )]
    Reference(String),
}

/// How much of a malformed part an error repeats: more than any well-formed part has.
const ECHO_CHARS_MAX: usize = 300;

impl Route {
    /// Reads a request path as it was received, without the query: `/v2`, `/v2/` or anything below.
    ///
    /// A percent sign is malformed everywhere, except that `%3A` stands for the colon of a digest, because some clients
    /// escape it.
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        let rest = path.strip_prefix("/v2").ok_or(RouteError::NotFound)?;
        match rest {
            "" | "/" => return Ok(Self::Ping),
            "/_catalog" => return Ok(Self::Catalog),
            "/_oci/ext/discover" => return Ok(Self::ExtDiscover),
            _ => {}
        }
        let rest = rest.strip_prefix('/').ok_or(RouteError::NotFound)?;

        if let Some(name) = rest
            .strip_suffix("/blobs/uploads/")
            .or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Self::UploadStart(parse_name(name)?));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(parse_name(name)?));
        }
        let (rest, last) = rest.rsplit_once('/').ok_or(RouteError::NotFound)?;
        if last.is_empty() {
            return Err(RouteError::NotFound);
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(parse_name(name)?, last.to_owned()));
        }
        let (name, kind) = rest.rsplit_once('/').ok_or(RouteError::NotFound)?;
        match kind {
            "manifests" => Ok(Self::Manifest(parse_name(name)?, parse_reference(last)?)),
            "blobs" => Ok(Self::Blob(parse_name(name)?, parse_digest(last)?)),
            "referrers" => Ok(Self::Referrers(parse_name(name)?, parse_digest(last)?)),
            _ => Err(RouteError::NotFound),
        }
    }

    /// The methods that the endpoint answers, in upper case, as for the `Allow` header of a 405.
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Ping
            | Self::Catalog
            | Self::ExtDiscover
            | Self::Tags(_)
            | Self::Referrers(..) => &["GET", "HEAD"],
            Self::Blob(..) => &["GET", "HEAD", "DELETE"],
            Self::UploadStart(_) => &["POST"],
            Self::Upload(..) => &["GET", "PATCH", "PUT", "DELETE"],
            Self::Manifest(..) => &["GET", "HEAD", "PUT", "DELETE"],
        }
    }

    /// The repository, where the endpoint has one.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Ping | Self::Catalog | Self::ExtDiscover => None,
            Self::Tags(name)
            | Self::Blob(name, _)
            | Self::UploadStart(name)
            | Self::Upload(name, _)
            | Self::Manifest(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }
}

fn parse_name(text: &str) -> Result<RepositoryName, RouteError> {
    text.parse().map_err(|_| RouteError::Name(echo(text)))
}

fn parse_digest(text: &str) -> Result<Digest, RouteError> {
    decode_colon(text)
        .parse()
        .map_err(|_| RouteError::Digest(echo(text)))
}

fn parse_reference(text: &str) -> Result<Reference, RouteError> {
    decode_colon(text)
        .parse()
        .map_err(|_| RouteError::Reference(echo(text)))
}

/// Any other escape stays, and no tag or digest contains a percent sign.
fn decode_colon(text: &str) -> String {
    text.replace("%3A", ":").replace("%3a", ":")
}

fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    fn tag(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_read_from_the_right() {
        fn check(path: &str, expected: &Route) {
            assert_eq!(Route::parse(path).as_ref(), Ok(expected), "{path}");
        }
        let digest: Digest = DIGEST.parse().unwrap();
        check("/v2", &Route::Ping);
        check("/v2/", &Route::Ping);
        check("/v2/_catalog", &Route::Catalog);
        check("/v2/_oci/ext/discover", &Route::ExtDiscover);
        check("/v2/a/tags/list", &Route::Tags(name("a")));
        check("/v2/vi/ns/disk/tags/list", &Route::Tags(name("vi/ns/disk")));
        check(
            &format!("/v2/a/blobs/{DIGEST}"),
            &Route::Blob(name("a"), digest),
        );
        check(
            &format!("/v2/a/b/blobs/{}", DIGEST.replace(':', "%3A")),
            &Route::Blob(name("a/b"), digest),
        );
        check(
            &format!("/v2/a/b/blobs/{}", DIGEST.replace(':', "%3a")),
            &Route::Blob(name("a/b"), digest),
        );
        check("/v2/a/blobs/uploads/", &Route::UploadStart(name("a")));
        check("/v2/a/blobs/uploads", &Route::UploadStart(name("a")));
        check(
            "/v2/a/b/blobs/uploads/0123",
            &Route::Upload(name("a/b"), "0123".into()),
        );
        check(
            "/v2/a/manifests/latest",
            &Route::Manifest(name("a"), tag("latest")),
        );
        check(
            &format!("/v2/a/manifests/{DIGEST}"),
            &Route::Manifest(name("a"), Reference::Digest(digest)),
        );
        check(
            &format!("/v2/a/manifests/{}", DIGEST.replace(':', "%3A")),
            &Route::Manifest(name("a"), Reference::Digest(digest)),
        );
        check(
            &format!("/v2/a/referrers/{DIGEST}"),
            &Route::Referrers(name("a"), digest),
        );

        // Repository names that look like endpoints.
        check(
            "/v2/manifests/manifests/manifests",
            &Route::Manifest(name("manifests"), tag("manifests")),
        );
        check("/v2/tags/list/tags/list", &Route::Tags(name("tags/list")));
        check(
            "/v2/a/manifests/tags/list",
            &Route::Tags(name("a/manifests")),
        );
        check(
            "/v2/a/blobs/uploads/blobs/uploads/",
            &Route::UploadStart(name("a/blobs/uploads")),
        );
        check(
            "/v2/a/blobs/uploads/manifests/v1",
            &Route::Manifest(name("a/blobs/uploads"), tag("v1")),
        );
        check(
            "/v2/a/blobs/uploads/blobs/uploads/x",
            &Route::Upload(name("a/blobs/uploads"), "x".into()),
        );
        check(
            "/v2/a/manifests/list",
            &Route::Manifest(name("a"), tag("list")),
        );
        check(
            "/v2/a/tags/manifests/list",
            &Route::Manifest(name("a/tags"), tag("list")),
        );
        check(
            "/v2/a/manifests/uploads",
            &Route::Manifest(name("a"), tag("uploads")),
        );
        check(
            &format!("/v2/a/blobs/referrers/{DIGEST}"),
            &Route::Referrers(name("a/blobs"), digest),
        );
        check(
            &format!("/v2/v2/blobs/blobs/{DIGEST}"),
            &Route::Blob(name("v2/blobs"), digest),
        );
    }

    #[test]
    fn anything_else_is_no_endpoint() {
        fn check(path: &str, expected: &RouteError) {
            assert_eq!(Route::parse(path).as_ref(), Err(expected), "{path:?}");
        }
        for path in [
            "",
            "/",
            "/v1/",
            "v2/",
            "/v2x",
            "/v22/a/tags/list",
            "/v2//",
            "/v2/a",
            "/v2/a/",
            "/v2/a/b/c",
            "/v2/_catalog/",
            "/v2/_oci/ext",
            "/v2/_oci/ext/discover/",
            "/v2/tags/list",
            "/v2/blobs/uploads/",
            "/v2/blobs/uploads/x",
            "/v2/manifests/latest",
            "/v2/a/manifests",
            "/v2/a/manifests/",
            "/v2/a/manifests/latest/",
            "/v2/a/tags",
            "/v2/a/tags/list/",
            "/v2/a/tags/lists",
            "/v2/a/blobs/",
            "/v2/a/blobs/uploads//",
            "/v2/a/Blobs/uploads/",
        ] {
            check(path, &RouteError::NotFound);
        }
        check("/v2//tags/list", &RouteError::Name(String::new()));
        check("/v2/A/tags/list", &RouteError::Name("A".into()));
        check("/v2/a//b/tags/list", &RouteError::Name("a//b".into()));
        check("/v2/../tags/list", &RouteError::Name("..".into()));
        check(
            "/v2/a/../../etc/manifests/passwd",
            &RouteError::Name("a/../../etc".into()),
        );
        check("/v2/a%2Fb/tags/list", &RouteError::Name("a%2Fb".into()));
        check("/v2/a%3Ab/tags/list", &RouteError::Name("a%3Ab".into()));
        check(
            "/v2/_catalog/tags/list",
            &RouteError::Name("_catalog".into()),
        );
        check(
            "/v2/a/blobs/sha256:baddigeststring",
            &RouteError::Digest("sha256:baddigeststring".into()),
        );
        check("/v2/a/blobs/latest", &RouteError::Digest("latest".into()));
        check(
            "/v2/a/referrers/latest",
            &RouteError::Digest("latest".into()),
        );
        check(
            "/v2/a/manifests/sha256:baddigeststring",
            &RouteError::Reference("sha256:baddigeststring".into()),
        );
        check(
            "/v2/a/manifests/.bad",
            &RouteError::Reference(".bad".into()),
        );
        check(
            "/v2/a/manifests/a%20b",
            &RouteError::Reference("a%20b".into()),
        );
        check(
            "/v2/a/manifests/%6Catest",
            &RouteError::Reference("%6Catest".into()),
        );
        let double = DIGEST.replace(':', "%253A");
        check(
            &format!("/v2/a/blobs/{double}"),
            &RouteError::Digest(double.clone()),
        );
        let long = "A".repeat(10_000);
        check(
            &format!("/v2/{long}/tags/list"),
            &RouteError::Name("A".repeat(ECHO_CHARS_MAX)),
        );
    }

    #[test]
    fn every_endpoint_says_what_it_answers() {
        fn check(path: &str, expected: &str) {
            assert_eq!(
                Route::parse(path).unwrap().methods().join(", "),
                expected,
                "{path}"
            );
        }
        check("/v2/", "GET, HEAD");
        check("/v2/_catalog", "GET, HEAD");
        check("/v2/_oci/ext/discover", "GET, HEAD");
        check("/v2/a/tags/list", "GET, HEAD");
        check(&format!("/v2/a/referrers/{DIGEST}"), "GET, HEAD");
        check(&format!("/v2/a/blobs/{DIGEST}"), "GET, HEAD, DELETE");
        check("/v2/a/blobs/uploads/", "POST");
        check("/v2/a/blobs/uploads/x", "GET, PATCH, PUT, DELETE");
        check("/v2/a/manifests/latest", "GET, HEAD, PUT, DELETE");
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/v2)?(/|[a-zA-Z0-9_.%:-]{0,3}|blobs|uploads|manifests|tags/list|referrers|\\PC){0,12}") {
            let _ = Route::parse(&path);
        }

        #[test]
        fn a_good_path_keeps_its_name(name in "(blobs|uploads|manifests|tags|list|referrers|a){1}(/(blobs|uploads|manifests|tags|list|referrers|a)){0,4}") {
            for path in [
                format!("/v2/{name}/tags/list"),
                format!("/v2/{name}/manifests/latest"),
                format!("/v2/{name}/blobs/{DIGEST}"),
                format!("/v2/{name}/referrers/{DIGEST}"),
                format!("/v2/{name}/blobs/uploads/"),
                format!("/v2/{name}/blobs/uploads/00ff"),
            ] {
                let route = Route::parse(&path).unwrap();
                prop_assert_eq!(route.repository().unwrap().as_str(), &name);
            }
        }
    }
}
