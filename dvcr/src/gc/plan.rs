//! Which packs to empty: facts in, plan out.

use crate::{backend::PackId, store::pack::PACK_BYTES_TARGET};

/// Most packs emptied in one go: bounds the memory for their entry tables (about 1 MiB each) and how long a plan stays true.
pub const VICTIMS_MAX: usize = 64;

/// A pack below this is small: a restart or a rotation sealed it early.
const SMALL_BYTES: u64 = PACK_BYTES_TARGET / 8;

/// So many small packs are made one. Fewer cost nothing that is worth copying them.
const SMALL_PACKS: usize = 16;

/// What is known about a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackFacts {
    /// The pack.
    pub pack: PackId,
    /// Length of its file.
    pub bytes: u64,
    /// Bytes of its chunks that something refers to.
    pub live_bytes: u64,
    /// An earlier collection began to empty it.
    pub condemned: bool,
}

impl PackFacts {
    pub(super) fn dead_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.live_bytes)
    }
}

/// What a sweep is going to do, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPlan {
    /// Packs to empty, those first that free most for what must be copied.
    pub victims: Vec<PackFacts>,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Of those, bytes of chunks that something refers to.
    pub live_bytes: u64,
    /// Bytes that the device gets back.
    pub freed_bytes: u64,
    /// Bytes that are copied for that.
    pub moved_bytes: u64,
    /// Whether this, and what is left for the next plan, removes more at once than is allowed: then nothing is done without
    /// being told to.
    pub too_much: bool,
}

/// Limits of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepLimits {
    /// Dead bytes that may stay, as a share of the live ones: each percent less costs more copying.
    pub unused_share: f64,
    /// Largest share of all bytes that one sweep may remove by itself.
    pub removed_share: f64,
    /// Below so many bytes in all that share does not matter.
    pub removed_free_bytes: u64,
}

/// Chooses the packs to empty. `packs` are all sealed and condemned ones, in any order.
#[must_use]
pub fn plan(mut packs: Vec<PackFacts>, limits: &SweepLimits) -> SweepPlan {
    let bytes: u64 = packs.iter().map(|pack| pack.bytes).sum();
    let live_bytes: u64 = packs.iter().map(|pack| pack.live_bytes).sum();
    // Share of live bytes, without rounding: a/b < c/d is a*d < c*b.
    packs.sort_by(|a, b| {
        let share =
            |x: &PackFacts, y: &PackFacts| u128::from(x.live_bytes) * u128::from(y.bytes.max(1));
        (!a.condemned)
            .cmp(&!b.condemned)
            .then(share(a, b).cmp(&share(b, a)))
            .then(a.pack.cmp(&b.pack))
    });
    let may_stay = (live_bytes as f64 * limits.unused_share) as u64;
    let mut dead: u64 = packs.iter().map(PackFacts::dead_bytes).sum();
    let small = |pack: &PackFacts| pack.bytes < SMALL_BYTES;
    let merge = packs.iter().filter(|pack| small(pack)).count() >= SMALL_PACKS;
    let mut plan = SweepPlan {
        bytes,
        live_bytes,
        ..SweepPlan::default()
    };
    let mut freed_in_all = 0;
    for pack in packs {
        let wanted =
            pack.condemned || (dead > may_stay && pack.dead_bytes() > 0) || (merge && small(&pack));
        if !wanted {
            continue;
        }
        dead -= pack.dead_bytes();
        freed_in_all += pack.dead_bytes();
        if plan.victims.len() < VICTIMS_MAX {
            plan.freed_bytes += pack.dead_bytes();
            plan.moved_bytes += pack.live_bytes;
            plan.victims.push(pack);
        }
    }
    plan.too_much = bytes > limits.removed_free_bytes
        && freed_in_all as f64 > bytes as f64 * limits.removed_share;
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SweepLimits = SweepLimits {
        unused_share: 0.1,
        removed_share: 0.5,
        removed_free_bytes: 2_000,
    };

    fn pack(id: u64, bytes: u64, live_bytes: u64) -> PackFacts {
        PackFacts {
            pack: PackId(id),
            bytes,
            live_bytes,
            condemned: false,
        }
    }

    fn check(packs: &[PackFacts], victims: &[u64], too_much: bool) -> SweepPlan {
        // Larger than any small pack.
        let large = |pack: &PackFacts| PackFacts {
            bytes: pack.bytes * SMALL_BYTES,
            live_bytes: pack.live_bytes * SMALL_BYTES,
            ..*pack
        };
        let limits = SweepLimits {
            removed_free_bytes: LIMITS.removed_free_bytes * SMALL_BYTES,
            ..LIMITS
        };
        let plan = plan(packs.iter().map(large).collect(), &limits);
        let found: Vec<_> = plan.victims.iter().map(|victim| victim.pack.0).collect();
        assert_eq!(found, victims, "{packs:?}");
        assert_eq!(plan.too_much, too_much, "{packs:?}");
        plan
    }

    #[test]
    fn the_emptiest_packs_go_until_little_is_unused() {
        check(&[], &[], false);
        check(&[pack(1, 100, 100), pack(2, 100, 100)], &[], false);
        // A tenth of what lives may stay.
        check(&[pack(1, 100, 95), pack(2, 100, 95)], &[], false);
        check(&[pack(1, 100, 80), pack(2, 100, 95)], &[1], false);
        check(&[pack(1, 100, 50), pack(2, 100, 10)], &[2, 1], false);
        let plan = check(&[pack(1, 100, 0), pack(2, 100, 100)], &[1], false);
        assert_eq!(plan.freed_bytes, 100 * SMALL_BYTES);
        assert_eq!(plan.moved_bytes, 0);
    }

    #[test]
    fn what_an_earlier_collection_condemned_goes_first() {
        let condemned = PackFacts {
            condemned: true,
            ..pack(2, 100, 100)
        };
        check(&[pack(1, 100, 10), condemned], &[2, 1], false);
    }

    #[test]
    fn removing_most_of_much_needs_to_be_told() {
        check(&[pack(1, 900, 0), pack(2, 100, 100)], &[1], false);
        check(&[pack(1, 9_000, 0), pack(2, 1_000, 1_000)], &[1], true);
        // Also where a plan is too short to show it.
        let dead = (1..=900).map(|id| pack(id, 100, 0));
        let packs = dead.chain([pack(901, 10_000, 10_000)]).collect();
        assert!(plan(packs, &LIMITS).too_much);
    }

    #[test]
    fn many_small_packs_become_one() {
        let packs = |count: u64| (1..=count).map(|id| pack(id, 100, 100)).collect();
        assert!(plan(packs(15), &LIMITS).victims.is_empty());
        assert_eq!(plan(packs(16), &LIMITS).victims.len(), 16);
    }

    #[test]
    fn a_plan_is_bounded() {
        let packs = (1..1_000).map(|id| pack(id, 100, 1)).collect();
        assert_eq!(plan(packs, &LIMITS).victims.len(), VICTIMS_MAX);
    }
}
