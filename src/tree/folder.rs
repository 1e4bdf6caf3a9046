//! A folder that is held open. Files below it are opened from its descriptor and, unless configured otherwise, through
//! no symbolic link. Nothing outside of it is read, even if its path is renamed or replaced meanwhile.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::{Errno, Result};

/// The symbolic links in a tree that are followed. The file or folder that a link leads to is published under the
/// link's own path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FollowSymlinks {
    /// None. They are skipped and reported.
    #[default]
    No,
    /// Links to targets inside the root. Others are skipped and reported.
    Inside,
    /// All links, wherever they lead. Anybody who can create a link in the tree decides what is published.
    All,
}

/// An open folder and the path by which it was opened.
#[derive(Debug)]
pub(crate) struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
    links: FollowSymlinks,
}

/// The flags for a descriptor that is only used to reach other files. On Linux it needs no permission to read.
#[cfg(target_os = "linux")]
const TO_LOOK: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const TO_LOOK: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

impl Folder {
    /// Opens the folder at `path`. Symbolic links in `path` are followed.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { descriptor, path: path.to_owned(), links: FollowSymlinks::No })
    }

    /// Sets which links below the folder are followed. The folder's own path must be without symbolic links.
    pub(crate) fn following(self, links: FollowSymlinks) -> Self {
        Self { links, ..self }
    }

    pub(crate) fn follows_links(&self) -> bool {
        self.links != FollowSymlinks::No
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the stat of the folder itself.
    pub(crate) fn stat_self(&self) -> Result<Stat> {
        fstat(&self.descriptor)
    }

    /// Returns true if `path` leads to this same folder now.
    pub(crate) fn is_at(&self, path: &Path) -> Result<bool> {
        let (here, there) = (self.stat_self()?, rustix::fs::stat(path)?);
        Ok(here.st_ino == there.st_ino && here.st_dev == there.st_dev)
    }

    /// Opens the file or folder at `below`, a path of plain names. A link on the way or at the end that may not be
    /// followed is the error `ELOOP`; one that leads out of the root against the setting is `EXDEV`.
    pub(crate) fn open_below(&self, below: &Path, flags: OFlags) -> Result<OwnedFd> {
        // Without links first: most paths have none.
        match (self.open_without_links(below, flags), self.links) {
            (Err(Errno::LOOP), FollowSymlinks::Inside) => {
                self.open_without_links(&self.resolve_links(below)?, flags)
            }
            (Err(Errno::LOOP), FollowSymlinks::All) => openat(
                &self.descriptor,
                below,
                flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC,
                Mode::empty(),
            ),
            (opened, _) => opened,
        }
    }

    /// Resolves all links in a path and returns the path below this folder without links. The target is opened by that
    /// path, so a link that is changed meanwhile cannot lead outside.
    pub(crate) fn resolve_links(&self, below: &Path) -> Result<PathBuf> {
        let there = fs::canonicalize(self.path.join(below))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        there.strip_prefix(&self.path).map(Path::to_owned).map_err(|_| Errno::XDEV)
    }

    /// Opens a path and fails with `ELOOP` if a part of it is a symbolic link.
    fn open_without_links(&self, below: &Path, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        #[cfg(target_os = "linux")]
        match open_beneath(&self.descriptor, below, flags) {
            // An older kernel, or a sandbox that forbids the call. NOTDIR may also mean a link at the end, which the
            // second way tells apart.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::NOTDIR) => {}
            opened => return opened,
        }
        self.open_by_name(below, flags)
    }

    /// The same, one name at a time.
    fn open_by_name(&self, below: &Path, flags: OFlags) -> Result<OwnedFd> {
        let mut above: Option<OwnedFd> = None;
        let mut names = below.iter().peekable();
        while let Some(name) = names.next() {
            let folder = above.as_ref().unwrap_or(&self.descriptor);
            let is_last = names.peek().is_none();
            let on_the_way = TO_LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = openat(folder, name, if is_last { flags } else { on_the_way }, Mode::empty());
            // A link that is opened as a directory gives ENOTDIR.
            let opened = opened.map_err(|error| if is_link(folder, name) { Errno::LOOP } else { error })?;
            if is_last {
                return Ok(opened);
            }
            above = Some(opened);
        }
        // An empty path is the folder itself.
        openat(&self.descriptor, ".", flags, Mode::empty())
    }

    /// Returns the stat of the path `below`. If links are not followed, a link at the end gives its own stat, and one
    /// on the way is `ELOOP`.
    pub(crate) fn stat(&self, below: &Path) -> Result<Stat> {
        let found = self.stat_without_links(below);
        let is_followed = |stat: &Stat| file_type(stat).is_symlink() && self.follows_links();
        match found {
            Ok(stat) if is_followed(&stat) => self.stat_followed(below),
            Err(Errno::LOOP) if self.follows_links() => self.stat_followed(below),
            found => found,
        }
    }

    /// Returns the stat of the target of a path, following its links.
    pub(crate) fn stat_followed(&self, below: &Path) -> Result<Stat> {
        match self.links {
            FollowSymlinks::All => statat(&self.descriptor, below, AtFlags::empty()),
            _ => self.stat_without_links(&self.resolve_links(below)?),
        }
    }

    /// Returns the stat of a path; a link on the way is `ELOOP`.
    fn stat_without_links(&self, below: &Path) -> Result<Stat> {
        match (below.parent(), below.file_name()) {
            (Some(above), Some(name)) if above.as_os_str().is_empty() => {
                statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)
            }
            (Some(above), Some(name)) => {
                let folder = self.open_without_links(above, TO_LOOK | OFlags::DIRECTORY)?;
                statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            }
            _ => self.stat_self(),
        }
    }

    /// Opens the folder at `below` for listing. An empty path is the folder itself.
    pub(crate) fn list(&self, below: &Path) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if below.as_os_str().is_empty() {
            let flags = flags | OFlags::CLOEXEC;
            return Dir::new(openat(&self.descriptor, ".", flags, Mode::empty())?);
        }
        Dir::new(self.open_below(below, flags)?)
    }

    /// Returns true if every name in the path `below` is listed in its folder, with the same case. A case-insensitive
    /// file system finds `a` by the name `A`; only the listing has the real name.
    pub(crate) fn lists_exactly(&self, below: &Path) -> Result<bool> {
        let mut above = PathBuf::new();
        for name in below {
            let mut there = false;
            for entry in self.list(&above)? {
                there |= entry?.file_name().to_bytes() == name.as_bytes();
            }
            if !there {
                return Ok(false);
            }
            above.push(name);
        }
        Ok(true)
    }
}

#[cfg(target_os = "linux")]
fn open_beneath(folder: &OwnedFd, below: &Path, flags: OFlags) -> Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};
    openat2(folder, below, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn is_link(folder: &OwnedFd, name: &OsStr) -> bool {
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|stat| file_type(&stat).is_symlink())
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns true if the error means that nothing exists at the path.
pub(crate) fn is_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Folder) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/file"), "x").unwrap();
        symlink("b", folder.path().join("a/link")).unwrap();
        symlink("b/file", folder.path().join("a/file link")).unwrap();
        let opened = Folder::open(folder.path()).unwrap();
        (folder, opened)
    }

    /// Both ways of opening: each machine uses only one of them.
    fn opened(folder: &Folder, below: &str) -> [Result<()>; 2] {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = Path::new(below);
        [folder.open_below(below, flags).map(drop), folder.open_by_name(below, flags).map(drop)]
    }

    #[test]
    fn s5_no_link_is_followed_below_a_folder_on_the_way_or_at_the_end() {
        let (_place, folder) = tree();
        assert_eq!(opened(&folder, "a/b/file"), [Ok(()), Ok(())]);
        for (below, error) in [
            ("a/link/file", Errno::LOOP),
            ("a/file link", Errno::LOOP),
            ("a/none", Errno::NOENT),
            ("a/none/file", Errno::NOENT),
            ("a/b/file/x", Errno::NOTDIR),
        ] {
            assert_eq!(opened(&folder, below), [Err(error), Err(error)], "{below}");
        }
        assert!(file_type(&folder.stat(Path::new("a/link")).unwrap()).is_symlink());
        assert_eq!(folder.stat(Path::new("a/link/file")).map(|_| ()), Err(Errno::LOOP));
        assert!(file_type(&folder.stat(Path::new("")).unwrap()).is_dir());
    }

    #[test]
    fn s5_links_that_are_followed_lead_no_further_than_they_may() {
        let (place, folder) = tree();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "of another tree").unwrap();
        symlink(outside.path(), place.path().join("out")).unwrap();
        symlink(place.path().join("a/b"), place.path().join("absolute")).unwrap();
        symlink("a/absent", place.path().join("dangling")).unwrap();
        symlink("circle", place.path().join("circle")).unwrap();
        let root = fs::canonicalize(place.path()).unwrap();
        drop(folder);
        let with = |links| Folder::open(&root).unwrap().following(links);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let all_ways = |below: &str| {
            let below = Path::new(below);
            [FollowSymlinks::No, FollowSymlinks::Inside, FollowSymlinks::All].map(|links| {
                let folder = with(links);
                let opened = folder.open_below(below, flags).map(drop);
                let seen = folder.stat(below).map(|stat| file_type(&stat).is_symlink());
                assert_eq!(opened.is_ok(), seen == Ok(false), "{below:?} {links:?}: {opened:?} {seen:?}");
                opened
            })
        };
        let (yes, link) = (Ok(()), Err(Errno::LOOP));
        for (below, expected) in [
            ("a/b/file", [yes, yes, yes]),
            ("a/link/file", [link, yes, yes]),
            ("a/file link", [link, yes, yes]),
            ("absolute/file", [link, yes, yes]),
            ("out", [link, Err(Errno::XDEV), yes]),
            ("out/secret", [link, Err(Errno::XDEV), yes]),
            ("dangling", [link, Err(Errno::NOENT), Err(Errno::NOENT)]),
            ("circle", [link, link, link]),
        ] {
            assert_eq!(all_ways(below), expected, "{below}");
        }
        assert!(with(FollowSymlinks::Inside).lists_exactly(Path::new("a/link/file")).unwrap());
    }

    #[test]
    fn a_folder_stays_the_same_when_another_takes_its_path() {
        let (place, folder) = tree();
        assert!(folder.is_at(place.path()).unwrap());
        let away = place.path().with_extension("away");
        fs::rename(place.path(), &away).unwrap();
        fs::create_dir(place.path()).unwrap();
        assert!(!folder.is_at(place.path()).unwrap());
        assert!(folder.stat(Path::new("a/b/file")).is_ok());
        fs::remove_dir_all(away).unwrap();
    }

    /// A case-insensitive file system finds a name that its listing does not have. So does `/proc` for the IDs of
    /// threads.
    #[cfg(target_os = "linux")]
    #[test]
    fn name_that_is_found_and_not_listed_is_told_from_one_that_is() {
        let (number, known) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            number.send(rustix::thread::gettid().as_raw_nonzero().to_string()).unwrap();
            let _ = ended.recv();
        });
        let thread_id = known.recv().unwrap();
        let proc = Folder::open(Path::new("/proc")).unwrap();
        let below = Path::new(&thread_id).join("status");
        assert!(proc.stat(&below).is_ok());
        assert!(!proc.lists_exactly(&below).unwrap());
        let own = Path::new(&std::process::id().to_string()).join("status");
        assert!(proc.stat(&own).is_ok() && proc.lists_exactly(&own).unwrap());
        drop(end);
        thread.join().unwrap();
    }
}
