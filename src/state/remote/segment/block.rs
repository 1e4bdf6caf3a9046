//! The bytes of a block: fields and hashes, written and read.

/// A value, or what is wrong with its bytes.
pub(super) type Decoded<T> = Result<T, &'static str>;

/// Rows before compression.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(super) rows: u64,
    pub(super) fields: Vec<u8>,
    pub(super) hashes: Vec<u8>,
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.fields.len() + self.hashes.len()
    }

    pub(super) fn put_number(&mut self, number: u64) {
        put_number(number, &mut self.fields);
    }

    pub(super) fn put_text(&mut self, text: &str) {
        self.put_number(text.len() as u64);
        self.fields.extend_from_slice(text.as_bytes());
    }
}

/// Appends a varint.
pub(super) fn put_number(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

/// Takes a varint from `next`, a byte at a time.
pub(super) fn take_number<E: From<&'static str>>(mut next: impl FnMut() -> Result<u8, E>) -> Result<u64, E> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than 64 bits".into())
}

/// The rest of a block that is read.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    pub(super) fields: &'a [u8],
    pub(super) hashes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn len(&self) -> usize {
        self.fields.len() + self.hashes.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn byte(&mut self) -> Decoded<u8> {
        let (first, rest) = self.fields.split_first().ok_or("a row ends early")?;
        self.fields = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Decoded<u64> {
        take_number(|| self.byte())
    }

    /// Takes a length and so many bytes.
    pub(super) fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| "a text ends early")?;
        let (bytes, rest) = self.fields.split_at_checked(length).ok_or("a text ends early")?;
        self.fields = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Decoded<&'a str> {
        str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8")
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (bytes, rest) = self.fields.split_first_chunk().ok_or("a row ends early")?;
        self.fields = rest;
        Ok(*bytes)
    }

    pub(super) fn hash<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (hash, rest) = self.hashes.split_first_chunk().ok_or("a hash ends early")?;
        self.hashes = rest;
        Ok(*hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back_and_none_is_longer_than_64_bits() {
        for number in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(number, &mut bytes);
            let mut cursor = Cursor { fields: &bytes, hashes: &[] };
            assert_eq!(cursor.number(), Ok(number));
            assert!(cursor.is_empty());
            cursor.fields = &bytes[..bytes.len() - 1];
            assert!(cursor.number().is_err());
        }
        for bytes in
            [[0xff; 11].as_slice(), &[0x80; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert!(Cursor { fields: bytes, hashes: &[] }.number().is_err());
        }
    }
}
