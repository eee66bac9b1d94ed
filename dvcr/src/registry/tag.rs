//! Lists: tags of a repository, repositories of the registry.

use dvcr_core::oci::{RepositoryName, Tag};

use super::{
    Inner, Page, Principal, Registry, RegistryError,
    policy::{self, Action},
};
use crate::meta::{KeyRange, key};

impl Registry {
    /// Up to `n` tags after `last`, in byte order.
    pub async fn tags(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        last: Option<&str>,
        n: usize,
    ) -> Result<Page<Tag>, RegistryError> {
        policy::authorize(who, Some(repository), Action::Pull)?;
        if !self.0.repository_exists(repository).await? {
            return Err(RegistryError::NameUnknown(repository.clone()));
        }
        let last = last.map(|last| key::tag(repository, last));
        self.0
            .names(key::tags(repository), last, n, |_: &Tag| true)
            .await
    }

    /// Up to `n` repositories after `last`, in byte order, that the principal may pull from.
    pub async fn repositories(
        &self,
        who: &Principal,
        last: Option<&str>,
        n: usize,
    ) -> Result<Page<RepositoryName>, RegistryError> {
        let visible =
            |name: &RepositoryName| policy::authorize(who, Some(name), Action::Pull).is_ok();
        self.0
            .names(key::repositories(), last.map(key::repository), n, visible)
            .await
    }
}

impl Inner {
    /// The names that end the keys of a range.
    pub(super) async fn names<T: std::str::FromStr>(
        &self,
        all: KeyRange,
        last: Option<Vec<u8>>,
        n: usize,
        visible: impl Fn(&T) -> bool,
    ) -> Result<Page<T>, RegistryError> {
        let mut range = match last {
            Some(last) => key::after(all.clone(), &last),
            None => all.clone(),
        };
        let mut items = Vec::new();
        while items.len() <= n && range.from < range.to {
            let rows = self.meta.scan(&range, n + 1 - items.len()).await?;
            let Some((last, _)) = rows.last() else { break };
            range = key::after(range, last);
            let names = rows
                .iter()
                .filter_map(|(k, _)| std::str::from_utf8(key::last_field(&all, k)).ok());
            items.extend(names.filter_map(|name| name.parse().ok()).filter(&visible));
        }
        let more = items.len() > n;
        items.truncate(n);
        Ok(Page { items, more })
    }
}
