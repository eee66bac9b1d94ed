//! Telling data from zeros inside a window.

use std::ops::Range;

use dvcr_core::chunk::is_zero;

/// Unit in which zeros are looked for: a block of most file systems.
const PAGE_BYTES: usize = 4096;

/// Shortest run of zeros that becomes a hole: below it two writes cost more than the zeros between them.
pub(super) const HOLE_BYTES_MIN: usize = 32 << 10;

/// Parts of a window in order, each with whether it is zeros throughout. Starts are on the grid of pages.
pub(crate) fn parts(window: &[u8]) -> Vec<(Range<usize>, bool)> {
    let mut parts = vec![];
    let (mut data, mut at) = (0, 0);
    while at < window.len() {
        let pages = window[at..].chunks(PAGE_BYTES);
        let zeros: usize = pages
            .take_while(|page| is_zero(page))
            .map(<[u8]>::len)
            .sum();
        if zeros >= HOLE_BYTES_MIN {
            if data < at {
                parts.push((data..at, false));
            }
            parts.push((at..at + zeros, true));
            data = at + zeros;
        }
        // Behind the zeros there is a page of data, or the end.
        at = (at
            + zeros
            + if at + zeros < window.len() {
                PAGE_BYTES
            } else {
                0
            })
        .min(window.len());
    }
    if data < window.len() {
        parts.push((data..window.len(), false));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window in pages: `d` data, `.` zeros; and its parts as first page, last page, zeros.
    fn check(pages: &str, tail: usize, expected: &[(usize, usize, bool)]) {
        let mut window: Vec<u8> = pages
            .bytes()
            .flat_map(|kind| [u8::from(kind == b'd'); PAGE_BYTES])
            .collect();
        window.truncate(window.len() - tail);
        let parts = parts(&window);
        let found: Vec<_> = parts
            .iter()
            .map(|(range, zero)| {
                (
                    range.start / PAGE_BYTES,
                    (range.end - 1) / PAGE_BYTES,
                    *zero,
                )
            })
            .collect();
        assert_eq!(found, expected, "{pages}");
        let ends: Vec<_> = parts.iter().map(|(range, _)| range.end).collect();
        assert_eq!(ends.last(), (!window.is_empty()).then_some(&window.len()));
    }

    #[test]
    fn holes_are_found() {
        check("", 0, &[]);
        check("d", 0, &[(0, 0, false)]);
        check("d", 4095, &[(0, 0, false)]);
        check(".......", 0, &[(0, 6, false)]);
        check("........", 0, &[(0, 7, true)]);
        check("d.......d", 0, &[(0, 8, false)]);
        check(
            "d........d",
            0,
            &[(0, 0, false), (1, 8, true), (9, 9, false)],
        );
        check("........d", 100, &[(0, 7, true), (8, 8, false)]);
        check("dd..........", 0, &[(0, 1, false), (2, 11, true)]);
        check(
            "d.d.........d........",
            0,
            &[
                (0, 2, false),
                (3, 11, true),
                (12, 12, false),
                (13, 20, true),
            ],
        );
    }
}
