//! Clients, a clock and a collector at once, in an order that the seed says, on packs whose power fails: **a committed manifest
//! always reads back in full**, and what was deleted costs nothing in the end.

mod backup;
mod client;
mod damage;
mod keeper;
mod machine;
mod seeds;

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use dvcr_core::oci::{Digest, Manifest};
use futures::{FutureExt as _, future};

use client::{Client, DISKS};
use keeper::Keeper;
use machine::{Machine, Server};
use seeds::try_seeds;

use crate::{
    simulation::{self, Dice, side_by_side},
    testing::{WHO, body, name, stored_bytes},
};

const MINUTE_MS: u64 = 60_000;

/// Clients at once, each with a repository of its own and all with the same few disks.
const CLIENTS: usize = 3;

/// No request waits so long for anything.
const STUCK: Duration = Duration::from_secs(24 * 3600);

/// Clients at work while garbage is collected and time goes by.
async fn everybody(
    server: &Server,
    clients: &mut [Client],
    keeper: Option<&mut Keeper>,
    dice: &mut Dice,
) {
    let power = server.machine.packs.power();
    let backs_up = keeper.is_some() && dice.one_in(4);
    let mut dice_of_pauses = Dice::new(dice.next_u64());
    let clients = future::join_all(clients.iter_mut().map(|client| async {
        if let Err(error) = client.work(server).await {
            assert!(power.is_off(), "{}: {error:?}", client.repository);
        }
    }));
    let keeper = async {
        if let Some(keeper) = keeper
            && let Err(error) = keeper.work(server).await
        {
            assert!(power.is_off(), "keeper: {error:?}");
        }
    };
    let collector = async {
        loop {
            if let Err(error) = server.registry.gc().collect(false).await {
                assert!(power.is_off(), "collect: {error:?}");
                future::pending::<()>().await;
            }
            tokio::task::yield_now().await;
        }
    };
    let backup = async {
        if backs_up && let Err(error) = backup::back_up(server).await {
            assert!(power.is_off(), "back up: {error:?}");
        }
        future::pending::<()>().await;
    };
    let time = async {
        loop {
            let _nobody_is_at_work = server.at_work.write().await;
            server.machine.clock.advance_ms(dice.below(90) * MINUTE_MS);
            if dice.one_in(4)
                && let Err(error) = server.registry.expire_uploads().await
            {
                assert!(power.is_off(), "expire uploads: {error:?}");
            }
            for _ in 0..dice.below(30) {
                tokio::task::yield_now().await;
            }
        }
    };
    // Of clients that pause; leases and graces have another clock, which stands while somebody is at work.
    let pauses = async {
        loop {
            tokio::time::advance(Duration::from_millis(dice_of_pauses.below(200))).await;
            simulation::turn().await;
        }
    };
    let stuck = async {
        // The runtime's clock jumps when nobody can go on.
        tokio::time::sleep(STUCK).await;
        panic!("everybody waits for somebody else");
    };
    let all_clients = future::join(clients, keeper).map(drop);
    side_by_side(vec![
        all_clients.boxed_local(),
        collector.boxed_local(),
        backup.boxed_local(),
        time.boxed_local(),
        pauses.boxed_local(),
        stuck.boxed_local(),
    ])
    .await;
}

async fn simulate(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut machine = Machine::new();
    // Half of the time packs are emptied as on a full device.
    if dice.one_in(2) {
        machine.packs.say_short();
    }
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| Client::new(seed, n)).collect();
    let mut keeper = Keeper::new(seed);
    for _ in 0..3 {
        if dice.one_in(2) {
            machine.packs.power().fail_at_sync(1 + dice.below(80));
        }
        match machine.boot().await {
            Ok(server) => everybody(&server, &mut clients, Some(&mut keeper), &mut dice).await,
            Err(error) => assert!(machine.packs.power().is_off(), "boot: {error:?}"),
        }
        // Also where the power stayed: a server that is killed.
        let packs = machine.packs.reopen(dice.next_u64());
        packs.power().restore();
        machine.packs = Arc::new(packs);
        if dice.one_in(3) {
            machine.lose_metadata().await;
        }
        let server = machine.boot().await.unwrap();
        for client in &mut clients {
            client.check(&server).await;
        }
        keeper.check(&server).await;
    }
    // In the end nothing is stored but what is needed. A tag, what it named, what that listed go one after the other.
    let server = machine.boot().await.unwrap();
    for _ in 0..5 {
        machine.clock.advance_ms(10 * 24 * 60 * MINUTE_MS);
        server.registry.expire_uploads().await.unwrap();
        server.registry.gc().collect(false).await.unwrap();
    }
    for client in &mut clients {
        client.check(&server).await;
    }
    let mut needed = keeper.check(&server).await;
    for client in &clients {
        needed.extend(client.manifests.values().cloned());
    }
    server.registry.store().close().await.unwrap();
    assert_no_waste(&machine, &needed).await;
}

/// A fresh store with the same content takes as much, but for headers and footers of a few packs.
async fn assert_no_waste(machine: &Machine, manifests: &[Bytes]) {
    let fresh = Machine::new();
    let server = fresh.boot().await.unwrap();
    for data in DISKS.iter() {
        let digest = Digest::sha256(data);
        if manifests.iter().any(|manifest| {
            let manifest = Manifest::parse(None, manifest).unwrap();
            manifest.blobs().any(|blob| blob.digest == digest)
        }) {
            server
                .registry
                .blob_push(&WHO, &name("a"), digest, body(data))
                .await
                .unwrap();
        }
    }
    server.registry.store().close().await.unwrap();
    let (found, needed) = (stored_bytes(&*machine.packs), stored_bytes(&*fresh.packs));
    assert!(
        found <= needed * 11 / 10 + 16_384,
        "{found} bytes where {needed} would do"
    );
}

/// Seeds tried in each run of the tests; `DVCR_SIMULATION_SEEDS=FROM..TO` tries others.
const SEEDS: Range<u64> = 0..300;

/// Seeds of the simulation of damage in each run of the tests.
const DAMAGE_SEEDS: Range<u64> = 0..60;

#[test]
fn damage_is_found_and_heals_and_nothing_wrong_is_read() {
    try_seeds(DAMAGE_SEEDS, damage::simulate);
}

#[test]
fn a_seed_says_all_that_happens() {
    for seed in 0..3 {
        let run = || simulation::run_to_end(seed, simulate(seed)).1;
        assert_eq!(run(), run(), "seed {seed}");
        let run = || simulation::run_to_end(seed, damage::simulate(seed)).1;
        assert_eq!(run(), run(), "seed {seed}, with damage");
    }
}

#[test]
fn a_committed_manifest_always_reads_back_in_full() {
    try_seeds(SEEDS, simulate);
}
