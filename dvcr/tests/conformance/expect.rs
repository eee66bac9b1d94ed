//! What an answer must be like. Each says what it wanted and what it got; the transcript shows the rest.

use super::bench::Outcome;
use crate::support::http::Response;

/// The error codes that the specification registers.
const ERROR_CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

impl Response {
    /// Has one of these statuses; hands the answer on.
    pub fn status(self, wanted: &[u16]) -> Result<Self, String> {
        if wanted.contains(&self.status) {
            Ok(self)
        } else {
            Err(format!("status {}, wanted {wanted:?}", self.status))
        }
    }

    /// Has this header once, with exactly this value.
    pub fn header(&self, name: &str, wanted: &str) -> Outcome {
        let found: Vec<&str> = self.all(name).collect();
        if found == [wanted] {
            Ok(())
        } else {
            Err(format!("{name}: {found:?}, wanted {wanted:?}"))
        }
    }

    /// Has exactly this body.
    pub fn body(&self, wanted: &[u8]) -> Outcome {
        if self.body == wanted {
            return Ok(());
        }
        let same = self.body.iter().zip(wanted).take_while(|(a, b)| a == b);
        Err(format!(
            "body of {} bytes, wanted {}; they differ from byte {} on",
            self.body.len(),
            wanted.len(),
            same.count()
        ))
    }

    /// Is a JSON list of errors of which each has a registered code.
    pub fn errors(&self) -> Outcome {
        let document = self.json()?;
        let errors = document["errors"].as_array().filter(|e| !e.is_empty());
        let errors = errors.ok_or("the body has no list of errors")?;
        for error in errors {
            let code = error["code"].as_str().unwrap_or_default();
            if !ERROR_CODES.contains(&code) {
                return Err(format!("error code {code:?} is not registered"));
            }
            if !error["message"].is_string() {
                return Err(format!("error {error} has no message"));
            }
        }
        Ok(())
    }
}

/// Two things are equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Outcome {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {found:?}, wanted {wanted:?}"))
    }
}
