//! A server that behaves as a test tells it to, badly for the most part.

// Other tests use a part of it.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What came in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What goes out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Break the connection after so many bytes of the body.
    cut: Option<usize>,
    /// Never answer.
    silent: bool,
    /// Break the connection instead of answering.
    hangup: bool,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(crate) fn hangup() -> Self {
        Self {
            hangup: true,
            ..Self::default()
        }
    }

    pub(crate) fn silent() -> Self {
        Self {
            silent: true,
            ..Self::default()
        }
    }
}

type Behaviour = dyn Fn(&Received, usize) -> Reply + Send + Sync;

/// A server on loopback, until the process ends.
#[derive(Clone)]
pub(crate) struct Server {
    address: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Answers each request as `behaviour` says, which is also told how many requests came before.
    pub(crate) fn start(
        behaviour: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            received: Arc::default(),
        };
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let received = Arc::clone(&server.received);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behaviour, received) = (Arc::clone(&behaviour), Arc::clone(&received));
                thread::spawn(move || serve(stream, &*behaviour, &received));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, behaviour: &Behaviour, received: &Mutex<Vec<Received>>) {
    // Head and body are written one after the other: the second would wait for the acknowledgement of the first.
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let reply = {
            let mut received = received.lock().unwrap();
            let before = received.len();
            received.push(request.clone());
            drop(received);
            behaviour(&request, before)
        };
        if reply.hangup {
            return;
        }
        if reply.silent {
            // Until the client goes away.
            let _ = reader.read(&mut [0]);
            return;
        }
        let mut head = format!("HTTP/1.1 {} Test\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !reply
            .headers
            .iter()
            .any(|(name, _)| name == "Content-Length")
        {
            head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
        }
        head.push_str("\r\n");
        let body: &[u8] = if request.method == "HEAD" {
            &[]
        } else {
            &reply.body
        };
        let body = &body[..reply.cut.unwrap_or(body.len()).min(body.len())];
        if writer.write_all(head.as_bytes()).is_err() || writer.write_all(body).is_err() {
            return;
        }
        if reply.cut.is_some() {
            return;
        }
    }
}

/// One request; `None` at the connection's end. A body that breaks off is recorded as far as it came.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    let mut next = |reader: &mut BufReader<TcpStream>| {
        line.clear();
        reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = next(reader)?;
    let mut words = first.split(' ');
    let mut request = Received {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        ..Received::default()
    };
    loop {
        let line = next(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        let value = value.trim().to_owned();
        request.headers.insert(name.to_ascii_lowercase(), value);
    }
    if let Some(len) = request.header("content-length") {
        let len = len.parse().unwrap();
        let _ = reader.take(len).read_to_end(&mut request.body);
    } else if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let len = usize::from_str_radix(&next(reader)?, 16).ok()?;
            let mut chunk = vec![0; len + 2];
            reader.read_exact(&mut chunk).ok()?;
            if len == 0 {
                break;
            }
            request.body.extend_from_slice(&chunk[..len]);
        }
    }
    Some(request)
}
