//! Extended headers: "length key=value\n" records, where the length counts itself.

/// Longest extended header that is read: 1 MiB, as GNU tar and Go have it.
pub(super) const PAX_BYTES_MAX: u64 = 1 << 20;

/// What an extended header says about the next entry.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Pax {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) len: Option<u64>,
    /// Keys of GNU's sparse formats: major version, the file's length.
    pub(super) sparse_major: Option<u64>,
    pub(super) sparse_len: Option<u64>,
    /// Whether there was any key of a sparse format, versions 0.0 and 0.1 included.
    pub(super) sparse: bool,
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
        self.sparse |= key.starts_with(b"GNU.sparse.");
        match key {
            b"path" if self.name.is_none() => self.name = Some(value.to_vec()),
            // The file's own name: the entry's is made up.
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.len = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse_major = Some(decimal(value)?),
            b"GNU.sparse.realsize" => self.sparse_len = Some(decimal(value)?),
            _ => {}
        }
        Some(())
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
    fn records() {
        let pax = Pax::parse(b"19 size=8589934592\n16 path=a b=c\nd\n").unwrap();
        assert_eq!(pax.len, Some(8 << 30));
        assert_eq!(pax.name.as_deref(), Some(&b"a b=c\nd"[..]));
        assert!(!pax.sparse);
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
