//! Which registry.

use std::{fmt, net::IpAddr, str::FromStr};

/// Docker Hub's name in references.
const DOCKER_HUB: &str = "docker.io";

/// Where Docker Hub serves the API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Why a text is no registry host.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no registry: write HOST or HOST:PORT, for example registry.example:5000, without scheme and path"
)]
pub struct HostError(pub(crate) String);

/// A registry: `host` or `host:port`, as it stands in front of an image's name. Lower case; Docker Hub's aliases are
/// `docker.io`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

impl Host {
    /// As it is written in references.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host[:port]` that serves the API: Docker Hub's is not where its name says.
    pub fn api(&self) -> &str {
        if self.0 == DOCKER_HUB {
            DOCKER_HUB_API
        } else {
            &self.0
        }
    }

    /// Whether this is Docker Hub.
    pub fn is_docker_hub(&self) -> bool {
        self.0 == DOCKER_HUB
    }

    /// Whether it is this machine: `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let name = self.name();
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Without the port; an IPv6 address in its brackets.
    pub fn name(&self) -> &str {
        match self.0.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &self.0,
        }
    }
}

/// Whether the text is a DNS name or IPv4 address; '_' is not in DNS, but container networks have such names.
fn is_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let wrong = || HostError(text.chars().take(300).collect());
        let (name, port) = if text.starts_with('[') {
            let (address, rest) = text.split_at(text.find(']').ok_or_else(wrong)? + 1);
            let inner = &address[1..address.len() - 1];
            if inner.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(wrong());
            }
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(wrong()),
            };
            (address, port)
        } else {
            let (name, port) = match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            };
            if !is_name(name) {
                return Err(wrong());
            }
            (name, port)
        };
        if let Some(port) = port {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            if !digits || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return Err(wrong());
            }
        }
        let host = match port {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        }
        .to_ascii_lowercase();
        Ok(Self(match host.as_str() {
            "index.docker.io" | DOCKER_HUB_API => DOCKER_HUB.to_owned(),
            _ => host,
        }))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_parsed_strictly() {
        fn check(text: &str, expected: Option<&str>) {
            let parsed = text.parse::<Host>().ok();
            assert_eq!(parsed.as_ref().map(Host::as_str), expected, "{text:?}");
        }
        check("registry.example", Some("registry.example"));
        check("Registry.Example:5000", Some("registry.example:5000"));
        check("dvcr_1:80", Some("dvcr_1:80"));
        check("127.0.0.1:5000", Some("127.0.0.1:5000"));
        check("[::1]:5000", Some("[::1]:5000"));
        check("[::1]", Some("[::1]"));
        check("index.docker.io", Some("docker.io"));
        check("registry-1.docker.io", Some("docker.io"));
        for bad in [
            "",
            ":",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a/b",
            "http://a",
            "a b",
            "-a",
            "a..b",
            "a@b",
            "[::1",
            "[::1]x",
            "[x]",
            "::1",
            "a:1:2",
            "user@host",
            "é",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn loopback_is_recognised() {
        fn check(text: &str, expected: bool) {
            let host: Host = text.parse().unwrap();
            assert_eq!(host.is_loopback(), expected, "{text}");
        }
        check("localhost", true);
        check("LOCALHOST:5000", true);
        check("127.0.0.1", true);
        check("127.9.9.9:1", true);
        check("[::1]:5000", true);
        check("[::2]", false);
        check("localhost.example", false);
        check("128.0.0.1", false);
    }

    #[test]
    fn docker_hub_is_served_elsewhere() {
        let host: Host = "docker.io".parse().unwrap();
        assert_eq!(host.api(), "registry-1.docker.io");
        let host: Host = "quay.io".parse().unwrap();
        assert_eq!(host.api(), "quay.io");
    }
}
