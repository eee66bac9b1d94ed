//! A device that fails when it is written back: the kernel took the bytes, and the device cannot hold them. Nothing that was
//! acknowledged is among them.
//!
//! The device is thin: a file system of 1 GiB in a sparse file on a tmpfs that is far smaller, so that write-back, fsync and the
//! file system's own journal fail in the middle of whatever the server does. Needs root, as loop devices do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::{
    device::Thin, http::Client, namespace, random::Random, server::Server, stored::Stored,
};

/// What the device can hold, and what it can hold once it was enlarged.
const DEVICE_MIB: u64 = 96;
const ENLARGED_MIB: u64 = 400;
const LAYER_BYTES: usize = 6 << 20;
/// Pushes that are tried in all, about twice of what fits.
const PUSHES: usize = 30;
const LIMIT: Duration = Duration::from_secs(60);
const SETTINGS: [(&str, &str); 1] = [("DVCR_RESERVE_BYTES", "8MiB")];

#[test]
fn what_a_failing_device_acknowledged_is_there_when_it_is_repaired() {
    if !namespace::entered("what_a_failing_device_acknowledged_is_there_when_it_is_repaired") {
        return;
    }
    let thin = Thin::new(DEVICE_MIB);
    let data = thin.path().join("data");
    let mut server = Server::start_on(&data, &SETTINGS);
    let client = Client::new(&server.url());
    let (mut stored, random) = (Stored::default(), &mut Random::new());
    let mut refused = 0;
    for number in 0..PUSHES {
        let pushed = stored.push(&client, &format!("image/{number}"), LAYER_BYTES, random);
        let Err(refusal) = pushed else { continue };
        refused += 1;
        println!("push {number}: {} {}", refusal.status, refusal.text());
        assert!((500..600).contains(&refusal.status), "{}", refusal.text());
        let code = &refusal.json().unwrap()["errors"][0]["code"];
        assert!(code.is_string(), "{}", refusal.text());
        // The file system may have become read-only, and the metadata with it cannot be opened again. Never is anything said
        // to be absent, and no byte is wrong.
        stored.verify_or_unavailable(&server.url());
    }
    assert!(refused > 0, "the device never failed");
    assert!(refused < PUSHES, "the device failed from the start");

    // The machine is repaired as an administrator would do it.
    server.process().signal(Signal::KILL);
    server.process().wait(LIMIT);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    drop(server);
    thin.repair(ENLARGED_MIB);
    let server = Server::start_on(&data, &SETTINGS);
    stored.verify(&server.url());
    let client = Client::new(&server.url());
    let pushed = stored.push(&client, "after", LAYER_BYTES, random);
    pushed.unwrap_or_else(|refusal| panic!("{}: {}", refusal.status, refusal.text()));
    stored.verify(&server.url());
}
