//! Lists that come in pages.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
};

use reqwest::{Method, Url, header};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Client, Error, Repository, link,
    request::{Fetched, Request},
    token::Scopes,
};

/// Entries asked for at once.
const PAGE_ENTRIES: usize = 1_000;

/// Longest page in bytes. Some registries ignore the number asked for and send everything; this is 500,000 tags.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Most pages of one list: a server whose links never end is not followed for ever. Each takes 16 bytes of memory.
const PAGES_MAX: u64 = 1_000_000;

/// Most pages in a row that bring nothing beyond what came before. Registries that leave out of a page what one may not see send
/// some that are empty.
const IDLE_PAGES_MAX: u32 = 100;

/// Most entries of one list: what a migration plans for a million manifests takes a GiB, and each has a tag or more.
const ENTRIES_MAX: usize = 1_000_000;

/// Most bytes of one list, as JSON: so many names of the greatest length, 255 bytes.
const LIST_BYTES_MAX: u64 = 256 << 20;

/// A list, read page by page.
#[derive(Debug)]
pub struct Pages<T> {
    client: Client,
    scopes: Scopes,
    next: Option<Url>,
    /// Pages so far, and the bytes and entries in them.
    count: u64,
    bytes: u64,
    entries: usize,
    /// Keyed hashes of the pages' addresses.
    seen: HashSet<u64>,
    hasher: RandomState,
    last: Option<T>,
    /// Pages in a row that brought nothing.
    idle: u32,
    read: fn(&Fetched) -> Result<Vec<T>, Error>,
    /// Whether a list that is not there is an empty one.
    may_be_absent: bool,
}

impl<T: Clone + PartialEq> Pages<T> {
    pub(crate) fn new(
        client: Client,
        scopes: Scopes,
        first: Url,
        read: fn(&Fetched) -> Result<Vec<T>, Error>,
    ) -> Self {
        Self {
            client,
            scopes,
            next: Some(first),
            count: 0,
            bytes: 0,
            entries: 0,
            seen: HashSet::new(),
            hasher: RandomState::new(),
            last: None,
            idle: 0,
            read,
            may_be_absent: false,
        }
    }

    /// The next page, which may be empty; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(url) = self.next.take() else {
            return Ok(None);
        };
        let mut request = Request::new(Method::GET, url.clone());
        request.scopes.clone_from(&self.scopes);
        let fetched = match self.client.fetch(&request, PAGE_BYTES_MAX).await {
            Err(error) if error.is_not_found() && self.may_be_absent && self.count == 0 => {
                return Ok(None);
            }
            other => other?,
        };
        self.count += 1;
        self.bytes += fetched.body.len() as u64;
        if self.bytes > LIST_BYTES_MAX {
            return Err(fetched.too_large(LIST_BYTES_MAX));
        }
        let links = fetched.headers.get_all(header::LINK);
        let links = links.iter().filter_map(|link| link.to_str().ok());
        self.next = link::next(links, &fetched.url);
        let page = (self.read)(&fetched)?;
        self.entries += page.len();
        if self.entries > ENTRIES_MAX {
            return Err(too_many(&fetched));
        }
        self.seen.insert(self.hasher.hash_one(&url));
        let goes_back = (self.next.as_ref())
            .is_some_and(|next| self.seen.contains(&self.hasher.hash_one(next)));
        match page.last() {
            Some(last) if self.last.as_ref() != Some(last) => {
                self.last = Some(last.clone());
                self.idle = 0;
            }
            _ => self.idle += 1,
        }
        if goes_back || self.idle > IDLE_PAGES_MAX || self.count >= PAGES_MAX {
            return Err(fetched.protocol("its list never ends"));
        }
        Ok(Some(page))
    }

    /// All entries. For lists that are known to fit in memory.
    pub async fn all(mut self) -> Result<Vec<T>, Error> {
        let mut entries = Vec::new();
        while let Some(page) = self.next().await? {
            entries.extend(page);
        }
        Ok(entries)
    }
}

fn too_many(fetched: &Fetched) -> Error {
    fetched.protocol(&format!("its list has more than {ENTRIES_MAX} entries"))
}

/// Reads a page of names. Their commas are counted first: an empty name takes three bytes there, and ten times as many in memory.
fn names<T: DeserializeOwned>(fetched: &Fetched) -> Result<T, Error> {
    let commas = fetched.body.iter().filter(|byte| **byte == b',');
    if commas.count() > ENTRIES_MAX {
        return Err(too_many(fetched));
    }
    fetched.json()
}

impl Client {
    /// Names of the repositories that the credentials may see. Not part of the specification, so not every registry has it; the
    /// names may be such that no repository of this registry could have them.
    pub fn catalog(&self) -> Result<Pages<String>, Error> {
        #[derive(Deserialize)]
        struct Catalog {
            repositories: Option<Vec<String>>,
        }
        let first = self.join(&format!("v2/_catalog?n={PAGE_ENTRIES}"))?;
        let scopes = Scopes::from(["registry:catalog:*".to_owned()]);
        Ok(Pages::new(self.clone(), scopes, first, |fetched| {
            let page: Catalog = names(fetched)?;
            Ok(page.repositories.unwrap_or_default())
        }))
    }
}

impl Repository {
    /// Its tags; none if there is no such repository. They may be such that no tag may be.
    pub fn tags(&self) -> Result<Pages<String>, Error> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let request = self.pull(Method::GET, &format!("tags/list?n={PAGE_ENTRIES}"))?;
        let mut pages = Pages::new(
            self.client.clone(),
            request.scopes,
            request.url,
            |fetched| {
                let page: Tags = names(fetched)?;
                Ok(page.tags.unwrap_or_default())
            },
        );
        pages.may_be_absent = true;
        Ok(pages)
    }
}
