//! Which ways there are, how each ends, and which of them are gone.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fmt,
};

use clap::ValueEnum as _;

use crate::{formats::Format, sources::Source, targets::Target, wrappings::Wrapping};

/// One way from a source to a target.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Cell {
    pub(crate) source: Source,
    pub(crate) format: Format,
    pub(crate) wrapping: Wrapping,
    pub(crate) target: Target,
}

/// `HttpBreaks/Qcow2Zlib/Tar/Device`.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            format,
            wrapping,
            target,
        } = self;
        write!(f, "{source:?}/{format:?}/{wrapping:?}/{target:?}")
    }
}

/// How a cell ends.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Outlook {
    /// The disk arrives.
    Same,
    /// There is an error that says this, and nothing is left at the target.
    Refused(&'static str),
}

impl Cell {
    /// Every cell of the product makes sense to somebody; for these the program's answer is no.
    pub(crate) fn outlook(self) -> Outlook {
        // On a device zeros follow the file, to the end of its last sector. Of the decoders only that of xz knows padding.
        let xz = matches!(self.wrapping, Wrapping::Xz | Wrapping::GzipInXz);
        if self.source == Source::Device && self.wrapping.is_compressed() && !xz {
            return Outlook::Refused("broken");
        }
        Outlook::Same
    }

    /// Two dimensions each: which, and with which values.
    fn pairs(self) -> [(usize, usize, usize, usize); 6] {
        let values = [
            self.source as usize,
            self.format as usize,
            self.wrapping as usize,
            self.target as usize,
        ];
        let pair = |one: usize, other: usize| (one, values[one], other, values[other]);
        [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)].map(|(one, other)| pair(one, other))
    }
}

/// The complete product. Neighbours share what was made of a disk.
pub(crate) fn product() -> Vec<Cell> {
    let mut cells = vec![];
    for &format in Format::value_variants() {
        for &wrapping in Wrapping::value_variants() {
            for &source in Source::value_variants() {
                cells.extend(Target::value_variants().iter().map(|&target| Cell {
                    source,
                    format,
                    wrapping,
                    target,
                }));
            }
        }
    }
    cells
}

/// A part of the product in which every two values of two dimensions meet in a cell whose disk arrives, if there is one; and each
/// refusal is seen from every source and in every wrapping.
pub(crate) fn pairs() -> Vec<Cell> {
    let (same, refused): (Vec<_>, Vec<_>) = product()
        .into_iter()
        .partition(|cell| cell.outlook() == Outlook::Same);
    let mut missing: HashSet<_> = same.iter().flat_map(|cell| cell.pairs()).collect();
    let mut uses: HashMap<(usize, usize), usize> = HashMap::new();
    let mut chosen = vec![];
    while !missing.is_empty() {
        // What adds most; of these, what brings the values that are rarest so far.
        let best = same.iter().max_by_key(|cell| {
            let pairs = cell.pairs();
            let new = pairs.iter().filter(|pair| missing.contains(*pair)).count();
            let common = |pair: &(usize, usize, usize, usize)| uses.get(&(pair.0, pair.1)).copied();
            let common: usize = pairs.iter().filter_map(common).sum();
            (new, Reverse(common))
        });
        let best = *best.expect("a pair that is missing is one of a cell");
        for pair in best.pairs() {
            missing.remove(&pair);
            *uses.entry((pair.0, pair.1)).or_default() += 1;
        }
        chosen.push(best);
    }
    let mut seen = HashSet::new();
    chosen.extend(refused.into_iter().filter(|cell| {
        let source = seen.insert((cell.outlook(), Some(cell.source), None));
        let wrapping = seen.insert((cell.outlook(), None, Some(cell.wrapping)));
        source || wrapping
    }));
    // As in the product.
    chosen.sort_by_key(|cell| (cell.format as usize, cell.wrapping as usize));
    chosen
}
