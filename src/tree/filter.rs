//! Patterns of paths, ignore files and sizes: they decide which files of a tree are published. Other patterns say which
//! headers files get.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::StorageError;
use crate::key::is_reserved;
use crate::tree::ignore_file::IGNORE_FILE;

/// The include and exclude patterns, and what else leaves out files. A pattern that matches a folder matches everything
/// below it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
    ignore_files: bool,
    min_size: Option<u64>,
    max_size: Option<u64>,
}

impl Filter {
    /// Compiles the patterns. A pattern with a `/` (also a leading one) is matched against the path from the root, one
    /// without against every name in it.
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self, StorageError> {
        Ok(Self {
            include: compile_patterns("include", include)?,
            exclude: compile_patterns("exclude", exclude)?,
            ..Self::default()
        })
    }

    /// Sets whether ignore files are read. None of them is published then.
    pub(crate) fn with_ignore_files(self, yes: bool) -> Self {
        Self { ignore_files: yes, ..self }
    }

    /// Sets the sizes of the smallest and the largest file that is published.
    pub(crate) fn with_sizes(self, min: Option<u64>, max: Option<u64>) -> Self {
        Self { min_size: min, max_size: max, ..self }
    }

    pub(crate) fn reads_ignore_files(&self) -> bool {
        self.ignore_files
    }

    /// Returns true if a file of this size is published.
    pub(crate) fn admits_size(&self, size: u64) -> bool {
        self.min_size.is_none_or(|min| size >= min) && self.max_size.is_none_or(|max| size <= max)
    }

    /// Returns true if there are no patterns.
    pub(crate) fn is_trivial(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Returns true if a file with this key is published. No pattern admits a reserved name.
    pub(crate) fn admits(&self, key: &str) -> bool {
        !is_reserved(key) && !self.excludes(key) && self.includes(key)
    }

    fn includes(&self, key: &str) -> bool {
        self.include.as_ref().is_none_or(|include| matches_or_contains(include, key))
    }

    /// Returns true if a pattern excludes this path and all below it, or if it is that of an ignore file.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        self.is_ignore_file(Path::new(path))
            || self.exclude.as_ref().is_some_and(|exclude| matches_or_contains(exclude, path))
    }

    /// Returns true if this is the path of an ignore file that is read.
    fn is_ignore_file(&self, path: &Path) -> bool {
        self.ignore_files && path.file_name().is_some_and(|name| name == IGNORE_FILE)
    }
}

impl Filter {
    /// As [`excludes`](Self::excludes), for a path that may not be UTF-8.
    pub(crate) fn excludes_path(&self, path: &Path) -> bool {
        match path.to_str() {
            Some(text) => self.excludes(text),
            None => self.exclude.as_ref().is_some_and(|set| {
                path.ancestors().any(|above| !above.as_os_str().is_empty() && set.is_match(above))
            }),
        }
    }
}

/// Returns true if the set matches a path or a folder above it.
fn matches_or_contains(set: &GlobSet, path: &str) -> bool {
    let above = path.match_indices('/').map(|(at, _)| &path[..at]);
    above.chain(std::iter::once(path)).any(|path| set.is_match(path))
}

/// Returns the patterns of a set that match a path or a folder above it, by their places, in order.
pub(crate) fn matching_patterns(set: &GlobSet, path: &str) -> Vec<usize> {
    let mut found = set.matches(path);
    for (at, _) in path.match_indices('/') {
        found.extend(set.matches(&path[..at]));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Compiles the patterns of one setting; `None` if there are none.
pub(crate) fn compile_patterns(field: &str, patterns: &[String]) -> Result<Option<GlobSet>, StorageError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let wrong = |error: globset::Error| {
            StorageError::config(field, format!("{pattern:?} is not a valid pattern: {}", error.kind()))
        };
        // `*` must not match a slash.
        set.add(
            GlobBuilder::new(&anchor_pattern(field, pattern)?)
                .literal_separator(true)
                .build()
                .map_err(wrong)?,
        );
    }
    let built = set.build();
    built.map(Some).map_err(|error| StorageError::config(field, "too many patterns").with_source(error))
}

/// Turns a pattern into one that is matched against a path from the root.
fn anchor_pattern(field: &str, pattern: &str) -> Result<String, StorageError> {
    let plain = pattern.strip_suffix('/').unwrap_or(pattern);
    let rooted = plain.strip_prefix('/').or_else(|| plain.strip_prefix("./")).unwrap_or(plain);
    // A pattern that can never match is a mistake, and an include would publish nothing.
    if rooted.is_empty() || rooted.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        let why = format!("{pattern:?} matches no path below the root; patterns are relative to it");
        return Err(StorageError::config(field, why));
    }
    // Without a slash it matches at any depth.
    Ok(if plain.contains('/') { rooted.to_owned() } else { format!("**/{rooted}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |patterns: &[&str]| patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(include), &owned(exclude)).unwrap()
    }

    #[test]
    fn f9_patterns_match_names_paths_and_what_lies_below_folders() {
        for (pattern, matches, leaves) in [
            ("*.map", vec!["a.map", "x/y/a.map"], vec!["a.map.gz", "amap"]),
            ("node_modules", vec!["node_modules/a", "x/node_modules/b/c"], vec!["node_modules.txt"]),
            ("node_modules/", vec!["node_modules/a", "x/node_modules/b/c"], vec!["node_modules2/a"]),
            ("/top", vec!["top", "top/a"], vec!["x/top"]),
            ("docs/*.txt", vec!["docs/a.txt"], vec!["docs/x/a.txt", "x/docs/a.txt"]),
            ("docs/**/*.txt", vec!["docs/a.txt", "docs/x/y/a.txt"], vec!["a.txt"]),
            ("{a,b}?", vec!["ax", "b1"], vec!["a", "cx"]),
            ("[0-9]*", vec!["1", "x/2b"], vec!["b2"]),
            (".*", vec![".git/config", "x/.env"], vec!["a.b"]),
        ] {
            let excluding = filter(&[], &[pattern]);
            let including = filter(&[pattern], &[]);
            for key in matches {
                assert!(!excluding.admits(key) && including.admits(key), "{pattern} {key}");
            }
            for key in leaves {
                assert!(excluding.admits(key) && !including.admits(key), "{pattern} {key}");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn k2_names_that_are_no_text_can_be_excluded() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let excluding = filter(&[], &["dir*", "/a/*.bak"]);
        let excludes = |path: &[u8]| excluding.excludes_path(Path::new(OsStr::from_bytes(path)));
        assert!(excludes(b"dir\xfe") && excludes(b"x/dir\xfe/file") && excludes(b"a/\xff.bak"));
        assert!(!excludes(b"other\xfe") && !excludes(b"b/\xff.bak"));
    }

    #[test]
    fn exclude_wins_and_no_pattern_admits_all() {
        let both = filter(&["assets"], &["*.psd"]);
        assert!(both.admits("assets/a.png") && !both.admits("assets/a.psd") && !both.admits("b.png"));
        assert!(!both.excludes("assets") && Filter::default().admits("anything"));
    }

    #[test]
    fn ignore_files_are_excluded_while_they_are_read_and_sizes_are_inclusive() {
        let plain = filter(&[".brigadeignore"], &[]);
        let reading = plain.clone().with_ignore_files(true);
        for key in [".brigadeignore", "a/b/.brigadeignore"] {
            assert!(plain.admits(key) && !reading.admits(key) && reading.excludes_path(Path::new(key)));
        }
        assert!(Filter::default().with_ignore_files(true).admits("a/.brigadeignore2"));
        let sized = Filter::default().with_sizes(Some(2), Some(4));
        assert_eq!([0, 1, 2, 4, 5].map(|size| sized.admits_size(size)), [false, false, true, true, false]);
        assert!(Filter::default().admits_size(0) && Filter::default().admits_size(u64::MAX));
    }

    #[test]
    fn reserved_name_is_admitted_by_no_pattern() {
        let including = filter(&[".brigade", "**/.brigade/*", "*"], &[]);
        for key in [".brigade", ".brigade/head", "a/b/.brigade/x"] {
            assert!(!including.admits(key) && !Filter::default().admits(key), "{key}");
        }
        assert!(including.admits(".brigade-no/x"));
    }

    #[test]
    fn a_pattern_that_cannot_match_is_refused_by_field() {
        for wrong in ["", "/", "a//b", "../a", "a/./b", "./", "[", "{a"] {
            let error = Filter::new(&[], &[wrong.to_owned()]).unwrap_err();
            assert!(error.message().starts_with("exclude: "), "{wrong}: {error}");
        }
    }
}
