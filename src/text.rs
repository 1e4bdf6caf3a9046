//! Escapes text from outside before it is shown.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Text from outside, shown with control and invisible characters escaped. A name cannot forge a line of the
/// log, reverse the direction of the text around it, or look like another name.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each part ends with a hidden character, except perhaps the last.
        for part in self.0.split_inclusive(is_hidden) {
            match part.chars().next_back() {
                Some(last) if is_hidden(last) => {
                    f.write_str(&part[..part.len() - last.len_utf8()])?;
                    write!(f, "{}", last.escape_default())?;
                }
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// A path, shown in the same way; bytes that are not UTF-8 are shown as `\xff`.
pub(crate) struct PrintablePath<'a>(pub(crate) &'a Path);

impl fmt::Display for PrintablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            write!(f, "{}{}", Printable(chunk.valid()), chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

/// Returns true for a character that moves the cursor, ends a line, changes the direction of text or is invisible:
/// the Unicode classes Cc, Cf, Zl and Zp, and letters without a glyph.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S2: direction marks, C1 controls and joiners went to terminals unescaped.
    #[test]
    fn s2_what_turns_or_hides_text_is_escaped() {
        for c in [
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{61c}',
            '\u{9b}',
            '\u{85}',
            '\u{200b}',
            '\u{200d}',
            '\u{feff}',
            '\u{2028}',
            '\u{ad}',
            '\u{3164}',
            '\u{e0041}',
            '\u{7f}',
            '\n',
        ] {
            let shown = Printable(&format!("a{c}b")).to_string();
            assert_eq!(shown, format!("a{}b", c.escape_default()));
        }
        let seen = "name.txt é e\u{301} 日本 עברית ❤\u{fe0f} \u{1f600} 'a' \"b\" \\";
        assert_eq!(Printable(seen).to_string(), seen);
        assert_eq!(PrintablePath(Path::new(seen)).to_string(), seen);
    }

    #[test]
    fn k2_bytes_that_are_no_text_are_shown_by_their_numbers() {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"a\xff/\xc3\xa9\n\xfe"));
        assert_eq!(PrintablePath(path).to_string(), "a\\xff/\u{e9}\\n\\xfe");
    }
}
