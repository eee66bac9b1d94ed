//! Raw disks and ISO images: the disk, byte by byte.

use super::{
    FormatError,
    layout::{Layout, Run},
    pages::Pages,
};

pub(super) struct Raw {
    len: u64,
}

pub(super) fn open(pages: &Pages) -> Result<Raw, FormatError> {
    Ok(Raw {
        len: pages.source().len(),
    })
}

impl Layout for Raw {
    fn virtual_len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, pages: &Pages, guest: u64) -> Result<Run, FormatError> {
        let stretch = pages.source().stretch_at(guest)?;
        Ok(if stretch.hole {
            Run::zero(stretch.len)
        } else {
            Run::stored(guest, stretch.len)
        })
    }
}
