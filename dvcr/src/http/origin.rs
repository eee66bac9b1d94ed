//! Whose requests are answered: those for a name of this server, and not those that a web page of another site makes its visitor's
//! browser send.
//!
//! A browser reaches whatever the machine it runs on reaches, a server on loopback included. Two ways are closed here. A page of
//! another site may send some requests unasked, though it cannot read the answers (Fetch standard, "CORS protocol"); browsers say
//! so in `Origin` and `Sec-Fetch-Site`. And a page may come from a name that its owner lets point to this server afterwards (DNS
//! rebinding): to the browser the server then is the page's own, but the name in `Host` is not one of ours.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, Method, Version, header, request::Parts, uri::Authority};

use super::error::RequestError;

/// How a browser says what a page has to do with the server that it asks (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names of this server.
#[derive(Clone, Debug, Default)]
pub enum Hosts {
    /// Whatever clients call it.
    #[default]
    Any,
    /// Its addresses, `localhost`, and these.
    Only(Vec<String>),
}

impl Hosts {
    fn fit(&self, host: &str) -> bool {
        if matches!(self, Self::Any) {
            return true;
        }
        let host = host.trim_end_matches('.');
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = |host: &str| host == "localhost" || host.ends_with(".localhost");
        // Nobody else can let an address, or these names (RFC 6761, 6.3), point to this server.
        address.parse::<IpAddr>().is_ok()
            || is_local(&host.to_ascii_lowercase())
            || self.names(host)
    }

    /// Whether it is one of the names that were set.
    fn names(&self, host: &str) -> bool {
        matches!(self, Self::Only(names) if names.iter().any(|name| name.eq_ignore_ascii_case(host)))
    }
}

/// Whether this is a name that requests may use: without scheme and port.
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

/// Refuses requests for other servers, and changes that pages of other sites ask for.
pub(crate) fn check(hosts: &Hosts, parts: &Parts) -> Result<(), RequestError> {
    let Some(authority) = authority(parts)? else {
        return Ok(());
    };
    if !hosts.fit(authority.host()) {
        return Err(RequestError::Misdirected(authority.host().to_owned()));
    }
    let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
    if changes && is_foreign(hosts, &authority, &parts.headers) {
        return Err(RequestError::CrossSite);
    }
    Ok(())
}

/// Which server the request is for. Only HTTP/1.0 may leave that out.
fn authority(parts: &Parts) -> Result<Option<Authority>, RequestError> {
    // HTTP/2's `:authority`, or the absolute form of HTTP/1.1, over which `Host` does not matter (RFC 9112, 3.2.2).
    if let Some(authority) = parts.uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let mut fields = parts.headers.get_all(header::HOST).iter();
    match (fields.next(), fields.next()) {
        (None, _) if parts.version < Version::HTTP_11 => Ok(None),
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes());
            host.map(Some).map_err(|_| RequestError::Host)
        }
        _ => Err(RequestError::Host),
    }
}

/// Whether a browser says that the page which asks is not one of this server.
fn is_foreign(hosts: &Hosts, authority: &Authority, headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE);
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let origin = origin.to_str().unwrap_or_default();
    let origin = origin.split_once("://").map(|(_, origin)| origin);
    let origin = origin.and_then(|origin| origin.parse::<Authority>().ok());
    // A proxy in front may have changed the name that the browser used.
    !origin.is_some_and(|origin| origin == *authority || hosts.names(origin.host()))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn only() -> Hosts {
        Hosts::Only(vec!["registry.example".to_owned()])
    }

    fn asked(hosts: &Hosts, method: &str, fields: &[(&str, &str)]) -> &'static str {
        let mut request = Request::builder().method(method).uri("/v2/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        match check(hosts, &request.body(()).unwrap().into_parts().0) {
            Ok(()) => "answered",
            Err(RequestError::Misdirected(_)) => "misdirected",
            Err(RequestError::CrossSite) => "cross-site",
            Err(RequestError::Host) => "no host",
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_name_that_points_here_is_not_this_server() {
        for (host, expected) in [
            ("127.0.0.1:5000", "answered"),
            ("[::1]:5000", "answered"),
            ("192.0.2.7", "answered"),
            ("localhost:5000", "answered"),
            ("LOCALHOST", "answered"),
            ("dvcr.localhost", "answered"),
            ("registry.example", "answered"),
            ("Registry.Example.:443", "answered"),
            ("evil.example", "misdirected"),
            ("127.0.0.1.evil.example", "misdirected"),
            ("localhost.evil.example", "misdirected"),
            ("notlocalhost", "misdirected"),
            ("registry.example.evil", "misdirected"),
            ("a b", "no host"),
            ("", "no host"),
        ] {
            assert_eq!(asked(&only(), "GET", &[("host", host)]), expected, "{host}");
        }
        let any = asked(&Hosts::Any, "GET", &[("host", "evil.example")]);
        assert_eq!(any, "answered");
        assert_eq!(asked(&Hosts::Any, "GET", &[]), "no host");
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(asked(&Hosts::Any, "GET", &two), "no host");
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        for (field, value, expected) in [
            ("accept", "*/*", "answered"),
            ("origin", "http://127.0.0.1:5000", "answered"),
            ("origin", "https://registry.example", "answered"),
            ("origin", "http://127.0.0.1:8080", "cross-site"),
            ("origin", "https://evil.example", "cross-site"),
            ("origin", "null", "cross-site"),
            ("sec-fetch-site", "same-origin", "answered"),
            ("sec-fetch-site", "none", "answered"),
            ("sec-fetch-site", "same-site", "cross-site"),
            ("sec-fetch-site", "cross-site", "cross-site"),
        ] {
            let fields = [("host", "127.0.0.1:5000"), (field, value)];
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                assert_eq!(asked(&only(), method, &fields), expected, "{field} {value}");
            }
            assert_eq!(asked(&only(), "GET", &fields), "answered");
        }
    }

    #[test]
    fn host_names_have_no_scheme_and_no_port() {
        for name in ["registry.example", "localhost", "dvcr.ns.svc", "a_b-c"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in [
            "",
            "https://a",
            "a:5000",
            "a/b",
            "a..b",
            ".a",
            "a b",
            "*.example",
        ] {
            assert!(!is_host_name(name), "{name}");
        }
    }
}
