//! What a registry is shown, and when.
//!
//! Nothing until it asks; then what it asked for. Answers to challenges are remembered, so that only a client's first
//! request is refused.

use reqwest::{Url, header::HeaderValue};
use tokio::sync::Mutex;

use crate::{
    Credentials, Error, challenge,
    request::{Answer, Http},
    token::{Scopes, Service, Tokens, basic, sensitive},
};

/// How the registry wants to be shown credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Scheme {
    Basic,
    Bearer(Service),
}

/// The login at one registry.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
    registry: Url,
    /// Held while a token is asked for, so that many requests at once ask for one only.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scheme: Option<Scheme>,
    tokens: Tokens,
}

/// What a request was sent with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The `Authorization` field.
    pub(crate) field: Option<HeaderValue>,
    /// Whether a token was made for this very request: if it is refused, another will be, too.
    fresh: bool,
}

/// What to do about a 401.
pub(crate) enum Verdict {
    /// Other credentials are to be shown now.
    Again,
    /// The server does not want what there is.
    Refused,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials, registry: Url) -> Self {
        Self {
            credentials,
            registry,
            state: Mutex::default(),
        }
    }

    /// Whether a URL is the registry's: same scheme, host and port.
    pub(crate) fn is_for(&self, url: &Url) -> bool {
        url.origin() == self.registry.origin()
    }

    /// What to send with a request for these scopes.
    pub(crate) async fn show(&self, http: &Http, scopes: &Scopes) -> Result<Shown, Error> {
        if let Credentials::Bearer(token) = &self.credentials {
            return Ok(Shown {
                field: Some(sensitive(format!("Bearer {}", token.expose()))),
                fresh: true,
            });
        }
        let mut state = self.state.lock().await;
        match (&state.scheme, &self.credentials) {
            (Some(Scheme::Basic), Credentials::Basic { username, password }) => Ok(Shown {
                field: Some(basic(username, password)),
                fresh: true,
            }),
            (Some(Scheme::Bearer(service)), credentials) => {
                let (token, fresh) = match state.tokens.get(scopes) {
                    Some(token) => (token, false),
                    None => (service.token(http, credentials, scopes).await?, true),
                };
                let field = sensitive(format!("Bearer {}", token.text.expose()));
                if fresh {
                    state.tokens.put(scopes.clone(), token);
                }
                Ok(Shown {
                    field: Some(field),
                    fresh,
                })
            }
            _ => Ok(Shown::default()),
        }
    }

    /// Reads a 401 that a request got.
    pub(crate) async fn challenged(
        &self,
        answer: &Answer,
        shown: &Shown,
        scopes: &Scopes,
    ) -> Result<Verdict, Error> {
        if matches!(self.credentials, Credentials::Bearer(_)) {
            return Ok(Verdict::Refused);
        }
        let values = answer.headers().get_all(reqwest::header::WWW_AUTHENTICATE);
        let challenges = challenge::parse(values.iter().filter_map(|value| value.to_str().ok()));
        let find = |scheme: &str| challenges.iter().find(|found| found.scheme == scheme);
        let scheme = if let Some(bearer) = find("bearer") {
            let service = Service::of(bearer, &self.registry);
            Scheme::Bearer(service.map_err(|reason| answer.protocol(&reason))?)
        } else if find("basic").is_some() && matches!(self.credentials, Credentials::Basic { .. }) {
            Scheme::Basic
        } else {
            return Ok(Verdict::Refused);
        };
        let mut state = self.state.lock().await;
        let same_service = match (&state.scheme, &scheme) {
            (Some(Scheme::Bearer(old)), Scheme::Bearer(new)) => old.same_place(new),
            (old, new) => old.as_ref() == Some(new),
        };
        if !same_service {
            state.tokens.clear();
            state.scheme = Some(scheme);
        } else if shown.fresh {
            return Ok(Verdict::Refused);
        } else {
            // Revoked, or expired before its time.
            state.tokens.remove(scopes);
        }
        Ok(Verdict::Again)
    }
}
