//! Uploading blobs: sessions, and their continuation after any break. [`super::commit`] makes a blob of what arrived.
//!
//! A session lives in memory until its first checkpoint, and in the metadata from then on; each request takes it up
//! from there, so that going on after a restart is nothing special. The work of a request runs in a task of its own: a
//! client that goes away does not cancel it, and what arrived is kept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dvcr_core::oci::{Algorithm, Digest, RepositoryName};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{
    Body, Inner, Principal, Registry, RegistryError, SessionId, UploadStatus, millis,
    policy::{self, Action},
    session::{Session, SessionState},
};
use crate::{
    meta::{
        Commit, Txn, key,
        record::{Record as _, UploadRecord},
    },
    store::{CheckpointRow, Ingest, IngestState},
};

/// How long a client may pause before what it sent is handed on, so that it does not sit on the memory of a block.
const IDLE: Duration = Duration::from_millis(200);

/// Sessions looked at in one step of the expiry.
const EXPIRY_PAGE: usize = 100;

impl Registry {
    /// Begins an upload. `algorithm` is that of the digest which will close it, if the client says so.
    pub async fn upload_start(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        algorithm: Option<Algorithm>,
    ) -> Result<UploadStatus, RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let inner = &self.0;
        inner.sessions.expire(inner.now_ms());
        let id = SessionId::new(inner.now_ms())?;
        let recipe = inner.store.next_recipe().await?;
        let ingest = IngestState::new(recipe, algorithm.unwrap_or(Algorithm::Sha256));
        let session = inner.session(
            who,
            repository,
            SessionState {
                ingest,
                stored: false,
            },
        );
        inner.sessions.insert(id, session)?;
        Ok(UploadStatus { id, offset: 0 })
    }

    /// Where an upload stands.
    pub async fn upload_status(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        id: &SessionId,
    ) -> Result<UploadStatus, RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let session = self.0.find_session(who, repository, id).await?;
        let state = session.state.lock().await;
        let offset = state
            .as_ref()
            .ok_or(RegistryError::UploadUnknown)?
            .ingest
            .offset;
        Ok(UploadStatus { id: *id, offset })
    }

    /// Takes in more of a blob. With `range` (first and last byte), only if it begins where the upload stands and the body
    /// is that long. What arrived before a break is kept, and is durable when this returns.
    pub async fn upload_append(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        id: &SessionId,
        range: Option<(u64, u64)>,
        body: Body,
    ) -> Result<UploadStatus, RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let (inner, id) = (Arc::clone(&self.0), *id);
        let session = inner.find_session(who, repository, &id).await?;
        in_background(async move {
            let mut guard = session.state.lock().await;
            let state = guard.as_ref().ok_or(RegistryError::UploadUnknown)?.clone();
            check_range(range, state.ingest.offset)?;
            let begin = state.ingest.offset;
            let mut ingest = Ingest::new(
                Arc::clone(&inner.store),
                state.ingest,
                Some(inner.checkpoint_row(&session, id)),
            );
            let received = receive(&mut ingest, body, range, &session.cancelled).await;
            if ingest.offset() > begin || received.is_err() {
                // Even where the body broke off: the client goes on from here.
                let suspended = ingest.suspend().await;
                *guard = inner
                    .stored_state(&id)
                    .await?
                    .or_else(|| guard.take().filter(|s| !s.stored));
                suspended?;
            }
            received?;
            let offset = guard
                .as_ref()
                .ok_or(RegistryError::UploadUnknown)?
                .ingest
                .offset;
            if guard.as_ref().is_some_and(|s| s.stored) {
                // From now on the row says all; it is read again when the client comes back.
                inner.sessions.remove(&id);
            }
            Ok(UploadStatus { id, offset })
        })
        .await
    }

    /// Takes in the last bytes, if any, and makes the blob part of the repository if it has the digest.
    pub async fn upload_finish(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        id: &SessionId,
        range: Option<(u64, u64)>,
        digest: Digest,
        body: Body,
    ) -> Result<(), RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let (inner, id, repository) = (Arc::clone(&self.0), *id, repository.clone());
        let session = inner.find_session(who, &repository, &id).await?;
        in_background(async move {
            let mut guard = session.state.lock().await;
            let mut state = guard.as_ref().ok_or(RegistryError::UploadUnknown)?.clone();
            check_range(range, state.ingest.offset)?;
            if state.ingest.offset == 0 && state.ingest.algorithm != digest.algorithm() {
                state.ingest = IngestState::new(state.ingest.recipe, digest.algorithm());
            }
            // What is known is only compared, and must stay until that is done.
            let pin = match state.ingest.offset {
                0 => Some(inner.gc.pin(&digest).await),
                _ => None,
            };
            // A damaged blob is stored anew.
            let known = pin.is_some()
                && !inner.store.is_damaged(&digest)
                && inner.get(&key::blob(&digest)).await?.is_some();
            let _pin = pin.filter(|_| known);
            let mut ingest = if known {
                Ingest::verify(Arc::clone(&inner.store), digest.algorithm())
            } else {
                Ingest::new(
                    Arc::clone(&inner.store),
                    state.ingest,
                    Some(inner.checkpoint_row(&session, id)),
                )
            };
            if let Err(error) = receive(&mut ingest, body, range, &session.cancelled).await {
                if !known {
                    let suspended = ingest.suspend().await;
                    *guard = inner
                        .stored_state(&id)
                        .await?
                        .or_else(|| guard.take().filter(|s| !s.stored));
                    suspended?;
                }
                return Err(error);
            }
            let finished = ingest.finish().await?;
            let rehashed = if finished.digest.algorithm() == digest.algorithm() {
                finished.digest
            } else {
                inner.rehash(&finished, digest.algorithm()).await?
            };
            if rehashed != digest {
                // The session is over: its bytes are not what the client means.
                inner.end_session(&id, guard.take()).await?;
                return Err(RegistryError::DigestMismatch {
                    expected: digest,
                    found: rehashed,
                });
            }
            inner
                .commit_blob(&repository, &digest, &finished, Some(&id))
                .await?;
            *guard = None;
            inner.sessions.remove(&id);
            inner.check_committed(&digest).await
        })
        .await
    }

    /// Ends an upload and forgets what it sent.
    pub async fn upload_cancel(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        id: &SessionId,
    ) -> Result<(), RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let session = self.0.find_session(who, repository, id).await?;
        let state = session.state.lock().await.take();
        if state.is_none() {
            return Err(RegistryError::UploadUnknown);
        }
        self.0.end_session(id, state).await
    }

    /// Takes in a whole blob in one request.
    pub async fn blob_push(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        digest: Digest,
        body: Body,
    ) -> Result<(), RegistryError> {
        let upload = self
            .upload_start(who, repository, Some(digest.algorithm()))
            .await?;
        let result = self
            .upload_finish(who, repository, &upload.id, None, digest, body)
            .await;
        if result.is_err() {
            // Nobody knows of this session, so nobody will go on with it.
            if let Err(error) = self.upload_cancel(who, repository, &upload.id).await
                && !matches!(error, RegistryError::UploadUnknown)
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cancel an upload that failed"
                );
            }
        }
        result
    }

    /// Upload sessions that have a request, or have nothing stored yet.
    #[must_use]
    pub fn active_uploads(&self) -> usize {
        self.0.sessions.len()
    }

    /// Forgets uploads that nobody has gone on with for too long. Returns how many.
    pub async fn expire_uploads(&self) -> Result<usize, RegistryError> {
        let inner = &self.0;
        inner.sessions.expire(inner.now_ms());
        let (mut range, mut expired) = (key::uploads(), 0);
        loop {
            let rows = inner.meta.scan(&range, EXPIRY_PAGE).await?;
            for (key, row) in &rows {
                if UploadRecord::decode(key, row)?.expires_ms > inner.now_ms() {
                    continue;
                }
                let Ok(id) = key::last_field(&key::uploads(), key).try_into() else {
                    continue;
                };
                let id = SessionId(id);
                if inner.sessions.get(&id).is_none() {
                    inner
                        .end_session(&id, inner.stored_state(&id).await?)
                        .await?;
                    expired += 1;
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == EXPIRY_PAGE => range = key::after(range, last),
                _ => return Ok(expired),
            }
        }
    }
}

/// Runs to its end even if the caller goes away.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
) -> Result<T, RegistryError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RegistryError::Body("the server is stopping".into())),
        },
    }
}

fn check_range(range: Option<(u64, u64)>, offset: u64) -> Result<(), RegistryError> {
    match range {
        Some((first, _)) if first != offset => Err(RegistryError::RangeMismatch {
            expected: offset,
            found: first,
        }),
        _ => Ok(()),
    }
}

/// Feeds a body to an ingest. An error means that the body ended before it was whole.
async fn receive(
    ingest: &mut Ingest,
    mut body: Body,
    range: Option<(u64, u64)>,
    cancelled: &CancellationToken,
) -> Result<(), RegistryError> {
    let begin = ingest.offset();
    let announced = range.map(|(first, last)| (last + 1).saturating_sub(first));
    loop {
        // Only waiting is given up: what the ingest does, it ends.
        let next =
            match tokio::time::timeout(IDLE, cancelled.run_until_cancelled(body.next())).await {
                Ok(next) => next,
                Err(_) => {
                    ingest.idle().await?;
                    cancelled.run_until_cancelled(body.next()).await
                }
            };
        let next = next.ok_or(RegistryError::UploadUnknown)?;
        let Some(bytes) = next else { break };
        let bytes: Bytes = bytes?;
        let received = ingest.offset() - begin + bytes.len() as u64;
        if announced.is_some_and(|announced| received > announced) {
            return Err(RegistryError::Body(
                "the body is longer than its Content-Range".into(),
            ));
        }
        ingest.write(bytes).await?;
    }
    match announced {
        Some(announced) if ingest.offset() - begin < announced => Err(RegistryError::Body(
            "the body is shorter than its Content-Range".into(),
        )),
        _ => Ok(()),
    }
}

impl Inner {
    fn session(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        state: SessionState,
    ) -> Session {
        Session {
            repository: repository.clone(),
            principal: who.clone(),
            expires_ms: self.now_ms() + millis(self.options.upload_expiry),
            cancelled: CancellationToken::new(),
            state: tokio::sync::Mutex::new(Some(state)),
        }
    }

    /// The session, if it belongs to this repository and principal.
    async fn find_session(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        id: &SessionId,
    ) -> Result<Arc<Session>, RegistryError> {
        let session = match self.sessions.get(id) {
            Some(session) => session,
            None => {
                let key = key::upload(&id.0);
                let row: UploadRecord = self
                    .get_record(&key)
                    .await?
                    .ok_or(RegistryError::UploadUnknown)?;
                if row.repository != repository.as_str()
                    || row.principal != who.to_string()
                    || row.expires_ms <= self.now_ms()
                {
                    return Err(RegistryError::UploadUnknown);
                }
                let state = self
                    .stored_state(id)
                    .await?
                    .ok_or(RegistryError::UploadUnknown)?;
                self.sessions
                    .insert(*id, self.session(who, repository, state))?
            }
        };
        if session.repository != *repository || session.principal != *who {
            return Err(RegistryError::UploadUnknown);
        }
        Ok(session)
    }

    /// The state that the session's row records.
    pub(super) async fn stored_state(
        &self,
        id: &SessionId,
    ) -> Result<Option<SessionState>, RegistryError> {
        let key = key::upload(&id.0);
        let Some(row) = self.get_record::<UploadRecord>(&key).await? else {
            return Ok(None);
        };
        let corrupt = |what| crate::meta::MetaError::Corrupt {
            key: hex::encode(&key),
            what,
        };
        let ingest = IngestState::parse(&row.ingest).map_err(corrupt)?;
        Ok(Some(SessionState {
            ingest,
            stored: true,
        }))
    }

    /// Makes the row of a session from its state.
    fn checkpoint_row(self: &Arc<Self>, session: &Session, id: SessionId) -> CheckpointRow {
        let (repository, principal) = (
            session.repository.to_string(),
            session.principal.to_string(),
        );
        let inner = Arc::clone(self);
        Arc::new(move |state| {
            let row = UploadRecord {
                repository: repository.clone(),
                principal: principal.clone(),
                expires_ms: inner.now_ms() + millis(inner.options.upload_expiry),
                ingest: state.encode(),
            };
            (key::upload(&id.0), row.encode())
        })
    }

    /// Forgets a session; the chunks that only it refers to are found by garbage collection.
    pub(super) async fn end_session(
        &self,
        id: &SessionId,
        state: Option<SessionState>,
    ) -> Result<(), RegistryError> {
        self.sessions.remove(id);
        if let Some(state) = state.filter(|s| s.stored) {
            let parts = u32::try_from(state.ingest.starts.len()).unwrap_or(u32::MAX);
            let mut deletes = key::recipe_rows(state.ingest.recipe, parts).collect::<Vec<_>>();
            deletes.push(key::upload(&id.0));
            let unconditional = self
                .meta
                .commit(Txn {
                    deletes,
                    ..Txn::default()
                })
                .await?;
            debug_assert_eq!(unconditional, Commit::Done);
            self.store.note_dead(state.ingest.stored_len.max(1));
        }
        Ok(())
    }
}
