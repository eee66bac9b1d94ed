//! Variables of the environment.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::cli::{registry::read_pem_dir, work::WorkArgs};

/// Where CDI mounts secrets with headers, one directory a secret, one file a header.
const SECRET_HEADERS: &str = "/extraheaders";

/// The environment of the process, as a value. It has secrets.
#[derive(Clone, Default)]
pub(super) struct Environment(BTreeMap<String, String>);

/// Without secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// That of this process. What is no text is not for us.
    pub(super) fn of_process() -> Self {
        let texts = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(texts.collect())
    }

    /// A variable that is set to something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    /// A variable as a whole value of its own.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// A path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Directories of certificates, as variables of these names have them. One without any is mounted where nobody gave one.
    pub(super) fn certificates(&self, names: &[&str]) -> Vec<PathBuf> {
        let dirs = names.iter().filter_map(|name| self.path(name));
        let is_empty =
            |dir: &PathBuf| dir.is_dir() && read_pem_dir(dir).is_ok_and(|found| found.is_empty());
        let mut dirs: Vec<_> = dirs.collect();
        dirs.retain(|dir| {
            let empty = is_empty(dir);
            if empty {
                eprintln!("dvcr-importer: {} has no certificate", dir.display());
            }
            !empty
        });
        dirs
    }

    /// Where to keep what does not fit into memory.
    pub(super) fn work(&self) -> WorkArgs {
        WorkArgs {
            work_dir: self.path("DVCR_WORK_DIR"),
            work_max: None,
            pod: true,
        }
    }

    /// A truth value as Go's `strconv.ParseBool` reads it; false if it is not set.
    pub(super) fn flag(&self, name: &str) -> anyhow::Result<bool> {
        match self.get(name) {
            None => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => bail!("{name} is true or false, not {other:?}"),
        }
    }

    /// `Name: value` from `IMPORTER_EXTRA_HEADER_<n>` and from mounted secrets, in the order of their numbers.
    pub(super) fn headers(&self) -> anyhow::Result<Vec<String>> {
        let prefix = "IMPORTER_EXTRA_HEADER_";
        let named = self.0.iter().filter(|(name, _)| name.starts_with(prefix));
        let mut headers: Vec<_> = named.map(|(_, value)| value.clone()).collect();
        headers.extend(secret_headers(Path::new(SECRET_HEADERS))?);
        Ok(headers)
    }
}

/// All headers below a directory, as Kubernetes mounts secrets: its own entries begin with two dots.
fn secret_headers(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut headers = vec![];
    let Ok(secrets) = fs::read_dir(dir) else {
        return Ok(headers);
    };
    let mut paths: Vec<_> = secrets
        .filter_map(|secret| fs::read_dir(secret.ok()?.path()).ok())
        .flatten()
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        headers.push(text.trim().to_owned());
    }
    Ok(headers)
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(owned.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_headers() {
        let environment = Environment::from([
            ("A", "true"),
            ("B", "0"),
            ("C", "yes"),
            ("EMPTY", ""),
            ("IMPORTER_EXTRA_HEADER_1", "X-B: 2"),
            ("IMPORTER_EXTRA_HEADER_0", "X-A: 1"),
        ]);
        let flag = |name: &str| environment.flag(name);
        assert!(flag("A").unwrap() && !flag("B").unwrap() && !flag("D").unwrap());
        assert!(flag("C").is_err());
        assert_eq!(environment.get("EMPTY"), None);
        assert_eq!(environment.headers().unwrap(), ["X-A: 1", "X-B: 2"]);

        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("0")).unwrap();
        fs::write(dir.path().join("0/token"), "Authorization: Bearer x\n").unwrap();
        let headers = secret_headers(dir.path()).unwrap();
        assert_eq!(headers, ["Authorization: Bearer x"]);
    }
}
