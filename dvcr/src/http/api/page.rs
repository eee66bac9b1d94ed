//! Lists that come in pages: `limit`, `after`, and a cursor for what follows.
//!
//! A cursor is the position of a page's last item in the order of its list, in hex so that nobody reads anything into it. It
//! stays good when that item goes away.

use axum::Json;
use dvcr_core::oci::Digest;
use dvcr_openapi::{Page, PageQuery};

use super::problem::Failure;
use crate::{http::error::RequestError, registry};

/// Items of a page when the client names no number.
const LIMIT: usize = 100;

/// Most items of a page: about 1 MB.
const LIMIT_MAX: usize = 1_000;

/// Where a page begins, and how long it may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Most items.
    pub(super) limit: usize,
    after: Option<Vec<u8>>,
}

impl Wanted {
    /// Reads what the client asks for.
    pub(super) fn new(query: &PageQuery) -> Result<Self, Failure> {
        let limit = match query.limit {
            None => LIMIT,
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(limit_error)?,
        };
        let after = query.after.as_ref().filter(|after| !after.is_empty());
        let after = after.map(hex::decode).transpose().map_err(|_| cursor())?;
        Ok(Self { limit, after })
    }

    /// The position as it was given to [`Wanted::answer`].
    pub(super) fn after(&self) -> Option<&[u8]> {
        self.after.as_deref()
    }

    /// The position, where positions are names.
    pub(super) fn after_text(&self) -> Result<Option<&str>, Failure> {
        let text = self.after().map(std::str::from_utf8).transpose();
        text.map_err(|_| cursor().into())
    }

    /// The position, where positions are digests.
    pub(super) fn after_digest(&self) -> Result<Option<Digest>, Failure> {
        let digest = self.after().map(Digest::from_key).transpose();
        digest.map_err(|_| cursor().into())
    }

    /// The position, where positions are bytes of a known number.
    pub(super) fn after_bytes<const N: usize>(&self) -> Result<Option<[u8; N]>, Failure> {
        let bytes = self.after().map(<[u8; N]>::try_from).transpose();
        bytes.map_err(|_| cursor().into())
    }

    /// The position, where positions are numbers.
    pub(super) fn after_number(&self) -> Result<Option<u64>, Failure> {
        Ok(self.after_bytes()?.map(u64::from_be_bytes))
    }
}

/// What any `limit` that is none is told.
pub(super) fn limit_error() -> RequestError {
    RequestError::Parameter(format!("limit is a number from 1 to {LIMIT_MAX}"))
}

fn cursor() -> RequestError {
    RequestError::Parameter(
        "after is no cursor of this list: send `next` of the page before, or leave it out"
            .to_owned(),
    )
}

/// The page as it travels. `position` says where an item lies in the order of the list.
pub(super) fn answer<A, W, P: AsRef<[u8]>>(
    page: registry::Page<A>,
    position: impl Fn(&A) -> P,
    wire: impl Fn(A) -> W,
) -> Json<Page<W>> {
    let last = page.items.last().filter(|_| page.more);
    let next = last.map(|last| hex::encode(position(last)));
    Json(Page {
        items: page.items.into_iter().map(wire).collect(),
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_and_cursors_are_checked() {
        fn check(limit: Option<u32>, after: Option<&str>, expected: Option<(usize, Option<&str>)>) {
            let query = PageQuery {
                limit,
                after: after.map(str::to_owned),
            };
            let wanted = Wanted::new(&query).ok();
            let expected = expected.map(|(limit, after)| Wanted {
                limit,
                after: after.map(|after| after.as_bytes().to_vec()),
            });
            assert_eq!(wanted, expected, "{limit:?} {after:?}");
        }
        check(None, None, Some((100, None)));
        check(None, Some(""), Some((100, None)));
        check(Some(1), Some("612f62"), Some((1, Some("a/b"))));
        check(Some(1_000), None, Some((1_000, None)));
        check(Some(0), None, None);
        check(Some(1_001), None, None);
        check(None, Some("a/b"), None);
        check(None, Some("612"), None);
    }
}
