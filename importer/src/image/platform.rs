//! Choosing an image of an index.

use std::{fmt, str::FromStr};

use dvcr_core::oci::Descriptor;

use super::ImageError;

/// Annotation with which BuildKit marks entries that are no images.
const ANNOTATION_ATTESTATION: &str = "vnd.docker.reference.type";

/// What an image is for. Source: OCI image-spec, image-index.md, `platform`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// `linux`, mostly, whatever system is on the disk.
    pub os: String,
    /// As Go calls it: `amd64`, `arm64`.
    pub architecture: String,
    /// Such as `v8`; anything if absent.
    pub variant: Option<String>,
}

impl Platform {
    /// That of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    fn fits(&self, entry: &Descriptor) -> bool {
        let field = |name: &str| entry.platform.as_ref()?.get(name)?.as_str();
        field("os") == Some(self.os.as_str())
            && field("architecture") == Some(self.architecture.as_str())
            && self
                .variant
                .as_deref()
                .is_none_or(|variant| field("variant") == Some(variant))
    }
}

impl FromStr for Platform {
    type Err = String;

    /// Reads `os/architecture[/variant]`, or the architecture alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err("a platform is written linux/amd64, linux/arm64/v8 or amd64".to_owned());
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// The entry of an index for this platform. Where nobody said one, the only entry will do, and that of the host before others.
pub(super) fn choose<'a>(
    entries: &'a [Descriptor],
    wanted: Option<&Platform>,
) -> Result<&'a Descriptor, ImageError> {
    let images: Vec<_> = entries
        .iter()
        .filter(|entry| !entry.annotations.contains_key(ANNOTATION_ATTESTATION))
        .collect();
    let platform = wanted.cloned().unwrap_or_else(Platform::host);
    if let Some(entry) = images.iter().find(|entry| platform.fits(entry)) {
        return Ok(entry);
    }
    match images[..] {
        [only] if wanted.is_none() => Ok(only),
        [] => Err(ImageError::refused("the index lists no image")),
        _ => {
            let names = images.iter().map(|entry| {
                let field = |name: &str| entry.platform.as_ref()?.get(name)?.as_str();
                let parts = ["os", "architecture", "variant"];
                parts
                    .into_iter()
                    .filter_map(field)
                    .collect::<Vec<_>>()
                    .join("/")
            });
            let names = names.collect::<Vec<_>>().join(", ");
            Err(ImageError::refused(format!(
                "the index has no image for {platform}; choose one of its platforms with --platform: {names}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use dvcr_core::oci::Digest;
    use serde_json::json;

    use super::*;

    fn entry(number: u8, platform: Option<&str>) -> Descriptor {
        let platform = platform.map(|text| {
            let platform: Platform = text.parse().unwrap();
            let mut value = json!({"os": platform.os, "architecture": platform.architecture});
            if let Some(variant) = platform.variant {
                value["variant"] = variant.into();
            }
            value
        });
        let value = json!({"mediaType": "a/b", "digest": Digest::sha256(&[number]), "size": 1, "platform": platform});
        serde_json::from_value(value).unwrap()
    }

    /// Number of the entry that is chosen.
    fn check(platforms: &[Option<&str>], wanted: Option<&str>, expected: Option<u8>) {
        let entries = platforms.iter().zip(0..).map(|(p, i)| entry(i, *p));
        let entries: Vec<_> = entries.collect();
        let wanted = wanted.map(|text| text.parse().unwrap());
        let chosen = choose(&entries, wanted.as_ref()).map(|entry| entry.digest);
        let expected = expected.map(|number| Digest::sha256(&[number]));
        assert_eq!(chosen.ok(), expected, "{platforms:?} {wanted:?}");
    }

    #[test]
    fn the_right_image_is_chosen() {
        let two = [Some("linux/s390x"), Some("linux/arm64/v8")];
        check(&two, Some("arm64"), Some(1));
        check(&two, Some("linux/arm64/v8"), Some(1));
        check(&two, Some("linux/arm64/v9"), None);
        check(&two, Some("amd64"), None);
        check(&two[..1], Some("amd64"), None);
        check(&two[..1], None, Some(0));
        check(&[None], None, Some(0));
        check(&[], None, None);
        let host = Platform::host().to_string();
        check(&[Some("plan9/mips"), Some(&host)], None, Some(1));
    }

    #[test]
    fn attestations_are_no_images() {
        let mut attestation = entry(1, Some("unknown/unknown"));
        let mark = (ANNOTATION_ATTESTATION.to_owned(), "x".to_owned());
        attestation.annotations.extend([mark]);
        let entries = [entry(0, Some("linux/riscv64")), attestation];
        assert_eq!(choose(&entries, None).unwrap().digest, entries[0].digest);
    }
}
