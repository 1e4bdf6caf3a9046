//! Warns about files that are about to be published although their names suggest that they are private.

use std::collections::BTreeSet;
use std::path::Path;

use crate::observe::trace::Trace;
use crate::tree::folder::Folder;
use crate::tree::private::private_pattern;

/// Counts private files and gathers the patterns that would exclude them.
#[derive(Default)]
pub(crate) struct PrivateFiles {
    first: Option<String>,
    count: u64,
    patterns: BTreeSet<String>,
}

impl PrivateFiles {
    /// Counts a file if its name, or the name of the file that a link leads to, suggests that it is private.
    pub(crate) fn note_if_private(&mut self, root: &Folder, key: &str) {
        let real = if root.follows_links() { root.resolve_links(Path::new(key)).ok() } else { None };
        let real = real.as_deref().and_then(Path::to_str);
        if let Some(pattern) = private_pattern(key).or(real.and_then(private_pattern)) {
            self.patterns.insert(pattern.to_owned());
            self.count += 1;
            self.first.get_or_insert_with(|| key.to_owned());
        }
    }

    /// Logs one warning for all of them, with the patterns.
    pub(crate) fn warn(&self, trace: &Trace) {
        let Some(first) = &self.first else { return };
        let exclude = self.patterns.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        trace.warn(
            "files that look private are about to be published; exclude them if they are not meant for everybody",
            &[("first", first), ("count", &self.count), ("exclude", &exclude)],
        );
    }
}
