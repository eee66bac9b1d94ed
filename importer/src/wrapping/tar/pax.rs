//! Extended headers: "length key=value\n" records, where the length counts itself.

/// Longest extended header that is read: 1 MiB, as GNU tar and Go have it.
pub(super) const PAX_BYTES_MAX: u64 = 1 << 20;

/// What an extended header says about the next entry.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Pax {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) len: Option<u64>,
    /// What GNU's sparse formats say, if there was any key of theirs.
    pub(super) sparse: Option<PaxSparse>,
}

/// The keys of a file with holes: GNU tar manual, "PAX Format, Versions 0.0 and 0.1" and "Version 1.0".
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct PaxSparse {
    /// Absent before version 1.0.
    pub(super) major: Option<u64>,
    /// The file's length, holes included.
    pub(super) len: Option<u64>,
    /// Number of parts that versions 0.0 and 0.1 announce.
    pub(super) count: Option<u64>,
    /// Offset and length of each part: version 0.0 has a pair of records for each, 0.1 one record for all. In version 1.0 they
    /// are not in the header.
    pub(super) parts: Vec<(u64, u64)>,
    /// The offset whose length comes next, in version 0.0.
    offset: Option<u64>,
}

impl Pax {
    /// Reads all records; `None` if one is malformed.
    pub(super) fn parse(mut body: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        while !body.is_empty() {
            let space = body.iter().position(|byte| *byte == b' ')?;
            let len = usize::try_from(decimal(&body[..space])?).ok()?;
            let record = body.get(space + 1..len)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            pax.record(&record[..equals], &record[equals + 1..])?;
            body = &body[len..];
        }
        Some(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" if self.name.is_none() => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.len = Some(decimal(value)?),
            // The file's own name: the entry's is made up.
            b"GNU.sparse.name" => {
                self.name = Some(value.to_vec());
                self.sparse.get_or_insert_default();
            }
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().record(key, value)?;
                }
            }
        }
        Some(())
    }
}

impl PaxSparse {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"major" => self.major = Some(decimal(value)?),
            // Called so from version 1.0 on, and before.
            b"realsize" | b"size" => self.len = Some(decimal(value)?),
            b"numblocks" => self.count = Some(decimal(value)?),
            b"offset" if self.offset.is_none() => self.offset = Some(decimal(value)?),
            b"numbytes" => self.parts.push((self.offset.take()?, decimal(value)?)),
            b"map" if value.is_empty() => {}
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(decimal);
                while let Some(offset) = numbers.next() {
                    self.parts.push((offset?, numbers.next()??));
                }
            }
            b"offset" => return None,
            _ => {}
        }
        Some(())
    }

    /// The parts of versions 0.0 and 0.1; `None` if they are not as many as announced.
    pub(super) fn parts(&self) -> Option<&[(u64, u64)]> {
        let complete = self.offset.is_none() && self.count == Some(self.parts.len() as u64);
        complete.then_some(&self.parts)
    }
}

/// Decimal digits, at least one.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    // `parse` takes a sign.
    (!text.starts_with('+'))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_holes() {
        let parsed = |records: &[&str]| {
            let records = records.iter().map(|record| {
                let record = format!(" GNU.sparse.{record}\n");
                // All of these are longer than 9 bytes and shorter than 98.
                format!("{}{record}", record.len() + 2)
            });
            let body: String = records.collect();
            Pax::parse(body.as_bytes()).unwrap().sparse.unwrap()
        };
        let pairs = ["offset=0", "numbytes=512", "offset=4096", "numbytes=0"];
        let old = parsed(&[&["size=4096", "numblocks=2"], &pairs[..]].concat());
        let new = parsed(&["size=4096", "numblocks=2", "map=0,512,4096,0"]);
        for sparse in [old, new] {
            assert_eq!(sparse.len, Some(4096));
            assert_eq!(sparse.parts(), Some(&[(0, 512), (4096, 0)][..]));
        }
        assert_eq!(parsed(&["numblocks=2", "map=0,1"]).parts(), None);
    }

    #[test]
    fn records() {
        let pax = Pax::parse(b"19 size=8589934592\n16 path=a b=c\nd\n").unwrap();
        assert_eq!(pax.len, Some(8 << 30));
        assert_eq!(pax.name.as_deref(), Some(&b"a b=c\nd"[..]));
        assert_eq!(pax.sparse, None);
        assert_eq!(Pax::parse(b""), Some(Pax::default()));
        for broken in [
            &b"12 size=1\n"[..],
            b"8 size=1\n",
            b"0 size=1\n",
            b"10 size 1\n",
            b"x size=1\n",
            b"11 size=-1\n",
            b"11 size=+1\n",
            b"99999999999999999999 size=1\n",
            b"10",
            b"\0\0\0",
            b"24 GNU.sparse.numbytes=1\n",
            b"22 GNU.sparse.offset=1\n22 GNU.sparse.offset=1\n",
            b"19 GNU.sparse.map=1\n",
            b"20 GNU.sparse.map=1,\n",
        ] {
            assert_eq!(
                Pax::parse(broken),
                None,
                "{:?}",
                String::from_utf8_lossy(broken)
            );
        }
    }
}
