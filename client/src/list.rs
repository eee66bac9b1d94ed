//! Lists that come in pages.

use dvcr_core::oci::Tag;
use reqwest::{Method, Url, header};
use serde::Deserialize;

use crate::{
    Client, Error, Repository, link,
    request::{Fetched, Request},
    token::Scopes,
};

/// Entries asked for at once.
const PAGE_ENTRIES: usize = 1_000;

/// Longest page in bytes. Some registries ignore the number asked for and send everything; this is 500,000 tags.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Most pages of one list: a server whose links never end is not followed for ever.
const PAGES_MAX: u64 = 1_000_000;

/// A list, read page by page.
#[derive(Debug)]
pub struct Pages<T> {
    client: Client,
    scopes: Scopes,
    next: Option<Url>,
    count: u64,
    read: fn(&Fetched) -> Result<Vec<T>, Error>,
    /// Whether a list that is not there is an empty one.
    may_be_absent: bool,
}

impl<T> Pages<T> {
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
        let links = fetched.headers.get_all(header::LINK);
        let links = links.iter().filter_map(|link| link.to_str().ok());
        self.next = link::next(links, &fetched.url);
        if self.next.as_ref() == Some(&url) || self.count >= PAGES_MAX {
            return Err(fetched.protocol("its list never ends"));
        }
        (self.read)(&fetched).map(Some)
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
            let page: Catalog = fetched.json()?;
            Ok(page.repositories.unwrap_or_default())
        }))
    }
}

impl Repository {
    /// Its tags; none if there is no such repository.
    pub fn tags(&self) -> Result<Pages<Tag>, Error> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<Tag>>,
        }
        let request = self.pull(Method::GET, &format!("tags/list?n={PAGE_ENTRIES}"))?;
        let mut pages = Pages::new(
            self.client.clone(),
            request.scopes,
            request.url,
            |fetched| {
                let page: Tags = fetched.json()?;
                Ok(page.tags.unwrap_or_default())
            },
        );
        pages.may_be_absent = true;
        Ok(pages)
    }
}
