//! Walks a tree: returns every file below a root in key order, and follows only the symbolic links that the root
//! allows.

mod skip;

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use rustix::io::Errno;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::{MAX_KEY_BYTES, RemoteKey, is_reserved};
use crate::tree::filter::Filter;
use crate::tree::folder::{Folder, file_type};
use crate::tree::ignore_file::{IGNORE_FILE, IgnoreRules, IgnoredPaths};
use crate::tree::version::{FileEntry, FileStat, Version};
pub use crate::tree::walk::skip::{Skip, SkipReason};

/// One item of the walk.
#[derive(Debug)]
pub(crate) enum Found {
    File(FileEntry),
    /// An entry that is not published. An object that was published from its path is kept.
    Skipped(Skip),
    /// A file or folder whose path cannot be a key, so it cannot have been published either.
    Unnamable(StorageError),
    /// An entry that could not be read. Files may be missing from the walk, so this run deletes nothing.
    Failed(StorageError),
    /// The folder that comes next has an ignore file.
    IgnoreFile,
    /// An ignore file that cannot be used: nobody knows what must not be published.
    BadIgnoreFile(StorageError),
}

/// Walks the folder in key order: directories sort as `name/`. Errors are items, so a directory that cannot be read
/// does not end the walk. Keys may have up to `longest` bytes. Paths that `filter` or an ignore file excludes or that have
/// a reserved name are not read, and files that `filter` does not include are left out. Sizes are left to the caller.
pub(crate) fn walk<'a>(root: &'a Folder, longest: usize, filter: &'a Filter) -> Walk<'a> {
    let root_itself = Entry { name: OsString::new(), found: InFolder::Folder };
    let first = Listing { level: Level::default(), entries: vec![root_itself].into_iter() };
    Walk { root, longest, filter, begun: vec![first], ignored: IgnoredPaths::new(root) }
}

/// An iterator over a tree. One folder is open at a time, and only while it is listed.
pub(crate) struct Walk<'a> {
    root: &'a Folder,
    longest: usize,
    filter: &'a Filter,
    /// The folders from the root to the current one, with the entries of each that are still to come.
    begun: Vec<Listing>,
    /// For the real paths of what was reached through links.
    ignored: IgnoredPaths<'a>,
}

/// The entries of a folder.
struct Listing {
    level: Level,
    entries: std::vec::IntoIter<Entry>,
}

/// A folder that is listed.
#[derive(Default)]
struct Level {
    /// Its path below the root.
    path: PathBuf,
    /// Its place, if symbolic links are followed.
    place: Option<Place>,
    /// What its ignore file says, if it has one.
    rules: Option<IgnoreRules>,
}

/// The real place of a folder that was possibly reached through symbolic links.
struct Place {
    /// Its device and inode: a link below it that leads here is a loop.
    identity: (u64, u64),
    /// Its path below the root without symbolic links, if that is another one.
    real: Option<PathBuf>,
}

struct Entry {
    name: OsString,
    found: InFolder,
}

/// The kind of a directory entry.
enum InFolder {
    /// Its name leaves it in, and nothing else has been asked yet.
    Listed(FileType),
    Folder,
    File(FileStat),
    Unnamable,
    Skipped(SkipReason),
    Failed(Errno),
    /// The filter or an ignore file leaves it out, and the walk does not mention it.
    Excluded,
    IgnoreFile,
    BadIgnoreFile(StorageError),
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let listing = self.begun.last_mut()?;
            let Some(Entry { name, found }) = listing.entries.next() else {
                self.begun.pop();
                continue;
            };
            let path = listing.level.path.join(name);
            match found {
                InFolder::Folder => match self.list(path.clone()) {
                    Ok(listing) => self.begun.push(listing),
                    // It was a folder when its parent was listed, and has been replaced by a link.
                    Err(Errno::LOOP) => return Some(skipped(path, SkipReason::Symlink)),
                    Err(Errno::XDEV) => return Some(skipped(path, SkipReason::Outside)),
                    Err(error) => return Some(Found::Failed(self.read_error(&path, error))),
                },
                InFolder::File(stat) => {
                    return Some(match RemoteKey::from_relative(&path) {
                        Some(Ok(key)) => Found::File(FileEntry { key, stat, digest: None }),
                        _ => self.unnamable(&path),
                    });
                }
                InFolder::Unnamable => return Some(self.unnamable(&path)),
                InFolder::Skipped(reason) => return Some(skipped(path, reason)),
                InFolder::Failed(error) => return Some(Found::Failed(self.read_error(&path, error))),
                InFolder::IgnoreFile => return Some(Found::IgnoreFile),
                InFolder::BadIgnoreFile(error) => return Some(Found::BadIgnoreFile(error)),
                InFolder::Excluded | InFolder::Listed(_) => {}
            }
        }
    }
}

impl Walk<'_> {
    /// Lists a folder, its entries in key order.
    fn list(&mut self, path: PathBuf) -> rustix::io::Result<Listing> {
        let mut listed = self.root.list(&path)?;
        let place = if self.root.follows_links() {
            let real = self.root.resolve_links(&path).ok().filter(|real| *real != path);
            Some(Place { identity: identity(&listed.stat()?), real })
        } else {
            None
        };
        let mut level = Level { path, place, rules: None };
        let (mut entries, has_rules) = self.read_names(&mut listed, &level)?;
        let folder = listed.fd()?;
        if has_rules {
            match IgnoreRules::read(self.root, &level.path, folder) {
                Ok(rules) => level.rules = Some(rules),
                Err(error) => {
                    let bad = Entry { name: OsString::new(), found: InFolder::BadIgnoreFile(error) };
                    return Ok(Listing { level, entries: vec![bad].into_iter() });
                }
            }
        }
        entries.retain_mut(|entry| {
            if let InFolder::Listed(kind) = entry.found {
                entry.found = self.classify_entry(folder, &level, &level.path.join(&entry.name), kind);
            }
            !matches!(entry.found, InFolder::Excluded)
        });
        entries.sort_unstable_by(|a, b| {
            let is_folder = |entry: &Entry| matches!(entry.found, InFolder::Folder);
            name_order((a.name.as_bytes(), is_folder(a)), (b.name.as_bytes(), is_folder(b)))
        });
        if has_rules {
            entries.insert(0, Entry { name: OsString::new(), found: InFolder::IgnoreFile });
        }
        Ok(Listing { level, entries: entries.into_iter() })
    }

    /// Reads the names in a folder, without those that the filter excludes. All of them are known before any is
    /// classified, because one may be that of an ignore file. Returns true as well if there is one.
    fn read_names(&self, listed: &mut Dir, level: &Level) -> rustix::io::Result<(Vec<Entry>, bool)> {
        let (mut entries, mut has_rules) = (Vec::new(), false);
        while let Some(entry) = listed.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            has_rules |= self.filter.reads_ignore_files() && name == IGNORE_FILE.as_bytes();
            let name = OsStr::from_bytes(name).to_owned();
            // Both paths count, so a link is no way around a pattern.
            let by_name = self.decide_by_name(&level.path.join(&name));
            let decided =
                by_name.or_else(|| level.real_path(&name).and_then(|real| self.decide_by_name(&real)));
            let found = decided.unwrap_or(InFolder::Listed(entry.file_type()));
            if !matches!(found, InFolder::Excluded) {
                entries.push(Entry { name, found });
            }
        }
        Ok((entries, has_rules))
    }

    /// Returns the kind of an entry of an open folder.
    fn classify_entry(
        &mut self,
        folder: BorrowedFd<'_>,
        level: &Level,
        path: &Path,
        listed: FileType,
    ) -> InFolder {
        let name = path.file_name().unwrap_or_default();
        let stat = || statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let kind = match listed {
            // Not every file system returns the type with the name.
            FileType::Unknown => match stat() {
                Ok(stat) => file_type(&stat),
                Err(error) => return InFolder::Failed(error),
            },
            known => known,
        };
        if kind.is_symlink() && self.root.follows_links() {
            return self.classify_link(level, path);
        }
        let ignored = self.decide_by_rules(level, path, None, kind.is_dir());
        ignored.unwrap_or_else(|| self.classify_kind(path, kind, stat))
    }

    /// Returns the kind of what a link leads to.
    fn classify_link(&mut self, level: &Level, path: &Path) -> InFolder {
        let real = self.root.resolve_links(path).ok();
        if let Some(decided) = real.as_ref().and_then(|real| self.decide_by_name(real)) {
            return decided;
        }
        let target = self.stat_target(path, level.place.as_ref());
        let is_dir = target.as_ref().is_ok_and(|stat| file_type(stat).is_dir());
        if let Some(decided) = self.decide_by_rules(level, path, real.as_deref(), is_dir) {
            return decided;
        }
        match target {
            Ok(stat) => self.classify_kind(path, file_type(&stat), || Ok(stat)),
            Err(other) => other,
        }
    }

    /// Returns what an entry is if an ignore file says that it is not published, or cannot be used. Of what was reached
    /// through a link, the path by name, the place of the link and the place of its `target` count.
    fn decide_by_rules(
        &mut self,
        level: &Level,
        path: &Path,
        target: Option<&Path>,
        is_dir: bool,
    ) -> Option<InFolder> {
        if !self.filter.reads_ignore_files() {
            return None;
        }
        // No folder above is ignored, or the walk would not be here. The rules of deeper ones come first.
        let levels = std::iter::once(level).chain(self.begun.iter().rev().map(|listing| &listing.level));
        let decided =
            levels.filter_map(|level| level.rules.as_ref()).find_map(|rules| rules.decide(path, is_dir));
        if decided == Some(true) {
            return Some(InFolder::Excluded);
        }
        let place = path.file_name().and_then(|name| level.real_path(name));
        for real in place.as_deref().into_iter().chain(target) {
            match self.ignored.contain(real, is_dir) {
                Ok(true) => return Some(InFolder::Excluded),
                Ok(false) => {}
                Err(error) => return Some(InFolder::BadIgnoreFile(error)),
            }
        }
        None
    }

    /// Returns what an entry is if one of the names in its path says that it is not published.
    fn decide_by_name(&self, path: &Path) -> Option<InFolder> {
        if self.filter.excludes_path(path) {
            return Some(InFolder::Excluded);
        }
        is_reserved(path).then_some(InFolder::Skipped(SkipReason::Reserved))
    }

    /// Returns the stat of a link's target, or what the entry is if the link is not followed.
    fn stat_target(&self, path: &Path, folder: Option<&Place>) -> Result<Stat, InFolder> {
        let stat = self.root.stat_followed(path).map_err(|error| match error {
            // The folder's own answers for links that may not be followed.
            Errno::XDEV => InFolder::Skipped(SkipReason::Outside),
            Errno::LOOP => InFolder::Skipped(SkipReason::Loop),
            Errno::NOENT | Errno::NOTDIR => InFolder::Skipped(SkipReason::Dangling),
            other => InFolder::Failed(other),
        })?;
        let above = self.begun.iter().filter_map(|listing| listing.level.place.as_ref()).chain(folder);
        // Entering a folder again that the walk is inside of would never end.
        let is_above = file_type(&stat).is_dir()
            && above.map(|place| place.identity).any(|identity_above| identity_above == identity(&stat));
        if is_above { Err(InFolder::Skipped(SkipReason::Loop)) } else { Ok(stat) }
    }

    /// Decides what the walk does with an entry of this type.
    fn classify_kind(
        &self,
        path: &Path,
        kind: FileType,
        stat: impl FnOnce() -> rustix::io::Result<Stat>,
    ) -> InFolder {
        let text = path.to_str();
        let length = path.as_os_str().len();
        match kind {
            // No key below it could be short enough, and the system may refuse so long a path.
            FileType::Directory if length + 2 > self.longest => InFolder::Unnamable,
            FileType::Directory => InFolder::Folder,
            FileType::Symlink => InFolder::Skipped(SkipReason::Symlink),
            FileType::RegularFile if text.is_some_and(|path| !self.filter.admits(path)) => InFolder::Excluded,
            FileType::RegularFile if text.is_none() || length > self.longest => InFolder::Unnamable,
            // It may have been replaced since the folder was listed, so the stat decides.
            FileType::RegularFile => match stat() {
                Ok(stat) if file_type(&stat).is_file() => InFolder::File(FileStat::of(&stat)),
                Ok(stat) if file_type(&stat).is_symlink() => InFolder::Skipped(SkipReason::Symlink),
                Ok(_) => InFolder::Skipped(SkipReason::Special),
                Err(error) => InFolder::Failed(error),
            },
            _ => InFolder::Skipped(SkipReason::Special),
        }
    }

    /// The error for a path that cannot be a key.
    fn unnamable(&self, path: &Path) -> Found {
        let why = if path.to_str().is_none() {
            "not published: its name is not UTF-8, as a key must be; rename it".to_owned()
        } else {
            format!("not published: its path is longer than the {} bytes of a key", self.longest)
        };
        let error = StorageError::new(ErrorKind::InvalidKey, Operation::Walk, why);
        Found::Unnamable(error.with_path(self.root.path().join(path)))
    }

    /// The error for an entry that could not be read.
    fn read_error(&self, path: &Path, error: Errno) -> StorageError {
        let kind =
            if error == Errno::NOENT { ErrorKind::SourceVanished } else { ErrorKind::SourceUnreadable };
        StorageError::io(kind, Operation::Walk, &self.root.path().join(path), error.into())
    }
}

impl Level {
    /// Returns the real path of an entry, if links lead to its folder.
    fn real_path(&self, name: &OsStr) -> Option<PathBuf> {
        Some(self.place.as_ref()?.real.as_ref()?.join(name))
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    let found = FileStat::of(stat);
    (found.device, found.inode)
}

fn skipped(path: PathBuf, reason: SkipReason) -> Found {
    Found::Skipped(Skip { path, reason })
}

impl Version {
    /// Reads the regular files of a directory tree, without digests, and leaves out what has the reserved name
    /// `.brigade`. No file's content is read: files named `.brigadeignore` are entries like all others, and leave out
    /// nothing.
    ///
    /// # Errors
    /// The first directory or file that cannot be read, with its path. A version with gaps would look like one with
    /// removed files.
    pub fn scan(root: impl AsRef<Path>) -> Result<Self, StorageError> {
        let (root, seen) = (root.as_ref(), SystemTime::now());
        let unreadable =
            |error: Errno| StorageError::io(ErrorKind::SourceUnreadable, Operation::Walk, root, error.into());
        let (folder, filter) = (Folder::open(root).map_err(unreadable)?, Filter::default());
        let mut entries = Vec::new();
        for found in walk(&folder, MAX_KEY_BYTES, &filter) {
            match found {
                Found::File(entry) => entries.push(entry),
                Found::Skipped(_) | Found::Unnamable(_) | Found::IgnoreFile => {}
                Found::Failed(error) | Found::BadIgnoreFile(error) => return Err(error),
            }
        }
        Ok(Self::new(entries).seen_at(seen))
    }
}

/// Compares siblings in the order of the keys below them: by bytes, a directory as if its name ended in `/`.
fn name_order(a: (&[u8], bool), b: (&[u8], bool)) -> Ordering {
    fn bytes((name, is_dir): (&[u8], bool)) -> impl Iterator<Item = u8> + '_ {
        name.iter().copied().chain(is_dir.then_some(b'/'))
    }
    bytes(a).cmp(bytes(b))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::tree::folder::FollowSymlinks;

    fn found(root: &Path, longest: usize, filter: &Filter) -> Vec<Found> {
        walk(&Folder::open(root).unwrap(), longest, filter).collect()
    }

    fn keys(root: &Path) -> Vec<String> {
        found(root, MAX_KEY_BYTES, &Filter::default())
            .into_iter()
            .filter_map(|found| match found {
                Found::File(entry) => Some(entry.key.into_string()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn directories_sort_as_their_name_and_a_slash() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a-", "a.b", "b", "a!"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/x"), "").unwrap();
        assert_eq!(keys(root.path()), ["a!", "a-", "a.b", "a/x", "b"]);
    }

    #[test]
    fn f6_links_and_fifos_are_skipped_with_their_reason_and_loops_do_not_hang() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        let skipped: Vec<_> = found(root.path(), MAX_KEY_BYTES, &Filter::default())
            .into_iter()
            .filter_map(|found| match found {
                Found::Skipped(skip) => Some((skip.path.display().to_string(), skip.reason)),
                _ => None,
            })
            .collect();
        assert_eq!(
            skipped,
            [("loop".to_owned(), SkipReason::Symlink), ("socket".to_owned(), SkipReason::Special)]
        );
        assert_eq!(keys(root.path()), ["file"]);
    }

    /// The folder cannot be read, and nobody tries.
    #[test]
    fn reserved_names_are_skipped_once_and_not_read() {
        let root = tempfile::tempdir().unwrap();
        for file in
            [".brigade/head", ".brigade/delta/1", "a/b/.brigade/x", "c/.brigade", "c/.brigade-no", "d"]
        {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), "x").unwrap();
        }
        for (target, link) in [("../.brigade/head", "c/link"), ("../a/b/.brigade", "c/links")] {
            std::os::unix::fs::symlink(target, root.path().join(link)).unwrap();
        }
        fs::set_permissions(root.path().join(".brigade"), fs::Permissions::from_mode(0o100)).unwrap();
        let canonical = fs::canonicalize(root.path()).unwrap();
        let seen = |include: &[&str], exclude: &[&str]| {
            let owned = |patterns: &[&str]| patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
            let filter = Filter::new(&owned(include), &owned(exclude)).unwrap();
            let folder = Folder::open(&canonical).unwrap().following(FollowSymlinks::Inside);
            let (mut keys, mut skips) = (Vec::new(), Vec::new());
            for found in walk(&folder, MAX_KEY_BYTES, &filter) {
                match found {
                    Found::File(entry) => keys.push(entry.key.into_string()),
                    Found::Skipped(Skip { path, reason: SkipReason::Reserved }) => {
                        skips.push(path.display().to_string());
                    }
                    other => panic!("{other:?}"),
                }
            }
            (keys.join(" "), skips.join(" "))
        };
        let all = ".brigade a/b/.brigade c/.brigade c/link c/links";
        assert_eq!(seen(&[], &[]), ("c/.brigade-no d".to_owned(), all.to_owned()));
        assert_eq!(seen(&[".brigade", "/.brigade/*"], &[]), (String::new(), all.to_owned()));
        // Who excludes the name knows of it.
        assert_eq!(seen(&[], &[".brigade"]), ("c/.brigade-no d".to_owned(), String::new()));
        fs::set_permissions(root.path().join(".brigade"), fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// Links to neighbouring folders and files, out of the tree, to nothing, to themselves, to folders above them, and
    /// to each other's folders.
    #[test]
    fn f6_followed_links_are_where_they_lie_and_loops_are_found() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("x"), "of another tree").unwrap();
        for file in ["a/1", "b/2"] {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), "x").unwrap();
        }
        for (target, link) in [
            ("../b", "a/to-b"),
            ("../a", "b/to-a"),
            ("a/1", "one"),
            ("gone", "nowhere"),
            ("self", "self"),
            ("..", "a/up"),
        ] {
            std::os::unix::fs::symlink(target, root.path().join(link)).unwrap();
        }
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        std::os::unix::net::UnixListener::bind(outside.path().join("socket")).unwrap();
        let canonical = fs::canonicalize(root.path()).unwrap();
        let filter = Filter::default();
        let seen = |links| {
            let folder = Folder::open(&canonical).unwrap().following(links);
            let found = walk(&folder, MAX_KEY_BYTES, &filter);
            let (mut keys, mut skips) = (Vec::new(), Vec::new());
            for found in found {
                match found {
                    Found::File(entry) => keys.push(entry.key.into_string()),
                    Found::Skipped(skip) => skips.push((skip.path.display().to_string(), skip.reason)),
                    other => panic!("{other:?}"),
                }
            }
            (keys, skips)
        };
        let (keys, skips) = seen(FollowSymlinks::No);
        assert_eq!((keys, skips.len()), (vec!["a/1".to_owned(), "b/2".to_owned()], 7));
        let inside = ["a/1", "a/to-b/2", "b/2", "b/to-a/1", "one"];
        let loops = ["a/to-b/to-a", "a/up", "b/to-a/to-b", "b/to-a/up", "self"];
        let loops = loops.map(|path| (path.to_owned(), SkipReason::Loop));
        let dangling = ("nowhere".to_owned(), SkipReason::Dangling);
        let (keys, skips) = seen(FollowSymlinks::Inside);
        assert_eq!(keys, inside);
        let out = ("out".to_owned(), SkipReason::Outside);
        assert_eq!(skips, [&loops[..4], &[dangling.clone(), out], &loops[4..]].concat());
        // An excluded folder stays excluded, also when a link leads to it.
        let excluding = Filter::new(&[], &["/b".to_owned()]).unwrap();
        let folder = Folder::open(&canonical).unwrap().following(FollowSymlinks::Inside);
        let found = walk(&folder, MAX_KEY_BYTES, &excluding);
        let keys: Vec<_> = found
            .filter_map(|found| match found {
                Found::File(entry) => Some(entry.key.into_string()),
                _ => None,
            })
            .collect();
        assert_eq!(keys, ["a/1", "one"]);
        let (keys, skips) = seen(FollowSymlinks::All);
        assert_eq!(keys, [&inside[..], &["out/x"]].concat());
        let socket = ("out/socket".to_owned(), SkipReason::Special);
        assert_eq!(skips, [&loops[..4], &[dangling, socket], &loops[4..]].concat());
    }

    // Other systems refuse such names themselves.
    #[cfg(target_os = "linux")]
    #[test]
    fn k2_names_that_are_not_utf8_or_too_long_are_errors_and_the_others_go_on() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(OsStr::from_bytes(b"bad\xff")), "x").unwrap();
        fs::write(root.path().join("n".repeat(200)), "x").unwrap();
        let found = found(root.path(), 199, &Filter::default());
        assert!(found.iter().all(|f| matches!(f, Found::Unnamable(e) if e.kind() == ErrorKind::InvalidKey)));
        assert_eq!((found.len(), keys(root.path()).len()), (2, 1));
        let Found::Unnamable(error) = &found[0] else { panic!("{found:?}") };
        assert!(error.to_string().contains("bad\\xff: not published: its name is not UTF-8"), "{error}");
    }

    /// A folder was replaced by a link during the walk. The walk entered it by its path, and files outside of the root
    /// were published.
    #[test]
    fn s5_folder_swapped_for_a_link_during_the_walk_is_not_entered() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "not of this tree").unwrap();
        fs::write(root.path().join("a"), "x").unwrap();
        for folder in ["b/c", "d"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("f"), "x").unwrap();
        }
        let (folder, filter) = (Folder::open(root.path()).unwrap(), Filter::default());
        let mut walk = walk(&folder, MAX_KEY_BYTES, &filter);
        assert!(matches!(walk.next(), Some(Found::File(entry)) if entry.key.as_str() == "a"));
        // The walk has listed both as folders by now.
        for swapped in ["b", "d"] {
            fs::remove_dir_all(root.path().join(swapped)).unwrap();
            std::os::unix::fs::symlink(outside.path(), root.path().join(swapped)).unwrap();
        }
        let rest: Vec<_> = walk
            .map(|found| match found {
                Found::Skipped(skip) => (skip.path.display().to_string(), skip.reason),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = ["b", "d"].map(|path| (path.to_owned(), SkipReason::Symlink));
        assert_eq!(rest, expected);
    }

    proptest! {
        #[test]
        fn siblings_are_in_the_order_of_the_keys_below_them(
            a in "[a-c./ -]{1,3}", b in "[a-c./ -]{1,3}", a_dir: bool, b_dir: bool,
        ) {
            prop_assume!(!a.contains('/') && !b.contains('/') && a != b);
            let key = |name: &str, is_dir| if is_dir { format!("{name}/x") } else { name.to_owned() };
            let by_key = key(&a, a_dir).cmp(&key(&b, b_dir));
            prop_assert_eq!(name_order((a.as_bytes(), a_dir), (b.as_bytes(), b_dir)), by_key);
        }
    }
}
