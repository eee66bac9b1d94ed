//! Cutting a disk into windows: what one thread reads and writes at a time.

use std::ops::Range;

use crate::format::{DiskImage, Extent, ExtentKind, Extents, FormatError};

/// Length of a window, on a grid of the same: some eight frames of our layout, so that little is decoded twice at its ends, and little
/// is lost of those that a kill finds half done.
pub const WINDOW_BYTES: u64 = 512 << 10;

/// Something to do for one thread.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Window {
    /// A part of one window of the grid: data, and zeros between.
    Data {
        range: Range<u64>,
        /// Where in it there is data. In order.
        data: Vec<Range<u64>>,
    },
    /// Zeros, of any length.
    Zero(Range<u64>),
}

/// The windows of a disk in order. Ends after the first error.
pub(super) struct Windows<'a> {
    extents: Extents<'a>,
    /// What is left of the extent that came last.
    rest: Option<Extent>,
}

impl<'a> Windows<'a> {
    pub(super) fn new(image: &'a DiskImage) -> Self {
        Self {
            extents: image.extents(),
            rest: None,
        }
    }

    fn extent(&mut self) -> Result<Option<Extent>, FormatError> {
        match self.rest.take() {
            Some(extent) => Ok(Some(extent)),
            None => self.extents.next().transpose(),
        }
    }

    fn advance(&mut self) -> Result<Option<Window>, FormatError> {
        let Some(first) = self.extent()? else {
            return Ok(None);
        };
        let start = first.offset;
        let grid = (start / WINDOW_BYTES + 1) * WINDOW_BYTES;
        let mut data: Vec<Range<u64>> = vec![];
        let mut end = start;
        let mut next = Some(first);
        while let Some(extent) = next {
            let extent_end = extent.offset + extent.len;
            if data.is_empty() && extent.kind == ExtentKind::Zero && extent_end >= grid {
                // Nothing but zeros so far: they go on, up to the window in which there is something else.
                end = extent_end / WINDOW_BYTES * WINDOW_BYTES;
                // An extent of zeros that ends the disk is followed by nothing.
                self.rest = tail(extent, end);
                return Ok(Some(Window::Zero(start..end)));
            }
            end = extent_end.min(grid);
            if extent.kind == ExtentKind::Data {
                match data.last_mut() {
                    Some(last) if last.end == extent.offset => last.end = end,
                    _ => data.push(extent.offset..end),
                }
            }
            if end == grid {
                self.rest = tail(extent, end);
                break;
            }
            next = self.extents.next().transpose()?;
        }
        Ok(Some(if data.is_empty() {
            Window::Zero(start..end)
        } else {
            Window::Data {
                range: start..end,
                data,
            }
        }))
    }
}

/// What of an extent lies behind `end`.
fn tail(extent: Extent, end: u64) -> Option<Extent> {
    let len = (extent.offset + extent.len).checked_sub(end)?;
    (len > 0).then_some(Extent {
        offset: end,
        len,
        ..extent
    })
}

impl Iterator for Windows<'_> {
    type Item = Result<Window, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
