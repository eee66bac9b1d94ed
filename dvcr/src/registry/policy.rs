//! Who may do what: the one place that every use case asks.

use dvcr_core::oci::RepositoryName;

use super::{Principal, RegistryError, glob::RepositoryGlob};

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

impl std::str::FromStr for Sparse {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "index" => Ok(Self::Index),
            "all" => Ok(Self::All),
            _ => Err(format!("{text:?} is not one of none, index, all")),
        }
    }
}

/// What manifests in some repositories may lack.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseRule {
    /// Which repositories.
    pub repository: RepositoryGlob,
    /// What manifests there may lack.
    pub sparse: Sparse,
}

/// What manifests of a repository may lack: the first rule that fits decides, and nothing is the default.
#[must_use]
pub fn sparse_of(rules: &[SparseRule], repository: &RepositoryName) -> Sparse {
    rules
        .iter()
        .find(|rule| rule.repository.fits(repository.as_str()))
        .map_or(Sparse::None, |rule| rule.sparse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |repository: &str, sparse| SparseRule {
            repository: repository.parse().unwrap(),
            sparse,
        };
        let rules = [
            rule("mirror/strict/**", Sparse::None),
            rule("mirror/**", Sparse::Index),
            rule("scratch", Sparse::All),
        ];
        for (repository, expected) in [
            ("mirror/strict/a", Sparse::None),
            ("mirror/a", Sparse::Index),
            ("scratch", Sparse::All),
            ("a", Sparse::None),
        ] {
            let name = repository.parse().unwrap();
            assert_eq!(sparse_of(&rules, &name), expected, "{repository}");
        }
    }
}
