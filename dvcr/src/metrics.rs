//! What the server counts, for Prometheus. Names begin with `dvcr_`; counters end with `_total`.
//!
//! A [`Metrics`] is created once and shared; its fields are counters that the HTTP side increments directly. What the
//! storage counts by itself is read when somebody scrapes ([`storage`]). All of it may be used concurrently.

pub mod storage;

use axum::http::Method;
use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds of request durations in seconds: from a cached manifest to a disk over a slow line.
const REQUEST_SECONDS: [f64; 13] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0,
];

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// Requests.
    pub http: HttpMetrics,
    /// Connections.
    pub connections: ConnectionMetrics,
    registry: std::sync::RwLock<Registry>,
}

/// Requests and their bodies.
#[derive(Debug)]
pub struct HttpMetrics {
    /// `dvcr_http_requests_total{endpoint, method, status}`: requests whose answer is complete or given up. Status 499 is
    /// a client that left before there was an answer.
    pub requests: Family<RequestLabels, Counter>,
    /// `dvcr_http_request_seconds{endpoint, method}`: from the request's header to its answer's last byte.
    pub seconds: RequestSeconds,
    /// `dvcr_http_requests_in_flight`: requests whose answer is not complete.
    pub in_flight: Gauge,
    /// `dvcr_http_received_bytes_total`: bytes of request bodies.
    pub received_bytes: Counter,
    /// `dvcr_http_sent_bytes_total`: bytes of answers' bodies.
    pub sent_bytes: Counter,
}

/// Durations by endpoint and method.
pub type RequestSeconds = Family<DurationLabels, Histogram, fn() -> Histogram>;

/// Connections and their end.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    /// `dvcr_connections`: open connections.
    pub open: Gauge,
    /// `dvcr_connections_accepted_total`.
    pub accepted: Counter,
    /// `dvcr_connections_idle_total`: closed because no request came for too long.
    pub idle: Counter,
    /// `dvcr_connections_stalled_total`: cut because the client sent its header too slowly, or read nothing of its
    /// answer, for too long.
    pub stalled: Counter,
    /// `dvcr_tls_handshake_failures_total`.
    pub tls_failures: Counter,
    /// `dvcr_tls_reloads_total`: times that a changed certificate was taken.
    pub tls_reloads: Counter,
    /// `dvcr_tls_reload_failures_total`: times that a changed certificate could not be used; the old one stayed.
    pub tls_reload_failures: Counter,
}

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// What the path names: `blob`, `upload`, `manifest`...; `none` if nothing.
    pub endpoint: &'static str,
    /// Method; `other` if it is none that we know, for a label must not be a client's to invent.
    pub method: &'static str,
    /// Status code.
    pub status: u16,
}

/// Labels of a duration: one histogram for each status would be ten times as many series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    /// As in [`RequestLabels`].
    pub endpoint: &'static str,
    /// As in [`RequestLabels`].
    pub method: &'static str,
}

impl RequestLabels {
    /// Labels of a request.
    pub fn new(endpoint: &'static str, method: &Method, status: u16) -> Self {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method = known.into_iter().find(|known| method == known);
        Self {
            endpoint,
            method: method.unwrap_or("other"),
            status,
        }
    }

    /// Labels of its duration.
    pub fn without_status(&self) -> DurationLabels {
        DurationLabels {
            endpoint: self.endpoint,
            method: self.method,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let http = HttpMetrics {
            seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            requests: Family::default(),
            in_flight: Gauge::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
        };
        let connections = ConnectionMetrics::default();
        let mut registry = Registry::with_prefix("dvcr");
        register_http(&mut registry, &http);
        register_connections(&mut registry, &connections);
        Self {
            http,
            connections,
            registry: std::sync::RwLock::new(registry),
        }
    }

    /// Adds figures that somebody else counts, and that are read when somebody scrapes.
    pub fn add(&self, collector: Box<dyn Collector>) {
        self.registry
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .register_collector(collector);
    }

    /// The OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let registry = self
            .registry
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

fn register_http(registry: &mut Registry, metrics: &HttpMetrics) {
    let HttpMetrics {
        requests,
        seconds,
        in_flight,
        received_bytes,
        sent_bytes,
    } = metrics;
    registry.register(
        "http_requests",
        "Requests answered or given up",
        requests.clone(),
    );
    registry.register_with_unit(
        "http_request",
        "From a request's header to its answer's last byte",
        Unit::Seconds,
        seconds.clone(),
    );
    registry.register(
        "http_requests_in_flight",
        "Requests whose answer is not complete",
        in_flight.clone(),
    );
    bytes(
        registry,
        "http_received",
        "Bytes of request bodies",
        received_bytes,
    );
    bytes(
        registry,
        "http_sent",
        "Bytes of answers' bodies",
        sent_bytes,
    );
}

fn register_connections(registry: &mut Registry, metrics: &ConnectionMetrics) {
    let ConnectionMetrics {
        open,
        accepted,
        idle,
        stalled,
        tls_failures,
        tls_reloads,
        tls_reload_failures,
    } = metrics;
    registry.register("connections", "Open connections", open.clone());
    for (name, help, counter) in [
        ("connections_accepted", "Connections accepted", accepted),
        (
            "connections_idle",
            "Connections closed because no request came",
            idle,
        ),
        (
            "connections_stalled",
            "Connections cut because the client was too slow",
            stalled,
        ),
        (
            "tls_handshake_failures",
            "TLS handshakes that failed",
            tls_failures,
        ),
        ("tls_reloads", "Changed certificates taken", tls_reloads),
        (
            "tls_reload_failures",
            "Changed certificates that could not be used",
            tls_reload_failures,
        ),
    ] {
        registry.register(name, help, counter.clone());
    }
}

fn bytes(registry: &mut Registry, name: &str, help: &str, counter: &Counter) {
    registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let metrics = Metrics::new();
        let labels = RequestLabels::new("blob", &Method::GET, 206);
        metrics.http.requests.get_or_create(&labels).inc();
        metrics
            .http
            .seconds
            .get_or_create(&labels.without_status())
            .observe(0.002);
        metrics.http.received_bytes.inc_by(7);
        let text = metrics.encode();
        for line in [
            "dvcr_http_requests_total{endpoint=\"blob\",method=\"GET\",status=\"206\"} 1",
            "dvcr_http_request_seconds_count{endpoint=\"blob\",method=\"GET\"} 1",
            "dvcr_http_received_bytes_total 7",
            "dvcr_http_requests_in_flight 0",
            "dvcr_connections 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_client_cannot_invent_labels() {
        let method = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(RequestLabels::new("none", &method, 405).method, "other");
    }
}
