//! `.brigadeignore` files.

use std::path::Path;

use ignore::gitignore::Gitignore;

use super::END_OF_PART;
use crate::tree::ignore_file::compile;

/// A path, then the file.
pub(crate) fn target(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == END_OF_PART) else { return };
    let (path, file) = (&data[..at], &data[at + 1..]);
    let Some(path) = std::str::from_utf8(path).ok().filter(|path| is_path(path)) else { return };
    // As a file, and as a folder.
    let decide = |file: &[u8]| {
        let is_ignored = |rules: &Gitignore, is_dir| rules.matched(Path::new(path), is_dir).is_ignore();
        let decided = compile(file).map(|rules| [false, true].map(|is_dir| is_ignored(&rules, is_dir)));
        decided.map_err(|(line, _)| line)
    };
    let lines = file.split(|byte| *byte == b'\n').count();
    match decide(file) {
        Ok([file_ignored, folder_ignored]) => {
            // The last line that matches decides.
            let with = |line: &str| decide(&[file, b"\n", line.as_bytes(), b"\n"].concat());
            assert_eq!(with("*"), Ok([true, true]));
            assert_eq!(with("!*"), Ok([false, false]));
            assert_eq!(with("# *"), Ok([file_ignored, folder_ignored]));
            assert_eq!(with("*/"), Ok([file_ignored, true]));
        }
        Err(line) => assert!(line.is_none_or(|line| (1..=lines).contains(&line))),
    }
}

fn is_path(text: &str) -> bool {
    !text.contains('\0') && text.split('/').all(|name| !matches!(name, "" | "." | ".."))
}
