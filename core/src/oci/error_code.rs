//! The error codes that the distribution specification registers.

use std::fmt;

/// A registered error code, the `code` of an entry in an error answer's `errors` array.
/// Source: OCI distribution-spec, "Error Codes".
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ErrorCode {
    /// code-1: the registry does not hold the blob in this repository.
    BlobUnknown,
    /// code-2: the upload cannot be used as asked, for example a chunk is out of order.
    BlobUploadInvalid,
    /// code-3: there is no such upload session.
    BlobUploadUnknown,
    /// code-4: the digest is malformed or does not match the content.
    DigestInvalid,
    /// code-5: a manifest refers to content that the repository does not hold.
    ManifestBlobUnknown,
    /// code-6: the manifest cannot be accepted.
    ManifestInvalid,
    /// code-7: there is no such manifest or tag in this repository.
    ManifestUnknown,
    /// code-8: the repository name is malformed.
    NameInvalid,
    /// code-9: there is no such repository.
    NameUnknown,
    /// code-10: the length does not match the content.
    SizeInvalid,
    /// code-11: somebody must log in.
    Unauthorized,
    /// code-12: whoever is logged in may not do this.
    Denied,
    /// code-13: the operation is not offered.
    Unsupported,
    /// code-14: too much at once; try again later.
    TooManyRequests,
}

impl ErrorCode {
    /// Every code, in the specification's order.
    pub const ALL: [Self; 14] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
    ];

    /// The code as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            // The one registered code without underscores between its words.
            Self::TooManyRequests => "TOOMANYREQUESTS",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_specifications() {
        assert_eq!(
            ErrorCode::ALL.map(ErrorCode::as_str),
            [
                "BLOB_UNKNOWN",
                "BLOB_UPLOAD_INVALID",
                "BLOB_UPLOAD_UNKNOWN",
                "DIGEST_INVALID",
                "MANIFEST_BLOB_UNKNOWN",
                "MANIFEST_INVALID",
                "MANIFEST_UNKNOWN",
                "NAME_INVALID",
                "NAME_UNKNOWN",
                "SIZE_INVALID",
                "UNAUTHORIZED",
                "DENIED",
                "UNSUPPORTED",
                "TOOMANYREQUESTS",
            ]
        );
    }
}
