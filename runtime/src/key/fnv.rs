//! FNV-1a, 32 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>, the hash that the broker's `partition` mapping takes.

pub(super) const FNV_START: u32 = 0x811c_9dc5;

pub(super) fn fnv_step(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}

/// The hash that the broker's `partition` mapping takes of a token.
pub(crate) fn fnv1a32(token: &str) -> u32 {
    token.bytes().fold(FNV_START, fnv_step)
}
