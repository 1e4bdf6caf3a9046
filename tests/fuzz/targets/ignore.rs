//! `.brigadeignore` files.

use std::path::Path;

use super::END_OF_PART;
use crate::tree::ignore_file::compile;

/// A path, then the file.
pub(crate) fn target(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == END_OF_PART) else { return };
    let (path, file) = (&data[..at], &data[at + 1..]);
    let Some(path) = std::str::from_utf8(path).ok().filter(|path| is_path(path)) else { return };
    let decide = |file: &[u8], is_dir| {
        let found = compile(file).map(|rules| rules.matched(Path::new(path), is_dir).is_ignore());
        found.map_err(|(line, _)| line)
    };
    let lines = file.split(|byte| *byte == b'\n').count();
    for is_dir in [false, true] {
        match decide(file, is_dir) {
            Ok(is_ignored) => {
                // The last line that matches decides.
                let with = |line: &str| [file, b"\n", line.as_bytes(), b"\n"].concat();
                assert_eq!(decide(&with("*"), is_dir), Ok(true));
                assert_eq!(decide(&with("!*"), is_dir), Ok(false));
                assert_eq!(decide(&with("# *"), is_dir), Ok(is_ignored));
                assert_eq!(decide(&with("*/"), is_dir), Ok(is_dir || is_ignored));
            }
            Err(line) => assert!(line.is_none_or(|line| (1..=lines).contains(&line))),
        }
    }
}

fn is_path(text: &str) -> bool {
    !text.contains('\0') && text.split('/').all(|name| !matches!(name, "" | "." | ".."))
}
