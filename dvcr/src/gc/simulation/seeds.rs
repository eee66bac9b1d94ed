//! Running a simulation with many seeds.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

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
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Relaxed) as usize) {
                    let run = || simulation::run(*seed, simulate(*seed));
                    if std::panic::catch_unwind(run).is_err() {
                        // Seeds that have begun end, so that the least of those that fail is told.
                        next.store(seeds.len() as u64, Relaxed);
                        failed.lock().unwrap().push(*seed);
                    }
                }
            });
        }
    });
    let least = failed.into_inner().unwrap().into_iter().min();
    if let Some(seed) = least {
        let next = seed + 1;
        panic!("seed {seed} fails; try it again with DVCR_SIMULATION_SEEDS={seed}..{next}");
    }
}
