//! Settings out of a file, variables and flags.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::{Settings, SettingsError};
use crate::registry::{glob::RepositoryGlob, policy::SparseRule};

/// Every key that a variable or `--set` can name, in the order of the file.
pub const KEYS: [&str; 37] = [
    "listen",
    "data",
    "allow_anonymous",
    "hosts",
    "cache_bytes",
    "meta_cache_bytes",
    "upload_memory_bytes",
    "all_uploads_memory_bytes",
    "reserve_bytes",
    "upload_expiry",
    "lease",
    "drain",
    "sparse",
    "immutable",
    "retention",
    "gc.interval",
    "gc.grace",
    "gc.unused_percent",
    "gc.removed_percent",
    "checkpoint.interval",
    "checkpoint.keep",
    "scrub.bytes_per_hour",
    "tls.certificate",
    "tls.key",
    "limits.connections",
    "limits.requests",
    "limits.uri_bytes",
    "limits.header_bytes",
    "limits.manifest_bytes",
    "limits.blob_bytes",
    "limits.header_time",
    "limits.body_stall",
    "limits.answer_stall",
    "limits.idle",
    "limits.chunk_min_bytes",
    "log.format",
    "log.filter",
];

/// Longest settings file. A thousand sparse rules take 60 KiB.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// The variable of a key.
pub fn variable(key: &str) -> String {
    format!("DVCR_{}", key.replace('.', "_").to_uppercase())
}

/// Reads all layers and checks them. `flags` are keys and values, later ones over earlier ones.
pub fn load(
    file: Option<&Path>,
    environment: impl Fn(&str) -> Option<String>,
    flags: &[(String, String)],
) -> Result<Settings, SettingsError> {
    let mut settings = file.map_or_else(|| Ok(Settings::default()), read)?;
    for key in KEYS {
        let name = variable(key);
        if let Some(text) = environment(&name) {
            settings = settings.with(key, &text, &name)?;
        }
    }
    for (key, text) in flags {
        settings = settings.with(key, text, &format!("flag for {key}"))?;
    }
    settings.check()?;
    Ok(settings)
}

fn read(path: &Path) -> Result<Settings, SettingsError> {
    use std::io::Read as _;
    let failed = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let len = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if len as u64 > FILE_BYTES_MAX {
        return Err(SettingsError::TooLong(path.to_owned()));
    }
    read_toml(&text).map_err(|message| SettingsError::File {
        path: path.to_owned(),
        message,
    })
}

/// Reads a TOML document, or says which key is wrong and where. Without the line itself, as the error would show it: the wrong file may
/// have been named, and its line a secret.
pub(crate) fn read_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let fault = |path: &str, error: &toml::de::Error| {
        let mut fault = error.message().replace('\n', ", ");
        if !path.is_empty() {
            fault = format!("{path}: {fault}");
        }
        let before = error.span().and_then(|span| text.get(..span.start));
        match before {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
                format!("line {line}, column {column}: {fault}")
            }
            None => fault,
        }
    };
    let parsed = toml::Deserializer::parse(text).map_err(|error| fault("", &error))?;
    serde_path_to_error::deserialize(parsed).map_err(|error| {
        let path = error.path().to_string();
        fault(path.trim_matches('.'), error.inner())
    })
}

impl Settings {
    /// The settings with one value replaced. `source_name` is for the error.
    fn with(&self, key: &str, text: &str, source_name: &str) -> Result<Self, SettingsError> {
        let failed = |message: String| SettingsError::Override {
            source_name: source_name.to_owned(),
            message,
        };
        if !KEYS.contains(&key) {
            return Err(failed(format!(
                "unknown setting {key:?}; known are {}",
                KEYS.join(", ")
            )));
        }
        if key == "sparse" {
            // A list of rules does not fit into a variable: one rule for all.
            let mut settings = self.clone();
            settings.sparse = vec![SparseRule {
                repository: RepositoryGlob::every(),
                sparse: text.parse().map_err(failed)?,
            }];
            return Ok(settings);
        }
        let mut table = toml::Table::try_from(self).map_err(|error| failed(error.to_string()))?;
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let section = if section.is_empty() {
            &mut table
        } else {
            table
                .entry(section)
                .or_insert_with(|| toml::Table::new().into())
                .as_table_mut()
                .expect("the settings' dotted keys are of sections")
        };
        let value = match section.get(name) {
            Some(toml::Value::Array(_)) => {
                list(text).ok_or_else(|| failed(format!("{text:?} is no TOML list")))?
            }
            Some(toml::Value::Integer(_)) => {
                text.trim()
                    .parse::<i64>()
                    .map(toml::Value::Integer)
                    .map_err(|_| failed(format!("{text:?} is no whole number")))?
            }
            _ => toml::Value::String(text.to_owned()),
        };
        section.insert(name.to_owned(), value);
        serde_path_to_error::deserialize(table).map_err(|error| {
            let (path, message) = (error.path().to_string(), error.inner().message());
            failed(if path == key {
                message.to_owned()
            } else {
                // In a rule of a list.
                format!("{path}: {message}")
            })
        })
    }
}

/// A list as it would stand in the file.
fn list(text: &str) -> Option<toml::Value> {
    let mut table: toml::Table = toml::from_str(&format!("list = {text}")).ok()?;
    let list = table.remove("list")?;
    // Text with line ends could say more than one thing.
    (table.is_empty() && list.is_array()).then_some(list)
}
