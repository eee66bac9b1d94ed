//! Who asks: the one place that turns a request into a [`Principal`].

use axum::http::request::Parts;

use super::error::ApiError;
use crate::registry::Principal;

/// The principal of a request. Anonymous for all: what anonymous may do is decided by the use cases, and `serve` refuses
/// to listen beyond loopback unless told so in words.
pub(crate) fn principal(_parts: &Parts) -> Result<Principal, ApiError> {
    Ok(Principal::Anonymous)
}
