//! How fast the cutter is on this machine: `cargo run --release -p dvcr-core --example cutter_speed`.

use std::time::Instant;

use dvcr_core::chunk::{Cutter, is_zero};

/// More than the caches hold.
const LEN: usize = 256 << 20;

fn main() {
    let mut seed = 1u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    })
    .take(LEN / 8)
    .flatten()
    .collect();
    let text: Vec<u8> = random.iter().map(|byte| b' ' + byte % 64).collect();
    // Fresh zero pages would all be the same page, and in the cache.
    let mut zeros = random.clone();
    zeros.fill(0);

    for (what, data) in [("random", &random), ("text", &text), ("zeros", &zeros)] {
        let (mut best, mut cuts) = (f64::MAX, 0);
        for _ in 0..5 {
            let start = Instant::now();
            cuts = count_cuts(data);
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{what}: {:.2} GB/s, {cuts} cuts, mean {} bytes",
            LEN as f64 / best / 1e9,
            LEN / cuts
        );
    }
    let start = Instant::now();
    assert!(is_zero(&zeros));
    println!(
        "is_zero: {:.2} GB/s",
        LEN as f64 / start.elapsed().as_secs_f64() / 1e9
    );
}

fn count_cuts(mut data: &[u8]) -> usize {
    let mut cutter = Cutter::new();
    let mut cuts = 0;
    while let Some(cut) = cutter.next(data, true) {
        data = &data[cut.len..];
        cuts += 1;
    }
    cuts
}
