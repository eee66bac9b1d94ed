//! Who is asking.

use std::fmt;

/// A text that does not show in logs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself: for sending it, not for printing it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a registry, or the token service that it names, is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Credentials {
    /// Nothing; a token service may still give a token to everybody.
    #[default]
    Anonymous,
    /// Name and password, for the registry itself or for its token service.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token (docker's `identitytoken`), which the token service turns into tokens.
    IdentityToken(Secret),
    /// A token that the registry takes as it is (docker's `registrytoken`).
    Bearer(Secret),
}

impl Credentials {
    /// Name and password.
    pub fn basic(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Basic {
            username: username.into(),
            password: password.into(),
        }
    }

    /// Whether there are none.
    pub fn is_anonymous(&self) -> bool {
        *self == Self::Anonymous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Credentials::basic("me", "hunter2"),
            Credentials::IdentityToken("hunter2".into()),
            Credentials::Bearer("hunter2".into()),
        );
        assert!(
            shown.contains("me") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
