//! One client of a registry that may be killed at any time: every step can be done again, and is, until it has an answer.

use std::{
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

use crate::{
    content::{Blob, Image, MANIFEST},
    support::{
        http::{Body, Client, Request, Response},
        random::Random,
    },
};

/// A server that was killed is back after so long, or has failed.
const BACK_LIMIT: Duration = Duration::from_secs(120);

/// Where the server is. It has another port after each start.
pub(crate) struct Address {
    /// How often it was started, and its URL now.
    now: Mutex<(u64, String)>,
    moved: Condvar,
}

impl Address {
    pub(crate) fn new(url: String) -> Self {
        Self {
            now: Mutex::new((0, url)),
            moved: Condvar::new(),
        }
    }

    pub(crate) fn set(&self, url: String) {
        let mut now = self.now.lock().unwrap();
        *now = (now.0 + 1, url);
        self.moved.notify_all();
    }

    fn get(&self) -> (u64, String) {
        self.now.lock().unwrap().clone()
    }

    /// Waits for a later start than `seen`.
    fn after(&self, seen: u64, why: &str) -> (u64, String) {
        let now = self.now.lock().unwrap();
        let waited = self
            .moved
            .wait_timeout_while(now, BACK_LIMIT, |now| now.0 <= seen);
        let (now, timeout) = waited.unwrap();
        assert!(
            !timeout.timed_out(),
            "the connection broke, and not because the server was killed: {why}"
        );
        now.clone()
    }
}

/// The connection broke: the server was killed.
#[derive(Debug)]
pub(crate) struct Killed(String);

/// A client.
pub(crate) struct Visitor<'a> {
    address: &'a Address,
    seen: u64,
    client: Client,
    /// Longest time from the first question about a blob of an image to the answer to its manifest. The registry protects what
    /// it was asked about for at least half a lease.
    pub(crate) longest_push: Duration,
    /// Blobs that were there, that came from another repository, that were sent.
    pub(crate) found: u64,
    pub(crate) mounted: u64,
    pub(crate) sent: u64,
    /// Bytes of bodies, in both directions.
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

impl<'a> Visitor<'a> {
    pub(crate) fn new(address: &'a Address) -> Self {
        let (seen, url) = address.get();
        Self {
            address,
            seen,
            client: Client::new(&url),
            longest_push: Duration::ZERO,
            found: 0,
            mounted: 0,
            sent: 0,
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    /// Does something until the server lives through it.
    pub(crate) fn surely<T>(
        &mut self,
        mut step: impl FnMut(&mut Self) -> Result<T, Killed>,
    ) -> (T, u64) {
        for again in 0.. {
            match step(self) {
                Ok(value) => return (value, again),
                Err(Killed(why)) => {
                    let (seen, url) = self.address.after(self.seen, &why);
                    (self.seen, self.client) = (seen, Client::new(&url));
                }
            }
        }
        unreachable!("an endless loop")
    }

    fn send(&mut self, request: &Request, expected: &[u16]) -> Result<Response, Killed> {
        self.client.clear_transcript();
        let response = self.client.send(request).map_err(Killed)?;
        assert!(
            expected.contains(&response.status),
            "{} instead of {expected:?}: {}\n{}",
            response.status,
            response.text(),
            self.client.transcript()
        );
        self.received_bytes += response.body.len() as u64;
        Ok(response)
    }

    /// Pushes an image as clients do: asks for each blob, mounts or sends what is not there, then the manifest.
    pub(crate) fn push(
        &mut self,
        repository: &str,
        tag: &str,
        image: &Image,
        from: &str,
        random: &mut Random,
    ) -> Result<(), Killed> {
        let begun = Instant::now();
        for blob in &image.blobs {
            self.push_blob(repository, blob, from, random)?;
        }
        self.put(repository, tag, image)?;
        self.longest_push = self.longest_push.max(begun.elapsed());
        Ok(())
    }

    fn push_blob(
        &mut self,
        repository: &str,
        blob: &Blob,
        from: &str,
        random: &mut Random,
    ) -> Result<(), Killed> {
        let Blob { digest, bytes } = blob;
        let head = Request::new("HEAD", format!("/v2/{repository}/blobs/{digest}"));
        if self.send(&head, &[200, 404])?.status == 200 {
            self.found += 1;
            return Ok(());
        }
        let mut open = Request::new("POST", format!("/v2/{repository}/blobs/uploads/"));
        match random.next() % 3 {
            0 if from != repository => open = open.query("mount", digest).query("from", from),
            1 => {
                self.sent += 1;
                self.sent_bytes += bytes.len() as u64;
                let whole = open.query("digest", digest).octets(bytes);
                return self.send(&whole, &[201]).map(drop);
            }
            _ => {}
        }
        let opened = self.send(&open, &[201, 202])?;
        if opened.status == 201 {
            self.mounted += 1;
            return Ok(());
        }
        self.sent += 1;
        self.sent_bytes += bytes.len() as u64;
        let session = opened.get("Location").unwrap().to_owned();
        let first = (random.next() % (bytes.len() as u64 + 1)) as usize;
        let piece = Request::new("PATCH", session).octets(&bytes[..first]);
        let piece = self.send(&piece, &[202])?;
        let session = piece.get("Location").unwrap().to_owned();
        let close = Request::new("PUT", session).query("digest", digest);
        self.send(&close.octets(&bytes[first..]), &[201]).map(drop)
    }

    /// Puts a manifest whose blobs are there.
    pub(crate) fn put(&mut self, repository: &str, tag: &str, image: &Image) -> Result<(), Killed> {
        let put = Request::new("PUT", format!("/v2/{repository}/manifests/{tag}"));
        let put = put.header("Content-Type", MANIFEST);
        self.send(&put.body(Body::Sized(image.manifest.clone())), &[201])
            .map(drop)
    }

    /// Begins to send a blob, and thinks better of it.
    pub(crate) fn cancel(&mut self, repository: &str, blob: &Blob) -> Result<(), Killed> {
        let open = Request::new("POST", format!("/v2/{repository}/blobs/uploads/"));
        let opened = self.send(&open, &[202])?;
        let session = opened.get("Location").unwrap().to_owned();
        let half = &blob.bytes[..blob.bytes.len() / 2];
        let piece = self.send(&Request::new("PATCH", session).octets(half), &[202])?;
        let session = piece.get("Location").unwrap().to_owned();
        self.send(&Request::new("DELETE", session), &[204])
            .map(drop)
    }

    /// Deletes a manifest. It may be gone already if this is done again.
    pub(crate) fn delete(
        &mut self,
        repository: &str,
        digest: &str,
        again: bool,
    ) -> Result<(), Killed> {
        let path = format!("/v2/{repository}/manifests/{digest}");
        let expected: &[u16] = if again { &[202, 404] } else { &[202] };
        self.send(&Request::new("DELETE", path), expected).map(drop)
    }

    /// Pulls an image and compares every byte.
    pub(crate) fn pull(
        &mut self,
        repository: &str,
        reference: &str,
        image: &Image,
    ) -> Result<(), Killed> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let manifest = self.send(&Request::new("GET", path), &[200])?;
        assert!(
            manifest.body == image.manifest,
            "{repository}:{reference} is another manifest: {}",
            manifest.text()
        );
        for blob in &image.blobs {
            let path = format!("/v2/{repository}/blobs/{}", blob.digest);
            let pulled = self.send(&Request::new("GET", path), &[200])?;
            assert!(
                pulled.body[..] == blob.bytes[..],
                "{repository}: blob {} has other bytes",
                blob.digest
            );
        }
        Ok(())
    }

    /// Checks that a manifest is not there.
    pub(crate) fn miss(&mut self, repository: &str, reference: &str) -> Result<(), Killed> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send(&Request::new("GET", path), &[404]).map(drop)
    }
}
