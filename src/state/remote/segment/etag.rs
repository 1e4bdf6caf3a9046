//! ETags in rows. An MD5 in hexadecimal digits takes 16 bytes.

use crate::state::remote::segment::block::{Block, Cursor, Decoded};

/// An ETag in the form in which it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form<'a> {
    None,
    /// Anything that is not an MD5.
    Text(&'a str),
    /// Lower-case digits; in quotes or not, and with `-` and the number of parts or not.
    Md5 {
        md5: [u8; 16],
        parts: Option<u32>,
        quoted: bool,
    },
}

const NONE: u8 = 0;
const TEXT: u8 = 1;
const MD5: u8 = 2;
const QUOTED: u8 = 1;
const PARTS: u8 = 2;
const MD5_QUOTED: u8 = MD5 + QUOTED;
const MD5_PARTS: u8 = MD5 + PARTS;
const MD5_PARTS_QUOTED: u8 = MD5 + PARTS + QUOTED;

impl<'a> Form<'a> {
    pub(super) fn of(etag: Option<&'a str>) -> Self {
        etag.map_or(Self::None, |text| Self::md5(text).unwrap_or(Self::Text(text)))
    }

    /// Returns the MD5 if it is written in just the way in which [`Form::take`] writes it.
    fn md5(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let body = inner.unwrap_or(text);
        let (digits, parts) = match body.split_once('-') {
            Some((digits, parts)) => (digits, Some(parts)),
            None => (body, None),
        };
        let mut md5 = [0; 16];
        let is_lower = digits.bytes().all(|byte| !byte.is_ascii_uppercase());
        if !is_lower || hex::decode_to_slice(digits, &mut md5).is_err() {
            return None;
        }
        let parts = match parts {
            // `parse` takes a sign and leading zeros.
            Some(text) => Some(text.parse().ok().filter(|number: &u32| number.to_string() == text)?),
            None => None,
        };
        Some(Self::Md5 { md5, parts, quoted: inner.is_some() })
    }

    /// Returns the three bits that stand for the form.
    pub(super) fn bits(&self) -> u8 {
        match self {
            Self::None => NONE,
            Self::Text(_) => TEXT,
            Self::Md5 { parts, quoted, .. } => {
                MD5 + if parts.is_some() { PARTS } else { 0 } + u8::from(*quoted) * QUOTED
            }
        }
    }

    pub(super) fn put(&self, block: &mut Block) {
        match self {
            Self::None => {}
            Self::Text(text) => block.put_text(text),
            Self::Md5 { md5, parts, .. } => {
                block.hashes.extend_from_slice(md5);
                if let Some(parts) = parts {
                    block.put_number(u64::from(*parts));
                }
            }
        }
    }

    pub(super) fn take(bits: u8, from: &mut Cursor<'_>) -> Decoded<Option<String>> {
        match bits {
            NONE => Ok(None),
            TEXT => from.text().map(|text| Some(text.to_owned())),
            MD5 | MD5_QUOTED => Ok(Some(show(from.hash()?, None, bits == MD5_QUOTED))),
            MD5_PARTS | MD5_PARTS_QUOTED => {
                let parts = u32::try_from(from.number()?).map_err(|_| "too many parts in an ETag")?;
                Ok(Some(show(from.hash()?, Some(parts), bits == MD5_PARTS_QUOTED)))
            }
            _ => Err("an unknown form of ETag"),
        }
    }
}

fn show(md5: [u8; 16], parts: Option<u32>, quoted: bool) -> String {
    let mut digits = [0; 32];
    // 32 bytes are what 16 take, and digits are UTF-8: neither can fail.
    let _ = hex::encode_to_slice(md5, &mut digits);
    let digits = str::from_utf8(&digits).unwrap_or_default();
    let quote = if quoted { "\"" } else { "" };
    let mut text = String::with_capacity(digits.len() + 2);
    text.push_str(quote);
    text.push_str(digits);
    if let Some(parts) = parts {
        text.push('-');
        text.push_str(&parts.to_string());
    }
    text.push_str(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_back_as_it_was_written_and_an_md5_takes_16_bytes() {
        let md5 = "0123456789abcdef0123456789abcdef";
        // The ETag, the bytes among the fields, those among the hashes.
        let cases = [
            (md5.to_owned(), 0, 16),
            (format!("\"{md5}\""), 0, 16),
            (format!("{md5}-7"), 1, 16),
            (format!("\"{md5}-10000\""), 2, 16),
            (format!("{md5}-0"), 1, 16),
            (format!("{md5}-4294967295"), 5, 16),
            (format!("{md5}-4294967296"), 44, 0),
            (format!("{md5}-07"), 36, 0),
            (format!("{md5}-+7"), 36, 0),
            (format!("{md5}-"), 34, 0),
            (format!("{md5}-1-2"), 37, 0),
            (format!("\"{md5}"), 34, 0),
            (format!("{md5}\""), 34, 0),
            (format!("\"\"{md5}\"\""), 37, 0),
            (format!("W/\"{md5}\""), 37, 0),
            (md5.to_uppercase(), 33, 0),
            (md5[1..].to_owned(), 32, 0),
            ("\"".to_owned(), 2, 0),
            (String::new(), 1, 0),
            ("ümlaut".to_owned(), 8, 0),
        ];
        for (etag, fields, hashes) in cases {
            let (form, mut block) = (Form::of(Some(&etag)), Block::default());
            form.put(&mut block);
            assert_eq!((block.fields.len(), block.hashes.len()), (fields, hashes), "{etag}");
            let mut cursor = Cursor { fields: &block.fields, hashes: &block.hashes };
            assert_eq!(Form::take(form.bits(), &mut cursor), Ok(Some(etag)));
            assert!(cursor.is_empty());
        }
        let mut empty = Cursor { fields: &[], hashes: &[] };
        assert_eq!((Form::of(None).bits(), Form::take(NONE, &mut empty)), (NONE, Ok(None)));
        assert!((1..=7).all(|bits| Form::take(bits, &mut empty).is_err()));
    }
}
