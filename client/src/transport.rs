//! How a registry is reached.

use std::time::Duration;

use reqwest::Url;

use crate::{
    Error, Host, Retry,
    tls::{HTTP_1_AND_2, trust},
};

/// Longest silence before a connection counts as broken. A registry on a network disk may need that long for a sync.
const STALL_TIME: Duration = Duration::from_secs(60);

/// Longest time for a connection to come about, TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// Window of one HTTP/2 stream. The default of 64 KiB allows 640 KB/s at 100 ms; this, 40 MB/s.
const H2_STREAM_WINDOW: u32 = 4 << 20;

/// Window of an HTTP/2 connection: that of four streams.
const H2_CONNECTION_WINDOW: u32 = 16 << 20;

/// How registries are reached. The default verifies certificates with the system's CAs and takes the proxy from the
/// environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), except for this machine.
#[derive(Clone, Debug)]
pub struct Transport {
    /// More CAs to trust: PEM documents of one or more certificates each.
    pub ca_pems: Vec<Vec<u8>>,
    /// Trust any certificate: whoever is in between can read and change everything but content fetched by digest.
    pub insecure: bool,
    /// Registries, `host` or `host:port`, that are spoken to in plain HTTP. This machine's always are, unless a URL says otherwise.
    pub plain_http: Vec<String>,
    /// Longest time for a connection to come about.
    pub connect_time: Duration,
    /// Longest silence before a connection counts as broken.
    pub stall_time: Duration,
    /// How often, and after what pauses, is tried again.
    pub retry: Retry,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            ca_pems: Vec::new(),
            insecure: false,
            plain_http: Vec::new(),
            connect_time: CONNECT_TIME,
            stall_time: STALL_TIME,
            retry: Retry::default(),
        }
    }
}

impl Transport {
    /// The URL of a registry's API.
    pub(crate) fn url(&self, host: &Host) -> Result<Url, Error> {
        let listed = |entry: &String| {
            entry.eq_ignore_ascii_case(host.as_str()) || entry.eq_ignore_ascii_case(host.name())
        };
        let plain = host.is_loopback() || self.plain_http.iter().any(listed);
        let scheme = if plain { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{}/", host.api()))
            .map_err(|error| Error::Settings(format!("{host} makes no URL: {error}")))
    }

    /// An HTTP client for a registry.
    pub(crate) fn http(&self, url: &Url, host: &Host) -> Result<reqwest::Client, Error> {
        let builder = || {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("dvcr/", env!("CARGO_PKG_VERSION")))
                // Followed by hand: whether credentials go along depends on where they lead.
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                // `Retry` decides, for every kind of failure.
                .retry(reqwest::retry::never())
                .connect_timeout(self.connect_time)
                .tcp_nodelay(true)
                .http2_initial_stream_window_size(H2_STREAM_WINDOW)
                .http2_initial_connection_window_size(H2_CONNECTION_WINDOW)
                .tls_danger_accept_invalid_certs(self.insecure);
            if host.is_loopback() {
                builder = builder.no_proxy();
            }
            builder
        };
        let trusting = match self.insecure {
            true => builder(),
            false => trust(builder(), &self.ca_pems, HTTP_1_AND_2)?,
        };
        match trusting.build() {
            Ok(client) => Ok(client),
            // A slim container has no CAs; plain HTTP needs none.
            Err(_) if url.scheme() == "http" => builder()
                .tls_certs_only([])
                .build()
                .map_err(|error| Error::Settings(format!("set up HTTP: {error}"))),
            Err(error) => Err(Error::Settings(format!(
                "set up TLS: {error:?}: install ca-certificates, or give the CA"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_listed_registries_are_plain() {
        let transport = Transport {
            plain_http: vec!["lab".to_owned(), "Other.Example:81".to_owned()],
            ..Transport::default()
        };
        let check = |host: &str, expected: &str| {
            let url = transport.url(&host.parse().unwrap()).unwrap();
            assert_eq!(url.as_str(), expected);
        };
        check("localhost:5000", "http://localhost:5000/");
        check("[::1]:5000", "http://[::1]:5000/");
        check("lab:5000", "http://lab:5000/");
        check("lab", "http://lab/");
        check("other.example:81", "http://other.example:81/");
        check("other.example:82", "https://other.example:82/");
        check("docker.io", "https://registry-1.docker.io/");
    }

    #[test]
    fn a_file_that_is_no_certificate_is_refused() {
        let transport = Transport {
            ca_pems: vec![b"hello".to_vec()],
            ..Transport::default()
        };
        let host: Host = "r.example".parse().unwrap();
        let url = transport.url(&host).unwrap();
        let error = transport.http(&url, &host).unwrap_err();
        assert!(error.to_string().contains("BEGIN CERTIFICATE"), "{error}");
    }
}
