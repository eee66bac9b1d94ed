//! The document that describes the API: made by the code, committed as `openapi/dvcr.json`.

use axum::http::StatusCode;
use utoipa::{
    OpenApi as _,
    openapi::{
        Content, OpenApi, Ref, RefOr, Response as Described, ResponseBuilder, Schema,
        schema::ArrayItems,
    },
};

/// How the names of the schemas of pages begin; the name of what is in them follows.
const PAGE: &str = "Page_";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "DVCR management API",
        description = "Look at and run a DVCR server. Images are pushed and pulled below `/v2`, by the OCI distribution specification.\n\n\
            Lists come in pages: send `next` of one page as `after` for the following. Errors are problem documents (RFC 9457). \
            Bodies of requests are JSON and need `Content-Type: application/json`."
    ),
    components(schemas(dvcr_openapi::Problem)),
    tags(
        (name = "repositories", description = "What is stored, by name"),
        (name = "usage", description = "What is stored, by size"),
        (name = "retention", description = "What goes by itself, and what never does"),
        (name = "uploads", description = "What is on its way"),
        (name = "gc", description = "Garbage collection"),
        (name = "scrub", description = "Is what is stored still what was written?"),
        (name = "server", description = "The server itself"),
    )
)]
struct Frame;

/// The document.
fn document() -> OpenApi {
    let mut document = Frame::openapi();
    document.merge(super::routes().into_openapi());
    describe_problems(&mut document);
    name_items(&mut document);
    document
}

/// The document as it is committed and served: JSON with a newline at its end.
pub(crate) fn document_text() -> Result<String, serde_json::Error> {
    let mut text = document().to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

/// Pages say by name what is in them, instead of describing it once more: generated clients have one type for it.
fn name_items(document: &mut OpenApi) {
    let Some(components) = &mut document.components else {
        return;
    };
    for (name, schema) in &mut components.schemas {
        let Some(item) = name.strip_prefix(PAGE) else {
            continue;
        };
        if let RefOr::T(Schema::Object(page)) = schema
            && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
        {
            let named = RefOr::Ref(Ref::from_schema_name(item));
            items.items = ArrayItems::RefOrSchema(Box::new(named));
        }
    }
}

/// A status, what the document calls that answer, and what it means.
type Named = (StatusCode, &'static str, &'static str);

/// What every operation may answer besides what it says itself.
const PROBLEMS: [Named; 12] = [
    (
        StatusCode::BAD_REQUEST,
        "BadRequest",
        "A parameter or the body makes no sense",
    ),
    (
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "Somebody must log in",
    ),
    (
        StatusCode::FORBIDDEN,
        "Forbidden",
        "The principal may not do this",
    ),
    (
        StatusCode::NOT_FOUND,
        "NotFound",
        "There is no such thing, or the principal may not know that there is",
    ),
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "There is another method here; `Allow` says which",
    ),
    (
        StatusCode::CONFLICT,
        "Conflict",
        "Something that refers to it is in the way",
    ),
    (
        StatusCode::URI_TOO_LONG,
        "UriTooLong",
        "Path and query are longer than `limits.uri_bytes`",
    ),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "TooMany",
        "Too much at once; `Retry-After` says when to try again",
    ),
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "HeadersTooLarge",
        "The header is longer than `limits.header_bytes`",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "Failed",
        "Stored data is damaged, or the server has a fault; its log tells more",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "Unavailable",
        "The storage failed for the moment; `Retry-After` says when to try again",
    ),
    (
        StatusCode::INSUFFICIENT_STORAGE,
        "Full",
        "The storage is full",
    ),
];

/// What every operation that takes a body may answer as well.
const BODY_PROBLEMS: [Named; 3] = [
    (
        StatusCode::REQUEST_TIMEOUT,
        "TimedOut",
        "The body stalled for `limits.body_stall`",
    ),
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        "TooLarge",
        "The body is longer than a MiB",
    ),
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "NotJson",
        "The body does not say that it is JSON",
    ),
];

/// Adds [`PROBLEMS`] to every operation, and [`BODY_PROBLEMS`] to those with a body.
fn describe_problems(document: &mut OpenApi) {
    for path in document.paths.paths.values_mut() {
        let operations = [
            &mut path.get,
            &mut path.put,
            &mut path.post,
            &mut path.delete,
            &mut path.patch,
        ];
        for operation in operations.into_iter().flatten() {
            let of_body = operation.request_body.is_some().then_some(BODY_PROBLEMS);
            for (status, name, _) in PROBLEMS.into_iter().chain(of_body.into_iter().flatten()) {
                operation
                    .responses
                    .responses
                    .entry(status.as_str().to_owned())
                    .or_insert_with(|| RefOr::Ref(Ref::from_response_name(name)));
            }
        }
    }
    let named = &mut document.components.get_or_insert_default().responses;
    for (_, name, description) in PROBLEMS.into_iter().chain(BODY_PROBLEMS) {
        named.insert(name.to_owned(), RefOr::T(described(description)));
    }
}

fn described(description: &str) -> Described {
    let schema = Ref::from_schema_name("Problem");
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/dvcr.json");

    #[test]
    fn the_committed_document_says_what_the_code_does() {
        let found = std::fs::read_to_string(COMMITTED).unwrap_or_default();
        assert!(
            found == document_text().unwrap(),
            "openapi/dvcr.json is not what the code describes; write it anew: cargo run -p dvcr -- openapi > openapi/dvcr.json"
        );
    }

    #[test]
    fn whatever_is_named_is_described_and_operations_have_names_of_their_own() {
        let text = document_text().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names = text.split("\"$ref\": \"#").skip(1);
        for name in names.map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(name).is_some(), "{name}");
        }
        let mut operations: Vec<_> = text
            .split("\"operationId\": \"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        operations.sort_unstable();
        let all = operations.len();
        operations.dedup();
        assert_eq!(operations.len(), all, "{operations:?}");
        let paths = document["paths"].as_object().unwrap();
        assert!(all >= paths.len() && paths.keys().all(|path| path.starts_with("/api/v1/")));
    }
}
