//! Running a simulation with many seeds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::simulation;

/// Runs a simulation with these seeds, or those that the environment names, on all cores.
pub(super) fn try_seeds<F: Future<Output = ()>>(
    seeds: std::ops::Range<u64>,
    simulate: fn(u64) -> F,
) {
    let named = std::env::var("DVCR_SIMULATION_SEEDS").ok().map(|text| {
        let (from, to) = text.split_once("..").expect("FROM..TO");
        from.parse().expect("a number")..to.parse().expect("a number")
    });
    let seeds: Vec<u64> = named.unwrap_or(seeds).collect();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Relaxed) as usize) {
                    let failed =
                        std::panic::catch_unwind(|| simulation::run(*seed, simulate(*seed)));
                    if let Err(panic) = failed {
                        // Seeds that have begun end, so that the least of those that fail is told.
                        next.store(seeds.len() as u64, Relaxed);
                        eprintln!(
                            "seed {seed} fails; try it again with DVCR_SIMULATION_SEEDS={seed}..{}",
                            seed + 1
                        );
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
