//! A blocking HTTP/1.1 client that hides nothing: what was sent is what the caller wrote, what came back is kept as it came,
//! repeated headers included. It follows no redirect, retries nothing but an idle connection that the server has closed
//! meanwhile, decodes nothing but chunked framing, and is strict about framing.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// A server that answers nothing for so long has failed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Bodies are shown up to here in messages.
const SHOWN_BODY_BYTES: usize = 600;

/// What follows the headers of a request.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// No body; `Content-Length: 0` where the method usually has one.
    None,
    /// With `Content-Length`.
    Sized(Vec<u8>),
    /// With `Transfer-Encoding: chunked`, in pieces of at most 64 KiB.
    Chunked(Vec<u8>),
}

/// A request; build it with [`Request::new`] and the methods that follow.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

impl Request {
    /// `target` is a path with a query, or an absolute URL of the client's own server.
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds `name=value` to the query, percent-encoded.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.target = with_query(&self.target, name, value);
        self
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// A body of octets with its length.
    pub(crate) fn octets(self, bytes: &[u8]) -> Self {
        self.header("Content-Type", "application/octet-stream")
            .body(Body::Sized(bytes.to_vec()))
    }
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Every value of a header, in the order of arrival.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// The first value of a header.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("body is not JSON: {error}"))
    }
}

/// A client of one server, with one connection that is kept open. Not for use by several threads.
pub(crate) struct Client {
    authority: String,
    connection: RefCell<Option<BufReader<TcpStream>>>,
    transcript: RefCell<String>,
}

impl Client {
    /// `url`: `http://host:port`, with or without a slash at the end.
    pub(crate) fn new(url: &str) -> Self {
        let authority = url
            .strip_prefix("http://")
            .unwrap_or_else(|| panic!("{url}: only http:// URLs are supported"));
        Self {
            authority: authority.trim_end_matches('/').to_owned(),
            connection: RefCell::new(None),
            transcript: RefCell::new(String::new()),
        }
    }

    /// Forgets the exchanges so far.
    pub(crate) fn clear_transcript(&self) {
        self.transcript.borrow_mut().clear();
    }

    /// The exchanges since [`Client::clear_transcript`], for people.
    pub(crate) fn transcript(&self) -> String {
        self.transcript.borrow().clone()
    }

    /// The path and query that a `Location` means, for a request that was made for `base`.
    pub(crate) fn resolve(&self, base: &str, location: &str) -> Result<String, String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(location.to_owned());
        }
        if let Some(rest) = location.strip_prefix("http://") {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if authority != self.authority {
                return Err(format!(
                    "Location {location} points to another server than {}",
                    self.authority
                ));
            }
            return Ok(path.to_owned());
        }
        if location.contains("://") || location.starts_with("//") {
            return Err(format!(
                "Location {location} points to another server or scheme"
            ));
        }
        let path = base.split('?').next().unwrap_or(base);
        Ok(format!(
            "{}/{location}",
            &path[..path.rfind('/').unwrap_or(0)]
        ))
    }

    /// Sends the request and reads the whole answer. Errors are broken connections and broken framing, never statuses.
    pub(crate) fn send(&self, request: &Request) -> Result<Response, String> {
        let result = self.exchange(request);
        self.note(request, &result);
        result
    }

    fn exchange(&self, request: &Request) -> Result<Response, String> {
        let kept = self.connection.borrow_mut().take();
        if let Some(connection) = kept {
            match self.try_on(connection, request) {
                // The server may close an idle connection just as we write; nothing of an answer has been seen then.
                Err(Broken::BeforeAnswer(_)) => {}
                Err(Broken::InAnswer(error)) => return Err(error),
                Ok(response) => return Ok(response),
            }
        }
        let connection = TcpStream::connect(&self.authority)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Ok(BufReader::new(stream))
            })
            .map_err(|error| format!("connect to {}: {error}", self.authority))?;
        self.try_on(connection, request)
            .map_err(|broken| match broken {
                Broken::BeforeAnswer(error) => format!("no answer: {error}"),
                Broken::InAnswer(error) => error,
            })
    }

    fn try_on(
        &self,
        mut connection: BufReader<TcpStream>,
        request: &Request,
    ) -> Result<Response, Broken> {
        let sent = self.write(connection.get_mut(), request);
        // A server may answer and close before it has read the whole body: look for the answer even if sending failed.
        let (response, keep) = match (read_response(&mut connection, request.method), sent) {
            (Ok(answer), _) => answer,
            (Err(Broken::BeforeAnswer(_)), Err(error)) => {
                return Err(Broken::BeforeAnswer(format!("send: {error}")));
            }
            (Err(broken), _) => return Err(broken),
        };
        if keep {
            *self.connection.borrow_mut() = Some(connection);
        }
        Ok(response)
    }

    fn write(&self, stream: &mut TcpStream, request: &Request) -> io::Result<()> {
        let target = match request.target.strip_prefix("http://") {
            Some(rest) => &rest[rest.find('/').unwrap_or(rest.len())..],
            None => &request.target,
        };
        let mut head = format!(
            "{} {target} HTTP/1.1\r\nUser-Agent: dvcr-black-box-test\r\n",
            request.method
        );
        if !request.headers.iter().any(|(name, _)| *name == "Host") {
            let _ = write!(head, "Host: {}\r\n", self.authority);
        }
        for (name, value) in &request.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match &request.body {
            Body::None if matches!(request.method, "POST" | "PUT" | "PATCH") => {
                head.push_str("Content-Length: 0\r\n");
            }
            Body::None => {}
            Body::Sized(bytes) => {
                let _ = write!(head, "Content-Length: {}\r\n", bytes.len());
            }
            Body::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        match &request.body {
            Body::None => {}
            Body::Sized(bytes) => stream.write_all(bytes)?,
            Body::Chunked(bytes) => {
                for piece in bytes.chunks(64 << 10) {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                    stream.write_all(piece)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
        }
        stream.flush()
    }

    fn note(&self, request: &Request, result: &Result<Response, String>) {
        let mut log = self.transcript.borrow_mut();
        let _ = writeln!(log, "> {} {}", request.method, request.target);
        for (name, value) in &request.headers {
            let _ = writeln!(log, "> {name}: {value}");
        }
        let _ = match &request.body {
            Body::None => Ok(()),
            Body::Sized(bytes) => writeln!(
                log,
                "> [{} bytes with Content-Length] {}",
                bytes.len(),
                shown(bytes)
            ),
            Body::Chunked(bytes) => {
                writeln!(log, "> [{} bytes chunked] {}", bytes.len(), shown(bytes))
            }
        };
        let _ = match result {
            Err(error) => writeln!(log, "< {error}"),
            Ok(response) => {
                let _ = writeln!(log, "< {}", response.status);
                for (name, value) in &response.headers {
                    let _ = writeln!(log, "< {name}: {value}");
                }
                writeln!(
                    log,
                    "< [{} bytes] {}",
                    response.body.len(),
                    shown(&response.body)
                )
            }
        };
    }
}

pub(super) enum Broken {
    BeforeAnswer(String),
    InAnswer(String),
}

/// The answer, and whether the connection can be used again.
pub(super) fn read_response(
    connection: &mut BufReader<TcpStream>,
    method: &str,
) -> Result<(Response, bool), Broken> {
    loop {
        let (status, headers, http_11) = read_head(connection)?;
        if (100..200).contains(&status) {
            continue;
        }
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        let closes = response
            .all("Connection")
            .any(|value| value.to_ascii_lowercase().contains("close"));
        let framed = read_body(connection, method, &mut response).map_err(Broken::InAnswer)?;
        return Ok((response, http_11 && framed && !closes));
    }
}

pub(super) type Head = (u16, Vec<(String, String)>, bool);

pub(super) fn read_head(connection: &mut BufReader<TcpStream>) -> Result<Head, Broken> {
    let mut line = String::new();
    match connection.read_line(&mut line) {
        Ok(0) => {
            return Err(Broken::BeforeAnswer(
                "the server closed the connection".to_owned(),
            ));
        }
        Ok(_) => {}
        Err(error) => return Err(Broken::BeforeAnswer(error.to_string())),
    }
    let bad = |line: &str| Broken::InAnswer(format!("not an HTTP answer: {line:?}"));
    let rest = line.strip_prefix("HTTP/1.").ok_or_else(|| bad(&line))?;
    let status = rest
        .get(2..5)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| bad(&line))?;
    let http_11 = rest.starts_with('1');
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        connection
            .read_line(&mut line)
            .map_err(|error| Broken::InAnswer(format!("read headers: {error}")))?;
        let line = line.strip_suffix("\r\n").ok_or_else(|| bad(&line))?;
        if line.is_empty() {
            return Ok((status, headers, http_11));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// Reads the body into `response`; false if it ended with the connection.
fn read_body(
    connection: &mut BufReader<TcpStream>,
    method: &str,
    response: &mut Response,
) -> Result<bool, String> {
    let lengths: Vec<&str> = response.all("Content-Length").collect();
    if lengths.len() > 1 {
        return Err(format!("several Content-Length headers: {lengths:?}"));
    }
    let len = match lengths.first() {
        Some(text) => Some(
            text.parse::<usize>()
                .map_err(|_| format!("Content-Length {text:?}"))?,
        ),
        None => None,
    };
    let chunked = response
        .all("Transfer-Encoding")
        .any(|value| value.eq_ignore_ascii_case("chunked"));
    if chunked && len.is_some() {
        return Err("both Content-Length and Transfer-Encoding".to_owned());
    }
    if method == "HEAD" || matches!(response.status, 204 | 304) {
        return Ok(true);
    }
    let broken = |error: io::Error| format!("read body: {error}");
    let mut body = Vec::new();
    let framed = match (chunked, len) {
        (true, _) => {
            read_chunks(connection, &mut body).map_err(broken)?;
            true
        }
        (false, Some(len)) => {
            body.resize(len, 0);
            connection.read_exact(&mut body).map_err(broken)?;
            true
        }
        (false, None) => {
            connection.read_to_end(&mut body).map_err(broken)?;
            false
        }
    };
    response.body = body;
    Ok(framed)
}

fn read_chunks(connection: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or("").trim();
        let size = u64::from_str_radix(size, 16)
            .map_err(|_| io::Error::other(format!("chunk size {line:?}")))?;
        if size == 0 {
            // Trailers, up to an empty line.
            loop {
                line.clear();
                connection.read_line(&mut line)?;
                if line == "\r\n" || line.is_empty() {
                    return Ok(());
                }
            }
        }
        let before = body.len() as u64;
        connection.take(size).read_to_end(body)?;
        let mut end = [0; 2];
        connection.read_exact(&mut end)?;
        if body.len() as u64 != before + size || end != *b"\r\n" {
            return Err(io::Error::other("broken chunk"));
        }
    }
}

/// `target` with `name=value` in its query, percent-encoded.
pub(crate) fn with_query(target: &str, name: &str, value: &str) -> String {
    let mut result = format!(
        "{target}{}{name}=",
        if target.contains('?') { '&' } else { '?' }
    );
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            result.push(char::from(byte));
        } else {
            let _ = write!(result, "%{byte:02X}");
        }
    }
    result
}

fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BODY_BYTES)];
    let text = match std::str::from_utf8(cut) {
        Ok(text) => text.trim_end().to_owned(),
        Err(_) => return "(binary)".to_owned(),
    };
    if cut.len() < bytes.len() {
        format!("{text}...")
    } else {
        text
    }
}
