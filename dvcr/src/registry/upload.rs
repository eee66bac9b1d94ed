//! Uploading blobs: sessions, and their continuation after any break. [`super::commit`] makes a blob of what arrived.
//!
//! A session lives in memory until its first checkpoint, and in the metadata from then on; each request takes it up
//! from there, so that going on after a restart is nothing special. The work of a request runs in a task of its own: a
//! client that goes away does not cancel it, and what arrived is kept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dvcr_core::oci::{Algorithm, Digest, RepositoryName};
use futures::StreamExt;

use super::{
    Body, Inner, Principal, Registry, RegistryError, SessionId, UploadStatus, millis,
    policy::{self, Action},
    session::{Begun, Session},
};
use crate::{
    meta::{
        Check, Commit, Key, MetaError, Txn, Value, key,
        record::{Record as _, UploadRecord},
    },
    store::{Ingest, IngestState, SessionRow},
};

/// How long a client may pause before what it sent is handed on, so that it does not sit on the memory of a block.
const IDLE: Duration = Duration::from_millis(200);

/// How long a client may pause, beyond that, while another request waits to go on with the upload.
const SILENT: Duration = Duration::from_secs(2);

/// Sessions looked at in one step of the expiry.
const EXPIRY_PAGE: usize = 100;

/// Parts of a recipe read at once to be removed: up to 64 KiB each.
const FORGET_PAGE: usize = 64;

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
        let begun = IngestState::new(recipe, algorithm.unwrap_or(Algorithm::Sha256));
        let session = inner.session(who, repository, Some(begun));
        inner.sessions.begin(id, session)?;
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
        let upload = self.0.upload(who, repository, id).await?;
        Ok(UploadStatus {
            id: *id,
            offset: upload.state.offset,
        })
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
        let id = *id;
        let mut upload = self.0.upload(who, repository, &id).await?;
        in_background(async move {
            check_range(range, upload.state.offset)?;
            let mut ingest = upload.ingest();
            let received = receive(&mut ingest, body, range, &upload.session).await;
            let offset = ingest.offset();
            if offset > upload.state.offset || received.is_err() {
                // Even where the body broke off: the client goes on from here.
                upload.suspend(ingest).await?;
            }
            received?;
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
        let repository = repository.clone();
        let mut upload = self.0.upload(who, &repository, id).await?;
        in_background(async move {
            let inner = Arc::clone(&upload.inner);
            let state = &mut upload.state;
            check_range(range, state.offset)?;
            if state.offset == 0 && state.algorithm != digest.algorithm() {
                *state = IngestState::new(state.recipe, digest.algorithm());
            }
            // What is known is only compared, and must stay until that is done.
            let pin = match state.offset {
                0 => Some(inner.gc.pin(&digest).await),
                _ => None,
            };
            // A damaged blob is stored anew.
            let known = pin.is_some()
                && !inner.store.is_damaged(&digest)
                && inner.get(&key::blob(&digest)).await?.is_some();
            let _pin = pin.filter(|_| known);
            let mut ingest = if known {
                Ingest::verify(
                    Arc::clone(&inner.store),
                    digest.algorithm(),
                    Some(upload.row()),
                )
            } else {
                upload.ingest()
            };
            if let Err(error) = receive(&mut ingest, body, range, &upload.session).await {
                upload.suspend(ingest).await?;
                return Err(error);
            }
            let mut finished = ingest.finish().await?;
            let found = if finished.digest.algorithm() == digest.algorithm() {
                finished.digest
            } else {
                inner.rehash(&mut finished, digest.algorithm()).await?
            };
            if found != digest {
                // The session is over: its bytes are not what the client means.
                upload.end().await?;
                return Err(RegistryError::DigestMismatch {
                    expected: digest,
                    found,
                });
            }
            inner.commit_blob(&repository, &digest, &finished).await?;
            upload.ended();
            inner.check_committed(&digest).await
        })
        .await
    }

    /// Ends an upload and forgets what it sent. A request that works on it is told that there is no such upload.
    pub async fn upload_cancel(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        id: &SessionId,
    ) -> Result<(), RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let session = self.0.find_session(who, repository, id).await?;
        session.cancelled.cancel();
        let upload = self.0.upload(who, repository, id).await?;
        in_background(upload.end()).await
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
                if inner.sessions.get(&SessionId(id)).is_none() && inner.forget(key, row).await? {
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
    session: &Session,
) -> Result<(), RegistryError> {
    let cancelled = &session.cancelled;
    let begin = ingest.offset();
    let announced = range.map(|(first, last)| last.saturating_add(1).saturating_sub(first));
    loop {
        // Only waiting is given up: what the ingest does, it ends.
        let next = cancelled.run_until_cancelled(body.next());
        let next = match tokio::time::timeout(IDLE, next).await {
            Ok(next) => next,
            Err(_) => {
                ingest.idle().await?;
                tokio::select! {
                    next = cancelled.run_until_cancelled(body.next()) => next,
                    () = is_to_give_way(session) => {
                        let why = "it went silent, and another request goes on with the upload";
                        return Err(RegistryError::Body(why.into()));
                    }
                }
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

/// Waits until a request that is silent has to let another one go on: a client that lost its connection comes back on a new one
/// long before the old one is given up.
async fn is_to_give_way(session: &Session) {
    tokio::time::sleep(SILENT).await;
    session.is_wanted().await;
}

/// An upload that this request works on, and no other.
struct Upload {
    inner: Arc<Inner>,
    id: SessionId,
    session: Arc<Session>,
    begun: Begun,
    /// Where it stands.
    state: IngestState,
    /// The row that says so.
    row: Option<Value>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.begun.is_none() {
            // It has ended, or its row says all and is read again when the client comes back.
            self.inner.sessions.remove(&self.id, &self.session);
        }
    }
}

impl Upload {
    /// Its row, to be kept up to date.
    fn row(&self) -> SessionRow {
        let (repository, principal) = (
            self.session.repository.to_string(),
            self.session.principal.to_string(),
        );
        let inner = Arc::clone(&self.inner);
        let row_of = move |state: &IngestState| {
            let row = UploadRecord {
                repository: repository.clone(),
                principal: principal.clone(),
                expires_ms: inner.now_ms() + millis(inner.options.upload_expiry),
                ingest: state.encode(),
            };
            row.encode()
        };
        SessionRow::new(key::upload(&self.id.0), self.row.clone(), row_of)
    }

    /// Goes on from where it stands.
    fn ingest(&self) -> Ingest {
        let store = Arc::clone(&self.inner.store);
        Ingest::new(store, self.state.clone(), Some(self.row()))
    }

    /// Records how far the ingest has come.
    async fn suspend(&mut self, ingest: Ingest) -> Result<(), RegistryError> {
        ingest.suspend().await?;
        if self.inner.get(&key::upload(&self.id.0)).await?.is_some() {
            *self.begun = None;
        }
        Ok(())
    }

    /// Its row is gone.
    fn ended(mut self) {
        *self.begun = None;
    }

    /// Forgets the upload and what it sent.
    async fn end(self) -> Result<(), RegistryError> {
        let key = key::upload(&self.id.0);
        // As it is now: this request may have written it.
        if let Some(row) = self.inner.get(&key).await? {
            self.inner.forget(&key, &row).await?;
        }
        self.ended();
        Ok(())
    }
}

impl Inner {
    fn session(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        begun: Option<IngestState>,
    ) -> Session {
        let expires_ms = self.now_ms() + millis(self.options.upload_expiry);
        Session::new(repository.clone(), who.clone(), expires_ms, begun)
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
                let row: UploadRecord = self
                    .get_record(&key::upload(&id.0))
                    .await?
                    .ok_or(RegistryError::UploadUnknown)?;
                if row.repository != repository.as_str()
                    || row.principal != who.to_string()
                    || row.expires_ms <= self.now_ms()
                {
                    return Err(RegistryError::UploadUnknown);
                }
                self.sessions
                    .resume(*id, self.session(who, repository, None))
            }
        };
        if session.repository != *repository || session.principal != *who {
            return Err(RegistryError::UploadUnknown);
        }
        Ok(session)
    }

    /// The upload, once no other request works on it.
    async fn upload(
        self: &Arc<Self>,
        who: &Principal,
        repository: &RepositoryName,
        id: &SessionId,
    ) -> Result<Upload, RegistryError> {
        loop {
            let session = self.find_session(who, repository, id).await?;
            if let Some(upload) = self.take_up(*id, session).await? {
                return Ok(upload);
            }
        }
    }

    /// Waits for the request that works on the session. `None` if the session was forgotten with that: its row says more, if
    /// there is one.
    async fn take_up(
        self: &Arc<Self>,
        id: SessionId,
        session: Arc<Session>,
    ) -> Result<Option<Upload>, RegistryError> {
        let mut begun = session.lock().await?;
        if !self.sessions.is_current(&id, &session) {
            return Ok(None);
        }
        let key = key::upload(&id.0);
        let row = self.get(&key).await?;
        let state = match &row {
            // Where there is a row, it counts: a commit may have come about of which the request was told that it failed.
            Some(row) => {
                *begun = None;
                let row = UploadRecord::decode(&key, row)?;
                Some(stored_state(&key, &row)?)
            }
            None => begun.clone(),
        };
        let Some(state) = state else {
            self.sessions.remove(&id, &session);
            return Err(RegistryError::UploadUnknown);
        };
        Ok(Some(Upload {
            inner: Arc::clone(self),
            id,
            session,
            begun,
            state,
            row,
        }))
    }

    /// Ends anybody's upload; false if there is none.
    pub(super) async fn abort(self: Arc<Self>, id: SessionId) -> Result<bool, RegistryError> {
        if let Some(session) = self.sessions.get(&id) {
            session.cancelled.cancel();
            if let Some(upload) = self.take_up(id, session).await? {
                return upload.end().await.map(|()| true);
            }
        }
        // Its request has ended meanwhile, or there was none.
        let key = key::upload(&id.0);
        match self.get(&key).await? {
            Some(row) => self.forget(&key, &row).await,
            None => Ok(false),
        }
    }

    /// Removes a session's row and recipe, provided that the row is as it was read; the chunks that only it refers to are found by
    /// garbage collection.
    async fn forget(&self, key: &Key, row: &Value) -> Result<bool, RegistryError> {
        let state = stored_state(key, &UploadRecord::decode(key, row)?)?;
        // Whatever its length: the row says how far its last checkpoint was, and a commit may have got further.
        let mut deletes = vec![key.clone()];
        let mut parts = self.pages(key::recipe_parts(state.recipe), FORGET_PAGE);
        while let Some(rows) = parts.next().await? {
            deletes.extend(rows.into_iter().map(|(key, _)| key));
        }
        let txn = Txn {
            checks: vec![Check::Exact(key.clone(), row.clone())],
            deletes,
            ..Txn::default()
        };
        let is_done = self.meta.commit(txn).await? == Commit::Done;
        if is_done {
            self.store.note_dead(state.stored_len.max(1));
        }
        Ok(is_done)
    }
}

/// Where an upload stands by its row.
pub(super) fn stored_state(key: &Key, row: &UploadRecord) -> Result<IngestState, MetaError> {
    IngestState::parse(&row.ingest).map_err(|what| MetaError::Corrupt {
        key: hex::encode(key),
        what,
    })
}
