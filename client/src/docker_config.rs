//! Credentials as docker, podman and Kubernetes pull secrets (`.dockerconfigjson`) keep them.

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use dvcr_core::oci::RepositoryName;
use serde::Deserialize;

use crate::{Credentials, Host};

/// Longest document in bytes; Kubernetes keeps secrets below 1 MiB.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Some writers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a document gives no credentials. Never holds any of them.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// Longer than a configuration can be.
    #[error("the docker configuration is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge,
    /// Not JSON, or not of this form.
    #[error(
        "the docker configuration is no JSON document with `auths`: line {line}, column {column}"
    )]
    Json {
        /// Line of the mistake, from 1.
        line: usize,
        /// Column of the mistake.
        column: usize,
    },
    /// An entry's `auth` is not the Base64 form of `user:password`.
    #[error("in the docker configuration, `auth` of {0:?} is not Base64 of user:password")]
    Auth(String),
    /// The registry's credentials are kept by a program, and no program is run.
    #[error(
        "the docker configuration keeps the credentials of {host} in the helper {helper:?}, which is not run: give user and \
         password in `auths`"
    )]
    Helper {
        /// The registry.
        host: String,
        /// Name of the helper.
        helper: String,
    },
}

/// A parsed `config.json` or `.dockerconfigjson`.
///
/// A key is a host, a host with a path, or either as a URL, and may have `*` in the labels of its host, as kubelet takes it.
/// Of the keys that fit an image, one without `*` counts before one with, then the longer path. Docker's `/v1/` and `/v2/` are no path.
/// Sources: containers-image `docker/config`, docker `cli/config/credentials`, kubelet `pkg/credentialprovider`.
#[derive(Clone, Debug, Default)]
pub struct DockerConfig {
    entries: Vec<Entry>,
    helpers: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Entry {
    host: String,
    path: String,
    credentials: Credentials,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Auth>>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// Reads a document.
    pub fn parse(document: &[u8]) -> Result<Self, DockerConfigError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(DockerConfigError::TooLarge);
        }
        // Not the error itself: it may quote what it could not read.
        let document: Document =
            serde_json::from_slice(document).map_err(|error| DockerConfigError::Json {
                line: error.line(),
                column: error.column(),
            })?;
        let mut entries = Vec::new();
        for (key, auth) in document.auths.unwrap_or_default() {
            let credentials = credentials(&key, auth.unwrap_or_default())?;
            let (host, path) = normalise(&key);
            entries.push(Entry {
                host,
                path,
                credentials,
            });
        }
        let helpers = document.helpers.unwrap_or_default();
        let helpers = helpers
            .into_iter()
            .map(|(key, helper)| (normalise(&key).0, helper))
            .collect();
        Ok(Self { entries, helpers })
    }

    /// What to show a registry for a repository; for `None`, for no repository in particular. Anonymous if nothing fits.
    pub fn credentials(
        &self,
        host: &Host,
        repository: Option<&RepositoryName>,
    ) -> Result<Credentials, DockerConfigError> {
        let best = self
            .entries
            .iter()
            .filter(|entry| !entry.credentials.is_anonymous())
            .filter(|entry| host_matches(&entry.host, host.as_str()))
            .filter(|entry| path_matches(&entry.path, repository))
            .max_by_key(|entry| (!entry.host.contains('*'), entry.path.len()));
        match (best, self.helpers.get(host.as_str())) {
            (Some(entry), _) => Ok(entry.credentials.clone()),
            (None, Some(helper)) => Err(DockerConfigError::Helper {
                host: host.to_string(),
                helper: helper.clone(),
            }),
            (None, None) => Ok(Credentials::Anonymous),
        }
    }
}

fn credentials(key: &str, auth: Auth) -> Result<Credentials, DockerConfigError> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = given(auth.registrytoken) {
        return Ok(Credentials::Bearer(token.into()));
    }
    if let Some(token) = given(auth.identitytoken) {
        return Ok(Credentials::IdentityToken(token.into()));
    }
    let (username, password) = match given(auth.auth) {
        Some(auth) => {
            let wrong = || DockerConfigError::Auth(key.to_owned());
            let text = BASE64.decode(auth.trim_ascii()).map_err(|_| wrong())?;
            let text = String::from_utf8(text).map_err(|_| wrong())?;
            let (username, password) = text.split_once(':').ok_or_else(wrong)?;
            // Old versions of docker pad the password with zeros.
            let password = password.trim_end_matches('\0');
            (username.to_owned(), password.to_owned())
        }
        None => (
            auth.username.unwrap_or_default(),
            auth.password.unwrap_or_default(),
        ),
    };
    Ok(if username.is_empty() && password.is_empty() {
        Credentials::Anonymous
    } else if username == "<token>" {
        // How docker writes an identity token where only a pair fits.
        Credentials::IdentityToken(password.into())
    } else {
        Credentials::basic(username, password)
    })
}

/// Host and path of a key.
fn normalise(key: &str) -> (String, String) {
    let key = key.strip_prefix("https://").unwrap_or(key);
    let key = key.strip_prefix("http://").unwrap_or(key);
    let key = key.trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = match path {
        "v1" | "v2" => "",
        path => path,
    };
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    };
    (host, path.to_owned())
}

/// Whether a key's host fits: label by label, so that `*` stays within one.
fn host_matches(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == host;
    }
    let split = |text: &str| match text.rsplit_once(':') {
        Some((name, port)) => (name.to_owned(), port.to_owned()),
        None => (text.to_owned(), String::new()),
    };
    let ((pattern, pattern_port), (host, port)) = (split(pattern), split(host));
    let (patterns, labels): (Vec<_>, Vec<_>) =
        (pattern.split('.').collect(), host.split('.').collect());
    pattern_port == port
        && patterns.len() == labels.len()
        && patterns
            .iter()
            .zip(labels)
            .all(|(pattern, label)| label_matches(pattern, label))
}

/// `*` is any part of the label. Takes time in proportion to the product of the lengths, whatever the stars: secrets come from
/// strangers, too.
fn label_matches(pattern: &str, label: &str) -> bool {
    let label = label.as_bytes();
    // reached[j]: the pattern so far fits the first j bytes of the label.
    let mut reached = vec![false; label.len() + 1];
    reached[0] = true;
    for byte in pattern.bytes() {
        if byte == b'*' {
            for j in 1..=label.len() {
                reached[j] |= reached[j - 1];
            }
        } else {
            for j in (1..=label.len()).rev() {
                reached[j] = reached[j - 1] && label[j - 1] == byte;
            }
            reached[0] = false;
        }
    }
    reached[label.len()]
}

/// Whether a key's path is the repository or above it.
fn path_matches(path: &str, repository: Option<&RepositoryName>) -> bool {
    if path.is_empty() {
        return true;
    }
    repository.is_some_and(|repository| {
        repository
            .as_str()
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(config: &DockerConfig, host: &str, repository: &str) -> String {
        let host = host.parse().unwrap();
        let repository = (!repository.is_empty()).then(|| repository.parse().unwrap());
        match config.credentials(&host, repository.as_ref()).unwrap() {
            Credentials::Basic { username, .. } => username,
            Credentials::Anonymous => "-".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn pair(user: &str) -> serde_json::Value {
        serde_json::json!({"username": user, "password": "p"})
    }

    #[test]
    fn the_closest_key_counts() {
        let document = serde_json::json!({"auths": {
            "r.example": pair("host"),
            "r.example/a": pair("a"),
            "r.example/a/b": pair("ab"),
            "https://s.example:5000/v2/": pair("url"),
            "https://index.docker.io/v1/": pair("hub"),
            "*.k.example": pair("glob"),
            "x.k.example": pair("exact"),
            "re*y.g.example:80": pair("part"),
            "t.example": {"auth": "bWU6c2VjOnJldA", "email": "x@y"},
            "empty.example": {},
            "null.example": null,
        }});
        let config = DockerConfig::parse(document.to_string().as_bytes()).unwrap();
        fn check(config: &DockerConfig, host: &str, repository: &str, expected: &str) {
            assert_eq!(
                user(config, host, repository),
                expected,
                "{host}/{repository}"
            );
        }
        let check = |host, repository, expected| check(&config, host, repository, expected);
        check("r.example", "", "host");
        check("r.example", "c", "host");
        check("r.example", "a", "a");
        check("r.example", "ab", "host");
        check("r.example", "a/c", "a");
        check("r.example", "a/b/c", "ab");
        check("r.example:5000", "a", "-");
        check("s.example:5000", "v2/x", "url");
        check("s.example", "v2/x", "-");
        check("docker.io", "library/debian", "hub");
        check("registry-1.docker.io", "library/debian", "hub");
        check("y.k.example", "a", "glob");
        check("x.k.example", "a", "exact");
        check("z.y.k.example", "a", "-");
        check("registry.g.example:80", "a", "part");
        check("registry.g.example", "a", "-");
        check("t.example", "a", "me");
        check("empty.example", "a", "-");
        check("null.example", "a", "-");
        check("other.example", "a", "-");
        let host = "t.example".parse().unwrap();
        assert_eq!(
            config.credentials(&host, None).unwrap(),
            Credentials::basic("me", "sec:ret")
        );
    }

    #[test]
    fn stars_stand_for_any_part_of_a_label() {
        fn check(pattern: &str, label: &str, expected: bool) {
            assert_eq!(label_matches(pattern, label), expected, "{pattern} {label}");
        }
        check("*", "", true);
        check("*", "a", true);
        check("a*", "a", true);
        check("a*", "ba", false);
        check("*a*b", "xaxbab", true);
        check("*a*b", "xaxba", false);
        check("", "", true);
        check("", "a", false);
        check(&"*a".repeat(100), &"a".repeat(99), false);
        check(&"*a".repeat(100), &"a".repeat(150), true);
    }

    #[test]
    fn tokens_are_told_apart() {
        fn check(entry: serde_json::Value, expected: Credentials) {
            let document = serde_json::json!({"auths": {"r.example": entry}}).to_string();
            let config = DockerConfig::parse(document.as_bytes()).unwrap();
            let host = "r.example".parse().unwrap();
            assert_eq!(config.credentials(&host, None).unwrap(), expected);
        }
        let identity = Credentials::IdentityToken("t".into());
        check(
            serde_json::json!({"identitytoken": "t", "auth": "bWU6"}),
            identity.clone(),
        );
        check(
            serde_json::json!({"username": "<token>", "password": "t"}),
            identity,
        );
        check(
            serde_json::json!({"registrytoken": "t"}),
            Credentials::Bearer("t".into()),
        );
    }

    #[test]
    fn helpers_are_not_run_and_secrets_not_quoted() {
        let document = br#"{"credHelpers": {"r.example": "desktop"}, "credsStore": "desktop"}"#;
        let config = DockerConfig::parse(document).unwrap();
        let host = "r.example".parse().unwrap();
        assert!(matches!(
            config.credentials(&host, None),
            Err(DockerConfigError::Helper { .. })
        ));
        let other = "s.example".parse().unwrap();
        assert!(config.credentials(&other, None).unwrap().is_anonymous());

        for bad in [
            r#"{"auths": {"r.example": {"auth": "hunter2!"}}}"#,
            r#"{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"auths": {"r.example": "hunter2"}}"#,
            r#"hunter2"#,
        ] {
            let error = DockerConfig::parse(bad.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
