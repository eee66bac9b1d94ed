//! Bodies too large for memory: one connection a request, made while it is sent, looked at while it arrives.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::TcpStream,
};

use super::http::{Broken, Response, TIMEOUT, read_head, read_response};

/// Bodies are handled in pieces of this length.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

fn connect(address: &str) -> Result<TcpStream, String> {
    let connect = || {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(stream)
    };
    connect().map_err(|error: std::io::Error| format!("connect to {address}: {error}"))
}

fn broken(broken: Broken) -> String {
    match broken {
        Broken::BeforeAnswer(error) | Broken::InAnswer(error) => error,
    }
}

/// Sends a request with a body of `len` bytes, which `fill` makes piece by piece: it is given the bytes sent before and a
/// buffer to fill. `head` is the request line and further header lines, each with its end of line.
pub(crate) fn send(
    address: &str,
    head: &str,
    len: u64,
    mut fill: impl FnMut(u64, &mut [u8]),
) -> Result<Response, String> {
    let mut connection = BufReader::new(connect(address)?);
    let head = format!("{head}Host: {address}\r\nContent-Length: {len}\r\n\r\n");
    let mut write = || {
        connection.get_mut().write_all(head.as_bytes())?;
        let (mut sent, mut piece) = (0, vec![0; PIECE_BYTES]);
        while sent < len {
            let now = piece.len().min((len - sent) as usize);
            fill(sent, &mut piece[..now]);
            connection.get_mut().write_all(&piece[..now])?;
            sent += now as u64;
        }
        Ok(())
    };
    let sent: std::io::Result<()> = write();
    // A server may answer before it has read everything.
    match (read_response(&mut connection, "PATCH"), sent) {
        (Ok((response, _)), _) => Ok(response),
        (Err(Broken::BeforeAnswer(_)), Err(error)) => Err(format!("send: {error}")),
        (Err(error), _) => Err(broken(error)),
    }
}

/// GETs `path`, which must answer 200, and hands its body to `sink` as it arrives. Returns the body's length, which is what
/// the header announced.
pub(crate) fn get(address: &str, path: &str, mut sink: impl FnMut(&[u8])) -> Result<u64, String> {
    let mut connection = BufReader::new(connect(address)?);
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let sent = connection.get_mut().write_all(head.as_bytes());
    sent.map_err(|error| format!("send: {error}"))?;
    let (status, headers, _) = read_head(&mut connection).map_err(broken)?;
    if status != 200 {
        return Err(format!("GET {path} is answered with {status}"));
    }
    let response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    let announced: Option<u64> = response
        .get("Content-Length")
        .and_then(|text| text.parse().ok());
    let (mut len, mut piece) = (0, vec![0; PIECE_BYTES]);
    loop {
        match connection.read(&mut piece) {
            Ok(0) if announced == Some(len) => return Ok(len),
            Ok(0) => return Err(format!("{len} bytes arrived, announced were {announced:?}")),
            Ok(now) => {
                len += now as u64;
                sink(&piece[..now]);
            }
            Err(error) => return Err(format!("read after {len} bytes: {error}")),
        }
    }
}
