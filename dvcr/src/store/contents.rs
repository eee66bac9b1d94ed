//! What lies in a pack that nobody writes any more: from its footer, or by a walk over its records.

use std::{fmt, io};

use super::{
    pack::{ENTRY_LEN, Entry, PACK_HEADER_LEN, PackHeader, RecordWalk, TRAILER_LEN, WalkEnd},
    recover::read_footer,
};
use crate::backend::{PackBackend, PackId};

/// The records of a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackContents {
    /// Length of the file.
    pub(crate) len: u64,
    /// The records, ascending by offset; those before the damage, where there is some.
    pub(crate) entries: Vec<Entry>,
    /// Whether the footer told, so that the records themselves were not looked at.
    pub(crate) has_footer: bool,
    /// What is wrong.
    pub(crate) damage: Option<PackDamage>,
}

impl PackContents {
    /// Where what is listed ends.
    pub(crate) fn listed_to(&self) -> u64 {
        match self.damage {
            None | Some(PackDamage::Footer) => self.len,
            Some(PackDamage::Records { from, .. }) => from,
            Some(PackDamage::Header | PackDamage::Name(_)) => 0,
        }
    }
}

/// What is wrong with a pack. A pack that was never sealed may end in torn bytes, which is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackDamage {
    /// Its header.
    Header,
    /// It is another pack, under this name.
    Name(PackId),
    /// Its footer, and nothing else: all records are whole.
    Footer,
    /// What lies behind this offset is no record.
    Records {
        /// Where the first such byte is.
        from: u64,
        /// How many follow.
        bytes: u64,
    },
}

impl fmt::Display for PackDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("its header is damaged; its records were read one by one"),
            Self::Name(pack) => write!(f, "the file is pack {pack} under another name"),
            Self::Footer => f.write_str("its footer is damaged; all of its records are whole"),
            Self::Records { from, bytes } => write!(
                f,
                "it has no footer, and what follows offset {from} ({bytes} bytes) cannot be read"
            ),
        }
    }
}

/// Lists what lies in a pack. Blocks. Errors are those of the device; `NotFound` if there is no such pack.
pub(crate) fn read_contents(packs: &dyn PackBackend, pack: PackId) -> io::Result<PackContents> {
    let len = packs.len(pack)?;
    let nothing = |damage| PackContents {
        len,
        entries: Vec::new(),
        has_footer: false,
        damage: Some(damage),
    };
    if len < PACK_HEADER_LEN as u64 {
        return Ok(nothing(PackDamage::Header));
    }
    let header = PackHeader::decode(&packs.read(pack, 0, PACK_HEADER_LEN)?).ok();
    if let Some(header) = header.filter(|header| header.pack != pack) {
        return Ok(nothing(PackDamage::Name(header.pack)));
    }
    if let Some(header) = &header
        && let Some(footer) = read_footer(packs, pack, header, len)?
    {
        return Ok(PackContents {
            len,
            entries: footer.entries,
            has_footer: true,
            damage: None,
        });
    }
    let mut walk = RecordWalk::new(len, |offset, len| packs.read(pack, offset, len));
    let mut entries = Vec::new();
    for walked in walk.by_ref() {
        entries.push(walked?.entry);
    }
    let from = walk.valid_len();
    let bytes = len - from;
    let damage = if header.is_none() {
        Some(PackDamage::Header)
    } else if walk.end() == Some(&WalkEnd::Complete) {
        None
    } else if bytes == (entries.len() * ENTRY_LEN + TRAILER_LEN) as u64 {
        Some(PackDamage::Footer)
    } else {
        Some(PackDamage::Records { from, bytes })
    };
    Ok(PackContents {
        len,
        entries,
        has_footer: false,
        damage,
    })
}
