//! Choosing from an index.

use std::{fmt, str::FromStr};

use dvcr_core::oci::Descriptor;
use serde_json::Value;

/// Why a text is no platform.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a platform is written OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, for example linux/arm64"
)]
pub struct PlatformError;

/// What an image runs on, in the words of Go: `linux/amd64`, `linux/arm64`, `linux/arm/v7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Platform {
    /// `linux` and such.
    pub os: String,
    /// `amd64`, `arm64` and such.
    pub architecture: String,
    /// `v7` of `arm`, for example.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's, as an image for it must be: disks are for machines, so the system is always `linux`, in which the images of
    /// disks are published.
    pub fn this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// The entry of an index that fits best; `None` if none does. An index with a single entry that tells no platform has it for
    /// all of them.
    pub fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let best = entries
            .iter()
            .enumerate()
            .filter_map(|(at, entry)| {
                let fit = self.fit(entry.platform.as_ref()?)?;
                // Of equals the first: so the index's author decides.
                Some(((fit, usize::MAX - at), entry))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry);
        match entries {
            [only] if only.platform.is_none() => Some(only),
            _ => best,
        }
    }

    /// How well an entry's platform fits; `None` if it does not.
    fn fit(&self, platform: &Value) -> Option<u8> {
        let text = |name: &str| platform.get(name).and_then(Value::as_str).unwrap_or("");
        if text("os") != self.os || text("architecture") != self.architecture {
            return None;
        }
        let canonical = |variant: &str| match (self.architecture.as_str(), variant) {
            ("arm64", "" | "8" | "v8") => "v8".to_owned(),
            ("arm", "") => "v7".to_owned(),
            ("amd64", "" | "v1") => "v1".to_owned(),
            (_, variant) => variant.to_owned(),
        };
        let offered = canonical(text("variant"));
        let wanted = canonical(self.variant.as_deref().unwrap_or(""));
        if offered == wanted {
            Some(2)
        } else if self.variant.is_none() {
            // Nobody asked for a variant: a special one is better than nothing.
            Some(1)
        } else {
            None
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let mut part = || {
            let part = parts.next()?;
            let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            (!part.is_empty() && part.bytes().all(good)).then(|| part.to_owned())
        };
        let (Some(os), Some(architecture)) = (part(), part()) else {
            return Err(PlatformError);
        };
        let variant = part();
        let shown = Self {
            os,
            architecture,
            variant,
        };
        // Also refuses what is left over.
        if shown.to_string() == text {
            Ok(shown)
        } else {
            Err(PlatformError)
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// The platforms of an index, for messages.
pub(crate) fn listed(entries: &[Descriptor]) -> String {
    /// More would fill the terminal.
    const SHOWN_MAX: usize = 20;
    let text = |platform: &Value, name: &str| {
        let text = platform.get(name).and_then(Value::as_str);
        text.unwrap_or("?").chars().take(32).collect::<String>()
    };
    let shown: Vec<String> = entries
        .iter()
        .take(SHOWN_MAX)
        .map(|entry| match &entry.platform {
            Some(platform) => {
                format!(
                    "{}/{}",
                    text(platform, "os"),
                    text(platform, "architecture")
                )
            }
            None => "one without platform".to_owned(),
        })
        .collect();
    if shown.is_empty() {
        "nothing".to_owned()
    } else {
        shown.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use dvcr_core::oci::Digest;

    use super::*;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let entries = platforms.iter().map(|platform| {
            let platform = platform.parse::<Platform>().ok().map(|p| {
                serde_json::json!({"os": p.os, "architecture": p.architecture, "variant": p.variant})
            });
            let digest = Digest::sha256(format!("{platform:?}").as_bytes());
            let mut value = serde_json::json!({"mediaType": "a/b", "digest": digest, "size": 1});
            if let Some(platform) = platform {
                value["platform"] = platform;
            }
            serde_json::from_value(value).unwrap()
        });
        entries.collect()
    }

    #[test]
    fn the_best_entry_is_chosen() {
        fn check(wanted: &str, offered: &[&str], expected: Option<usize>) {
            let entries = index(offered);
            let chosen = wanted.parse::<Platform>().unwrap().choose(&entries);
            let expected = expected.map(|at| &entries[at]);
            assert_eq!(chosen, expected, "{wanted} of {offered:?}");
        }
        check("linux/amd64", &["linux/arm64", "linux/amd64"], Some(1));
        check("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1));
        check("linux/amd64", &["linux/amd64/v3"], Some(0));
        check(
            "linux/amd64/v3",
            &["linux/amd64", "linux/amd64/v3"],
            Some(1),
        );
        check("linux/amd64/v3", &["linux/amd64"], None);
        check("linux/arm64/v8", &["linux/arm64"], Some(0));
        check(
            "linux/arm64",
            &["linux/arm64/v8", "linux/arm64/v9"],
            Some(0),
        );
        check("linux/arm", &["linux/arm/v6", "linux/arm/v7"], Some(1));
        check("linux/amd64", &["unknown/unknown", "windows/amd64"], None);
        check("linux/amd64", &["-"], Some(0));
        check("linux/amd64", &["-", "-"], None);
        check("linux/amd64", &[], None);
    }

    #[test]
    fn platforms_are_parsed_strictly() {
        for good in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(good.parse::<Platform>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "linux",
            "/",
            "linux/",
            "linux//v7",
            "a/b/c/d",
            "a/b/",
            "a b/c",
        ] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError), "{bad}");
        }
    }
}
