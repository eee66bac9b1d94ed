//! A web server that misbehaves as it is told.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use dvcr_importer::source::{ReadAt, RemoteOptions, retry::RetryPolicy};

/// Bytes that are sent at a time.
const CHUNK_BYTES: u64 = 16 << 10;

/// No waiting worth the name: servers here recover at once, or never.
pub(crate) fn impatient() -> RemoteOptions {
    RemoteOptions {
        retry: RetryPolicy {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(4),
            budget: Duration::from_millis(40),
            budget_at_start: Duration::from_millis(10),
        },
        ..RemoteOptions::default()
    }
}

/// How ranges are answered.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ranges {
    /// As RFC 9110 has it.
    Honest,
    /// Not at all: the whole file, always.
    Ignored,
    /// The start of the file, said to be what was asked for... by everything but `Content-Range`.
    Shifted,
    /// Parts without `Content-Range`.
    Silent,
    /// More bytes than announced, without a length.
    TooMuch,
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) ranges: Ranges,
    /// Connections break after so many bytes of body.
    pub(crate) break_after: Option<u64>,
    /// Whether lengths are announced; without, bodies are chunked.
    pub(crate) length: bool,
    pub(crate) etag: bool,
    /// Where to send everybody.
    pub(crate) redirect: Option<String>,
    /// `Authorization` that is wanted.
    pub(crate) authorization: Option<String>,
    /// So many requests are answered with 503 first.
    pub(crate) busy: u64,
    /// The file is another one from this request on.
    pub(crate) change_at: Option<u64>,
    /// Nothing comes after the head.
    pub(crate) stall: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            ranges: Ranges::Honest,
            break_after: None,
            length: true,
            etag: true,
            redirect: None,
            authorization: None,
            busy: 0,
            change_at: None,
            stall: false,
        }
    }
}

/// A running server; ends with the value.
pub(crate) struct Site {
    pub(crate) url: String,
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    file: Box<dyn ReadAt>,
    manners: Manners,
    requests: AtomicU64,
    sent: AtomicU64,
    heads: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Site {
    pub(crate) fn new(file: impl ReadAt + 'static, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            file: Box::new(file),
            manners,
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            heads: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let server = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.over.load(Ordering::Relaxed) {
                    return;
                }
                let (server, stream) = (server.clone(), stream.unwrap());
                thread::spawn(move || {
                    // Clients go away whenever they like.
                    let _ = server.answer(stream);
                });
            }
        });
        Self {
            url: format!("http://{address}/disk.img"),
            address,
            shared,
        }
    }

    /// Bytes of bodies that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Heads of all requests, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_ascii_lowercase();
        let field = |name: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()))
        };
        self.heads.lock().unwrap().push(head.clone());
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let manners = &self.manners;
        let mut out = stream;
        if number < manners.busy {
            let busy = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            return out.write_all(busy.as_bytes());
        }
        if let Some(target) = &manners.redirect {
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            return out.write_all(answer.as_bytes());
        }
        if let Some(wanted) = &manners.authorization
            && field("authorization:") != Some(wanted.to_ascii_lowercase())
        {
            let answer = "HTTP/1.1 401 No\r\nwww-authenticate: Basic\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            return out.write_all(answer.as_bytes());
        }

        let changed = manners.change_at.is_some_and(|at| number >= at);
        let etag = if changed { "\"two\"" } else { "\"one\"" };
        let len = self.file.len();
        let if_range = field("if-range:");
        let asked = field("range:")
            .filter(|_| manners.ranges != Ranges::Ignored)
            .filter(|_| if_range.as_deref().is_none_or(|tag| tag == etag))
            .map(|text| {
                let (first, last) = text["bytes=".len()..].split_once('-').unwrap();
                let first: u64 = first.parse().unwrap();
                let last = last.parse::<u64>().unwrap_or(u64::MAX).min(len - 1);
                (first, last)
            });
        let mut lines = vec![];
        let (body, status) = match asked {
            Some((first, last)) => {
                let shift = if manners.ranges == Ranges::Shifted && first > 0 {
                    1
                } else {
                    0
                };
                let (first, last) = (first - shift, last - shift);
                if manners.ranges != Ranges::Silent {
                    lines.push(format!("content-range: bytes {first}-{last}/{len}"));
                }
                (first..last + 1, "206 Partial Content")
            }
            None => (0..len, "200 OK"),
        };
        if manners.etag {
            lines.push(format!("etag: {etag}"));
        }
        if manners.length {
            lines.push(format!("content-length: {}", body.end - body.start));
        } else {
            lines.push("transfer-encoding: chunked".to_owned());
        }
        let too_much =
            manners.ranges == Ranges::TooMuch && asked.is_some_and(|(first, _)| first > 0);
        let more: &[u8] = if too_much { b"and more" } else { b"" };
        let lines = lines.join("\r\n");
        let head = format!("HTTP/1.1 {status}\r\n{lines}\r\nconnection: close\r\n\r\n");
        out.write_all(head.as_bytes())?;
        if manners.stall {
            // Until the client goes away.
            let mut line = String::new();
            reader.read_line(&mut line)?;
            return Ok(());
        }
        let whole = body.end - body.start + more.len() as u64;
        let sent = whole.min(manners.break_after.unwrap_or(u64::MAX));
        let mut at = 0;
        while at < sent {
            let mut chunk = vec![0; (sent - at).min(CHUNK_BYTES) as usize];
            let inside = (body.end - body.start).saturating_sub(at);
            let (inside, behind) =
                chunk.split_at_mut(inside.min(CHUNK_BYTES.min(sent - at)) as usize);
            self.file.read_at(body.start + at, inside)?;
            if changed {
                inside.iter_mut().for_each(|byte| *byte ^= 1);
            }
            behind.copy_from_slice(&more[more.len() - behind.len()..]);
            at += chunk.len() as u64;
            // Before it is sent: who received it may look at once.
            self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if !manners.length {
                out.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            }
            out.write_all(&chunk)?;
            if !manners.length {
                out.write_all(b"\r\n")?;
            }
        }
        if !manners.length && sent == whole {
            out.write_all(b"0\r\n\r\n")?;
        }
        Ok(())
    }
}
