//! The API as clients meet it: over HTTP, against the whole router.

use std::path::Path;

/// Where the committed document is.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/dvcr.json");

#[test]
fn the_committed_document_says_what_the_code_does() {
    let expected = super::document_text().unwrap();
    let found = std::fs::read_to_string(Path::new(COMMITTED)).unwrap_or_default();
    assert!(
        found == expected,
        "openapi/dvcr.json is not what the code describes; write it anew: cargo run -p dvcr -- openapi > openapi/dvcr.json"
    );
}
