use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::backend::StorageBackend;
use crate::error::StorageError;
use crate::tree::filter::Filter;
use crate::tree::folder::FollowSymlinks;

/// The most objects that one run may delete.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum MaxDelete {
    /// This many.
    Count(u64),
    /// This share of what is published, from 0 to 1, rounded down.
    Share(f64),
}

impl MaxDelete {
    /// The most deletes of one run, for so many published files.
    pub(crate) fn limit(self, published: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            // The share of a count of files is far below 2^52 and never negative.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Self::Share(share) => (published as f64 * share) as u64,
        }
    }
}

/// What a first run does about objects under the prefix that its cache did not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FirstRun {
    /// Publishes; a file of the same key overwrites. They are counted and never deleted.
    #[default]
    Overwrite,
    /// Publishes nothing and fails.
    Refuse,
}

/// How a run makes sure of what it published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Verify {
    /// Every planned upload has the store's acknowledgement. No request of its own.
    #[default]
    Ack,
    /// Also lists the prefix and compares sizes and ETags with what was acknowledged: one request
    /// for 1,000 objects. What is missing or different is published again by the same rescan, which
    /// then lists once more.
    List,
    /// Also downloads every published object and compares its SHA-256.
    Content,
}

/// How a [`RescanOrchestrator`](crate::RescanOrchestrator) works.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct RescanConfig {
    pub(crate) batch_size: Option<usize>,
    pub(crate) parts_in_flight: Option<usize>,
    pub(crate) whole_file_digest: bool,
    pub(crate) max_delete: Option<MaxDelete>,
    pub(crate) delete: bool,
    pub(crate) allow_empty: bool,
    pub(crate) allow_new_root: bool,
    pub(crate) follow_symlinks: FollowSymlinks,
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) first_run: FirstRun,
    pub(crate) fallback: Option<Arc<dyn StorageBackend>>,
    pub(crate) catalog: bool,
}

impl Default for RescanConfig {
    fn default() -> Self {
        Self {
            batch_size: None,
            parts_in_flight: None,
            whole_file_digest: false,
            max_delete: None,
            delete: true,
            allow_empty: false,
            allow_new_root: false,
            follow_symlinks: FollowSymlinks::No,
            include: Vec::new(),
            exclude: Vec::new(),
            first_run: FirstRun::Overwrite,
            fallback: None,
            catalog: true,
        }
    }
}

impl RescanConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Files of a batch, which is also how many are in flight (1 to 10,000). Default: the engine's
    /// number of workers, ten.
    pub fn batch_size(mut self, files: usize) -> Self {
        self.batch_size = Some(files);
        self
    }

    /// Parts of large files that are hashed or sent at a time, of all files together: 1 to the engine's
    /// number of workers, which is the default. While small files wait, parts take half of the workers at
    /// most. Each part in flight is one connection and one chunk of memory.
    pub fn parts_in_flight(mut self, parts: usize) -> Self {
        self.parts_in_flight = Some(parts);
        self
    }

    /// Whether files that go up in parts get a plain SHA-256 of the whole too, as `sha256sum` prints it, in
    /// [`Resolved::whole_digest`](crate::Resolved::whole_digest). Default false: it is one more reading of the
    /// file that cannot be divided among workers, about 0.7 s of one core a GiB. It is for files published
    /// from now on; what is published already gets it when its content changes.
    pub fn whole_file_digest(mut self, yes: bool) -> Self {
        self.whole_file_digest = yes;
        self
    }

    /// The most deletes of one run: a hard cap, beyond which none is made, and uploads stand. Default: no cap,
    /// but a tree that shrank is refused: it deletes nothing if it has less than half as many files as are published,
    /// or not one of those that are. Up to ten deletes pass that. A build that gives most of its files new names is
    /// neither. The measure is the last tree that was published whole, not what incomplete runs added since.
    pub fn max_delete(mut self, limit: MaxDelete) -> Self {
        self.max_delete = Some(limit);
        self
    }

    /// Whether files that are gone are deleted from the store at all. Default true.
    pub fn delete(mut self, yes: bool) -> Self {
        self.delete = yes;
        self
    }

    /// Whether an empty root means that everything was removed, and is to be deleted. Default false: it is taken
    /// for a disk that is not mounted, and refused.
    pub fn allow_empty(mut self, yes: bool) -> Self {
        self.allow_empty = yes;
        self
    }

    /// Whether files that another root published, and this one does not have, are deleted. Default
    /// false: they are kept and reported. A root counts as another one too when its folder is not the
    /// one it was and on another device: perhaps its mount is missing.
    pub fn allow_new_root(mut self, yes: bool) -> Self {
        self.allow_new_root = yes;
        self
    }

    /// Which symbolic links are followed. Default: none.
    pub fn follow_symlinks(mut self, which: FollowSymlinks) -> Self {
        self.follow_symlinks = which;
        self
    }

    /// Publishes only files that this pattern, or another one given so, matches; without any, all. A pattern
    /// without `/` is matched with each name in a path (`*.html`, `assets`), one with `/` with the path from
    /// the root (`/assets`, `docs/**/*.txt`). `*` and `?` match within a name, `**` any folders, `[a-z]` and
    /// `{a,b}` what they say; letters match in their own case. A pattern that matches a folder means all
    /// that lies below it.
    ///
    /// A published file that is not included, or is excluded, from now on is kept and reported.
    pub fn include(mut self, pattern: impl Into<String>) -> Self {
        self.include.push(pattern.into());
        self
    }

    /// Does not publish files that this pattern matches, whatever is included. Nothing below an excluded folder
    /// is looked at.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    /// The same for every pattern in a file: one a line, UTF-8. Empty lines, and those that begin with `#`, are none;
    /// spaces around a pattern are not part of it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with the file, if it cannot be read or holds no pattern, and
    /// with its line, if that is no pattern.
    pub fn include_from(mut self, path: impl AsRef<Path>) -> Result<Self, StorageError> {
        self.include.extend(patterns_of("include", path.as_ref())?);
        Ok(self)
    }

    /// Excludes what a pattern in a file matches, written as for [`include_from`](Self::include_from).
    ///
    /// # Errors
    /// As [`include_from`](Self::include_from).
    pub fn exclude_from(mut self, path: impl AsRef<Path>) -> Result<Self, StorageError> {
        self.exclude.extend(patterns_of("exclude", path.as_ref())?);
        Ok(self)
    }

    /// What the first run does about objects that are there already.
    pub fn first_run(mut self, policy: FirstRun) -> Self {
        self.first_run = policy;
        self
    }

    /// Where files are found while they are not published, usually a
    /// [`LocalBackend`](crate::LocalBackend): [`CacheManager::resolve`](crate::CacheManager::resolve)
    /// gives its URLs meanwhile.
    pub fn fallback(mut self, backend: Arc<dyn StorageBackend>) -> Self {
        self.fallback = Some(backend);
        self
    }

    /// Whether a rescan that changed something writes the [`Catalog`](crate::Catalog) beside the cache, for other
    /// processes to read. Default true. It is written whole: 1.2 s of CPU for a million keys, and
    /// 56 bytes each besides what their names do not have in common. One that cannot
    /// be written is a failure in the report, and the next rescan tries again.
    pub fn catalog(mut self, yes: bool) -> Self {
        self.catalog = yes;
        self
    }

    pub(crate) fn check(&self, workers: usize) -> Result<(), StorageError> {
        if self.parts_in_flight.is_some_and(|parts| !(1..=workers).contains(&parts)) {
            let why = format!("it is not from 1 to the engine's {workers} workers");
            return Err(StorageError::config("parts_in_flight", why));
        }
        if self.batch_size.is_some_and(|size| !(1..=10_000).contains(&size)) {
            return Err(StorageError::config("batch_size", "it is not from 1 to 10,000"));
        }
        if let Some(MaxDelete::Share(share)) = self.max_delete
            && !(0.0..=1.0).contains(&share)
        {
            return Err(StorageError::config("max_delete", format!("a share of {share} is not from 0 to 1")));
        }
        Ok(())
    }
}

fn patterns_of(field: &str, path: &Path) -> Result<Vec<String>, StorageError> {
    let text = fs::read_to_string(path).map_err(|error| {
        StorageError::config(field, format!("{}: {error}", path.display())).with_source(error)
    })?;
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().map(str::trim).enumerate();
    let patterns = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let checked = patterns.map(|(number, line)| {
        let wrong = |why: &str| {
            StorageError::config(field, format!("{}, line {}: {why}", path.display(), number + 1))
        };
        if line.starts_with('!') {
            let why = format!(
                "{line:?}: a pattern cannot take another one back; write \\! for a name that begins so"
            );
            return Err(wrong(&why));
        }
        if line.starts_with("- ") || line.starts_with("+ ") {
            return Err(wrong(&format!("{line:?}: write the pattern alone, without {:?}", &line[..2])));
        }
        let checked = Filter::new(&[], &[line.to_owned()]);
        checked.map_err(|error| wrong(error.message().trim_start_matches("exclude: ")))?;
        Ok(line.to_owned())
    });
    let patterns = checked.collect::<Result<Vec<_>, _>>()?;
    if patterns.is_empty() && field == "include" {
        // A list that was not written would publish everything.
        return Err(StorageError::config(field, format!("{} holds no pattern", path.display())));
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_from_a_file_and_a_wrong_one_is_named_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("patterns");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            RescanConfig::new().exclude("first").exclude_from(&path)
        };
        let config = read("\u{feff}# of ours\r\n*.map\r\n\n/drafts/  \n\\#odd\n").unwrap();
        assert_eq!(config.exclude, ["first", "*.map", "/drafts/", "\\#odd"]);
        let filter = Filter::new(&[], &config.exclude).unwrap();
        assert!(!filter.admits("a/b.map") && !filter.admits("#odd") && filter.admits("# of ours"));
        for (text, line, why) in [
            ("a\n../b", 2, "matches no path below"),
            ("\n\n[", 3, "is no pattern"),
            ("!a", 1, "take another"),
        ] {
            let error = read(text).map(|_| ()).unwrap_err();
            let message = error.message();
            assert!(
                message.starts_with("exclude: ") && message.contains(&format!("patterns, line {line}: ")),
                "{message}"
            );
            assert!(message.contains(why) && !message.contains("exclude: \""), "{message}");
        }
        fs::write(&path, "# nothing\n").unwrap();
        assert!(RescanConfig::new().exclude_from(&path).is_ok());
        let error = RescanConfig::new().include_from(&path).map(|_| ()).unwrap_err();
        assert!(error.message().ends_with("patterns holds no pattern"), "{error}");
        let error = RescanConfig::new().include_from(folder.path().join("none")).map(|_| ()).unwrap_err();
        assert!(error.message().starts_with("include: ") && error.message().contains("/none: "), "{error}");
    }

    #[test]
    fn a_share_rounds_down_and_ten_always_pass() {
        assert_eq!(MaxDelete::Share(0.5).limit(101), 50);
        assert_eq!(MaxDelete::Share(0.5).limit(4), 2);
        assert_eq!(MaxDelete::Share(0.0).limit(1_000_000), 0);
        assert_eq!(MaxDelete::Count(0).limit(1_000_000), 0);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let error = RescanConfig::new().batch_size(0).check(10).unwrap_err();
        assert!(error.message().starts_with("batch_size: "));
        let error = RescanConfig::new().max_delete(MaxDelete::Share(f64::NAN)).check(10).unwrap_err();
        assert!(error.message().starts_with("max_delete: "));
        let error = RescanConfig::new().parts_in_flight(11).check(10).unwrap_err();
        assert_eq!(error.message(), "parts_in_flight: it is not from 1 to the engine's 10 workers");
    }
}
