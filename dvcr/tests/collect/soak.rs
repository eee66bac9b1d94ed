//! Clients push, delete, retag and pull without pause, with the same few layers in the same few repositories, while garbage is
//! collected all the time with no grace at all and the server is killed now and then. No request fails, every byte that is
//! pulled is right, and in the end what is stored is what a fresh store with the same content holds.
//!
//! `DVCR_SOAK_EVENTS` says how many events; 100,000 take some minutes.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    content::{Image, Layers},
    figures::{metadata_bytes, metric, pack_bytes, stat, wait_until},
    support::{random::Random, server::Server},
    visitor::{Address, Killed, Visitor},
};

/// Events of a run that is not told how many.
const EVENTS: u64 = 6_000;
const CLIENTS: u64 = 6;
/// The server is killed, and started again, so many times.
const KILLS: u64 = 3;
/// All clients use all of them.
const REPOSITORIES: [&str; 3] = ["soak/a", "soak/b", "soak/c"];
/// Images that a client keeps.
const IMAGES_MAX: usize = 12;
/// Tags of a client in each repository.
const TAGS: u64 = 8;
/// How long what nothing refers to is protected. A push must take less than half of it.
const LEASE: Duration = Duration::from_secs(30);
const SETTINGS: [(&str, &str); 6] = [
    ("DVCR_LEASE", "30s"),
    ("DVCR_GC_GRACE", "0s"),
    ("DVCR_GC_INTERVAL", "10ms"),
    ("DVCR_GC_UNUSED_PERCENT", "2"),
    ("DVCR_RESERVE_BYTES", "0"),
    ("DVCR_LOG_FILTER", "warn"),
];
/// The collector has come to rest after the last lease and so long.
const REST_LIMIT: Duration = Duration::from_secs(60);
/// How much more than a fresh store may be stored.
const MORE_MAX: f64 = 1.1;

/// Kinds of events.
const KINDS: [&str; 5] = ["push", "delete", "retag", "pull", "cancel"];

/// What one client did.
#[derive(Default)]
struct Done {
    /// Milliseconds of each event, by kind.
    millis: [Vec<f64>; KINDS.len()],
    /// Events that were done again after a kill.
    again: u64,
}

/// One client's images, which no other client has: they share layers and repositories.
struct Keeper {
    number: u64,
    /// Counts the images that it made.
    made: u64,
    images: Vec<Kept>,
    /// What a tag of a repository leads to.
    tags: BTreeMap<(usize, String), String>,
}

#[derive(Clone)]
struct Kept {
    repository: usize,
    image: Image,
}

impl Keeper {
    fn new(number: u64) -> Self {
        Self {
            number,
            made: 0,
            images: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    fn any_tag(&self, random: &mut Random) -> String {
        format!("c{}-{}", self.number, random.next() % TAGS)
    }

    fn any_image(&self, random: &mut Random) -> Option<(usize, Kept)> {
        let count = self.images.len() as u64;
        let at = (count > 0).then(|| (random.next() % count) as usize)?;
        Some((at, self.images[at].clone()))
    }

    /// Does something; what.
    fn act(
        &mut self,
        visitor: &mut Visitor<'_>,
        layers: &Layers,
        random: &mut Random,
    ) -> (usize, u64) {
        let crowded = self.images.len() >= IMAGES_MAX;
        let draw = random.next() % 100;
        let Some((at, kept)) = self.any_image(random) else {
            return (0, self.push(visitor, layers, random));
        };
        let repository = REPOSITORIES[kept.repository];
        match draw {
            0..30 if !crowded => (0, self.push(visitor, layers, random)),
            0..48 => {
                let digest = kept.image.digest.clone();
                let mut tries = 0;
                let ((), again) = visitor.surely(|visitor| {
                    tries += 1;
                    visitor.delete(repository, &digest, tries > 1)
                });
                self.images.swap_remove(at);
                self.tags.retain(|_, known| *known != digest);
                if draw.is_multiple_of(4) {
                    // Created again at once, under the same name.
                    let tag = self.any_tag(random);
                    return (0, again + self.push_image(visitor, kept, tag, random));
                }
                visitor.surely(|visitor| visitor.miss(repository, &digest));
                (1, again)
            }
            48..60 => {
                let tag = self.any_tag(random);
                let ((), again) =
                    visitor.surely(|visitor| visitor.put(repository, &tag, &kept.image));
                self.tags.insert((kept.repository, tag), kept.image.digest);
                (2, again)
            }
            60..63 => {
                let blob = layers.any(random);
                let ((), again) = visitor.surely(|visitor| visitor.cancel(repository, blob));
                (4, again)
            }
            _ => {
                let tags = &self.tags;
                let tag = tags
                    .iter()
                    .find(|(_, digest)| **digest == kept.image.digest);
                let reference = match tag {
                    Some(((at, tag), _)) if *at == kept.repository => tag,
                    _ => &kept.image.digest,
                };
                let ((), again) =
                    visitor.surely(|visitor| visitor.pull(repository, reference, &kept.image));
                (3, again)
            }
        }
    }

    fn push(&mut self, visitor: &mut Visitor<'_>, layers: &Layers, random: &mut Random) -> u64 {
        self.made += 1;
        let author = format!("{}-{}", self.number, self.made);
        let count = random.next() % 3 + 1;
        let layers = (0..count).map(|_| layers.any(random).clone()).collect();
        let kept = Kept {
            repository: (random.next() % REPOSITORIES.len() as u64) as usize,
            image: Image::new(&author, layers),
        };
        let tag = self.any_tag(random);
        self.push_image(visitor, kept, tag, random)
    }

    fn push_image(
        &mut self,
        visitor: &mut Visitor<'_>,
        kept: Kept,
        tag: String,
        random: &mut Random,
    ) -> u64 {
        let repository = REPOSITORIES[kept.repository];
        let from = REPOSITORIES[(random.next() % REPOSITORIES.len() as u64) as usize];
        let ((), again) =
            visitor.surely(|visitor| visitor.push(repository, &tag, &kept.image, from, random));
        self.tags
            .insert((kept.repository, tag), kept.image.digest.clone());
        self.images.push(kept);
        again
    }

    /// Reads everything that it has: by digest, and by every tag.
    fn verify(&self, visitor: &mut Visitor<'_>) -> Result<(), Killed> {
        for kept in &self.images {
            let repository = REPOSITORIES[kept.repository];
            visitor.pull(repository, &kept.image.digest, &kept.image)?;
        }
        for ((at, tag), digest) in &self.tags {
            let kept = self
                .images
                .iter()
                .find(|kept| kept.image.digest == *digest)
                .unwrap();
            visitor.pull(REPOSITORIES[*at], tag, &kept.image)?;
        }
        Ok(())
    }
}

/// Runs one client until all events are done, and leases have ended while it ran.
fn client(
    keeper: &mut Keeper,
    visitor: &mut Visitor<'_>,
    layers: &Layers,
    next: &AtomicU64,
    events: u64,
    reached: &mpsc::Sender<u64>,
    mut random: Random,
) -> Done {
    let mut done = Done::default();
    let begun = Instant::now();
    loop {
        let number = next.fetch_add(1, SeqCst);
        if number >= events && begun.elapsed() > LEASE * 3 / 2 {
            return done;
        }
        // The receiver is gone after the last kill.
        let _ = reached.send(number);
        let event = Instant::now();
        let (kind, again) = keeper.act(visitor, layers, &mut random);
        done.again += again;
        done.millis[kind].push(event.elapsed().as_secs_f64() * 1e3);
    }
}

/// Figures of the collector, added up over the lives of the server.
#[derive(Default)]
struct Collected(BTreeMap<&'static str, u64>);

impl Collected {
    fn add(&mut self, url: &str) {
        for name in [
            "dvcr_gc_reviews_total",
            "dvcr_gc_removed_blobs_total",
            "dvcr_gc_freed_bytes_total",
            "dvcr_gc_moved_bytes_total",
            "dvcr_stored_new_bytes_total",
        ] {
            *self.0.entry(name).or_default() += metric(url, name);
        }
    }
}

#[test]
fn nothing_is_lost_while_garbage_is_collected_all_the_time() {
    let events = std::env::var("DVCR_SOAK_EVENTS").map_or(EVENTS, |text| text.parse().unwrap());
    let mut random = Random::new();
    let layers = Layers::new(&mut random);
    let directory = tempfile::Builder::new()
        .prefix("dvcr-soak-")
        .tempdir()
        .unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start_on(&data, &SETTINGS);
    let address = Address::new(server.url());
    let mut keepers: Vec<_> = (0..CLIENTS).map(Keeper::new).collect();
    let mut visitors: Vec<_> = keepers.iter().map(|_| Visitor::new(&address)).collect();
    let mut collected = Collected::default();
    let next = AtomicU64::new(0);
    let (reached, events_reached) = mpsc::channel();

    let begun = Instant::now();
    let done: Vec<Done> = thread::scope(|scope| {
        let clients: Vec<_> = keepers
            .iter_mut()
            .zip(&mut visitors)
            .map(|(keeper, visitor)| {
                let random = Random::from_seed(random.next());
                let (layers, next, reached) = (&layers, &next, reached.clone());
                scope.spawn(move || client(keeper, visitor, layers, next, events, &reached, random))
            })
            .collect();
        drop(reached);
        for number in 1..=KILLS {
            let moment = number * events / (KILLS + 1);
            // None comes when a client has failed; which says why.
            if !events_reached.iter().any(|number| number >= moment) {
                break;
            }
            collected.add(&server.url());
            kill(&mut server, &data);
            address.set(server.url());
        }
        drop(events_reached);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    collected.add(&server.url());

    let url = server.url();
    let removed = collected.0["dvcr_gc_removed_blobs_total"];
    assert!(removed > 0, "no garbage was collected in {seconds:.0} s");
    let fresh_directory = directory.path().join("fresh");
    let fresh = fresh_store(&fresh_directory, &keepers);
    let rest = settle(&url, &data, &fresh.url(), &fresh_directory);
    for (keeper, visitor) in keepers.iter().zip(&mut visitors) {
        visitor.surely(|visitor| keeper.verify(visitor));
    }
    assert_eq!(server.log().matches("ERROR").count(), 0, "{}", server.log());
    assert!(!server.log().contains("panicked"), "{}", server.log());

    let events = next.load(SeqCst) - CLIENTS;
    println!(
        "{events} events by {CLIENTS} clients in {seconds:.1} s: {:.0} a second; {KILLS} kills",
        events as f64 / seconds
    );
    report(&done, &visitors, &collected);
    let live: usize = keepers.iter().map(|keeper| keeper.images.len()).sum();
    println!(
        "at rest {:.1} s after the last event: {live} images, {} blobs, {} bytes; packs {} bytes, those of a fresh store {} ({:.3} times); metadata {} and {} bytes of file",
        rest.as_secs_f64(),
        stat(&url, "blobs"),
        stat(&url, "logical_bytes"),
        pack_bytes(&data),
        pack_bytes(&fresh_directory),
        pack_bytes(&data) as f64 / pack_bytes(&fresh_directory) as f64,
        metadata_bytes(&data),
        metadata_bytes(&fresh_directory),
    );
}

/// Kills the server and starts another one on its data.
fn kill(server: &mut Server, data: &Path) {
    assert!(!server.log().contains("panicked"), "{}", server.log());
    server.process().signal(Signal::KILL);
    server.process().wait(REST_LIMIT);
    *server = Server::start_on(data, &SETTINGS);
}

/// A store that holds what the clients have in the end, and never held anything else.
fn fresh_store(data: &Path, keepers: &[Keeper]) -> Server {
    let server = Server::start_on(data, &[("DVCR_RESERVE_BYTES", "0")]);
    let address = Address::new(server.url());
    let mut visitor = Visitor::new(&address);
    let mut random = Random::from_seed(1);
    for keeper in keepers {
        for kept in &keeper.images {
            let repository = REPOSITORIES[kept.repository];
            let push = visitor.push(repository, "v", &kept.image, repository, &mut random);
            push.unwrap();
        }
    }
    server
}

/// Waits until the collector is at rest: what is stored is what the fresh store holds. Returns how long that took.
fn settle(url: &str, data: &Path, fresh: &str, fresh_data: &Path) -> Duration {
    let begun = Instant::now();
    wait_until(LEASE + REST_LIMIT, || {
        for name in ["blobs", "logical_bytes", "chunks"] {
            let (found, wanted) = (stat(url, name), stat(fresh, name));
            if found != wanted {
                return Err(format!("{found} {name} instead of {wanted}"));
            }
        }
        let (found, wanted) = (pack_bytes(data), pack_bytes(fresh_data));
        if found as f64 > wanted as f64 * MORE_MAX {
            return Err(format!("{found} bytes of packs instead of {wanted}"));
        }
        Ok(())
    });
    begun.elapsed()
}

fn report(done: &[Done], visitors: &[Visitor<'_>], collected: &Collected) {
    for (kind, name) in KINDS.iter().enumerate() {
        let mut millis: Vec<f64> = done
            .iter()
            .flat_map(|done| &done.millis[kind])
            .copied()
            .collect();
        millis.sort_by(f64::total_cmp);
        let at = |share: f64| {
            millis
                .get((millis.len() as f64 * share) as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        println!(
            "{name:>7}: {:6}, ms p50 {:.1}, p99 {:.1}, most {:.0}",
            millis.len(),
            at(0.5),
            at(0.99),
            millis.last().copied().unwrap_or(f64::NAN)
        );
    }
    let again: u64 = done.iter().map(|done| done.again).sum();
    let sum = |of: fn(&Visitor<'_>) -> u64| visitors.iter().map(of).sum::<u64>();
    println!(
        "blobs: {} found, {} mounted, {} sent; {} MiB sent, {} MiB received; {again} events done again after a kill",
        sum(|visitor| visitor.found),
        sum(|visitor| visitor.mounted),
        sum(|visitor| visitor.sent),
        sum(|visitor| visitor.sent_bytes) >> 20,
        sum(|visitor| visitor.received_bytes) >> 20,
    );
    let longest = visitors.iter().map(|visitor| visitor.longest_push).max();
    println!("longest push: {longest:.1?}, of a lease of {LEASE:?}");
    println!(
        "collected, but for what was not counted yet at a kill: {:?}",
        collected.0
    );
}
