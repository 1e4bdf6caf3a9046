//! Ignore files: files in a tree whose lines say what is not published, by the rules of `.gitignore`.
//!
//! # Architecture
//! - [`IgnoreRules`]: the rules of one file, compiled. [`pattern`] writes its lines as the crate `ignore` needs them.
//! - [`IgnoredPaths`]: decides for a path alone; the walk has the rules of the folders that it is inside of.
//!
//! A file that cannot be used is an error of the run: what it was meant to hold back must not be published.

mod pattern;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::error::StorageError;
use crate::text::PrintablePath;
use crate::tree::folder::{Folder, file_type, is_absent};

/// The name of an ignore file.
pub(crate) const IGNORE_FILE: &str = ".brigadeignore";

/// The most bytes of an ignore file.
const MOST_BYTES: u64 = 1024 * 1024;

/// The most bytes of its patterns as they are compiled. Brackets become a hundred times longer, and then take 200 times as
/// much memory. Longer sets of brackets do not compile anyhow.
const MOST_COMPILED: usize = 2 * 1024 * 1024;

/// A FIFO in its place is not waited for.
const OPEN_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// The rules of one ignore file, for the paths below its folder.
#[derive(Debug)]
pub(crate) struct IgnoreRules {
    folder: PathBuf,
    set: Gitignore,
}

impl IgnoreRules {
    /// Reads the ignore file of a folder that is being listed, given by its descriptor and by its path below the root.
    ///
    /// # Errors
    /// With the file's path, and the number of a line that is no pattern.
    pub(crate) fn read(root: &Folder, folder: &Path, listed: BorrowedFd<'_>) -> Result<Self, StorageError> {
        // From the descriptor: another folder may have taken its path meanwhile.
        let opened = match openat(listed, IGNORE_FILE, OPEN_FLAGS | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::LOOP) => root.open_below(&folder.join(IGNORE_FILE), OPEN_FLAGS),
            opened => opened,
        };
        let rules = opened.and_then(|opened| Self::of_file(root, folder, opened));
        rules.unwrap_or_else(|error| Err(unreadable(root, folder, error)))
    }

    /// The same; `None` if the folder has none, or is none that the walk enters.
    fn find(root: &Folder, folder: &Path) -> Result<Option<Self>, StorageError> {
        let opened = root.open_below(&folder.join(IGNORE_FILE), OPEN_FLAGS);
        match opened.and_then(|opened| Self::of_file(root, folder, opened)) {
            Ok(rules) => rules.map(Some),
            Err(error) if is_absent(error) || matches!(error, Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(error) => Err(unreadable(root, folder, error)),
        }
    }

    /// Reads and compiles an open ignore file. The outer error is the system's.
    fn of_file(root: &Folder, folder: &Path, opened: OwnedFd) -> Result<Result<Self, StorageError>, Errno> {
        let stat = fstat(&opened)?;
        if !file_type(&stat).is_file() {
            return Ok(Err(wrong_file(root, folder, "it is not a regular file")));
        }
        let mut bytes = Vec::new();
        if let Err(error) = File::from(opened).take(MOST_BYTES + 1).read_to_end(&mut bytes) {
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        if bytes.len() as u64 > MOST_BYTES {
            return Ok(Err(wrong_file(root, folder, "it has more than 1 MiB")));
        }
        Ok(compile(&bytes).map(|set| Self { folder: folder.to_owned(), set }).map_err(|wrong| match wrong {
            (Some(line), why) => wrong_file(root, folder, &format!("line {line}: {why}")),
            (None, why) => wrong_file(root, folder, &why),
        }))
    }

    /// Returns true if the rules ignore a path, false if they take it back, `None` if they say nothing about it. A path
    /// above which a folder is ignored must not be asked for: it cannot be taken back.
    pub(crate) fn decide(&self, path: &Path, is_dir: bool) -> Option<bool> {
        let below = path.strip_prefix(&self.folder).ok()?;
        let found = self.set.matched(below, is_dir);
        (!found.is_none()).then(|| found.is_ignore())
    }
}

/// Compiles the lines of an ignore file. The error has the number of the line, if a single one is wrong.
pub(crate) fn compile(bytes: &[u8]) -> Result<Gitignore, (Option<usize>, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
        (Some(line), "it is not UTF-8".to_owned())
    })?;
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    // Editors on Windows put a byte order mark in front.
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
    let mut compiled = 0;
    for (number, line) in (1..).zip(lines) {
        let wrong = |why: &dyn std::fmt::Display| (Some(number), format!("{line:?}: {why}"));
        for pattern in pattern::translate(line).map_err(|why| wrong(&why))? {
            compiled += pattern.len();
            if compiled > MOST_COMPILED {
                let why = "the brackets up to here are too many; write fewer, or names without brackets";
                return Err((Some(number), why.to_owned()));
            }
            builder.add_line(None, &pattern).map_err(|error| wrong(&error))?;
        }
    }
    builder.build().map_err(|error| (None, error.to_string()))
}

fn unreadable(root: &Folder, folder: &Path, error: Errno) -> StorageError {
    let why = match error {
        Errno::LOOP => "it is a symbolic link, and none are followed; put a file in its place".to_owned(),
        Errno::XDEV => "it is a symbolic link that leads out of the tree; put a file in its place".to_owned(),
        other => std::io::Error::from(other).to_string(),
    };
    wrong_file(root, folder, &why)
}

fn wrong_file(root: &Folder, folder: &Path, why: &str) -> StorageError {
    let path = root.path().join(folder).join(IGNORE_FILE);
    let what = format!("{}: {why}; nothing is published until it can be used", PrintablePath(&path));
    StorageError::config("ignore_files", what)
}

/// Decides whether a path is ignored, without a walk. Neighbouring paths share what was read for them.
#[derive(Debug)]
pub(crate) struct IgnoredPaths<'a> {
    root: &'a Folder,
    /// The folders from the root to the last path, none of which is ignored, and their rules.
    above: Vec<(PathBuf, Option<IgnoreRules>)>,
}

impl<'a> IgnoredPaths<'a> {
    pub(crate) fn new(root: &'a Folder) -> Self {
        Self { root, above: Vec::new() }
    }

    /// Returns true if the path, or a folder above it, is ignored. Folders that are gone have no rules.
    pub(crate) fn contain(&mut self, path: &Path, is_dir: bool) -> Result<bool, StorageError> {
        while self.above.last().is_some_and(|(folder, _)| folder == path || !path.starts_with(folder)) {
            self.above.pop();
        }
        let mut folders: Vec<_> = path.ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders.into_iter().skip(self.above.len()) {
            if self.decide(folder, true) {
                return Ok(true);
            }
            self.above.push((folder.to_owned(), IgnoreRules::find(self.root, folder)?));
        }
        Ok(self.decide(path, is_dir))
    }

    /// The rules of deeper folders come first.
    fn decide(&self, path: &Path, is_dir: bool) -> bool {
        let mut rules = self.above.iter().rev().filter_map(|(_, rules)| rules.as_ref());
        rules.find_map(|rules| rules.decide(path, is_dir)).unwrap_or(false)
    }
}
