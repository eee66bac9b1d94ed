//! What lies in a pack that nobody writes any more: from its footer, or by a walk over its records.

use std::{collections::BTreeSet, fmt, io};

use super::{
    pack::{
        ENTRY_LEN, Entry, PACK_HEADER_LEN, PackHeader, RECORD_HEADER_LEN, RecordHeader, RecordWalk,
        TRAILER_LEN, WalkEnd, Walked,
    },
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
    /// Offsets of those of them whose payload is not what was written, as far as it was looked at.
    pub(crate) bad: BTreeSet<u32>,
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

    /// Where the last record ends that is whole; the end of the file where that cannot be told, or more than records lies there.
    pub(crate) fn whole_to(&self) -> u64 {
        match self.damage {
            None if !self.has_footer => {}
            Some(PackDamage::Records { .. }) => {}
            _ => return self.len,
        }
        let mut entries = self.entries.iter().rev();
        let last = entries.find(|entry| !self.bad.contains(&entry.offset));
        last.map_or(PACK_HEADER_LEN as u64, Entry::end)
    }
}

/// What is wrong with a pack. A pack that was never sealed may end in torn bytes, which is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackDamage {
    /// Its header.
    Header,
    /// It is another pack, under this name.
    Name(PackId),
    /// Its footer, and nothing else: all records can be listed.
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
            Self::Footer => f.write_str("its footer is damaged; all of its records can be listed"),
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
        damage: Some(damage),
        ..PackContents::default()
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
            ..PackContents::default()
        });
    }
    let mut walk = RecordWalk::new(len, |offset, len| packs.read(pack, offset, len));
    let (mut entries, mut bad) = (Vec::new(), BTreeSet::new());
    for walked in walk.by_ref() {
        let Walked { entry, payload } = walked?;
        if payload.is_err() {
            bad.insert(entry.offset);
        }
        entries.push(entry);
    }
    let from = walk.walked_to();
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
        bad,
        has_footer: false,
        damage,
    })
}

/// How much is looked through at once for headers of records.
const LOOK_BYTES: u64 = 4 << 20;

/// Where the first header of a record lies at or behind `from`. Blocks.
///
/// It may be one: a payload may contain anything, also bytes shaped like a header. So it says that bytes are not to be thrown
/// away, and nothing about what they are.
pub(crate) fn header_behind(
    packs: &dyn PackBackend,
    pack: PackId,
    mut from: u64,
) -> io::Result<Option<u64>> {
    let len = packs.len(pack)?;
    while from + RECORD_HEADER_LEN as u64 <= len {
        let window = packs.read(pack, from, LOOK_BYTES.min(len - from) as usize)?;
        let starts = 0..=window.len() - RECORD_HEADER_LEN;
        let behind = starts.end() + 1;
        let mut headers = starts.filter(|at| RecordHeader::decode(&window[*at..]).is_ok());
        if let Some(at) = headers.next() {
            return Ok(Some(from + at as u64));
        }
        from += behind as u64;
    }
    Ok(None)
}
