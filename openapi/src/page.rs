//! Lists that come in pages.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Error;

/// Which part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Most items of the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// Go on after this: `next` of the page before. Opaque, and good for the same list only.
    pub after: Option<String>,
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// What to send as `after` for the page that follows; null at the end.
    pub next: Option<String>,
}

/// The whole of a list, page after page of 1,000. `page` asks for one.
pub async fn all<T, F>(mut page: impl FnMut(PageQuery) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<Page<T>, Error>>,
{
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let asked = PageQuery {
            limit: Some(1_000),
            after,
        };
        let Page { items: some, next } = page(asked).await?;
        let empty = some.is_empty();
        items.extend(some);
        // A page may be empty and not the last where much was filtered out; but none leads to itself.
        match next {
            Some(next) if !empty => after = Some(next),
            _ => return Ok(items),
        }
    }
}
