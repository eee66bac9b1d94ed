//! The first bytes of a pack.

use super::{
    LayoutError, PACK_FORMAT, PACK_HEADER_LEN,
    error::{Fields, Writer},
};
use crate::backend::PackId;

const MAGIC: &[u8; 8] = b"DVCRPACK";
const WHAT: &str = "pack header";

/// Which pack this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHeader {
    /// The pack's own number, so that a file under a wrong name is noticed.
    pub pack: PackId,
    /// 64 random bits that no client knows; see the module's text.
    pub nonce: u64,
}

impl PackHeader {
    /// The bytes that a pack begins with.
    pub fn encode(&self) -> [u8; PACK_HEADER_LEN] {
        Writer::new()
            .put(MAGIC)
            .put(&PACK_FORMAT.to_le_bytes())
            .put(&[0; 4])
            .put(&self.pack.0.to_le_bytes())
            .put(&self.nonce.to_le_bytes())
            .put(&[0; 4])
            .put_crc()
            .bytes
    }

    /// Decodes the header at the front of `bytes`; more may follow it.
    ///
    /// The version is looked at before the checksum: a later format may place its checksum elsewhere.
    pub fn decode(bytes: &[u8]) -> Result<PackHeader, LayoutError> {
        let Some(bytes) = bytes.get(..PACK_HEADER_LEN) else {
            return Err(LayoutError::Short {
                what: WHAT,
                need: PACK_HEADER_LEN,
            });
        };
        let mut fields = Fields(bytes);
        if &fields.array::<8>() != MAGIC {
            return Err(LayoutError::Magic { what: WHAT });
        }
        let version = fields.u32();
        if version != PACK_FORMAT {
            return Err(LayoutError::Version { found: version });
        }
        let reserved = fields.u32();
        let pack = PackId(fields.u64());
        let nonce = fields.u64();
        let reserved_2 = fields.u32();
        if fields.u32() != crc32c::crc32c(&bytes[..PACK_HEADER_LEN - 4]) {
            return Err(LayoutError::Checksum { what: WHAT });
        }
        if reserved != 0 || reserved_2 != 0 {
            return Err(LayoutError::Field {
                what: "reserved bytes of the pack header are not zero",
            });
        }
        Ok(PackHeader { pack, nonce })
    }
}
