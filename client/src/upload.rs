//! Upload sessions: bytes go to the registry in order, and after a break from where the registry stands.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dvcr_core::oci::{Algorithm, Digest};
use futures::StreamExt as _;
use reqwest::{Method, StatusCode, Url, header};

use crate::{
    BlobSource, BlobStream, Error, Repository,
    blob::REPORT_BYTES_MAX,
    fields::{self, CHUNK_MIN_LENGTH},
    request::{Fetched, Request, Streamed},
    retry::Backoff,
};

/// How long cancelling may take: it is a courtesy, as registries forget sessions by themselves.
const CANCEL_TIME: Duration = Duration::from_secs(10);

/// An upload session.
///
/// [`Upload::push`] sends what can be read again, [`Upload::append`] what is in memory, [`Upload::append_stream`] once what is neither; then
/// [`Upload::finish`]. [`Upload::location`] names the session for another process, which goes on with [`Repository::resume_upload`].
/// Dropping it leaves the session to the registry, which forgets it after some days; [`Upload::cancel`] tells it to.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    location: Url,
    algorithm: Algorithm,
    offset: u64,
    chunk_min: u64,
    follower: Follower,
}

/// Told where a session is.
type Told = dyn Fn(&str) + Send + Sync;

/// Whoever is told, if there is somebody.
#[derive(Clone, Default)]
struct Follower(Option<Arc<Told>>);

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Follower").field(&self.0.is_some()).finish()
    }
}

impl Repository {
    /// Begins an upload of a blob that will have a digest of this algorithm.
    pub async fn upload(&self, algorithm: Algorithm) -> Result<Upload, Error> {
        let mut request = self.push(Method::POST, "blobs/uploads/")?;
        Upload::announce(&mut request, algorithm);
        let fetched = self.client.fetch(&request, REPORT_BYTES_MAX).await?;
        Upload::begun(self.clone(), algorithm, &fetched)
    }

    /// Goes on with an upload that [`Upload::location`] names. `None` if the registry does not know it any more.
    pub async fn resume_upload(
        &self,
        location: &str,
        algorithm: Algorithm,
    ) -> Result<Option<Upload>, Error> {
        let Ok(location) = self.client.url().join(location) else {
            return Ok(None);
        };
        // It may come from a file: nothing but this registry is to be asked with its credentials.
        if location.origin() != self.client.url().origin() {
            return Ok(None);
        }
        let mut upload = Upload {
            repository: self.clone(),
            location,
            algorithm,
            offset: 0,
            chunk_min: 0,
            follower: Follower::default(),
        };
        match upload.status().await {
            Ok(_) => Ok(Some(upload)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Upload {
    /// Names the algorithm where it is not the usual one: that saves the registry from reading everything again at the end.
    pub(crate) fn announce(request: &mut Request, algorithm: Algorithm) {
        if algorithm != Algorithm::Sha256 {
            let mut query = request.url.query_pairs_mut();
            query.append_pair("digest-algorithm", algorithm.as_str());
        }
    }

    /// A session that an answer has announced.
    pub(crate) fn begun(
        repository: Repository,
        algorithm: Algorithm,
        fetched: &Fetched,
    ) -> Result<Self, Error> {
        let location = fields::text(&fetched.headers, header::LOCATION)
            .and_then(|target| repository.client.location(&fetched.url, target))
            .ok_or_else(|| fetched.protocol("it begins an upload at no usable place"))?;
        let chunk_min = fields::text(&fetched.headers, CHUNK_MIN_LENGTH)
            .and_then(|len| len.parse().ok())
            .unwrap_or(0);
        Ok(Self {
            repository,
            location,
            algorithm,
            offset: 0,
            chunk_min,
            follower: Follower::default(),
        })
    }

    /// Bytes that the registry has, as far as it has said.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The session's URL. It changes with every request that succeeds.
    pub fn location(&self) -> &str {
        self.location.as_str()
    }

    /// Tells `follower` where the session is, now and whenever that changes: what is noted elsewhere stays true, even where a registry
    /// has forgotten the session and another one goes on in its place.
    pub fn follow(&mut self, follower: impl Fn(&str) + Send + Sync + 'static) {
        follower(self.location());
        self.follower = Follower(Some(Arc::new(follower)));
    }

    fn tell(&self) {
        if let Follower(Some(follower)) = &self.follower {
            follower(self.location());
        }
    }

    /// Goes on with a new session.
    async fn renew(&mut self) -> Result<Self, Error> {
        let mut fresh = self.repository.upload(self.algorithm).await?;
        fresh.follower = std::mem::take(&mut self.follower);
        fresh.tell();
        Ok(std::mem::replace(self, fresh))
    }

    /// Fewest bytes that the registry wants in a piece which is not the last; 0 if it does not care.
    pub fn chunk_min(&self) -> u64 {
        self.chunk_min
    }

    fn request(&self, method: Method) -> Request {
        let mut request = Request::new(method, self.location.clone());
        request.scopes = self.repository.scope("pull,push");
        request
    }

    /// Asks the registry how many bytes it has. [`Error::is_not_found`] if it has forgotten the session.
    pub async fn status(&mut self) -> Result<u64, Error> {
        let request = self.request(Method::GET);
        let fetched = self
            .repository
            .client
            .fetch(&request, REPORT_BYTES_MAX)
            .await?;
        let has = fields::upload_range(&fetched.headers).unwrap_or(0);
        self.moved(&fetched.headers, &fetched.url);
        if has == 1 {
            // `0-0` is how registries say both "one byte" and "none": a new session knows.
            self.renew().await?.cancel().await;
            return Ok(0);
        }
        self.offset = has;
        Ok(has)
    }

    fn moved(&mut self, headers: &header::HeaderMap, from: &Url) {
        let target = fields::text(headers, header::LOCATION);
        if let Some(url) = target.and_then(|target| self.repository.client.location(from, target)) {
            let moved = url != self.location;
            self.location = url;
            if moved {
                self.tell();
            }
        }
    }

    /// Sends a stream, once. `len` is its length, if known. Then [`Upload::offset`] is what the registry has, which may be less; after
    /// an error, [`Upload::status`] tells it.
    pub async fn append_stream(
        &mut self,
        stream: BlobStream,
        len: Option<u64>,
    ) -> Result<(), Error> {
        let mut request = self
            .request(Method::PATCH)
            .with(header::CONTENT_TYPE, "application/octet-stream");
        if let Some(len) = len {
            if len == 0 {
                return Ok(());
            }
            let range = format!("{}-{}", self.offset, self.offset + len - 1);
            request = request.with(header::CONTENT_RANGE, &range);
        }
        let body = Streamed { stream, len };
        let answer = self.repository.client.send_stream(&request, body).await?;
        let has = fields::upload_range(answer.headers())
            .ok_or_else(|| answer.protocol("it does not say what it has of the upload"))?;
        self.moved(&answer.headers().clone(), &answer.url.clone());
        let expected = len.map(|len| self.offset + len);
        if expected.is_some_and(|expected| has > expected) {
            return Err(answer.protocol("it has more of the upload than was sent"));
        }
        if has == 1 && expected != Some(1) {
            // One byte, or none: see there.
            self.status().await?;
        } else {
            self.offset = has;
        }
        Ok(())
    }

    /// Sends bytes, again from where the registry stands if the connection breaks.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), Error> {
        let start = self.offset;
        let end = start + bytes.len() as u64;
        let mut backoff = self.repository.client.backoff();
        while self.offset < end {
            let rest = usize::try_from(self.offset - start).unwrap_or(usize::MAX);
            let rest = bytes.slice(rest.min(bytes.len())..);
            let len = rest.len() as u64;
            let stream = futures::stream::iter([Ok(rest)]).boxed();
            self.step(stream, len, &mut backoff).await?;
            if self.offset < start || self.offset > end {
                return Err(self.lost(start));
            }
        }
        Ok(())
    }

    /// Sends the rest of a blob of `len` bytes, again from where the registry stands if the connection breaks. Bytes sent, repeated ones
    /// included, are returned; [`Upload::finish`] remains to be called.
    pub async fn push(&mut self, source: &dyn BlobSource, len: u64) -> Result<u64, Error> {
        let mut backoff = self.repository.client.backoff();
        let mut sent = 0;
        while self.offset < len {
            let before = self.offset;
            let stream = source.open(before).await.map_err(Error::Source)?;
            self.step(stream, len - before, &mut backoff).await?;
            sent += self.offset.saturating_sub(before);
        }
        if self.offset > len {
            return Err(self.lost(len));
        }
        Ok(sent)
    }

    /// Sends a stream, and after a failure finds out where the registry stands.
    async fn step(
        &mut self,
        stream: BlobStream,
        len: u64,
        backoff: &mut Backoff,
    ) -> Result<(), Error> {
        let before = self.offset;
        match self.append_stream(stream, Some(len)).await {
            // It took nothing, without saying why.
            Ok(()) if self.offset == before => backoff.wait_anyway(self.lost(before + len)).await?,
            Ok(()) => {}
            Err(error) => self.recover(error, backoff).await?,
        }
        if self.offset > before {
            backoff.reset();
        }
        Ok(())
    }

    /// After a failed request: waits, and asks where the registry stands. A registry that lost the session gets a new one.
    async fn recover(&mut self, error: Error, backoff: &mut Backoff) -> Result<(), Error> {
        // 416: the registry has another offset than we thought, so it is the one to ask.
        let out_of_step = error.status() == Some(StatusCode::RANGE_NOT_SATISFIABLE);
        let forgotten = error.is_not_found();
        if out_of_step || forgotten {
            backoff.wait_anyway(error).await?;
        } else {
            backoff.wait(error).await?;
        }
        if !forgotten {
            match self.status().await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.renew().await.map(drop)
    }

    fn lost(&self, wanted: u64) -> Error {
        Error::Protocol {
            request: format!("PATCH {}", self.repository.shown("/blobs/uploads/")),
            reason: format!(
                "the registry has {} bytes of an upload that should go on at {wanted}",
                self.offset
            ),
        }
    }

    /// Ends the upload: the registry verifies the digest and keeps the blob.
    pub async fn finish(&mut self, digest: &Digest) -> Result<(), Error> {
        let mut backoff = self.repository.client.backoff();
        loop {
            let mut request = self.request(Method::PUT);
            request
                .url
                .query_pairs_mut()
                .append_pair("digest", &digest.to_string());
            request.slow = true;
            let answer = match self.repository.client.send(&request).await {
                Ok(answer) => answer,
                Err(error) => {
                    let was_gone = error.is_not_found();
                    if !was_gone {
                        backoff.wait(error).await?;
                        // The answer may have been lost, not the request.
                        if self.repository.blob_info(digest).await?.is_some() {
                            return Ok(());
                        }
                        continue;
                    }
                    if self.repository.blob_info(digest).await?.is_some() {
                        return Ok(());
                    }
                    return Err(error);
                }
            };
            return match fields::digest(answer.headers()) {
                Some(found) if found != *digest && found.algorithm() == digest.algorithm() => {
                    Err(Error::Digest {
                        what: self.repository.shown(" blob, as pushed,"),
                        expected: *digest,
                        found,
                    })
                }
                _ => Ok(()),
            };
        }
    }

    /// Tells the registry to forget what it has of this upload. That it cannot be told is no error.
    pub async fn cancel(self) {
        let request = self.request(Method::DELETE);
        let told = tokio::time::timeout(CANCEL_TIME, self.repository.client.send(&request)).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::debug!(location = %self.location.path(), "upload was not cancelled");
        }
    }
}
