//! The folders under the prefix that belong to other publishers.

use std::collections::BTreeSet;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::Trace;

/// The most other publishers under one prefix. Their names, of 1 KiB at most each, are kept in memory.
const MOST: usize = 10_000;
/// The number of names in a log record.
const NAMED: usize = 5;

/// The folders of other publishers, each with its final `/`.
#[derive(Debug, Default)]
pub(crate) struct Others(BTreeSet<String>);

impl Others {
    /// Adds folders. Too many are an error: an object of a folder that was left out could be taken for ours.
    pub(crate) fn add(&mut self, folders: Vec<String>) -> Result<(), StorageError> {
        self.0.extend(folders);
        if self.0.len() <= MOST {
            return Ok(());
        }
        let what = "more than 10,000 folders under the prefix have a .brigade/head; use a prefix of your own";
        Err(StorageError::new(ErrorKind::Protocol, Operation::List, what).retryable(false))
    }

    /// Returns true if the object of this key belongs to another publisher.
    pub(crate) fn have(&self, key: &str) -> bool {
        !self.0.is_empty() && key.match_indices('/').any(|(at, _)| self.0.contains(&key[..=at]))
    }

    /// Logs which folders belong to other publishers, if there are any.
    pub(crate) fn warn(&self, trace: &Trace) {
        if self.0.is_empty() {
            return;
        }
        let mut names: Vec<_> = self.0.iter().take(NAMED).map(String::as_str).collect();
        if self.0.len() > NAMED {
            names.push("…");
        }
        trace.warn(
            "folders under the prefix belong to other publishers; their objects are left alone, but files with the \
             same key overwrite them",
            &[("count", &self.0.len()), ("folders", &names.join(" "))],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_below_a_folder_of_another_publisher_are_theirs() {
        let mut others = Others::default();
        assert!(!others.have("a/x"));
        others.add(vec!["a/".to_owned(), "b/c/".to_owned()]).unwrap();
        for (key, theirs) in
            [("a/x", true), ("a/b/c", true), ("a", false), ("ab/x", false), ("b/x", false), ("b/c/x", true)]
        {
            assert_eq!(others.have(key), theirs, "{key}");
        }
        let many = |from: usize| (from..from + 6000).map(|n| format!("{n}/")).collect();
        others.add(many(0)).unwrap();
        assert_eq!(others.add(many(6000)).unwrap_err().kind(), ErrorKind::Protocol);
    }
}
