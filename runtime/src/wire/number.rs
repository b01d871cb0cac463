//! Numbers, texts and ids in heads, as bincode 2 has them: little-endian, and as short as they are small.
//!
//! Written by hand: a head has sixteen of them, and through serde each cost more than the call that it belongs to.

use crate::error::{Error, ErrorKind};

/// A number up to this is one byte; the bytes above it say how many follow.
const ONE_BYTE_MAX: u8 = 250;
const TWO: u8 = 251;
const FOUR: u8 = 252;
const EIGHT: u8 = 253;
const SIXTEEN: u8 = 254;

/// Bytes that are being written.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_number(&mut self, number: u64) {
        let wide = number.to_le_bytes();
        match number {
            0..=250 => self.put(&wide[..1]),
            251..=0xffff => self.put(&[TWO, wide[0], wide[1]]),
            0x1_0000..=0xffff_ffff => self.put(&[FOUR, wide[0], wide[1], wide[2], wide[3]]),
            _ => {
                let mut bytes = [EIGHT; 9];
                bytes[1..].copy_from_slice(&wide);
                self.put(&bytes);
            }
        }
    }

    fn put_id(&mut self, id: u128) {
        if let Ok(number) = u64::try_from(id) {
            return self.put_number(number);
        }
        let mut bytes = [SIXTEEN; 17];
        bytes[1..].copy_from_slice(&id.to_le_bytes());
        self.put(&bytes);
    }

    fn put_text(&mut self, text: &str) {
        self.put_number(text.len() as u64);
        self.put(text.as_bytes());
    }
}

/// Bytes that are being read.
pub(crate) struct Take<'a> {
    bytes: &'a [u8],
}

impl<'a> Take<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| malformed("it is cut short"))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        let (byte, rest) = self.bytes.split_first().ok_or_else(|| malformed("it is cut short"))?;
        self.bytes = rest;
        Ok(*byte)
    }

    /// The next bytes, as many as an array has.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or_else(|| malformed("it is cut short"))?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn number(&mut self) -> Result<u64, Error> {
        match self.byte()? {
            small @ ..=ONE_BYTE_MAX => Ok(u64::from(small)),
            TWO => Ok(u64::from(u16::from_le_bytes(self.array()?))),
            FOUR => Ok(u64::from(u32::from_le_bytes(self.array()?))),
            EIGHT => Ok(u64::from_le_bytes(self.array()?)),
            _ => Err(malformed("a number is too large")),
        }
    }

    /// A number of no more than 32 bits.
    pub(super) fn small_number(&mut self) -> Result<u32, Error> {
        u32::try_from(self.number()?).map_err(|_| malformed("a number is too large"))
    }

    pub(super) fn id(&mut self) -> Result<u128, Error> {
        match self.bytes.first() {
            Some(&SIXTEEN) => {
                self.byte()?;
                Ok(u128::from_le_bytes(self.array()?))
            }
            _ => self.number().map(u128::from),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Error> {
        let length = usize::try_from(self.number()?).map_err(|_| malformed("it is cut short"))?;
        std::str::from_utf8(self.take(length)?).map_err(|_| malformed("a text is not UTF-8"))
    }

    /// Whether something that may be missing is there.
    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(malformed(&format!("{other} is neither yes nor no"))),
        }
    }
}

pub(super) fn malformed(why: &str) -> Error {
    Error::new(ErrorKind::BadRequest, format!("the frame cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Put for Vec<u8> {
        fn put(&mut self, bytes: &[u8]) {
            self.extend_from_slice(bytes);
        }
    }

    fn bincode<T: bincode::Encode>(value: T) -> Vec<u8> {
        bincode::encode_to_vec(value, bincode::config::standard()).expect("written")
    }

    proptest! {
        #[test]
        fn all_is_written_as_bincode_writes_it_and_read_back(
            bits in 0..64_u32, number: u64, id: u128, text in ".*", rest: Vec<u8>
        ) {
            let number = number >> bits;
            for (id, text) in [(id, text.as_str()), (u128::from(number), "")] {
                let mut written = Vec::new();
                written.put_number(number);
                written.put_id(id);
                written.put_text(text);
                prop_assert_eq!(&written, &[bincode(number), bincode(id), bincode(text)].concat());
                written.extend_from_slice(&rest);
                let mut read = Take::new(&written);
                prop_assert_eq!(read.number().expect("read"), number);
                prop_assert_eq!(read.id().expect("read"), id);
                prop_assert_eq!(read.text().expect("read"), text);
                prop_assert_eq!(read.left(), rest.len());
            }
        }
    }
}
