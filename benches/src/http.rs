//! A lean HTTP/1.1 client over one blocking TCP connection.
//!
//! The driver shares its cores with the server that it measures, so bodies go out as large writes from memory that is already
//! there and come in through one small buffer that stays in the processor's cache; nothing touches a body byte by byte unless
//! the caller asks for its digest. Not a general client: no TLS, no redirects, no proxies, loopback only in practice.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// Small enough to stay in the second-level cache, large enough that a system call moves much.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// A server that says nothing for so long has hung; the measurement fails instead of hanging with it.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// No response head is longer than this.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What a request carries.
pub(crate) enum Body<'a> {
    None,
    /// Slices sent one after the other; their total is the Content-Length.
    Slices(&'a [&'a [u8]]),
    /// `len` bytes that `fill` makes piece by piece while they are sent (for bodies too large to be kept in memory).
    Made {
        len: u64,
        fill: &'a mut dyn FnMut(&mut Vec<u8>),
    },
}

/// Where a response body goes.
pub(crate) enum Sink<'a> {
    Discard,
    Collect(&'a mut Vec<u8>),
    /// Compared with these bytes: [`SAMPLE_BYTES`] of each read, and the length. As good as free, and no server gets away with
    /// wrong bytes for long.
    Sample(&'a [u8]),
}

/// See [`Sink::Sample`].
const SAMPLE_BYTES: usize = 64;

/// The head of a response, and how long its body was.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// Bytes of the body as received, after chunked decoding and before any content decoding.
    pub(crate) body_len: u64,
}

impl Response {
    /// The first header of that name, compared without case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Fails unless the status is the one expected.
    pub(crate) fn expect(self, status: u16, what: &str) -> Result<Response> {
        ensure!(
            self.status == status,
            "{what}: status {} instead of {status}",
            self.status
        );
        Ok(self)
    }
}

/// One keep-alive connection to a server; connects again when the server closed it.
pub(crate) struct Client {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Box<[u8]>,
    /// Unread bytes of `buffer`.
    start: usize,
    end: usize,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Client {
        Client {
            addr,
            stream: None,
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// A request without a body, whose response body is dropped.
    pub(crate) fn simple(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response> {
        self.request(method, path, headers, Body::None, Sink::Discard)
    }

    /// Sends a request and reads its whole response.
    ///
    /// # Errors
    /// The connection broke, or the answer is not HTTP. Any status is a success here.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<Response> {
        self.attempt(method, path, headers, body, sink)
            .inspect_err(|_| self.stream = None)
            .with_context(|| format!("{method} {path}"))
    }

    fn attempt(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<Response> {
        self.connect()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.addr);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let len = match &body {
            Body::None => 0,
            Body::Slices(slices) => slices.iter().map(|s| s.len() as u64).sum(),
            Body::Made { len, .. } => *len,
        };
        if len > 0 || !matches!(method, "GET" | "HEAD" | "DELETE") {
            head.push_str(&format!("Content-Length: {len}\r\n"));
        }
        head.push_str("\r\n");
        let sent = self.send(head.as_bytes(), body);
        // A server may refuse a body before it has read all of it: its answer says more than a broken pipe.
        match (sent, self.receive(method, sink)) {
            (Ok(()), received) => received,
            (Err(_), Ok(response)) if response.status >= 400 => Ok(response),
            (Err(error), _) => Err(error).context("send request"),
        }
    }

    fn connect(&mut self) -> Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.addr).context("connect")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            stream.set_write_timeout(Some(SILENCE_MAX))?;
            self.stream = Some(stream);
            (self.start, self.end) = (0, 0);
        }
        Ok(())
    }

    fn send(&mut self, head: &[u8], body: Body<'_>) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match body {
            Body::None => stream.write_all(head),
            // Head and a small body in one segment: two would cost a small push a wake-up of the server.
            Body::Slices([slice]) if slice.len() <= 64 << 10 => {
                stream.write_all(&[head, slice].concat())
            }
            Body::Slices(slices) => {
                stream.write_all(head)?;
                slices.iter().try_for_each(|slice| stream.write_all(slice))
            }
            Body::Made { len, fill } => {
                stream.write_all(head)?;
                let mut piece = Vec::new();
                let mut left = len;
                while left > 0 {
                    fill(&mut piece);
                    let take = left.min(piece.len() as u64);
                    stream.write_all(&piece[..take as usize])?;
                    left -= take;
                }
                Ok(())
            }
        }
    }

    fn receive(&mut self, method: &str, mut sink: Sink<'_>) -> Result<Response> {
        let (status, headers) = loop {
            let (status, headers) = self.receive_head()?;
            // An interim response (100 Continue) announces the real one.
            if status >= 200 {
                break (status, headers);
            }
        };
        if status >= 400 {
            // The body explains the refusal; it is not what the caller wants to see or to compare.
            sink = Sink::Discard;
        }
        let mut response = Response {
            status,
            headers,
            body_len: 0,
        };
        if method != "HEAD" && status != 204 && status != 304 {
            response.body_len = if response
                .header("transfer-encoding")
                .is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
            {
                self.receive_chunked(&mut sink)?
            } else {
                let len = response
                    .header("content-length")
                    .context("a response without a length")?;
                let len = len
                    .parse()
                    .with_context(|| format!("Content-Length {len:?}"))?;
                self.receive_body(len, &mut sink)?;
                len
            };
        }
        if let Sink::Sample(missing) = sink {
            ensure!(missing.is_empty(), "{} bytes did not come", missing.len());
        }
        if response
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"))
        {
            self.stream = None;
        }
        Ok(response)
    }

    fn receive_head(&mut self) -> Result<(u16, Vec<(String, String)>)> {
        let status_line = self.receive_line()?;
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.with_context(|| format!("not an HTTP status line: {status_line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.receive_line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("not a header: {line:?}"))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }

    fn receive_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.iter().position(|&b| b == b'\n') {
                line.extend_from_slice(&unread[..at]);
                self.start += at + 1;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(String::from_utf8(line)?);
            }
            line.extend_from_slice(unread);
            ensure!(
                line.len() <= HEAD_BYTES_MAX,
                "a line of more than {HEAD_BYTES_MAX} bytes"
            );
            self.refill()?;
        }
    }

    /// Reads into the empty buffer.
    fn refill(&mut self) -> Result<()> {
        let stream = self.stream.as_mut().context("not connected")?;
        self.start = 0;
        self.end = stream.read(&mut self.buffer).context("read response")?;
        if self.end == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }

    fn receive_body(&mut self, len: u64, sink: &mut Sink<'_>) -> Result<()> {
        let mut left = len;
        while left > 0 {
            if self.start == self.end {
                self.refill()?;
            }
            let take = left.min((self.end - self.start) as u64) as usize;
            let bytes = &self.buffer[self.start..self.start + take];
            match sink {
                Sink::Discard => {}
                Sink::Collect(vec) => vec.extend_from_slice(bytes),
                Sink::Sample(expected) => {
                    let (now, later) = expected
                        .split_at_checked(take)
                        .context("more bytes than the blob has")?;
                    let sample = ..take.min(SAMPLE_BYTES);
                    ensure!(
                        bytes[sample] == now[sample],
                        "the registry returned other bytes than were pushed"
                    );
                    *expected = later;
                }
            }
            self.start += take;
            left -= take as u64;
        }
        Ok(())
    }

    fn receive_chunked(&mut self, sink: &mut Sink<'_>) -> Result<u64> {
        let mut total = 0;
        loop {
            let line = self.receive_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16)
                .with_context(|| format!("not a chunk size: {line:?}"))?;
            if size == 0 {
                while !self.receive_line()?.is_empty() {}
                return Ok(total);
            }
            self.receive_body(size, sink)?;
            ensure!(
                self.receive_line()?.is_empty(),
                "a chunk longer than it said"
            );
            total += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A server that reads one request of `request_len` bytes per answer and answers as told.
    fn serve(answers: Vec<(usize, &'static str)>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind loopback");
        let addr = listener.local_addr().expect("bound");
        thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            for (request_len, answer) in answers {
                stream.read_exact(&mut vec![0; request_len])?;
                stream.write_all(answer.as_bytes())?;
            }
            Ok(())
        });
        addr
    }

    fn request_len(addr: SocketAddr, line_and_length: &str) -> usize {
        format!("{line_and_length}\r\nHost: {addr}\r\n\r\n").len()
    }

    #[test]
    fn bodies_of_both_framings_follow_each_other_on_one_connection() -> Result<()> {
        let get = "GET /a HTTP/1.1";
        let len = request_len("127.0.0.1:12345".parse()?, get);
        let addr = serve(vec![
            (len, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
            (
                len,
                "HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n",
            ),
        ]);
        // The request's length depends on the digits of the port.
        assert_eq!(
            request_len(addr, get),
            len,
            "ephemeral ports have five digits"
        );
        let mut client = Client::new(addr);
        let mut body = Vec::new();
        let first = client.request("GET", "/a", &[], Body::None, Sink::Collect(&mut body))?;
        assert_eq!(
            (first.status, first.body_len, body.as_slice()),
            (200, 5, b"hello".as_slice())
        );
        body.clear();
        let second = client.request("GET", "/a", &[], Body::None, Sink::Collect(&mut body))?;
        assert_eq!(
            (second.status, second.body_len, body.as_slice()),
            (206, 7, b"abcdefg".as_slice())
        );
        Ok(())
    }

    #[test]
    fn interim_responses_are_skipped_and_sent_slices_have_a_length() -> Result<()> {
        let put = "PUT /b HTTP/1.1\r\nContent-Length: 4\r\nHost: 127.0.0.1:12345\r\n\r\nabcd";
        let addr = serve(vec![(
            put.len(),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        )]);
        let response = Client::new(addr).request(
            "PUT",
            "/b",
            &[],
            Body::Slices(&[b"ab", b"cd"]),
            Sink::Discard,
        )?;
        assert_eq!(
            (response.status, response.header("LOCATION")),
            (201, Some("/x"))
        );
        Ok(())
    }
}
