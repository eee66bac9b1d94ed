//! Choosing an image of an index.

use dvcr_client::Platform;
use dvcr_core::oci::Descriptor;

use super::ImageError;

/// Annotation with which BuildKit marks entries that are no images.
const ANNOTATION_ATTESTATION: &str = "vnd.docker.reference.type";

/// The entry of an index for this platform. Where nobody said one, the only entry will do, and that of the host before others.
pub(super) fn choose(
    entries: &[Descriptor],
    wanted: Option<&Platform>,
) -> Result<Descriptor, ImageError> {
    let is_image = |entry: &&Descriptor| !entry.annotations.contains_key(ANNOTATION_ATTESTATION);
    let images: Vec<_> = entries.iter().filter(is_image).cloned().collect();
    let platform = wanted.cloned().unwrap_or_else(Platform::this_machine);
    if let Some(entry) = platform.choose(&images) {
        return Ok(entry.clone());
    }
    match &images[..] {
        [only] if wanted.is_none() => Ok(only.clone()),
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
        check(&two, Some("linux/arm64"), Some(1));
        check(&two, Some("linux/arm64/v8"), Some(1));
        check(&two, Some("linux/arm64/v9"), None);
        check(&two, Some("linux/amd64"), None);
        check(&two[..1], Some("linux/amd64"), None);
        check(&two[..1], None, Some(0));
        check(&[None], None, Some(0));
        check(&[], None, None);
        let host = Platform::this_machine().to_string();
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
