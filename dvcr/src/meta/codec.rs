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

    /// The rest of the value.
    pub(crate) fn tail(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn end(self) -> Decoded<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("the end of the record")
        }
    }
}

/// A value of a fixed form inside a record.
pub(crate) trait Field: Sized {
    fn put(&self, w: Writer) -> Writer;

    fn take(r: &mut Reader<'_>) -> Decoded<Self>;
}

impl Field for u32 {
    fn put(&self, w: Writer) -> Writer {
        w.u32(*self)
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        r.u32()
    }
}

impl Field for u64 {
    fn put(&self, w: Writer) -> Writer {
        w.u64(*self)
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        r.u64()
    }
}

impl Field for bool {
    fn put(&self, w: Writer) -> Writer {
        w.u8(u8::from(*self))
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        match r.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("0 or 1"),
        }
    }
}

impl Field for String {
    fn put(&self, w: Writer) -> Writer {
        w.bytes(self.as_bytes())
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        r.str().map(str::to_owned)
    }
}

impl Field for Digest {
    fn put(&self, w: Writer) -> Writer {
        w.tail(&self.to_key())
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        let len = match r.0.first().ok_or("a digest")? {
            1 => 33,
            2 => 65,
            _ => return Err("a digest algorithm"),
        };
        Self::from_key(r.take(len)?).map_err(|_| "a digest")
    }
}

/// Whether there is one, as a byte, then the field.
impl<T: Field> Field for Option<T> {
    fn put(&self, w: Writer) -> Writer {
        match self {
            Some(field) => field.put(w.u8(1)),
            None => w.u8(0),
        }
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        match r.u8()? {
            0 => Ok(None),
            1 => T::take(r).map(Some),
            _ => Err("a presence byte"),
        }
    }
}
