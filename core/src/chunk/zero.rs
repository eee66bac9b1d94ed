//! Runs of zeros, which take no space.

/// Bytes that are looked at together: enough for the compiler to keep every vector unit busy.
const BLOCK: usize = 256;

/// Whether all bytes are zero; true of no bytes.
///
/// Stops at the first block of 256 bytes that is not.
pub fn is_zero(data: &[u8]) -> bool {
    let (blocks, rest) = data.as_chunks::<BLOCK>();
    blocks.iter().all(is_zero_block) && rest.iter().all(|byte| *byte == 0)
}

/// How many zero bytes `data` begins with.
pub(super) fn zero_prefix_len(data: &[u8]) -> usize {
    let (blocks, _) = data.as_chunks::<BLOCK>();
    let whole = BLOCK
        * blocks
            .iter()
            .take_while(|block| is_zero_block(block))
            .count();
    whole + data[whole..].iter().take_while(|byte| **byte == 0).count()
}

/// One pass without a branch, which the compiler turns into vector instructions.
fn is_zero_block(block: &[u8; BLOCK]) -> bool {
    block
        .as_chunks::<8>()
        .0
        .iter()
        .fold(0, |all, word| all | u64::from_ne_bytes(*word))
        == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_seen() {
        for len in [0, 1, 255, 256, 257, 511, 512, 1000] {
            let mut data = vec![0; len];
            assert!(is_zero(&data));
            assert_eq!(zero_prefix_len(&data), len);
            for at in 0..len {
                data[at] = 1 << (at % 8);
                assert!(!is_zero(&data), "byte {at} of {len}");
                assert_eq!(zero_prefix_len(&data), at);
                data[at] = 0;
            }
        }
    }
}
