//! Media types that the registry knows by name. All others are stored just the same.

/// OCI image manifest.
pub const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, schema 1: refused.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker image manifest, schema 1, signed: refused.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// Longest media type in bytes; RFC 6838 section 4.2 allows 127 on either side of the slash.
pub const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// Beginnings of the media types of layers that are never pushed: their content comes from their `urls`.
const FOREIGN_LAYERS: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.diff.",
];

/// A Content-Type without its parameters.
pub fn essence(content_type: &str) -> &str {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
}

/// Whether a layer of this type lives elsewhere, so that a registry need not hold it.
pub fn is_foreign_layer(media_type: &str) -> bool {
    FOREIGN_LAYERS
        .iter()
        .any(|prefix| media_type.starts_with(prefix))
}

/// Whether the text is `type/subtype`, two tokens of RFC 9110 section 5.6.2: fit to be sent back in a header.
pub fn is_well_formed(media_type: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    media_type.len() <= MEDIA_TYPE_BYTES_MAX
        && media_type
            .split_once('/')
            .is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn essence_drops_parameters() {
        fn check(content_type: &str, expected: &str) {
            assert_eq!(essence(content_type), expected);
        }
        check(OCI_IMAGE, OCI_IMAGE);
        check(" application/json ; charset=utf-8", "application/json");
        check("application/json;a=\"b;c\"", "application/json");
        check("", "");
        check(";", "");
    }

    #[test]
    fn foreign_layers_are_known_by_their_type() {
        fn check(media_type: &str, expected: bool) {
            assert_eq!(is_foreign_layer(media_type), expected, "{media_type}");
        }
        check(
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            true,
        );
        check(
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            true,
        );
        check(
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            true,
        );
        check(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            true,
        );
        check("application/vnd.docker.image.rootfs.diff.tar.gzip", false);
        check("application/vnd.oci.image.layer.v1.tar+gzip", false);
        check(
            "application/vnd.oci.image.layer.nondistributable.v2.tar",
            false,
        );
        check("", false);
    }

    #[test]
    fn well_formed_types_fit_a_header() {
        fn check(media_type: &str, expected: bool) {
            assert_eq!(is_well_formed(media_type), expected, "{media_type:?}");
        }
        check(OCI_IMAGE, true);
        check("application/vnd.kubevirt.disk.raw+zstd", true);
        for bad in [
            "",
            "json",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "a/b c",
            "a/b\r\nX: y",
            "a/b;c",
            "a/é",
        ] {
            check(bad, false);
        }
        check(&format!("a/{}", "b".repeat(253)), true);
        check(&format!("a/{}", "b".repeat(254)), false);
    }
}
