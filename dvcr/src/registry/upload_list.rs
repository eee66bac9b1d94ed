//! Uploads in progress as operators see them.

use std::{collections::BTreeMap, sync::Arc};

use dvcr_core::oci::RepositoryName;

use super::{
    Page, Principal, Registry, RegistryError, SessionId, millis,
    policy::{self, Action},
    upload::{in_background, stored_state},
};
use crate::meta::{
    key,
    record::{Record as _, UploadRecord},
};

/// Rows read at once: each has up to 2 MiB of state.
const PAGE: usize = 16;

/// An upload in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadEntry {
    /// The session.
    pub id: SessionId,
    /// The repository that it belongs to.
    pub repository: RepositoryName,
    /// Who began it, as logs name them.
    pub principal: String,
    /// Bytes received; while a request brings more, those at the last checkpoint.
    pub offset: u64,
    /// Whether a request works on it now.
    pub active: bool,
    /// When it began, milliseconds since 1970; none if an earlier version of this program began it.
    pub began_ms: Option<u64>,
    /// When its last request began or got to a checkpoint, milliseconds since 1970.
    pub last_request_ms: u64,
    /// When it is given up unless it goes on, milliseconds since 1970.
    pub expires_ms: u64,
}

impl Registry {
    /// Up to `n` uploads after `after`, in the order of their ids.
    pub async fn upload_list(
        &self,
        who: &Principal,
        after: Option<&SessionId>,
        n: usize,
    ) -> Result<Page<UploadEntry>, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let inner = &self.0;
        let since =
            |expires_ms: u64| expires_ms.saturating_sub(millis(inner.options.upload_expiry));
        let mut found: BTreeMap<[u8; 16], UploadEntry> = BTreeMap::new();
        let all = key::uploads();
        let range = match after {
            Some(after) => key::after(all.clone(), &key::upload(&after.0)),
            None => all.clone(),
        };
        let mut pages = inner.pages(range, PAGE);
        while found.len() <= n
            && let Some(rows) = pages.next().await?
        {
            for (key, value) in &rows {
                let row = UploadRecord::decode(key, value)?;
                let id = key::last_field(&all, key).try_into();
                let (Ok(id), Ok(repository)) = (id, row.repository.parse()) else {
                    continue;
                };
                let began_ms = SessionId(id).began_ms();
                let offset = stored_state(key, &row)?.offset;
                let entry = UploadEntry {
                    id: SessionId(id),
                    // Of a random name one in 64 looks as if it told a time.
                    began_ms: began_ms.filter(|ms| *ms <= row.expires_ms),
                    repository,
                    principal: row.principal,
                    offset,
                    active: false,
                    last_request_ms: since(row.expires_ms),
                    expires_ms: row.expires_ms,
                };
                found.insert(id, entry);
            }
        }
        // Those in memory have no row yet, or a request.
        for (id, session) in inner.sessions.all() {
            if after.is_some_and(|after| id.0 <= after.0) {
                continue;
            }
            // Of a session that a row records, the row says how far it is.
            let begun = session.try_lock();
            let active = begun.is_none();
            if begun.is_some_and(|begun| begun.is_none()) && !found.contains_key(&id.0) {
                continue;
            }
            let entry = found.entry(id.0).or_insert_with(|| UploadEntry {
                id,
                began_ms: id.began_ms(),
                repository: session.repository.clone(),
                principal: session.principal.to_string(),
                offset: 0,
                active,
                last_request_ms: since(session.expires_ms),
                expires_ms: session.expires_ms,
            });
            entry.active = active;
            entry.expires_ms = entry.expires_ms.max(session.expires_ms);
            entry.last_request_ms = since(entry.expires_ms);
        }
        let more = found.len() > n;
        Ok(Page {
            items: found.into_values().take(n).collect(),
            more,
        })
    }

    /// Ends anybody's upload. A request that works on it is told that there is no such upload.
    pub async fn upload_abort(&self, who: &Principal, id: &SessionId) -> Result<(), RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        // To its end: a session whose request was told that it is gone has to go.
        match in_background(Arc::clone(&self.0).abort(*id)).await? {
            true => Ok(()),
            false => Err(RegistryError::UploadUnknown),
        }
    }
}
