//! Files that are about to be published and look as if they were not meant to be.

use std::collections::BTreeSet;
use std::path::Path;

use crate::observe::trace::Trace;
use crate::tree::folder::Folder;
use crate::tree::private::pattern_of;

/// Counts private files, and gathers the patterns that exclude them.
#[derive(Default)]
pub(crate) struct PrivateFiles {
    first: Option<String>,
    count: u64,
    patterns: BTreeSet<String>,
}

impl PrivateFiles {
    /// Notes a file if its name, or that of the file which a link leads to, says that it is private.
    pub(crate) fn look_at(&mut self, root: &Folder, key: &str) {
        let real = if root.follows_links() { root.led_to(Path::new(key)).ok() } else { None };
        let real = real.as_deref().and_then(Path::to_str);
        if let Some(pattern) = pattern_of(key).or(real.and_then(pattern_of)) {
            self.patterns.insert(pattern.to_owned());
            self.count += 1;
            self.first.get_or_insert_with(|| key.to_owned());
        }
    }

    /// Warns once, with the patterns.
    pub(crate) fn warn(&self, trace: &Trace) {
        let Some(first) = &self.first else { return };
        let exclude = self.patterns.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        trace.warn(
            "files that look private are about to be published; exclude them if they are not meant for everybody",
            &[("first", first), ("count", &self.count), ("exclude", &exclude)],
        );
    }
}
