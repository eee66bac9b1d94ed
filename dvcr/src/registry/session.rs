//! Upload sessions: who may continue which upload, one request at a time.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dvcr_core::oci::RepositoryName;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use super::{Principal, RegistryError};
use crate::{random, store::IngestState};

/// Name of an upload session: a UUID of version 7 (RFC 9562, 5.7), that is the time in milliseconds and 74 random bits, so that
/// nobody guesses another's. Any other 16 bytes are a name as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// A new one.
    pub(super) fn new(now_ms: u64) -> Result<Self, RegistryError> {
        let mut id = [0; 16];
        random::fill(&mut id).map_err(|e| RegistryError::Invalid(format!("no randomness: {e}")))?;
        id[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        id[6] = 0x70 | id[6] & 0x0f;
        id[8] = 0x80 | id[8] & 0x3f;
        Ok(Self(id))
    }

    /// When the upload began, milliseconds since 1970; none where the name does not tell.
    pub(super) fn began_ms(&self) -> Option<u64> {
        let id = &self.0;
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&id[..6]);
        (id[6] >> 4 == 7 && id[8] >> 6 == 2).then(|| u64::from_be_bytes(ms))
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Not a session id.
#[derive(Debug, thiserror::Error)]
#[error("an upload session is named by 32 hexadecimal digits")]
pub struct SessionIdError;

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut id = [0; 16];
        hex::decode_to_slice(s, &mut id).map_err(|_| SessionIdError)?;
        Ok(Self(id))
    }
}

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadStatus {
    /// The session.
    pub id: SessionId,
    /// Bytes received so far.
    pub offset: u64,
}

/// A session that is in memory: begun and not checkpointed yet, or in use.
pub(super) struct Session {
    pub(super) repository: RepositoryName,
    pub(super) principal: Principal,
    pub(super) expires_ms: u64,
    /// Cancelled when somebody ends the upload while a request works on it.
    pub(super) cancelled: CancellationToken,
    /// Where it stands. Held while a request works on it; `None` once it has ended.
    pub(super) state: AsyncMutex<Option<SessionState>>,
}

/// Where a session stands between two requests.
#[derive(Clone)]
pub(super) struct SessionState {
    pub(super) ingest: IngestState,
    /// Whether a row in the metadata says the same.
    pub(super) stored: bool,
}

/// The sessions in memory.
pub(super) struct Sessions {
    map: Mutex<HashMap<SessionId, Arc<Session>>>,
    max: usize,
}

impl Sessions {
    pub(super) fn new(max: usize) -> Self {
        Self {
            map: Mutex::default(),
            max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.lock().get(id).cloned()
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> Vec<(SessionId, Arc<Session>)> {
        let map = self.lock();
        map.iter()
            .map(|(id, session)| (*id, Arc::clone(session)))
            .collect()
    }

    /// Adds a session, or returns the one that another request has added meanwhile.
    pub(super) fn insert(
        &self,
        id: SessionId,
        session: Session,
    ) -> Result<Arc<Session>, RegistryError> {
        let mut map = self.lock();
        if map.len() >= self.max && !map.contains_key(&id) {
            return Err(RegistryError::TooMany {
                what: "uploads",
                retry_after_seconds: 10,
            });
        }
        Ok(Arc::clone(
            map.entry(id).or_insert_with(|| Arc::new(session)),
        ))
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn remove(&self, id: &SessionId) {
        self.lock().remove(id);
    }

    /// Forgets sessions that are over their time.
    pub(super) fn expire(&self, now_ms: u64) {
        self.lock().retain(|_, session| session.expires_ms > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_read_back_and_nothing_else_does() {
        let id = SessionId::new(1_700_000_000_123).unwrap();
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        assert_ne!(SessionId::new(1_700_000_000_123).unwrap(), id);
        assert_eq!(id.began_ms(), Some(1_700_000_000_123));
        assert_eq!(SessionId([0; 16]).began_ms(), None);
        for bad in ["", "xyz", "00", &"g".repeat(32), &"0".repeat(33)] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
