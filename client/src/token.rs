//! Token services: credentials in, a token for some scopes out.
//!
//! Source: distribution's token specification (docs/spec/auth/token and oauth).

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{Method, Url, header};
use serde::Deserialize;

use crate::{
    Credentials, Error,
    challenge::Challenge,
    credentials::Secret,
    request::{Http, Request},
};

/// Lifetime of a token whose answer does not say. Source: the token specification.
const LIFETIME: Duration = Duration::from_secs(60);

/// A token counts as expired this long before it does: clocks differ, and the request takes time.
const MARGIN: Duration = Duration::from_secs(10);

/// Longest answer of a token service; real ones have a few KiB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Tokens kept. A migration asks for one a repository; past this the oldest are of no use.
const TOKENS_MAX: usize = 1_000;

/// What a request needs: `repository:NAME:pull` and such.
pub(crate) type Scopes = BTreeSet<String>;

/// A token service, as the registry named it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Service {
    realm: Url,
    service: Option<String>,
    /// What the challenge asked for; used where the request itself has no scope.
    scope: Option<String>,
}

impl Service {
    /// The service of a `Bearer` challenge from `registry`, whose scheme must not be better than the realm's.
    pub(crate) fn of(challenge: &Challenge, registry: &Url) -> Result<Self, String> {
        let realm = challenge.parameters.get("realm");
        let realm = realm.and_then(|realm| Url::parse(realm).ok());
        let realm = realm.ok_or("its challenge names no token service")?;
        match (registry.scheme(), realm.scheme()) {
            (_, "https") | ("http", "http") => {}
            _ => {
                return Err("it wants credentials sent to its token service without TLS".to_owned());
            }
        }
        let parameter = |name: &str| challenge.parameters.get(name).cloned();
        Ok(Self {
            realm,
            service: parameter("service"),
            scope: parameter("scope"),
        })
    }

    /// Whether both are one service: the scope of a challenge differs from request to request.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        self.realm == other.realm && self.service == other.service
    }

    /// Asks for a token.
    pub(crate) async fn token(
        &self,
        http: &Http,
        credentials: &Credentials,
        scopes: &Scopes,
    ) -> Result<Token, Error> {
        let mut scopes = scopes.clone();
        if scopes.is_empty() {
            scopes.extend(self.scope.clone());
        }
        let request = match credentials {
            Credentials::IdentityToken(refresh) => self.oauth(refresh, &scopes),
            _ => self.get(credentials, &scopes),
        };
        let answer = http.fetch_unauthorized(request, ANSWER_BYTES_MAX).await?;
        let parsed: Answer = answer.json()?;
        let text = [parsed.token, parsed.access_token]
            .into_iter()
            .flatten()
            .find(|text| !text.is_empty())
            .ok_or_else(|| answer.protocol("the token service sent no token"))?;
        let lifetime = parsed.expires_in.map_or(LIFETIME, Duration::from_secs);
        let usable = lifetime.saturating_sub(MARGIN.min(lifetime / 2));
        Ok(Token {
            text: text.into(),
            // An expiry beyond what the clock can tell is none that matters.
            until: Instant::now()
                .checked_add(usable)
                .unwrap_or_else(|| Instant::now() + LIFETIME),
        })
    }

    fn get(&self, credentials: &Credentials, scopes: &Scopes) -> Request {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            if let Credentials::Basic { username, .. } = credentials {
                query.append_pair("account", username);
            }
        }
        let mut request = Request::new(Method::GET, url);
        if let Credentials::Basic { username, password } = credentials {
            request
                .headers
                .insert(header::AUTHORIZATION, basic(username, password));
        }
        request
    }

    /// A refresh token is exchanged by a form, as OAuth2 has it (RFC 6749 section 6).
    fn oauth(&self, refresh: &Secret, scopes: &Scopes) -> Request {
        let mut form = Url::parse("form:").expect("a scheme is a URL");
        {
            let mut fields = form.query_pairs_mut();
            fields.append_pair("grant_type", "refresh_token");
            fields.append_pair("refresh_token", refresh.expose());
            fields.append_pair("client_id", "dvcr");
            if let Some(service) = &self.service {
                fields.append_pair("service", service);
            }
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            fields.append_pair("scope", &scopes.join(" "));
        }
        let mut request = Request::new(Method::POST, self.realm.clone());
        request.headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        request.body = Bytes::from(form.query().unwrap_or_default().to_owned());
        request
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// A token, as long as it is good.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: Secret,
    until: Instant,
}

/// The tokens of one registry.
#[derive(Debug, Default)]
pub(crate) struct Tokens(HashMap<Scopes, Token>);

impl Tokens {
    pub(crate) fn get(&self, scopes: &Scopes) -> Option<Token> {
        let token = self.0.get(scopes)?;
        (token.until > Instant::now()).then(|| token.clone())
    }

    pub(crate) fn put(&mut self, scopes: Scopes, token: Token) {
        if self.0.len() >= TOKENS_MAX {
            let now = Instant::now();
            self.0.retain(|_, token| token.until > now);
            if self.0.len() >= TOKENS_MAX {
                self.0.clear();
            }
        }
        self.0.insert(scopes, token);
    }

    pub(crate) fn remove(&mut self, scopes: &Scopes) {
        self.0.remove(scopes);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The field of a `Basic` login.
pub(crate) fn basic(username: &str, password: &Secret) -> header::HeaderValue {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(format!("Basic {text}"))
}

/// A field that logs leave out. What cannot stand in a field is sent as nothing and refused by the server.
pub(crate) fn sensitive(text: String) -> header::HeaderValue {
    let mut value =
        header::HeaderValue::try_from(text).unwrap_or(header::HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(realm: &str) -> Challenge {
        let value = format!(r#"Bearer realm="{realm}",service="r",scope="repository:a:pull""#);
        crate::challenge::parse([value.as_str()]).remove(0)
    }

    #[test]
    fn credentials_are_not_sent_in_clear_for_a_registry_with_tls() {
        fn check(registry: &str, realm: &str, expected: bool) {
            let registry = Url::parse(registry).unwrap();
            let service = Service::of(&challenge(realm), &registry);
            assert_eq!(service.is_ok(), expected, "{registry} {realm}");
        }
        check("https://r.example", "https://auth.example/token", true);
        check("http://r.example", "https://auth.example/token", true);
        check("http://r.example", "http://auth.example/token", true);
        check("https://r.example", "http://auth.example/token", false);
        check("https://r.example", "ftp://auth.example/token", false);
        check("https://r.example", "/token", false);
    }

    #[test]
    fn requests_carry_every_scope() {
        let registry = Url::parse("https://r.example").unwrap();
        let service = Service::of(&challenge("https://auth.example/token?x=y"), &registry).unwrap();
        let scopes = Scopes::from([
            "repository:a:pull".to_owned(),
            "repository:b:pull,push".to_owned(),
        ]);
        let request = service.get(&Credentials::basic("me", "p"), &scopes);
        assert_eq!(
            request.url.as_str(),
            "https://auth.example/token?x=y&service=r&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull%2Cpush&account=me"
        );
        assert_eq!(request.headers[header::AUTHORIZATION], "Basic bWU6cA==");
        let request = service.oauth(&"a b".into(), &scopes);
        assert_eq!(
            request.body,
            "grant_type=refresh_token&refresh_token=a+b&client_id=dvcr&service=r&scope=repository%3Aa%3Apull+repository%3Ab%3Apull%2Cpush"
        );
    }
}
