//! What is deleted and created again under the same name, while other images are pushed and pulled: no request fails, nobody
//! restarts anything, and the old image's bytes are gone within the grace period.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use crate::{
    content::{Blob, Image},
    figures::{metric, pack_bytes, wait_until},
    support::{over::Over, random::Random, server::Server},
    visitor::{Address, Visitor},
};

const IMAGE_BYTES: usize = 48 << 20;
/// A push on a busy machine takes less than half of it.
const LEASE: Duration = Duration::from_secs(20);
const SETTINGS: [(&str, &str); 4] = [
    ("DVCR_GC_GRACE", "2s"),
    ("DVCR_GC_INTERVAL", "100ms"),
    // What was just pushed is protected as well; so is what is deleted within the time.
    ("DVCR_LEASE", "20s"),
    ("DVCR_RESERVE_BYTES", "0"),
];
/// Reading, deciding and emptying packs of some hundred MiB, in a debug build on a busy machine.
const COLLECTION_LIMIT: Duration = Duration::from_secs(300);
/// Times that the image is created again.
const ROUNDS: usize = 3;

fn image(name: &str, random: &mut Random) -> Image {
    Image::new(name, vec![Blob::new(random.bytes(IMAGE_BYTES))])
}

#[test]
fn an_image_is_deleted_and_created_again_while_others_are_pushed_and_pulled() {
    let mut random = Random::new();
    let directory = tempfile::Builder::new()
        .prefix("dvcr-recreate-")
        .tempdir()
        .unwrap();
    let data = directory.path().join("data");
    let server = Server::start_on(&data, &SETTINGS);
    let address = Address::new(server.url());
    let mut visitor = Visitor::new(&address);
    let (cvi, vi, vd) = ("cvi/golden", "vi/team/debian", "vd/team/root");
    let golden = image("golden", &mut random);
    visitor.push(cvi, "v1", &golden, cvi, &mut random).unwrap();
    let mut old = image("old", &mut random);
    visitor.push(vi, "v1", &old, vi, &mut random).unwrap();

    let over = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let pulling = scope.spawn(|| {
            let mut visitor = Visitor::new(&address);
            let mut pulls = 0_u64;
            while !over.load(SeqCst) {
                visitor.pull(cvi, "v1", &golden).unwrap();
                pulls += 1;
            }
            pulls
        });
        let seed = random.next();
        let (address, over) = (&address, &over);
        let pushing = scope.spawn(move || {
            let mut random = Random::from_seed(seed);
            let mut visitor = Visitor::new(address);
            let mut pushes = 0_u64;
            while !over.load(SeqCst) {
                let third = image(&format!("third {pushes}"), &mut random);
                visitor.push(vd, "v1", &third, vd, &mut random).unwrap();
                visitor.pull(vd, "v1", &third).unwrap();
                visitor.delete(vd, &third.digest, false).unwrap();
                pushes += 1;
            }
            pushes
        });
        let until_here = Over(over);
        for round in 0..ROUNDS {
            let new = image(&format!("new {round}"), &mut random);
            visitor.delete(vi, &old.digest, false).unwrap();
            visitor.miss(vi, "v1").unwrap();
            let deleted = Instant::now();
            visitor.push(vi, "v1", &new, vi, &mut random).unwrap();
            visitor.pull(vi, "v1", &new).unwrap();
            // Gone: nobody can read it any more, and the registry does not keep it.
            let digest = &old.blobs[0].digest;
            wait_until(LEASE + COLLECTION_LIMIT, || explain(&server.url(), digest));
            println!(
                "round {round}: the old image is gone {:.1?} after its deletion",
                deleted.elapsed()
            );
            old = new;
        }
        drop(until_here);
        (pushing.join().unwrap(), pulling.join().unwrap())
    });
    // Two images are left, and so are their bytes.
    let wanted = 2 * IMAGE_BYTES as u64;
    let began = Instant::now();
    wait_until(LEASE + COLLECTION_LIMIT, || {
        let found = pack_bytes(&data);
        if found > wanted * 11 / 10 {
            return Err(format!("{found} bytes of packs, {wanted} are alive"));
        }
        Ok(())
    });
    visitor.pull(cvi, "v1", &golden).unwrap();
    visitor.pull(vi, "v1", &old).unwrap();
    println!(
        "{} pushes and {} pulls of others meanwhile; {} MiB freed, {} MiB moved; at rest {:.1?} later",
        rounds.0,
        rounds.1,
        metric(&server.url(), "dvcr_gc_freed_bytes_total") >> 20,
        metric(&server.url(), "dvcr_gc_moved_bytes_total") >> 20,
        began.elapsed()
    );
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

/// Complains while the registry still has the blob.
fn explain(url: &str, digest: &str) -> Result<(), String> {
    use crate::support::http::{Client, Request};
    let path = format!("/api/v1/gc/explain/{digest}");
    let told = Client::new(url).send(&Request::new("GET", path)).unwrap();
    match told.json().unwrap()["len"].is_null() {
        true => Ok(()),
        false => Err(told.text()),
    }
}
