//! The real parts of a case: a folder, a cache, an orchestrator, a store. Does the steps and looks at what came of them.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::judge::judge;
use super::known;
use super::memory::{Faults, Memory};
use super::reference::{Object, Records, Report, Seen, Stamp, State, There, Todo};
use super::s3::Behind;
use super::steps::{
    CLEAN, CONTENTS, Content, Deletes, Excluded, Key, PART_SIZE, Run, Step, bytes_of, content_of,
};
use super::watched::{Store, Watched};
use crate::clock::VirtualClock;
use crate::rescan::report::RescanReport;
use crate::tree::digest::Digest;
use crate::tree::folder::Folder;
use crate::tree::version::FileStat;
use crate::{
    CacheManager, Catalog, Engine, EngineConfig, MaxDelete, RescanConfig, RescanOrchestrator, StorageError,
};

/// The wall clock of a run, from the system's: nothing is racy, or everything is.
const SETTLED: i64 = 10;
const RACY: i64 = -600;

pub(super) struct World {
    state: State,
    folder: TempDir,
    clock: Arc<VirtualClock>,
    wall: i64,
    engine: Engine,
    store: Arc<Watched>,
    behind: Option<Behind>,
    cache: Option<CacheManager>,
    /// The stats that files had, by stamp.
    stats: Vec<(FileStat, Stamp)>,
}

impl World {
    /// A world on a store in memory, or on an S3 store behind a proxy.
    pub(super) fn new(behind: Option<Behind>) -> Self {
        let folder = match Path::new("/dev/shm") {
            shm if shm.is_dir() => tempfile::tempdir_in(shm),
            _ => tempfile::tempdir(),
        }
        .unwrap();
        fs::create_dir(folder.path().join("tree")).unwrap();
        let clock = Arc::new(VirtualClock::new());
        let engine = EngineConfig::new().workers(1).clock(clock.clone()).build().unwrap();
        let faults = Arc::new(Mutex::new(Faults::default()));
        let store = match &behind {
            Some(behind) => Store::S3(Box::new(behind.backend(&engine))),
            None => Store::Memory(Memory::new(faults.clone())),
        };
        let (root, proxy) = (folder.path().join("tree"), behind.as_ref().map(Behind::switch));
        let store = Arc::new(Watched {
            store,
            script: Mutex::default(),
            faults,
            edit: Box::new(move |key, content| write(&root, key, content)),
            begin_outage: Box::new(move |mode| proxy.iter().for_each(|switch| switch(mode))),
        });
        Self {
            state: State::default(),
            folder,
            clock,
            wall: 0,
            engine,
            store,
            behind,
            cache: None,
            stats: Vec::new(),
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn path(&self, key: Key) -> PathBuf {
        self.root().join(key)
    }

    /// Does a case. In the end two rescans without faults put everything right, and the next has nothing to do.
    pub(super) fn play(&mut self, steps: &[Step]) -> Result<(), String> {
        for (number, step) in steps.iter().enumerate() {
            self.step(*step).map_err(|why| format!("step {number}, {step:?}: {why}"))?;
        }
        let files: Vec<_> = self.state.files().collect();
        let clean = Run { allow_empty: true, ..CLEAN };
        for name in ["first", "second"] {
            self.rescan(&clean).map_err(|why| format!("the {name} clean rescan: {why}"))?;
        }
        for (key, file) in &files {
            if self.state.objects.get(key).map(|object| object.content) != Some(file.content) {
                return Err(format!("{key} is not in the bucket after a clean rescan"));
            }
        }
        let is_left = |(key, object): &(&Key, &Object)| {
            object.ours && !self.state.is_excluded(key) && files.iter().all(|(file, _)| file != *key)
        };
        if let Some((key, _)) = self.state.objects.iter().find(is_left) {
            return Err(format!("{key} is left in the bucket after a clean rescan"));
        }
        let idle = self.rescan(&clean).map_err(|why| format!("the idle rescan: {why}"))?;
        let work = (idle.requests, idle.bytes_hashed, idle.commits);
        if work == (0, 0, 0) { Ok(()) } else { Err(format!("an idle rescan did {work:?}")) }
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        if let Step::Rescan(run) = step {
            return self.rescan(&run).map(drop);
        }
        if self.state.clone().edit(step) {
            self.edit(step);
            self.state.edit(step);
            self.note_stats();
        }
        Ok(())
    }

    fn edit(&self, step: Step) {
        match step {
            Step::Write(key, content) => write(&self.root(), key, content),
            Step::Replace(key, content) => {
                let new = self.folder.path().join("new");
                fs::write(&new, bytes_of(content)).unwrap();
                self.make_room(key);
                fs::rename(new, self.path(key)).unwrap();
            }
            Step::Rename(from, to) => {
                let moved = self.folder.path().join("new");
                fs::rename(self.path(from), &moved).unwrap();
                self.make_room(to);
                fs::rename(moved, self.path(to)).unwrap();
            }
            Step::Chmod(key) => {
                let mode = fs::metadata(self.path(key)).unwrap().permissions().mode() ^ 0o040;
                fs::set_permissions(self.path(key), Permissions::from_mode(mode)).unwrap();
            }
            Step::Touch(key) => {
                let file = File::options().write(true).open(self.path(key)).unwrap();
                let time =
                    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + u64::from(self.state.stamps));
                file.set_times(FileTimes::new().set_modified(time)).unwrap();
            }
            Step::Delete(key) => fs::remove_file(self.path(key)).unwrap(),
            Step::Exclude(top, how) => self.write_ignore_file(top, how),
            Step::Stranger(key, content) => match (&self.store.store, &self.behind) {
                (Store::Memory(memory), _) => memory.put_raw(key, bytes_of(content)),
                (_, Some(behind)) => behind.put_raw(key, bytes_of(content)),
                (Store::S3(_), None) => unreachable!("an S3 store is behind a proxy"),
            },
            Step::Rescan(_) => {}
        }
    }

    fn make_room(&self, key: Key) {
        make_room(&self.root(), key);
    }

    fn write_ignore_file(&self, top: Key, how: Excluded) {
        let mut excluded = self.state.excluded.clone();
        excluded.insert(top, how);
        let ignored = excluded.iter().filter(|(_, how)| **how == Excluded::ByIgnoreFile);
        let lines: Vec<_> = ignored.map(|(top, _)| format!("/{top}")).collect();
        let path = self.root().join(".brigadeignore");
        if lines.is_empty() {
            let _ = fs::remove_file(path);
        } else {
            fs::write(path, lines.join("\n")).unwrap();
        }
    }

    /// Notes the stats of files with a new stamp. A new stamp is a new stat: the system's clock moves on between steps.
    fn note_stats(&mut self) {
        let root = Folder::open(&self.root()).unwrap();
        for (key, file) in &self.state.tree {
            if self.stats.iter().all(|(_, stamp)| *stamp != file.stamp) {
                let mut stat = FileStat::of(&root.stat(Path::new(key)).unwrap());
                while self.stats.iter().any(|(known, _)| *known == stat) {
                    // A coarse clock: the same bytes once more, until it ticks.
                    fs::write(self.root().join(key), bytes_of(file.content)).unwrap();
                    stat = FileStat::of(&root.stat(Path::new(key)).unwrap());
                }
                self.stats.push((stat, file.stamp));
            }
        }
    }

    fn stamp_of(&self, stat: &FileStat) -> Option<Stamp> {
        self.stats.iter().find(|(known, _)| known == stat).map(|(_, stamp)| *stamp)
    }

    /// Rescans, looks, and lets the reference judge.
    fn rescan(&mut self, run: &Run) -> Result<Idle, String> {
        let wall = if run.settled { SETTLED } else { RACY };
        self.clock.step_wall(wall - self.wall);
        self.wall = wall;
        if run.restarted {
            self.cache = None;
        }
        let path = self.folder.path().join("state/cache");
        let cache = self.cache.take().unwrap_or_else(|| CacheManager::open(&path).unwrap());
        let site = self.site(&cache, run).map_err(|error| error.to_string())?;
        let cancel = self.store.begin_run(*run);
        if let Some(behind) = &self.behind {
            behind.begin_run(run);
        }
        let result = site.rescan_with(&crate::Run::new().cancel(cancel).force(run.force));
        if let Some(behind) = &self.behind {
            behind.end_run();
        }
        drop(site);
        let seen = self.look(&cache, result)?;
        self.cache = Some(cache);
        let after = judge(&self.state, run, &seen).map_err(|why| format!("{why}\nsent: {:?}", seen.sent))?;
        self.state = after;
        self.note_stats();
        Ok(seen.result.map_or_else(
            |_| Idle::default(),
            |report| Idle {
                requests: report.requests,
                bytes_hashed: report.bytes_hashed,
                commits: report.commits,
            },
        ))
    }

    fn site(&self, cache: &CacheManager, run: &Run) -> Result<RescanOrchestrator, StorageError> {
        let mut config = RescanConfig::new().batch_size(1).allow_empty(run.allow_empty);
        config = match run.deletes {
            Deletes::On => config,
            Deletes::Off => config.delete(false),
            Deletes::Cap(most) => config.max_delete(MaxDelete::Count(most)),
        };
        for (top, _) in self.state.excluded.iter().filter(|(_, how)| **how == Excluded::ByPattern) {
            config = config.exclude(format!("/{top}"));
        }
        RescanOrchestrator::with_config(&self.engine, self.root(), self.store.clone(), cache.clone(), config)
    }

    fn look(&self, cache: &CacheManager, result: Result<RescanReport, StorageError>) -> Result<Seen, String> {
        let (sent, edited) = self.store.end_run();
        let mut records = Records::default();
        for row in cache.rows() {
            let row = row.map_err(|error| error.to_string())?;
            let key = known(&row.key);
            if let Some(there) = row.published {
                let content = content_with(&there.digest);
                if content.map(|content| bytes_of(content).len() as u64)
                    != there.known_digest().map(|_| there.stat.size)
                {
                    return Err(format!(
                        "{key} is recorded with {} bytes and {:?}",
                        there.stat.size, there.digest
                    ));
                }
                let there = There { content, stamp: self.stamp_of(&there.stat), trusted: there.not_racy };
                records.published.insert(key, there);
            }
            if let Some(todo) = row.pending {
                let (kind, stamp) = (todo.kind, self.stamp_of(&todo.stat));
                records.pending.insert(key, Todo { kind, stamp, in_doubt: todo.attempted });
            }
        }
        let catalog = Catalog::open(Catalog::path_for(cache.path())).map_err(|error| error.to_string())?;
        let shown = |(key, resolved): (String, crate::Resolved)| {
            (known(&key), (resolved.state, resolved.digest.and_then(|digest| content_with(&digest))))
        };
        let (objects, uploads) = self.contents()?;
        Ok(Seen {
            sent,
            edited,
            result: result.map(|report| report_of(&report)).map_err(|error| error.kind()),
            records,
            surveyed: !cache.is_first_run().unwrap(),
            synced: cache.is_synced().unwrap(),
            catalog: catalog.iter().map(shown).collect(),
            objects,
            uploads,
            recorded_uploads: cache.open_upload_count().unwrap(),
        })
    }

    fn contents(&self) -> Result<(BTreeMap<Key, Object>, Vec<Key>), String> {
        let (objects, uploads) = match (&self.store.store, &self.behind) {
            (Store::Memory(memory), _) => (memory.objects(), memory.uploads()),
            (_, Some(behind)) => (behind.objects(), Vec::new()),
            (Store::S3(_), None) => unreachable!("an S3 store is behind a proxy"),
        };
        let object = |(key, (bytes, ours)): (String, (Vec<u8>, bool))| {
            let content = content_of(&bytes).ok_or_else(|| format!("I1: {key} is no version of a file"))?;
            Ok((known(&key), Object { content, ours }))
        };
        let objects = objects.into_iter().map(object).collect::<Result<_, String>>()?;
        Ok((objects, uploads.iter().map(|key| known(key)).collect()))
    }
}

/// The work of a run that has none.
#[derive(Default)]
pub(super) struct Idle {
    requests: u64,
    bytes_hashed: u64,
    commits: u64,
}

fn write(root: &Path, key: Key, content: Content) {
    make_room(root, key);
    fs::write(root.join(key), bytes_of(content)).unwrap();
}

/// Makes the folders above a file. A file in their place goes, and a folder in the file's.
fn make_room(root: &Path, key: Key) {
    let path = root.join(key);
    if path.is_dir() {
        fs::remove_dir_all(&path).unwrap();
    }
    for (at, _) in key.match_indices('/') {
        let folder = root.join(&key[..at]);
        if folder.is_file() {
            fs::remove_file(&folder).unwrap();
        }
        fs::create_dir_all(folder).unwrap();
    }
}

/// The content with a digest, of the whole or by parts.
fn content_with(digest: &Digest) -> Option<Content> {
    let has = |content: &Content| {
        let of = |part_size| Digest::of_stream(&bytes_of(*content)[..], part_size).unwrap();
        *digest == of(None) || *digest == of(Some(PART_SIZE))
    };
    (0..CONTENTS).find(has)
}

fn report_of(report: &RescanReport) -> Report {
    Report {
        outcome: report.outcome,
        stop: report.stop_reason,
        scanned: report.scanned,
        unchanged: report.unchanged,
        uploaded: report.uploaded.iter().map(|one| (known(&one.key), one.kind)).collect(),
        adopted: report.adopted.iter().map(|key| known(key)).collect(),
        deleted: report.deleted.iter().map(|key| known(key)).collect(),
        kept: report.kept.iter().map(|kept| (known(&kept.key), kept.reason)).collect(),
        failed: report.failed_count,
        pending: report.pending,
        bytes_hashed: report.metrics.bytes_hashed,
        requests: report.metrics.requests,
        commits: report.metrics.commits,
    }
}
