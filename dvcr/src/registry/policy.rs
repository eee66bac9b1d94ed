//! Who may do what: the one place that every use case asks.

use dvcr_core::oci::RepositoryName;

use super::{Principal, RegistryError};

/// What a principal wants to do to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read blobs, manifests, tags, referrers.
    Pull,
    /// Upload blobs and manifests.
    Push,
    /// Make a tag.
    TagCreate,
    /// Move a tag.
    TagOverwrite,
    /// Remove tags, manifests, blobs.
    Delete,
    /// See every repository, statistics.
    Admin,
}

/// Says whether the principal may do this. There are no access rules yet: the server refuses to listen beyond
/// loopback unless it is told that everyone may do everything.
pub fn authorize(
    _who: &Principal,
    _repository: Option<&RepositoryName>,
    _action: Action,
) -> Result<(), RegistryError> {
    Ok(())
}

/// Which missing children a manifest may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sparse {
    /// None: what is committed reads back in full.
    #[default]
    None,
    /// The manifests of an index: for mirrors that hold some platforms only.
    Index,
    /// All.
    All,
}

/// Which repositories may hold manifests with missing children. The first rule whose glob fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseRules(pub Vec<(String, Sparse)>);

impl SparseRules {
    /// One rule for all repositories.
    #[must_use]
    pub fn everywhere(sparse: Sparse) -> Self {
        Self(vec![("**".into(), sparse)])
    }

    /// The rule for a repository.
    #[must_use]
    pub fn get(&self, repository: &RepositoryName) -> Sparse {
        let fits = |(glob, _): &&(String, Sparse)| glob_fits(glob, repository.as_str());
        self.0
            .iter()
            .find(fits)
            .map_or(Sparse::None, |(_, sparse)| *sparse)
    }
}

/// Whether a repository name fits a glob: `*` is any part of one path segment, `**` any number of segments.
#[must_use]
pub fn glob_fits(glob: &str, name: &str) -> bool {
    fn fits(glob: &[u8], name: &[u8]) -> bool {
        match glob {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|n| fits(rest, &name[n..])),
            [b'*', rest @ ..] => {
                let segment = name.iter().position(|b| *b == b'/').unwrap_or(name.len());
                (0..=segment).any(|n| fits(rest, &name[n..]))
            }
            [first, rest @ ..] => name.first() == Some(first) && fits(rest, &name[1..]),
        }
    }
    fits(glob.as_bytes(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let check =
            |glob, name, expected| assert_eq!(glob_fits(glob, name), expected, "{glob} {name}");
        check("**", "a/b/c", true);
        check("vi/*/**", "vi/ns/image", true);
        check("vi/*", "vi/ns/image", false);
        check("vi/ns-*/x", "vi/ns-1/x", true);
        check("a", "ab", false);
        check("a*", "a", true);
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = SparseRules(vec![
            ("mirror/**".into(), Sparse::Index),
            ("**".into(), Sparse::All),
        ]);
        assert_eq!(rules.get(&"mirror/x".parse().unwrap()), Sparse::Index);
        assert_eq!(rules.get(&"other".parse().unwrap()), Sparse::All);
        assert_eq!(
            SparseRules::default().get(&"other".parse().unwrap()),
            Sparse::None
        );
    }
}
