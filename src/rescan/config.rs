//! The settings of a rescan, and their checks.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::backend::StorageBackend;
use crate::error::StorageError;
use crate::rescan::bucket_state::settings::RemoteState;
use crate::tree::filter::Filter;
use crate::tree::folder::FollowSymlinks;

/// The most objects that one run may delete.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum MaxDelete {
    /// This number of objects.
    Count(u64),
    /// This share of the published objects, from 0 to 1; the result is rounded down.
    Share(f64),
}

impl MaxDelete {
    /// Returns the most deletes of one run, given the number of published objects.
    pub(crate) fn limit(self, published: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            // The share of a count of files is far below 2^52 and never negative.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Self::Share(share) => (published as f64 * share) as u64,
        }
    }
}

/// The policy of a first run for objects under the prefix that its cache did not publish. A run is the first one of a
/// cache until one has listed the prefix.
///
/// No policy is about the state of publishers, which lies below folders named `.brigade`. A folder `X/` with an object
/// `X/.brigade/head` belongs to another publisher: none of its objects is taken over, counted or deleted, and a warning
/// in the log names it. Files of the tree below `X/` are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FirstRun {
    /// Takes over objects that hold the content of their files, without sending them again: from then on they count as
    /// published, with the headers that they have. A file's content is proven by an `ETag` that is its MD5, by a multipart
    /// `ETag` under a usual part size, or by a HEAD that shows the proof of origin or a SHA-256 of the store. Every other
    /// file is sent. Objects without a file are counted and never deleted. Costs one listing of the prefix (a second one
    /// above some 80,000 objects), no download, and reads each file whose object has its size. Credentials that may not
    /// list make it [`Overwrite`](Self::Overwrite).
    #[default]
    Adopt,
    /// Sends every file, and overwrites objects that have its key. The others are counted and never deleted.
    Overwrite,
    /// Fails if there are any, and publishes nothing.
    Refuse,
    /// As [`Adopt`](Self::Adopt), and takes all objects under the prefix as published by this cache: those without a
    /// file are deleted, under the same limits as any deletes ([`RescanConfig::max_delete`]).
    Mirror,
}

/// How a run verifies what it published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Verify {
    /// Relies on the store's acknowledgement of each upload. Sends no extra request.
    #[default]
    Ack,
    /// Also lists the prefix and compares sizes and ETags with those that the store acknowledged: one request for
    /// 1,000 objects. The same rescan publishes missing and different objects again, then lists once more.
    List,
    /// Also downloads every published object and compares its SHA-256.
    Content,
}

/// The settings of a [`RescanOrchestrator`](crate::RescanOrchestrator).
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
    pub(crate) ignore_files: bool,
    pub(crate) min_size: Option<u64>,
    pub(crate) max_size: Option<u64>,
    pub(crate) first_run: FirstRun,
    pub(crate) fallback: Option<Arc<dyn StorageBackend>>,
    pub(crate) catalog: bool,
    pub(crate) state: Option<RemoteState>,
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
            ignore_files: true,
            min_size: None,
            max_size: None,
            first_run: FirstRun::Adopt,
            fallback: None,
            catalog: true,
            state: None,
        }
    }
}

impl RescanConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of files in a batch, 1 to 10,000. It is also the number of files in flight. Default: the
    /// engine's number of workers, which is 10 by default.
    pub fn batch_size(mut self, files: usize) -> Self {
        self.batch_size = Some(files);
        self
    }

    /// Sets how many parts of multipart uploads are hashed or sent at a time, of all files together: 1 to the engine's
    /// number of workers, which is the default. While small files wait, parts take half of the workers at
    /// most. Each part in flight needs one connection and one chunk of memory.
    pub fn parts_in_flight(mut self, parts: usize) -> Self {
        self.parts_in_flight = Some(parts);
        self
    }

    /// Also computes the plain SHA-256 of the whole file for multipart uploads, as `sha256sum` prints it, for
    /// [`Resolved::whole_digest`](crate::Resolved::whole_digest). Default false, because it reads the file once more
    /// on a single worker: about 0.7 s of one core per GiB. It applies to files published from now on. A file that is
    /// already published gets it when its content changes.
    pub fn whole_file_digest(mut self, yes: bool) -> Self {
        self.whole_file_digest = yes;
        self
    }

    /// Sets the most deletes of one run. A run with more deletes nothing; its uploads stay. Default: no cap, but a
    /// tree that shrank deletes nothing: one that has less than half as many files as are published, or none of the
    /// published files. Up to ten deletes are always made. A build that renames most of its files passes. The tree is
    /// compared with the last one that was published completely, without what incomplete runs added since.
    pub fn max_delete(mut self, limit: MaxDelete) -> Self {
        self.max_delete = Some(limit);
        self
    }

    /// Deletes the objects of files that are gone. Default true.
    pub fn delete(mut self, yes: bool) -> Self {
        self.delete = yes;
        self
    }

    /// Allows an empty root, deleting everything that is published. Default false: an empty root is an error, because
    /// it is probably a disk that is not mounted.
    pub fn allow_empty(mut self, yes: bool) -> Self {
        self.allow_empty = yes;
        self
    }

    /// Deletes objects that another root published and that this one has no file for. Default false: they are kept
    /// and reported. A root also counts as another one if its path now leads to another folder on another device:
    /// perhaps a file system is not mounted.
    pub fn allow_new_root(mut self, yes: bool) -> Self {
        self.allow_new_root = yes;
        self
    }

    /// Sets which symbolic links are followed. Default: none.
    pub fn follow_symlinks(mut self, which: FollowSymlinks) -> Self {
        self.follow_symlinks = which;
        self
    }

    /// Adds an include pattern: only files that match one of them are published. Without any, all files are. A pattern
    /// without `/` is matched against each name in a path (`*.html`, `assets`), one with `/` against the path from
    /// the root (`/assets`, `docs/**/*.txt`). `*` and `?` match within a name, `**` matches any number of folders,
    /// `[a-z]` one character of the set, `{a,b}` either text. Matching is case-sensitive. A pattern that matches a
    /// folder matches everything below it.
    ///
    /// If a published file is no longer included, or is excluded, its object is kept and reported.
    pub fn include(mut self, pattern: impl Into<String>) -> Self {
        self.include.push(pattern.into());
        self
    }

    /// Adds an exclude pattern: files that match it are not published, even if they are included. Excluded folders are
    /// not read.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    /// Adds the include patterns of a UTF-8 text file, one per line. Empty lines, lines that begin with `#`, and spaces
    /// around a pattern are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with the file's path if it cannot be read or holds no pattern,
    /// and also with the line number if a pattern is not valid.
    pub fn include_from(mut self, path: impl AsRef<Path>) -> Result<Self, StorageError> {
        self.include.extend(read_patterns("include", path.as_ref())?);
        Ok(self)
    }

    /// Adds the exclude patterns of a text file, written as for [`include_from`](Self::include_from).
    ///
    /// # Errors
    /// As [`include_from`](Self::include_from), but the file may hold no pattern.
    pub fn exclude_from(mut self, path: impl AsRef<Path>) -> Result<Self, StorageError> {
        self.exclude.extend(read_patterns("exclude", path.as_ref())?);
        Ok(self)
    }

    /// Reads files named `.brigadeignore` in the root and in any folder below it. Default true. Their lines have the
    /// syntax and the effect of those of git's `.gitignore`:
    ///
    /// - A pattern without `/`, except at its end, is matched against each name below the file's folder, any other
    ///   against the path from there. `*`, `?`, `[a-z]` and `**` are as in git. Braces have no meaning.
    /// - `name/` is a folder only. `!pattern` takes back what an earlier line ignores, the last line that matches counts,
    ///   and files in deeper folders come first. What lies below an ignored folder cannot be taken back.
    /// - Empty lines and lines that begin with `#` are ignored. `\` makes the next character a plain one.
    ///
    /// Ignored files are left out as excluded ones are: if one was published before, its object is kept and reported. So
    /// are the files named `.brigadeignore` themselves. [`include`](Self::include) and [`exclude`](Self::exclude) come
    /// on top: a file is published if they admit it and no line ignores it. Where links are followed, the path by name
    /// and the real one count.
    ///
    /// An ignore file has 1 MiB of UTF-8 at most, and 2 MiB if each `[…]` counts as 3 bytes for each character that it
    /// matches. One that is larger, cannot be read, is no regular file (or is a symbolic link, where none are
    /// followed), or has a line that is no pattern ends the rescan with
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), file and line, before anything is sent. Lines that git would
    /// silently let match nothing, such as `[a` or `a\`, count as wrong; so do characters between brackets that are not
    /// ASCII.
    pub fn ignore_files(mut self, yes: bool) -> Self {
        self.ignore_files = yes;
        self
    }

    /// Sets the size in bytes of the largest file that is published. Default: none. Larger files are left out and
    /// counted ([`RescanReport::outside_sizes`](crate::RescanReport::outside_sizes)). If one was published before, its
    /// object stays as it is, and is reported as [`KeptReason::OutsideSizes`](crate::KeptReason::OutsideSizes).
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// Sets the size in bytes of the smallest file that is published, at most [`max_size`](Self::max_size). Default: 0.
    /// Smaller files are left out as larger ones are.
    pub fn min_size(mut self, bytes: u64) -> Self {
        self.min_size = Some(bytes);
        self
    }

    /// Sets the policy of the first run for objects that exist already. Default: [`FirstRun::Adopt`].
    pub fn first_run(mut self, policy: FirstRun) -> Self {
        self.first_run = policy;
        self
    }

    /// Sets the backend whose URLs [`CacheManager::resolve`](crate::CacheManager::resolve) returns for files that are
    /// not published yet, usually a [`LocalBackend`](crate::LocalBackend). Default: none.
    pub fn fallback(mut self, backend: Arc<dyn StorageBackend>) -> Self {
        self.fallback = Some(backend);
        self
    }

    /// Writes the [`Catalog`](crate::Catalog) beside the cache after each rescan that changed something, for other
    /// processes to read. Default true. The whole file is written each time: 1.2 s of CPU for a million keys. It takes
    /// 56 bytes per key, plus the part of its name that differs from its neighbour's. A catalog that cannot be written
    /// is a failure in the report, and the next rescan tries again.
    pub fn catalog(mut self, yes: bool) -> Self {
        self.catalog = yes;
        self
    }

    /// Keeps the record of what is published in the bucket, so that many machines can publish one tree, one at a time.
    /// The cache is a copy of it. [`allow_new_root`](Self::allow_new_root) is implied. Default: the cache is the only
    /// record, and a destination whose state lies in the bucket is refused.
    pub fn state(mut self, state: RemoteState) -> Self {
        self.state = Some(state);
        self.allow_new_root = true;
        self
    }

    /// Compiles what decides which files are published.
    pub(crate) fn filter(&self) -> Result<Filter, StorageError> {
        let patterns = Filter::new(&self.include, &self.exclude)?;
        Ok(patterns.with_ignore_files(self.ignore_files).with_sizes(self.min_size, self.max_size))
    }

    pub(crate) fn check(&self, workers: usize) -> Result<(), StorageError> {
        if let Some(parts) = self.parts_in_flight.filter(|parts| !(1..=workers).contains(parts)) {
            let why = format!("{parts} is not from 1 to the engine's {workers} workers");
            return Err(StorageError::config("parts_in_flight", why));
        }
        if let Some(size) = self.batch_size.filter(|size| !(1..=10_000).contains(size)) {
            return Err(StorageError::config("batch_size", format!("{size} is not from 1 to 10,000")));
        }
        if let (Some(min), Some(max)) = (self.min_size, self.max_size)
            && min > max
        {
            let why = format!("{max} is less than min_size, {min}: no file has such a size");
            return Err(StorageError::config("max_size", why));
        }
        self.state.as_ref().map_or(Ok(()), RemoteState::check)?;
        // Not a number is in no range, so it is refused too.
        if let Some(MaxDelete::Share(share)) = self.max_delete
            && !(0.0..=1.0).contains(&share)
        {
            return Err(StorageError::config("max_delete", format!("the share {share} is not from 0 to 1")));
        }
        Ok(())
    }
}

/// Reads and checks the patterns in a file.
pub(crate) fn read_patterns(field: &str, path: &Path) -> Result<Vec<String>, StorageError> {
    let text = fs::read_to_string(path).map_err(|error| {
        StorageError::config(field, format!("{}: {error}", path.display())).with_source(error)
    })?;
    // Editors on Windows put a byte order mark in front.
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().map(str::trim).enumerate();
    let patterns = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let checked = patterns.map(|(number, line)| {
        let wrong = |why: &str| {
            StorageError::config(field, format!("{}, line {}: {why}", path.display(), number + 1))
        };
        // The syntax of .gitignore and rsync that has another meaning here must not be taken for a name.
        if line.starts_with('!') {
            let why =
                format!("{line:?}: patterns cannot be negated; write \\! for a name that begins with !");
            return Err(wrong(&why));
        }
        if line.starts_with("- ") || line.starts_with("+ ") {
            return Err(wrong(&format!("{line:?}: write the pattern alone, without {:?}", &line[..2])));
        }
        // Each pattern is compiled alone first, so that the error has its line.
        let checked = Filter::new(&[], &[line.to_owned()]);
        checked.map_err(|error| wrong(error.message().trim_start_matches("exclude: ")))?;
        Ok(line.to_owned())
    });
    let patterns = checked.collect::<Result<Vec<_>, _>>()?;
    if patterns.is_empty() && field == "include" {
        // An empty list of includes would publish everything.
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
            ("\n\n[", 3, "is not a valid pattern"),
            ("!a", 1, "cannot be negated"),
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
        let error = RescanConfig::new().min_size(10).max_size(9).check(10).unwrap_err();
        assert_eq!(error.message(), "max_size: 9 is less than min_size, 10: no file has such a size");
        assert!(RescanConfig::new().min_size(9).max_size(9).check(10).is_ok());
        let error = RescanConfig::new().parts_in_flight(11).check(10).unwrap_err();
        assert_eq!(error.message(), "parts_in_flight: 11 is not from 1 to the engine's 10 workers");
    }
}
