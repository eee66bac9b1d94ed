//! Upload sessions: who may continue which upload, one request at a time.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dvcr_core::oci::RepositoryName;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
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

/// How long a request waits for another that works on the same upload: one that ends (a flush, a commit) does so within it.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Where there are too many sessions, one of so many goes at once.
const EVICTED_PART: usize = 10;

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadStatus {
    /// The session.
    pub id: SessionId,
    /// Bytes received so far.
    pub offset: u64,
}

/// A session that is in memory: begun and not recorded yet, or in use.
pub(super) struct Session {
    pub(super) repository: RepositoryName,
    pub(super) principal: Principal,
    pub(super) expires_ms: u64,
    /// Cancelled when somebody ends the upload while a request works on it.
    pub(super) cancelled: CancellationToken,
    /// Where it stands, until a row says so. Held while a request works on it.
    begun: Arc<AsyncMutex<Option<IngestState>>>,
    /// How many requests wait for the one that works on it.
    waiting: watch::Sender<usize>,
}

/// The right to work on a session, and where it stands if no row says so.
pub(super) type Begun = OwnedMutexGuard<Option<IngestState>>;

impl Session {
    /// A session of which `begun` says where it stands, or else its row.
    pub(super) fn new(
        repository: RepositoryName,
        principal: Principal,
        expires_ms: u64,
        begun: Option<IngestState>,
    ) -> Self {
        Self {
            repository,
            principal,
            expires_ms,
            cancelled: CancellationToken::new(),
            begun: Arc::new(AsyncMutex::new(begun)),
            waiting: watch::Sender::new(0),
        }
    }

    /// Waits for the request that works on it, but not for long.
    pub(super) async fn lock(&self) -> Result<Begun, RegistryError> {
        if let Some(begun) = self.try_lock() {
            return Ok(begun);
        }
        let _waiting = Waiting::new(&self.waiting);
        let lock = Arc::clone(&self.begun).lock_owned();
        let locked = tokio::time::timeout(WAIT_MAX, lock).await;
        locked.map_err(|_| RegistryError::TooMany {
            what: "requests for this upload",
            retry_after_seconds: 1,
        })
    }

    /// The same, without waiting.
    pub(super) fn try_lock(&self) -> Option<Begun> {
        Arc::clone(&self.begun).try_lock_owned().ok()
    }

    /// Waits until another request waits.
    pub(super) async fn is_wanted(&self) {
        // An error is out of the question: the sender is here.
        let _ = self
            .waiting
            .subscribe()
            .wait_for(|waiting| *waiting > 0)
            .await;
    }
}

/// Counts a request that waits, until it is dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
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

    /// Adds a new session. Where there are too many, the oldest that nobody sent anything to go: whoever asks for uploads and does
    /// not use them is not to keep others from theirs.
    pub(super) fn begin(&self, id: SessionId, session: Session) -> Result<(), RegistryError> {
        let mut map = self.lock();
        if map.len() >= self.max {
            let idle = map.iter().filter(|(_, session)| is_idle(session));
            let mut idle: Vec<_> = idle.map(|(id, _)| *id).collect();
            // A part of them, so that this is not done for each. Names begin with the time.
            let many = self.max.div_ceil(EVICTED_PART).min(idle.len());
            idle.sort_unstable_by_key(|id| id.0);
            for id in &idle[..many] {
                map.remove(id);
            }
            if many == 0 {
                return Err(RegistryError::TooMany {
                    what: "uploads",
                    retry_after_seconds: 10,
                });
            }
        }
        map.insert(id, Arc::new(session));
        Ok(())
    }

    /// Adds a session that has a row, or returns the one that another request has added meanwhile. Requests bound how many there are.
    pub(super) fn resume(&self, id: SessionId, session: Session) -> Arc<Session> {
        let mut map = self.lock();
        Arc::clone(map.entry(id).or_insert_with(|| Arc::new(session)))
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether this is the session of that name, and not one that was forgotten since.
    pub(super) fn is_current(&self, id: &SessionId, session: &Arc<Session>) -> bool {
        let map = self.lock();
        map.get(id).is_some_and(|known| Arc::ptr_eq(known, session))
    }

    /// Forgets a session, but not another one of that name.
    pub(super) fn remove(&self, id: &SessionId, session: &Arc<Session>) {
        let mut map = self.lock();
        if map.get(id).is_some_and(|known| Arc::ptr_eq(known, session)) {
            map.remove(id);
        }
    }

    /// Forgets sessions that are over their time.
    pub(super) fn expire(&self, now_ms: u64) {
        self.lock()
            .retain(|_, session| session.expires_ms > now_ms || !is_idle(session));
    }
}

/// Whether no request has this session of the map; to be asked under the map's lock, where nobody gets it.
fn is_idle(session: &Arc<Session>) -> bool {
    Arc::strong_count(session) == 1
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
