//! A row for each error: which status, which code, what the client learns.

use std::io;

use dvcr_core::{
    chunk::ChunkId,
    oci::{Digest, RepositoryName},
};

use super::*;
use crate::backend::PackId;

fn check(cause: impl Into<Cause>, status: u16, code: &str) -> Answer {
    let cause = cause.into();
    let answer = Answer::to(&cause, &Method::GET);
    assert_eq!(
        (answer.status.as_u16(), answer.code),
        (status, code),
        "{cause:?}"
    );
    assert!(!answer.message.is_empty());
    let registered = ErrorCode::ALL.iter().any(|known| known.as_str() == code);
    assert_eq!(
        registered,
        answer.status.is_client_error(),
        "what is the client's fault has a registered code: {cause:?}"
    );
    assert_eq!(
        answer.headers.contains_key(header::RETRY_AFTER),
        matches!(status, 429 | 503),
        "what passes says when: {cause:?}"
    );
    answer
}

#[test]
fn every_failure_of_a_use_case_has_a_row() {
    use RegistryError as E;
    let digest = Digest::sha256(b"");
    let repository: RepositoryName = "vi/debian".parse().unwrap();
    let unknown = check(E::NameUnknown(repository.clone()), 404, "NAME_UNKNOWN");
    assert!(unknown.message.contains("vi/debian"), "{unknown:?}");
    let tag = "12".to_owned();
    let refused = "moved to another manifest";
    let immutable = E::TagImmutable {
        repository,
        tag,
        digest,
        refused,
    };
    let immutable = check(immutable, 403, "DENIED");
    assert!(immutable.message.contains("immutable"), "{immutable:?}");
    check(E::BlobUnknown(digest), 404, "BLOB_UNKNOWN");
    check(E::ManifestUnknown("latest".into()), 404, "MANIFEST_UNKNOWN");
    check(E::ManifestBlobUnknown(digest), 400, "MANIFEST_BLOB_UNKNOWN");
    check(
        E::ManifestInvalid(ManifestError::MediaType),
        400,
        "MANIFEST_INVALID",
    );
    check(
        E::ManifestInvalid(ManifestError::TooLarge(1 << 30)),
        413,
        "SIZE_INVALID",
    );
    check(
        E::DigestMismatch {
            expected: digest,
            found: Digest::sha256(b"x"),
        },
        400,
        "DIGEST_INVALID",
    );
    check(E::UploadUnknown, 404, "BLOB_UPLOAD_UNKNOWN");
    check(
        E::RangeMismatch {
            expected: 1,
            found: 2,
        },
        416,
        "BLOB_UPLOAD_INVALID",
    );
    check(E::Body("gone".into()), 400, "BLOB_UPLOAD_INVALID");
    check(E::BodyTimeout, 408, "BLOB_UPLOAD_INVALID");
    check(
        E::TooLarge {
            what: "blob",
            limit: 1,
        },
        413,
        "SIZE_INVALID",
    );
    check(
        E::SizeMismatch {
            digest,
            said: 99_999,
            len: 2,
        },
        400,
        "SIZE_INVALID",
    );
    let answer = check(
        E::TooMany {
            what: "uploads",
            retry_after_seconds: 7,
        },
        429,
        "TOOMANYREQUESTS",
    );
    assert_eq!(answer.headers[header::RETRY_AFTER], "7");
    check(E::Denied, 403, "DENIED");
    let answer = check(E::Unauthorized, 401, "UNAUTHORIZED");
    assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
    let answer = check(E::InUse(digest), 405, "UNSUPPORTED");
    assert_eq!(answer.headers[header::ALLOW], "GET, HEAD");
    check(E::Invalid("no".into()), 400, "UNSUPPORTED");
    check(E::Conflict, 503, "UNAVAILABLE");
    check(E::Store(StoreError::Full), 507, "UNAVAILABLE");
    check(
        E::Store(StoreError::Missing(ChunkId([0; 32]))),
        500,
        "UNKNOWN",
    );
    check(
        E::Meta(MetaError::Full(io::Error::other("x"))),
        507,
        "UNAVAILABLE",
    );
    check(
        E::Meta(MetaError::Unavailable("x".into())),
        503,
        "UNAVAILABLE",
    );
}

#[test]
fn every_malformed_path_has_a_row() {
    check(RouteError::NotFound, 404, "UNSUPPORTED");
    check(RouteError::Name("A".into()), 400, "NAME_INVALID");
    check(RouteError::Digest("x".into()), 400, "DIGEST_INVALID");
    check(RouteError::Reference(".x".into()), 404, "MANIFEST_UNKNOWN");
    check(
        RouteError::Reference("sha256:x".into()),
        400,
        "DIGEST_INVALID",
    );
    let delete = Answer::to(&RouteError::Digest("x".into()).into(), &Method::DELETE);
    assert_eq!(delete.status, StatusCode::NOT_FOUND);
    let put = Answer::to(&RouteError::Reference(".x".into()).into(), &Method::PUT);
    assert_eq!(
        (put.status, put.code),
        (StatusCode::BAD_REQUEST, "MANIFEST_INVALID")
    );
}

#[test]
fn every_refused_request_has_a_row() {
    use RequestError as E;
    let answer = check(E::MethodNotAllowed(&["GET", "HEAD"]), 405, "UNSUPPORTED");
    assert_eq!(answer.headers[header::ALLOW], "GET, HEAD");
    check(E::Host, 400, "UNSUPPORTED");
    check(E::Misdirected("x".into()), 421, "UNSUPPORTED");
    check(E::CrossSite, 403, "DENIED");
    check(E::UriTooLong(1), 414, "UNSUPPORTED");
    check(E::TooManyTags(1), 414, "UNSUPPORTED");
    check(E::HeadersTooLarge(1), 431, "UNSUPPORTED");
    check(E::ManifestTooLarge(1), 413, "SIZE_INVALID");
    check(E::BodyBroken("x".into()), 400, "MANIFEST_INVALID");
    check(E::BodyTimeout, 408, "MANIFEST_INVALID");
    let answer = check(E::RangeNotSatisfiable(10), 416, "SIZE_INVALID");
    assert_eq!(answer.headers[header::CONTENT_RANGE], "bytes */10");
    check(E::DigestMissing, 400, "DIGEST_INVALID");
    check(
        E::Digest {
            parameter: "digest",
            source: DigestError::Form,
        },
        400,
        "DIGEST_INVALID",
    );
    check(E::Algorithm("md5".into()), 400, "UNSUPPORTED");
    check(E::From, 400, "NAME_INVALID");
    check(E::Tag(".".into()), 400, "MANIFEST_INVALID");
    check(E::PageSize("x".into()), 400, "UNSUPPORTED");
    check(E::ContentRange("x".into()), 400, "BLOB_UPLOAD_INVALID");
    check(E::LengthMismatch { range: 1, len: 2 }, 400, "SIZE_INVALID");
    check(E::Busy, 429, "TOOMANYREQUESTS");
    check(E::Internal("secret".into()), 500, "UNKNOWN");
}

#[test]
fn the_client_does_not_learn_what_happened_inside() {
    let secret = "/var/lib/secret";
    for cause in [
        Cause::Registry(
            StoreError::Io {
                context: format!("open {secret}"),
                source: io::Error::other(secret),
            }
            .into(),
        ),
        Cause::Registry(
            StoreError::Corrupt {
                pack: PackId(1),
                offset: 2,
                what: secret.into(),
            }
            .into(),
        ),
        Cause::Registry(MetaError::Unavailable(secret.into()).into()),
        Cause::Registry(MetaError::Full(io::Error::other(secret)).into()),
        Cause::Registry(
            MetaError::Corrupt {
                key: secret.into(),
                what: "a row",
            }
            .into(),
        ),
        Cause::Request(RequestError::Internal(secret.into())),
    ] {
        let answer = Answer::to(&cause, &Method::GET);
        assert!(answer.status.is_server_error());
        assert!(!answer.message.contains(secret), "{cause:?}");
    }
}

#[test]
fn the_log_names_every_cause_once() {
    let cause = Cause::Registry(
        StoreError::Io {
            context: "write pack".into(),
            source: io::Error::other("device gone"),
        }
        .into(),
    );
    assert_eq!(chain(&cause), "storage failed: write pack: device gone");
}
