//! Bytes change while everybody is at work.

use std::sync::Arc;

use futures::FutureExt as _;

use super::{CLIENTS, MINUTE_MS, client::Client, everybody, machine::Machine};
use crate::{
    simulation::{Dice, side_by_side},
    testing::name,
};

/// Bytes of packs change while clients push, garbage is collected and a scrub never rests. What reads reads right, and once
/// everybody has pushed again what they hold, everything reads in full.
pub(super) async fn simulate(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut machine = Machine::new();
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| Client::new(seed, n)).collect();
    for client in &mut clients {
        client.knows_damage = true;
    }
    for _ in 0..3 {
        let server = machine.boot().await.unwrap();
        let mut where_to = dice.clone();
        let scrub = async {
            loop {
                machine.damage(&mut where_to);
                server.registry.scrubber().read_all().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let everybody = everybody(&server, &mut clients, None, &mut dice);
        side_by_side(vec![everybody.boxed_local(), scrub.boxed_local()]).await;
        for client in &clients {
            client.check_heads(&server).await;
        }
        // The server is killed.
        let packs = machine.packs.reopen(dice.next_u64());
        packs.power().restore();
        machine.packs = Arc::new(packs);
    }
    let server = machine.boot().await.unwrap();
    let scrubber = server.registry.scrubber();
    // No more damage. All of it is found, and pushing heals it.
    let scrub = async || {
        server.registry.store().rotate_packs().await.unwrap();
        let repositories = (0..CLIENTS).map(|n| name(&format!("r{n}")));
        for repository in repositories {
            scrubber.read_repository(&repository).await.unwrap();
        }
    };
    scrub().await;
    for client in &mut clients {
        client.push_again(&server).await;
    }
    scrubber.settle().await.unwrap();
    scrub().await;
    // What no manifest needs nobody pushes again: it goes when its lease is over, and what was found about it goes along.
    machine.clock.advance_ms(10 * 24 * 60 * MINUTE_MS);
    server.registry.expire_uploads().await.unwrap();
    server.registry.gc().collect(false).await.unwrap();
    scrubber.settle().await.unwrap();
    for client in &mut clients {
        client.knows_damage = false;
        client.check(&server).await;
    }
    // A damaged chunk that no blob needs any more is known until its pack is emptied.
    let (_, damaged_blobs, _) = scrubber.status().await.unwrap().found;
    assert_eq!(damaged_blobs, 0, "everything was healed");
}
