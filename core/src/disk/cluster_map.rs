//! Which clusters of a disk hold data.

use std::{collections::BTreeMap, ops::Range};

/// Clusters under one L2 table of a canonical qcow2: 512 MiB of the disk.
pub(super) const GROUP_CLUSTERS: u64 = 8192;

const WORD_BITS: u64 = 64;
const GROUP_WORDS: usize = (GROUP_CLUSTERS / WORD_BITS) as usize;

/// A set of cluster numbers: a bit each, where there are any (1 KiB per 512 MiB of the disk).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ClusterMap {
    groups: BTreeMap<u64, Box<[u64; GROUP_WORDS]>>,
    len: u64,
}

impl ClusterMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a cluster; one that is there already changes nothing.
    pub fn insert(&mut self, cluster: u64) {
        let group = self
            .groups
            .entry(cluster / GROUP_CLUSTERS)
            .or_insert_with(|| Box::new([0; GROUP_WORDS]));
        let bit = cluster % GROUP_CLUSTERS;
        let word = &mut group[(bit / WORD_BITS) as usize];
        let mask = 1 << (bit % WORD_BITS);
        self.len += u64::from(*word & mask == 0);
        *word |= mask;
    }

    /// Whether a cluster is there.
    pub fn contains(&self, cluster: u64) -> bool {
        let bit = cluster % GROUP_CLUSTERS;
        self.groups
            .get(&(cluster / GROUP_CLUSTERS))
            .is_some_and(|words| words[(bit / WORD_BITS) as usize] >> (bit % WORD_BITS) & 1 == 1)
    }

    /// How many clusters there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The highest cluster.
    pub(super) fn last(&self) -> Option<u64> {
        self.clusters_of(*self.groups.last_key_value()?.0).last()
    }

    /// Groups that have clusters, ascending, and how many.
    pub(super) fn groups(&self) -> impl Iterator<Item = (u64, u64)> {
        self.groups.iter().map(|(group, words)| {
            let count = words.iter().map(|word| u64::from(word.count_ones())).sum();
            (*group, count)
        })
    }

    /// The clusters of one group, ascending.
    pub(super) fn clusters_of(&self, group: u64) -> impl Iterator<Item = u64> {
        let words = self
            .groups
            .get(&group)
            .into_iter()
            .flat_map(|words| words.iter());
        words.enumerate().flat_map(move |(i, word)| {
            let first = group * GROUP_CLUSTERS + i as u64 * WORD_BITS;
            (0..WORD_BITS)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| first + bit)
        })
    }

    /// Maximal ranges of adjacent clusters, ascending.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut clusters = self
            .groups
            .keys()
            .flat_map(|group| self.clusters_of(*group))
            .peekable();
        std::iter::from_fn(move || {
            let start = clusters.next()?;
            let mut end = start + 1;
            while clusters.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(start..end)
        })
    }
}

impl FromIterator<u64> for ClusterMap {
    fn from_iter<T: IntoIterator<Item = u64>>(clusters: T) -> Self {
        let mut map = Self::new();
        clusters.into_iter().for_each(|cluster| map.insert(cluster));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs as first and last cluster.
    fn check(clusters: &[u64], runs: &[(u64, u64)]) {
        let map: ClusterMap = clusters.iter().copied().collect();
        let found: Vec<_> = map.runs().map(|run| (run.start, run.end - 1)).collect();
        assert_eq!(found, runs);
        let len: u64 = runs.iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(map.len(), len);
        assert_eq!(map.last(), runs.last().map(|(_, last)| *last));
        assert_eq!(map.is_empty(), runs.is_empty());
        assert!(clusters.iter().all(|cluster| map.contains(*cluster)));
        let beside = runs.iter().map(|(_, last)| last + 1);
        assert!(!beside.into_iter().any(|cluster| map.contains(cluster)));
    }

    #[test]
    fn runs_cross_words_and_groups() {
        check(&[], &[]);
        check(&[0], &[(0, 0)]);
        check(&[5, 3, 4, 3], &[(3, 5)]);
        check(&[63, 64, 66], &[(63, 64), (66, 66)]);
        check(
            &[8191, 8192, 8193, 1 << 30],
            &[(8191, 8193), (1 << 30, 1 << 30)],
        );
        let all: Vec<u64> = (0..20_000).collect();
        check(&all, &[(0, 19_999)]);
    }
}
