//! Reading a blob, whatever happens to the connection.

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use dvcr_core::oci::Digest;
use futures::{Stream, stream};
use reqwest::{Method, StatusCode, header};

use crate::{Error, Hasher, Repository, fields, request::Answer, retry::Backoff};

/// A blob, or a part of one, that is being read. A broken connection is replaced by one that goes on where it broke.
#[derive(Debug)]
pub struct BlobReader {
    repository: Repository,
    digest: Digest,
    /// The next byte to be read.
    offset: u64,
    /// The byte after the last one.
    end: u64,
    /// Of all bytes so far; only where the whole blob is read.
    hasher: Option<Hasher>,
    answer: Option<Answer>,
    backoff: Backoff,
}

impl BlobReader {
    pub(crate) async fn whole(
        repository: Repository,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Self, Error> {
        let backoff = repository.client.backoff();
        let mut reader = Self {
            repository,
            digest,
            offset: 0,
            end: size.unwrap_or(u64::MAX),
            hasher: Some(Hasher::new(digest.algorithm())),
            answer: None,
            backoff,
        };
        reader.connect().await?;
        let told = reader
            .answer
            .as_ref()
            .and_then(|answer| fields::text(answer.headers(), header::CONTENT_LENGTH))
            .and_then(|len| len.parse::<u64>().ok());
        match (size, told) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(reader.wrong_size(expected, found));
            }
            (None, Some(found)) => reader.end = found,
            _ => {}
        }
        Ok(reader)
    }

    pub(crate) async fn range(
        repository: Repository,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<Self, Error> {
        let backoff = repository.client.backoff();
        let mut reader = Self {
            repository,
            digest,
            offset: range.start,
            end: range.end.max(range.start),
            hasher: None,
            answer: None,
            backoff,
        };
        if reader.offset < reader.end {
            reader.connect().await?;
        }
        Ok(reader)
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length of the blob if it is read whole and its length is known; else where the part ends.
    pub fn end(&self) -> Option<u64> {
        (self.end != u64::MAX).then_some(self.end)
    }

    /// The next bytes; `None` at the end. A blob that is not what it should be is an error instead of its last bytes, or instead of its
    /// end where its length was not known. Not to be called again after an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.offset == self.end {
                self.answer = None;
                return self.verify().map(|()| None);
            }
            let Some(answer) = &mut self.answer else {
                self.connect().await?;
                continue;
            };
            match answer.chunk().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return self.take(bytes).map(Some),
                Ok(None) if self.end == u64::MAX => self.end = self.offset,
                Ok(None) => {
                    // The length was promised: a shorter body without an error is a proxy's doing, and as good as a break.
                    self.answer = None;
                    let error = self.wrong_size(self.end, self.offset);
                    self.backoff.wait_anyway(error).await?;
                }
                Err(error) => {
                    self.answer = None;
                    self.backoff.wait(error).await?;
                }
            }
        }
    }

    /// The rest as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::try_unfold(self, async |mut reader| {
            let next = reader.chunk().await?;
            Ok(next.map(|bytes| (bytes, reader)))
        })
    }

    fn take(&mut self, mut bytes: Bytes) -> Result<Bytes, Error> {
        let left = self.end - self.offset;
        if bytes.len() as u64 > left {
            if self.hasher.is_some() {
                return Err(self.wrong_size(self.end, self.offset + bytes.len() as u64));
            }
            // A server without ranges sends everything.
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        let len = bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.offset += len;
        self.backoff.reset();
        if self.offset == self.end {
            // Before the last bytes are given out: without them nobody can take the blob for whole.
            self.verify()?;
        }
        Ok(bytes)
    }

    fn verify(&mut self) -> Result<(), Error> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let found = hasher.finish();
        if found == self.digest {
            Ok(())
        } else {
            Err(Error::Digest {
                what: self.shown(),
                expected: self.digest,
                found,
            })
        }
    }

    fn shown(&self) -> String {
        self.repository.shown(format_args!("@{}", self.digest))
    }

    fn wrong_size(&self, expected: u64, found: u64) -> Error {
        Error::Size {
            what: self.shown(),
            expected,
            found,
        }
    }

    /// Asks for what is missing.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            match self.ask().await {
                Ok(answer) => {
                    self.answer = Some(answer);
                    return Ok(());
                }
                Err(error) => self.backoff.wait(error).await?,
            }
        }
    }

    async fn ask(&mut self) -> Result<Answer, Error> {
        let path = format!("blobs/{}", self.digest);
        let mut request = self.repository.pull(Method::GET, &path)?;
        let partial = self.hasher.is_none() || self.offset > 0;
        if partial {
            let range = match self.end {
                u64::MAX => format!("bytes={}-", self.offset),
                end => format!("bytes={}-{}", self.offset, end - 1),
            };
            request = request.with(header::RANGE, &range);
        }
        let mut answer = self.repository.client.send(&request).await?;
        if !partial {
            return match answer.status() {
                StatusCode::OK => Ok(answer),
                _ => Err(answer.protocol("it sends a part where all was asked for")),
            };
        }
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let sent = fields::content_range(answer.headers());
                let (start, end, total) =
                    sent.ok_or_else(|| answer.protocol("it sends a part without saying which"))?;
                if start != self.offset || end > self.end {
                    return Err(answer.protocol("it sends another part than was asked for"));
                }
                if self.hasher.is_some()
                    && self.end != u64::MAX
                    && total.is_some_and(|total| total != self.end)
                {
                    return Err(self.wrong_size(self.end, total.unwrap_or(end)));
                }
                Ok(answer)
            }
            // No ranges here: what is before the offset is thrown away.
            StatusCode::OK => {
                skip(&mut answer, self.offset).await?;
                Ok(answer)
            }
            _ => Err(answer.protocol("it does not answer a request for a part")),
        }
    }
}

/// Throws bytes away.
async fn skip(answer: &mut Answer, mut bytes: u64) -> Result<(), Error> {
    while bytes > 0 {
        let Some(mut chunk) = answer.chunk().await? else {
            return Err(answer.protocol("the blob ends before the part that was asked for"));
        };
        let skipped = bytes.min(chunk.len() as u64);
        chunk.advance(skipped as usize);
        bytes -= skipped;
        if !chunk.is_empty() {
            answer.put_back(chunk);
        }
    }
    Ok(())
}
