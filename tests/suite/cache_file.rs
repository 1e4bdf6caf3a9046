//! The file of the cache: its lock, its place, who may write it, and what limits it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bucket_brigade::{
    CacheManager, ErrorKind, RescanConfig, RescanOrchestrator, RescanOutcome, Run, StorageBackend,
    StorageError, Verify,
};

use crate::support::World;
use crate::support::oracle::check;

const FILES: usize = 24;

fn tree() -> World {
    let world = World::with_workers(2);
    for n in 0..FILES {
        world.write(&format!("f{n:02}"), format!("content of {n}"));
    }
    world
}

/// Calls this when the request of this number arrives, from 1.
fn at_request(world: &World, number: usize, act: impl Fn() + Send + Sync + 'static) {
    let seen = AtomicUsize::new(0);
    world.proxy.on_request(move |_| {
        if seen.fetch_add(1, Ordering::SeqCst) + 1 == number {
            act();
        }
    });
}

fn is_lost(error: &StorageError, world: &World) {
    assert_eq!((error.kind(), error.path()), (ErrorKind::Cache, Some(world.cache_path().as_path())));
    assert!(error.to_string().contains("removed or replaced while it was in use"), "{error}");
}

/// The file was removed in the middle of a run, which went on, ended with "published", and left no record; and
/// a second run could begin beside it, on a file of its own. The open file is compared with its path at every
/// commit and at the end.
#[test]
fn cache_that_is_removed_during_a_run_is_an_error() {
    for number in [1, 2, FILES / 2, FILES + 1] {
        let world = tree();
        let site = world.orchestrator();
        let path = world.cache_path();
        at_request(&world, number, move || fs::remove_file(&path).unwrap());
        is_lost(&site.rescan().unwrap_err(), &world);
        world.proxy.on_request(|_| ());
        drop(site);
        assert!(!world.cache_path().exists(), "nothing is put in its place");
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        // What was stored without a record is found, and not sent again.
        assert_eq!(report.uploaded_count + report.adopted_count, FILES as u64);
        assert!((report.outcome == RescanOutcome::Published) == (report.uploaded_count > 0), "{report:?}");
    }
}

#[test]
fn cache_that_is_replaced_during_a_run_is_an_error_and_the_other_file_is_left_alone() {
    let world = tree();
    let site = world.orchestrator();
    let (path, other) = (world.cache_path(), world.cache_path().with_extension("other"));
    drop(CacheManager::open(&other).unwrap());
    let bytes = fs::read(&other).unwrap();
    at_request(&world, 5, move || fs::rename(&other, &path).unwrap());
    is_lost(&site.rescan().unwrap_err(), &world);
    assert_eq!(fs::read(world.cache_path()).unwrap(), bytes);
    // Its holder can record nothing more, whatever calls it.
    is_lost(&site.rescan().unwrap_err(), &world);
}

/// A run that commits nothing finds out at its end.
#[test]
fn cache_that_is_removed_while_a_run_only_looks_is_an_error() {
    let world = tree();
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.let_files_settle();
    site.rescan().unwrap();
    let path = world.cache_path();
    at_request(&world, 1, move || fs::remove_file(&path).unwrap());
    let error = site.rescan_with(&Run::new().verify(Verify::List)).unwrap_err();
    is_lost(&error, &world);
}

/// A host may change its directory after it has opened a cache by a relative name.
#[test]
fn relative_path_stands_for_the_file_that_it_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", folder.path().strip_prefix("/").unwrap().join("cache").display());
    let cache = CacheManager::open(relative).unwrap();
    cache.check_file().unwrap();
    fs::rename(folder.path().join("cache"), folder.path().join("elsewhere")).unwrap();
    assert_eq!(cache.check_file().unwrap_err().kind(), ErrorKind::Cache);
    fs::rename(folder.path().join("elsewhere"), folder.path().join("cache")).unwrap();
    cache.check_file().unwrap();
}

/// P3: a lock that is held is waited for as long as is said, and no longer.
#[test]
fn p3_lock_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let holder = CacheManager::open(&path).unwrap();
    let began = std::time::Instant::now();
    let wait = Duration::from_millis(300);
    let error = CacheManager::open_waiting(&path, wait).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::CacheLocked, Some(path.as_path())));
    assert!(began.elapsed() >= wait && error.to_string().contains("300ms"), "{error}");
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || CacheManager::open_waiting(path, Duration::from_secs(600)).map(drop)
    });
    drop(holder);
    waiting.join().unwrap().unwrap();
}

/// Who reads sees what a writer beside it has committed, and keeps nobody out.
#[test]
fn cache_that_is_open_for_reading_follows_its_writer_and_records_nothing() {
    let world = tree();
    let site = world.orchestrator();
    site.rescan().unwrap();
    let reader = CacheManager::open_read_only(world.cache_path()).unwrap();
    reader.use_urls_of(world.backend(), None);
    assert_eq!(reader.published_count().unwrap(), FILES as u64);
    world.write("more", "1");
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(reader.published_count().unwrap(), FILES as u64 + 1);
    assert_eq!(reader.resolve("more").unwrap(), site.cache().resolve("more").unwrap());
    assert_eq!(reader.summary().unwrap(), site.cache().summary().unwrap());
    drop(site);
    // A second writer may come, and a rescan on what is only read fails as soon as it has something to record.
    drop(world.cache());
    assert!(reader.is_read_only() && !world.cache().is_read_only());
    world.write("even more", "1");
    let backend: Arc<dyn StorageBackend> = world.backend();
    let config = RescanConfig::new();
    let reading =
        RescanOrchestrator::with_config(&world.engine, world.root(), backend, reader.clone(), config);
    let reading = reading.unwrap();
    let planned = reading.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!(planned.uploaded_count, 1);
    let error = reading.rescan().unwrap_err();
    assert!(error.kind() == ErrorKind::Cache && error.to_string().contains("reading only"), "{error}");
    assert!(!world.keys().contains(&"even more".to_owned()));
    let missing = CacheManager::open_read_only(world.cache_path().with_extension("no")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Cache);
    assert!(!world.cache_path().with_extension("no").exists());
}

/// P5: what a reader meets on a damaged file is an error or the truth, never a panic.
#[test]
fn p5_damaged_cache_is_an_error_for_readers_too() {
    let world = tree();
    world.orchestrator().rescan().unwrap();
    let good = fs::read(world.cache_path()).unwrap();
    let look = |bytes: &[u8]| {
        fs::write(world.cache_path(), bytes).unwrap();
        let cache = CacheManager::open_read_only(world.cache_path())?;
        cache.use_urls_of(world.backend(), None);
        cache.summary()?;
        cache.pending()?;
        cache.entries().collect::<Result<Vec<_>, _>>().map(|entries| entries.len())
    };
    assert_eq!(look(&good).unwrap(), FILES);
    for bytes in
        [b"this is no database, but long enough to be one".repeat(100), good[..good.len() / 2].to_vec()]
    {
        assert_eq!(look(&bytes).unwrap_err().kind(), ErrorKind::CacheDamaged);
    }
    for at in (0..good.len()).step_by(509) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        if let Err(error) = look(&bytes) {
            assert!(error.to_string().contains("cache"), "byte {at}: {error}");
        }
    }
}

/// A tree whose cache was written by three runs. The last but one deleted `x` and `y`; since then they are somebody else's:
/// records of before that run would have them deleted.
fn with_foreign_objects(files: usize) -> World {
    let world = World::new();
    for key in (0..files).map(|n| format!("d{}/{n:05} {}", n % 7, "x".repeat(60))) {
        world.write(&key, "1");
    }
    for run in 0..3 {
        match run {
            0 => ["x", "y"].into_iter().for_each(|key| world.write(key, "ours")),
            1 => ["x", "y"].into_iter().for_each(|key| world.remove(key)),
            _ => world.write("last", "1"),
        }
        let site = world.orchestrator();
        check(&world, &site, &site.rescan().unwrap());
        world.let_files_settle();
    }
    world.orchestrator().rescan().unwrap();
    world.store.clear_logs();
    world.stranger("x", "theirs");
    world.stranger("y", "theirs");
    world
}

/// Rescans with these bytes as the cache. Whatever they are, nothing is deleted or changed on their word, and an error says
/// what to do. Returns true if they were refused.
fn is_refused(world: &World, bytes: &[u8], what: &str) -> bool {
    fs::write(world.cache_path(), bytes).unwrap();
    let before = world.objects();
    let backend: Arc<dyn StorageBackend> = world.backend();
    let opened = CacheManager::open(world.cache_path());
    let rescan = |cache| {
        let config = RescanConfig::new();
        let site = RescanOrchestrator::with_config(&world.engine, world.root(), backend, cache, config)?;
        site.rescan().map(|report| (site, report))
    };
    let result = opened.and_then(rescan);
    assert!(world.objects() == before, "{what} changed objects");
    assert_eq!(world.store.deletes(), Vec::<String>::new(), "{what}");
    match result {
        Ok((site, report)) => {
            check(world, &site, &report);
            false
        }
        Err(error) => {
            let says_what_to_do = error.to_string().contains("ake the cache anew");
            assert!(error.kind() == ErrorKind::CacheDamaged && says_what_to_do, "{what}: {error}");
            true
        }
    }
}

fn is_long() -> bool {
    std::env::var_os("BRIGADE_TEST_LONG").is_some()
}

/// P5, in a cache of many pages: a byte flipped in each of them, and truncated at each page and beside it.
#[test]
fn p5_large_cache_with_a_flipped_byte_or_cut_off_deletes_nothing() {
    let world = with_foreign_objects(if is_long() { 1500 } else { 250 });
    let good = fs::read(world.cache_path()).unwrap();
    assert!(good.len() > 50 * 4096, "{}", good.len());
    assert!(!is_refused(&world, &good, "as it is"));
    let (mut refused, mut flips) = (0, 0);
    let step = if is_long() { 509 } else { 4096 };
    for at in (0..good.len()).step_by(step) {
        // Not always at the beginning of a page.
        let at = (at + (at / 4096 * 331) % 4096).min(good.len() - 1);
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        flips += 1;
        refused += u32::from(is_refused(&world, &bytes, &format!("a flip at {at}")));
    }
    println!("{flips} flips in {} bytes, {refused} refused, the others in slack", good.len());
    // A cache that was written over several runs has free pages.
    assert!(refused * 8 > flips, "{refused} of {flips}");
    let (mut lengths, mut shorter) = (vec![1, 9, 63, 319, 320, 4095, 4097], good.len() / 4096 * 4096);
    while shorter > 0 {
        lengths.extend([shorter - 1, shorter]);
        shorter = shorter.saturating_sub(if is_long() { 4096 } else { 33 * 4096 });
    }
    for length in lengths.into_iter().filter(|length| *length < good.len()) {
        assert!(is_refused(&world, &good[..length], &format!("cut off at {length}")));
    }
    // One that is empty is a cache without records: the objects are compared with the tree.
    assert!(!is_refused(&world, &[], "empty"));
    fs::write(world.cache_path(), &good).unwrap();
    crate::rebuild::of_later_version(&world.cache_path());
    let later = fs::read(world.cache_path()).unwrap();
    assert!(is_refused(&world, &later, "of a later version"));
    assert!(!is_refused(&world, &good, "as it was"));
}

/// P5: the first bytes of the file say which of two commits is the last one. A flip there never makes the cache one of an
/// earlier run that is believed.
#[test]
fn p5_flipped_bits_of_the_header_bring_no_earlier_records_back() {
    let world = with_foreign_objects(20);
    let good = fs::read(world.cache_path()).unwrap();
    let mut refused = 0;
    for at in 0..320 {
        let bits = if is_long() || at < 16 { 0..8 } else { at % 8..at % 8 + 1 };
        for bit in bits {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            refused += u32::from(is_refused(&world, &bytes, &format!("bit {bit} of byte {at}")));
        }
    }
    println!("{refused} refused");
    assert!(refused > 100, "{refused}");
    assert!(!is_refused(&world, &good, "as it was"));
}

/// I9: somebody overwrote the file while it was open. redb commits once more when it closes a database, and panicked over
/// that in the thread of the host that dropped the cache. Closing is guarded as every other call into redb.
#[test]
fn i9_cache_that_was_damaged_while_open_is_closed_without_a_panic() {
    use std::os::unix::fs::FileExt;
    let world = tree();
    world.orchestrator().rescan().unwrap();
    let length = usize::try_from(fs::metadata(world.cache_path()).unwrap().len()).unwrap();
    let cache = world.cache();
    let file = fs::OpenOptions::new().write(true).open(world.cache_path()).unwrap();
    file.write_all_at(&vec![0x55; length - 64], 64).unwrap();
    drop(cache);
    // The lock is free.
    assert_eq!(CacheManager::open(world.cache_path()).unwrap_err().kind(), ErrorKind::CacheDamaged);
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// S4: a cache that anybody may write, or replace, decides what is deleted and where readers are sent. It was
/// opened without a word.
#[test]
fn s4_cache_that_everybody_may_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    drop(CacheManager::open(&path).unwrap());
    let opened = || {
        let (writing, reading) = (CacheManager::open(&path).map(drop), CacheManager::open_read_only(&path));
        assert_eq!(writing.is_ok(), reading.is_ok());
        writing
    };
    mode(&path, 0o602);
    let error = opened().unwrap_err();
    assert!(error.kind() == ErrorKind::Cache && error.to_string().contains("chmod o-w"), "{error}");
    mode(&path, 0o600);
    mode(folder.path(), 0o777);
    let error = opened().unwrap_err();
    assert!(error.to_string().contains("chmod o-w") && error.path() == Some(path.as_path()), "{error}");
    // As /tmp is: others cannot take the file's place.
    mode(folder.path(), 0o1777);
    opened().unwrap();
    mode(folder.path(), 0o770);
    mode(&path, 0o660);
    opened().unwrap();
}

/// "Too many levels of symbolic links" was all that a planted, or well-meant, link was answered with.
#[test]
fn s4_symbolic_link_is_told_as_one_with_the_path_it_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("cache"), folder.path().join("link"));
    drop(CacheManager::open(&path).unwrap());
    symlink(&path, &link).unwrap();
    for error in [CacheManager::open(&link).unwrap_err(), CacheManager::open_read_only(&link).unwrap_err()] {
        let says = format!("is a symbolic link; give the path it leads to: {}", path.display());
        assert!(error.kind() == ErrorKind::Cache && error.to_string().contains(&says), "{error}");
    }
    symlink(folder.path().join("nowhere"), folder.path().join("dangling")).unwrap();
    let error = CacheManager::open(folder.path().join("dangling")).unwrap_err();
    assert!(error.to_string().contains("is a symbolic link"), "{error}");
    assert!(!folder.path().join("nowhere").exists());
}

#[cfg(feature = "cli")]
mod command {
    use std::process::Command;

    use super::*;
    use crate::command::{DEST, Ended, Shell, all_is_well, text};

    /// A sync whose cache was removed meanwhile ended with exit code 0 and "published".
    #[test]
    fn sync_whose_cache_is_removed_meanwhile_ends_with_code_4() {
        let world = tree();
        let shell = Shell::of(&world);
        let path = world.cache_path();
        at_request(&world, 8, move || fs::remove_file(&path).unwrap());
        let ended = shell.sync(&world, &["--json"]).code(4);
        let ended = ended.says("removed or replaced while it was in use").says(&text(world.cache_path()));
        assert_eq!(ended.json()["outcome"], "error");
        world.proxy.on_request(|_| ());
        let object = shell.sync(&world, &["--json"]).code(0).json();
        let count = |name: &str| object[name].as_u64().unwrap();
        assert_eq!(count("uploaded") + count("adopted"), 24, "{object}");
        all_is_well(&world);
    }

    #[test]
    fn s4_cache_that_a_group_may_write_is_warned_of() {
        let world = tree();
        let shell = Shell::of(&world);
        let quiet = shell.sync(&world, &[]).code(0);
        assert!(!quiet.err.contains("group"), "{quiet:?}");
        mode(&world.cache_path(), 0o660);
        shell.sync(&world, &[]).code(0).says("warning: ").says("its group may write").says("chmod g-w");
        mode(&world.cache_path(), 0o600);
        mode(world.cache_path().parent().unwrap(), 0o770);
        shell.sync(&world, &[]).code(0).says("warning: ").says("chmod g-w");
        shell.ask(&world, "status", &[]).code(0).says("chmod g-w");
        mode(world.cache_path().parent().unwrap(), 0o777);
        shell.sync(&world, &[]).code(4).says("chmod o-w");
        shell.ask(&world, "status", &[]).code(4).says("chmod o-w");
        mode(world.cache_path().parent().unwrap(), 0o700);
        all_is_well(&world);
    }

    fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
        words.map(str::to_owned).to_vec()
    }

    /// Each command that makes files, on this cache.
    fn commands(world: &World, cache: &Path) -> Vec<(&'static str, Vec<String>)> {
        let (root, cache) = (text(world.root()), text(cache.to_owned()));
        vec![
            ("sync", words(["sync", &root, DEST, "--cache", &cache])),
            ("sync with the state", words(["sync", &root, DEST, "--cache", &cache, "--state", "bucket"])),
            ("pull", words(["pull", DEST, "--cache", &cache])),
            ("rebuild", words(["rebuild", &root, DEST, "--cache", &cache])),
            ("rebuild of a pull", words(["rebuild", DEST, "--cache", &cache, "--state", "bucket"])),
        ]
    }

    /// A tree, published with its state in the bucket or not, and the path of a cache that another machine would use.
    fn published(world: &World, what: &str, files: usize) -> std::path::PathBuf {
        let shell = Shell::of(world);
        (0..files).for_each(|n| world.write(&format!("many/{n:04} {}", "x".repeat(140)), "1"));
        if what != "sync" && what != "rebuild" {
            shell.sync(world, &["--state", "bucket"]).code(0);
        } else if what == "rebuild" {
            shell.sync(world, &[]).code(0);
        }
        world.cache_path().parent().unwrap().with_extension("other").join("new/cache")
    }

    fn plant(cache: &Path, content: &str) {
        fs::create_dir_all(cache.parent().unwrap()).unwrap();
        mode(cache.parent().unwrap(), 0o700);
        fs::write(cache, content).unwrap();
        mode(cache, 0o600);
    }

    /// The calls that strace saw, with those in one piece that others have interrupted.
    fn whole_calls(seen: &str) -> String {
        let (mut begun, mut calls) = (std::collections::BTreeMap::new(), String::new());
        for line in seen.lines() {
            let (process, call) = line.split_once(' ').unwrap();
            let call = call.trim_start();
            if let Some(call) = call.strip_suffix(" <unfinished ...>") {
                begun.insert(process, call);
                continue;
            }
            if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"))
            {
                calls += begun.remove(process).unwrap();
                calls += rest;
            } else {
                calls += call;
            }
            calls.push('\n');
        }
        assert!(begun.values().all(|call| call.starts_with("exit")), "{begun:?}");
        calls
    }

    /// S4: whatever the umask, each file is created for its owner alone, and only if nothing has its name or no link is
    /// followed; the catalog is opened to readers at its end, and nobody may write it.
    #[test]
    fn s4_every_file_that_is_created_is_private_whatever_the_umask() {
        if !crate::command::injected::can_inject() {
            return;
        }
        let mut created = std::collections::BTreeSet::new();
        for number in 0..5 {
            let world = tree();
            let what = commands(&world, Path::new("")).swap_remove(number).0;
            // So many that the state has segments of its own, which go through files.
            let cache = published(&world, what, 300);
            if what.starts_with("rebuild") {
                plant(&cache, "no cache at all");
            }
            let log = world.root().with_extension("strace");
            let wrapper = format!(
                "umask 0; exec strace -f -qq -s 4096 -o '{}' -e trace=open,openat,openat2,creat,mkdir,mkdirat,mknod,chmod,fchmod,fchmodat \"$@\"",
                text(log.clone())
            );
            let wrapper = words(["sh", "-c", &wrapper, "sh"]);
            crate::command::injected::wrapped(&world, &wrapper, &commands(&world, &cache)[number].1).code(0);
            let calls = whole_calls(&fs::read_to_string(&log).unwrap());
            let makes = |line: &&str| {
                line.contains("O_CREAT") || line.contains("O_TMPFILE") || line.contains("mkdir")
            };
            for line in calls.lines().filter(makes).filter(|line| !line.contains(" = -1 ")) {
                let is_private = if line.contains("mkdir") {
                    line.contains(", 0700)")
                } else if line.contains("O_TMPFILE") {
                    // It never has a name.
                    true
                } else {
                    let is_new_or_no_link = line.contains("O_EXCL") || line.contains("O_NOFOLLOW");
                    is_new_or_no_link && (line.contains(", 0600)") || line.contains(", 0400)"))
                };
                assert!(is_private, "{what}: {line}");
                created.insert(line.split('"').nth(1).unwrap().rsplit('/').next().unwrap().to_owned());
            }
            let opened: Vec<_> = calls.lines().filter(|line| line.contains("chmod")).collect();
            assert!(opened.iter().all(|line| line.contains(", 0444)")), "{what}: {opened:?}");
            let mut found = Vec::new();
            for entry in fs::read_dir(cache.parent().unwrap()).unwrap().map(Result::unwrap) {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                found.push(format!("{} {mode:o}", text(entry.file_name().into())));
            }
            found.sort_unstable();
            let kept = if what.starts_with("rebuild") { &["cache.damaged-1 600"][..] } else { &[] };
            assert_eq!(found, [&["cache 600", "cache.catalog 444"], kept].concat(), "{what}");
        }
        for name in ["cache", "cache.catalog.tmp", "cache.rebuilding", "new"] {
            assert!(created.contains(name), "{name} of {created:?}");
        }
    }

    /// S4: whatever is planted under a name that a command uses, links to a file and to nowhere, a fifo, a folder: no file
    /// outside is read as a cache, changed or created, and nothing hangs.
    #[test]
    fn s4_nothing_that_is_planted_is_followed_or_waited_for() {
        let names = ["", ".catalog", ".catalog.tmp", ".rebuilding", ".damaged-1"];
        let mut refused = 0;
        for number in 0..5 {
            for (suffix, kind) in names.iter().flat_map(|name| (0..4).map(move |kind| (*name, kind))) {
                let world = tree();
                let (what, _) = commands(&world, Path::new("")).swap_remove(number);
                let cache = published(&world, what, 0);
                let is_rebuild = what.starts_with("rebuild");
                plant(&cache, if is_rebuild { "no cache at all" } else { "" });
                let outside = world.root().with_extension("outside");
                fs::create_dir(&outside).unwrap();
                let (victim, nowhere) = (outside.join("victim"), outside.join("nowhere"));
                fs::write(&victim, "a victim").unwrap();
                mode(&victim, 0o644);
                let planted = Path::new(&(text(cache.clone()) + suffix)).to_owned();
                let _ = fs::remove_file(&planted);
                match kind {
                    0 => symlink(&victim, &planted).unwrap(),
                    1 => symlink(&nowhere, &planted).unwrap(),
                    2 => assert!(Command::new("mkfifo").arg(&planted).status().unwrap().success()),
                    _ => fs::create_dir(&planted).unwrap(),
                }
                let before = world.objects();
                let arguments = commands(&world, &cache).swap_remove(number).1;
                let ended = crate::command::injected::wrapped(&world, &words(["timeout", "60"]), &arguments);
                let case = format!("{what}, {suffix:?}, {kind}: {ended:?}");
                assert!((0..=6).contains(&ended.code), "{case}");
                assert_eq!(fs::read(&victim).unwrap(), b"a victim", "{case}");
                assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o644, "{case}");
                assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{case}");
                assert!(before.keys().all(|key| world.objects().contains_key(key)), "{case}");
                refused += u32::from(ended.code != 0);
                if suffix.is_empty() {
                    assert!(ended.code != 0, "{case}");
                    ended.says("cache");
                }
            }
        }
        println!("{refused} of 100 refused");
        assert!(refused >= 20, "{refused}");
    }

    fn limited(world: &World, limit: &str, args: &[&str]) -> Ended {
        let sync = Shell::of(world).std_command(args);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("{limit}; exec \"$@\""), "sh"]);
        limited.arg(sync.get_program()).args(sync.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
        limited.envs(sync.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ended::of(limited.output().unwrap())
    }

    /// A limit on the size of files killed the command by SIGXFSZ, without a word and with nothing recorded.
    #[test]
    fn p4_limit_on_the_size_of_files_is_an_error_like_any_other() {
        let world = tree();
        for n in 0..600 {
            world.write(&format!("more/{n:04} {}", "x".repeat(100)), "1");
        }
        let (root, cache) = (text(world.root()), text(world.cache_path()));
        let args = ["sync", &root, DEST, "--cache", &cache];
        // In blocks of 512 bytes: no cache can be made, a cache can be made and not grow.
        for limit in [16, 200, 280] {
            let ended = limited(&world, &format!("ulimit -f {limit}"), &args).code(4);
            ended.says("File too large").says(&cache).says("ulimit -f");
            Shell::of(&world).ask(&world, "status", &[]).code(0);
        }
        Shell::of(&world).sync(&world, &[]).code(0);
        all_is_well(&world);
    }

    /// "let this user read it" was the advice where the process had used up its file descriptors.
    #[test]
    fn f8_too_many_open_files_are_told_as_that() {
        let world = tree();
        let (root, cache) = (text(world.root()), text(world.cache_path()));
        let mut told = 0;
        for descriptors in 4..24 {
            let limit = format!("ulimit -n {descriptors}");
            let ended = limited(&world, &limit, &["sync", &root, DEST, "--cache", &cache, "--retries", "0"]);
            assert!(!ended.err.contains("let this user read it"), "{descriptors}: {ended:?}");
            if ended.err.contains("os error 24") {
                assert!(ended.code != 0, "{descriptors}: {ended:?}");
                told += 1;
                ended.says("too many open files: raise ulimit -n");
            }
        }
        assert!(told > 0);
        Shell::of(&world).sync(&world, &[]).code(0);
        all_is_well(&world);
    }
}

/// A cache in which nothing is recorded, or that has to be put right, is made in memory for those who only read. A
/// rescan with it published the whole tree, and its record was gone with the process.
#[test]
fn i2_rescan_with_a_cache_that_is_open_for_reading_publishes_nothing() {
    let world = tree();
    fs::create_dir_all(world.cache_path().parent().unwrap()).unwrap();
    fs::write(world.cache_path(), "").unwrap();
    fs::set_permissions(world.cache_path(), fs::Permissions::from_mode(0o600)).unwrap();
    let cache = CacheManager::open_read_only(world.cache_path()).unwrap();
    assert!(cache.is_read_only());
    let site = RescanOrchestrator::new(&world.engine, world.root(), world.backend(), cache).unwrap();
    let plan = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!(plan.uploaded_count, FILES as u64);
    world.proxy.clear_counts();
    let error = site.rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cache);
    assert!(error.to_string().contains("open for reading only"), "{error}");
    assert!(world.keys().is_empty() && world.proxy.requests().is_empty());
    drop(site);
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.uploaded_count, FILES as u64);
}
