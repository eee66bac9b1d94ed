//! Byte encoding of records: little-endian integers, length-prefixed strings. Bounds-checked, no panics.

use dvcr_core::oci::Digest;

/// Appends fields to a value.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn u8(mut self, v: u8) -> Self {
        self.0.push(v);
        self
    }

    pub(crate) fn u32(mut self, v: u32) -> Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, v: u64) -> Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    /// A length (u32) and that many bytes.
    pub(crate) fn bytes(self, v: &[u8]) -> Self {
        let len = u32::try_from(v.len()).expect("fields are bounded far below 4 GiB");
        let mut w = self.u32(len);
        w.0.extend_from_slice(v);
        w
    }

    /// The rest of the value.
    pub(crate) fn tail(mut self, v: &[u8]) -> Self {
        self.0.extend_from_slice(v);
        self
    }

    pub(crate) fn digest(self, v: &Digest) -> Self {
        self.tail(&v.to_key())
    }

    /// A presence byte, then the digest.
    pub(crate) fn digest_option(self, v: Option<&Digest>) -> Self {
        match v {
            Some(digest) => self.u8(1).digest(digest),
            None => self.u8(0),
        }
    }

    pub(crate) fn finish(self) -> bytes::Bytes {
        self.0.into()
    }
}

/// Takes fields from a value. Every method says what is wrong rather than panic.
pub(crate) struct Reader<'a>(&'a [u8]);

/// What a decoder expected and did not find.
pub(crate) type Decoded<T> = Result<T, &'static str>;

impl<'a> Reader<'a> {
    /// Checks the schema version, the first byte of each value.
    pub(crate) fn new(bytes: &'a [u8], version: u8) -> Decoded<Self> {
        match bytes.split_first() {
            Some((found, rest)) if *found == version => Ok(Self(rest)),
            Some(_) => Err("a schema version that this program knows"),
            None => Err("a schema version byte"),
        }
    }

    pub(crate) fn take(&mut self, n: usize) -> Decoded<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or("more bytes")?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take returns N bytes"))
    }

    pub(crate) fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub(crate) fn str(&mut self) -> Decoded<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "UTF-8 text")
    }

    pub(crate) fn digest(&mut self) -> Decoded<Digest> {
        let algorithm = *self.0.first().ok_or("a digest")?;
        let len = match algorithm {
            1 => 33,
            2 => 65,
            _ => return Err("a digest algorithm"),
        };
        Digest::from_key(self.take(len)?).map_err(|_| "a digest")
    }

    pub(crate) fn digest_option(&mut self) -> Decoded<Option<Digest>> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.digest().map(Some),
            _ => Err("a presence byte"),
        }
    }

    pub(crate) fn tail(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn end(self) -> Decoded<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("the end of the record")
        }
    }
}
