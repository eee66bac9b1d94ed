//! An address that stays while the server behind it changes.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Carries connections to a server, until the process ends.
pub(crate) struct Relay {
    address: String,
    server: Arc<Mutex<String>>,
}

impl Relay {
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap().to_string(),
            server: Arc::new(Mutex::new(server.to_owned())),
        };
        let server = Arc::clone(&relay.server);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let address = server.lock().unwrap().clone();
                // While there is no server, connections break.
                let Ok(server) = TcpStream::connect(address) else {
                    continue;
                };
                let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || carry(back, forth));
                thread::spawn(move || carry(client, server));
            }
        });
        relay
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn lead_to(&self, server: &str) {
        server.clone_into(&mut self.server.lock().unwrap());
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
