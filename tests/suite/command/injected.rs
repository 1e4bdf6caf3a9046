//! P4 and its kin: what the system refuses, one call after another. `strace -e inject` makes calls of the command fail; small and
//! read-only file systems are real ones. Where this machine allows neither, the tests say so and are skipped.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::command::{DEST, Ended, Shell, all_is_well, some_files, text};
use crate::support::{World, files_below};

const REMOVED: &str = "d1/f001.txt";

/// A published tree with one file to add, one to send again and one to delete.
fn changed_tree() -> World {
    let world = some_files(8);
    Shell::of(&world).sync(&world, &[]).code(0);
    change(&world);
    world
}

fn change(world: &World) {
    world.write("d0/f000.txt", "other content");
    world.write("new.txt", "new");
    world.remove(REMOVED);
}

/// The arguments of a `brigade sync` of a world's tree.
fn sync(world: &World) -> Vec<String> {
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    ["sync", &root, DEST, "--cache", &cache, "--retries", "0"].map(str::to_owned).to_vec()
}

/// The command, run by another program.
pub(crate) fn wrapped(world: &World, wrapper: &[String], arguments: &[String]) -> Ended {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let brigade = Shell::of(world).std_command(&arguments);
    let mut command = Command::new(&wrapper[0]);
    command.args(&wrapper[1..]).arg(brigade.get_program()).args(brigade.get_args());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(brigade.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ended::of(command.output().unwrap())
}

/// Returns true if these programs run here, and says so if not.
fn runs(program: &str, args: &[&str]) -> bool {
    let runs = Command::new(program).args(args).output().is_ok_and(|output| output.status.success());
    if !runs {
        eprintln!("skipped: {program} {} does not work here", args.join(" "));
    }
    runs
}

/// That a run to which something happened has deleted nothing before all else was done, and nothing that it should not.
#[track_caller]
fn deletes_came_last(world: &World, what: &str) {
    let objects = world.objects();
    let is_sent = |key: &str, bytes: &[u8]| objects.get(key).is_some_and(|object| object == bytes);
    let all_sent = is_sent("new.txt", b"new") && is_sent("d0/f000.txt", b"other content");
    assert!(objects.contains_key(REMOVED) || all_sent, "I3: {what}");
    for number in [0, 2, 3, 4, 5, 6, 7] {
        let key = format!("d{}/f{number:03}.txt", number % 7);
        assert!(objects.contains_key(&key), "{key} is gone: {what}");
    }
}

/// Sweeps a sync of a changed tree: deletes come last, and the next run without faults makes everything right.
fn sweep(call: &str, error: &str, on: impl Fn(&World) -> Vec<String>) -> u32 {
    let after = |world: World, what: &str| {
        deletes_came_last(&world, what);
        Shell::of(&world).sync(&world, &[]).code(0);
        all_is_well(&world);
    };
    sweep_of((call, error), on, changed_tree, sync, after)
}

/// Lets the n-th call of a kind fail, for each n (beyond the eighth for ever fewer, unless `BRIGADE_TEST_LONG` is set), once and from
/// then on. Whatever happens, the command ends, with a code of its own. Returns the number of faults.
fn sweep_of(
    (call, error): (&str, &str),
    on: impl Fn(&World) -> Vec<String>,
    prepare: impl Fn() -> World,
    arguments: impl Fn(&World) -> Vec<String>,
    after: impl Fn(World, &str),
) -> u32 {
    let mut faults = 0;
    let is_long = std::env::var_os("BRIGADE_TEST_LONG").is_some();
    for more in ["", "+"] {
        let mut number = 0;
        loop {
            number += if is_long { 1 } else { 1 + number / 8 };
            let world = prepare();
            let log = world.cache_path().with_extension("strace");
            let inject = format!("inject={call}:error={error}:when={number}{more}");
            let mut wrapper = ["strace", "-f", "-qq", "-o"].map(str::to_owned).to_vec();
            wrapper.extend([text(log.clone()), "-e".to_owned(), inject]);
            wrapper.extend(on(&world).into_iter().flat_map(|path| ["-P".to_owned(), path]));
            let ended = wrapped(&world, &wrapper, &arguments(&world));
            if !fs::read_to_string(&log).unwrap().contains("(INJECTED)") {
                break;
            }
            faults += 1;
            let what = format!("{call} {error} {number}{more}: {ended:#?}");
            assert!((0..=6).contains(&ended.code), "{what}");
            assert!(!ended.err.contains("panicked"), "{what}");
            after(world, &what);
        }
    }
    faults
}

fn cache_and_catalog(world: &World) -> Vec<String> {
    let cache = world.cache_path();
    vec![text(cache.clone()), text(bucket_brigade::Catalog::path_for(cache))]
}

pub(crate) fn can_inject() -> bool {
    runs("strace", &["-f", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
}

/// A disk that cannot be written to or synced, at each moment of a run.
#[test]
fn p4_disk_that_fails_at_any_write_or_sync_is_an_error_and_nothing_is_lost() {
    if !can_inject() {
        return;
    }
    let mut faults = 0;
    for (call, error) in [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("ftruncate", "ENOSPC")] {
        faults += sweep(call, error, cache_and_catalog);
    }
    assert!(faults > 30, "{faults} faults: did the calls get other names?");
    println!("{faults} faults");
}

/// The same with the state in the bucket. A cache that cannot be written is no reason to keep the claim: the next sync does
/// not wait for the lease.
#[test]
fn p4_disk_that_fails_under_a_claim_leaves_no_claim() {
    if !can_inject() {
        return;
    }
    let shared = |world: &World| [sync(world), ["--state", "bucket"].map(str::to_owned).to_vec()].concat();
    let run = |world: &World| {
        let words = shared(world);
        Shell::of(world).run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let prepare = || {
        let world = some_files(8);
        run(&world).code(0);
        change(&world);
        world
    };
    let mut faults = 0;
    for (call, error) in [("fdatasync", "EIO"), ("pwrite64", "ENOSPC")] {
        faults += sweep_of((call, error), cache_and_catalog, prepare, shared, |world, what| {
            deletes_came_last(&world, what);
            let again = run(&world);
            assert_eq!(again.code, 0, "{again:?} after {what}");
            let objects = world.objects().into_iter().filter(|(key, _)| !key.contains(".brigade/"));
            assert!(objects.collect::<BTreeMap<_, _>>() == files_below(&world.root()), "{what}");
            run(&world).code(0).shows("unchanged");
        });
    }
    assert!(faults > 20, "{faults} faults");
    println!("{faults} faults");
}

/// A reader's `pull` on a disk that fails: what it had before can be read, or what it pulled, and the next pull has all.
#[test]
fn p4_disk_that_fails_during_a_pull_leaves_the_reader_a_whole_version() {
    if !can_inject() {
        return;
    }
    let reader = |world: &World| text(world.cache_path()) + ".reader";
    let pull = |world: &World| ["pull", DEST, "--cache", &reader(world)].map(str::to_owned).to_vec();
    let run = |world: &World, words: &[String]| {
        Shell::of(world).run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let prepare = || {
        let world = some_files(8);
        Shell::of(&world).sync(&world, &["--state", "bucket"]).code(0);
        run(&world, &pull(&world)).code(0);
        change(&world);
        Shell::of(&world).sync(&world, &["--state", "bucket"]).code(0);
        world
    };
    let on = |world: &World| {
        let cache = reader(world);
        vec![text(bucket_brigade::Catalog::path_for(&cache)), cache]
    };
    let keys = |world: &World| {
        let catalog =
            bucket_brigade::Catalog::open(bucket_brigade::Catalog::path_for(reader(world))).unwrap();
        catalog.iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let mut faults = 0;
    let calls = [
        ("fdatasync", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("write", "ENOSPC"),
        ("rename,renameat,renameat2", "EIO"),
    ];
    for (call, error) in calls {
        let on = |world: &World| {
            if call.starts_with('f') || call.starts_with('p') { on(world) } else { Vec::new() }
        };
        faults += sweep_of((call, error), on, prepare, pull, |world, what| {
            let found = keys(&world);
            let is_whole = found.contains(&REMOVED.to_owned()) != found.contains(&"new.txt".to_owned());
            assert!(is_whole && found.len() == 8, "{found:?} after {what}");
            run(&world, &pull(&world)).code(0);
            assert!(keys(&world).contains(&"new.txt".to_owned()), "{what}");
        });
    }
    assert!(faults > 20, "{faults} faults");
    println!("{faults} faults");
}

/// A rebuild on a disk that fails leaves what was there, or the new cache, and can be repeated.
#[test]
fn p4_disk_that_fails_during_a_rebuild_leaves_what_was_there() {
    if !can_inject() {
        return;
    }
    let prepare = || {
        let world = some_files(8);
        Shell::of(&world).sync(&world, &[]).code(0);
        fs::write(world.cache_path(), "no cache at all").unwrap();
        world
    };
    let rebuild = |world: &World| {
        let (root, cache) = (text(world.root()), text(world.cache_path()));
        ["rebuild", &root, DEST, "--cache", &cache].map(str::to_owned).to_vec()
    };
    let mut faults = 0;
    for (call, error) in [
        ("fdatasync", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("fsync", "EIO"),
        ("rename,renameat,renameat2", "EIO"),
        ("link,linkat", "EPERM"),
    ] {
        faults += sweep_of(
            (call, error),
            |_| Vec::new(),
            prepare,
            rebuild,
            |world, what| {
                let is_old = fs::read(world.cache_path()).unwrap() == b"no cache at all";
                if is_old {
                    let words = rebuild(&world);
                    Shell::of(&world).run(&words.iter().map(String::as_str).collect::<Vec<_>>()).code(0);
                }
                let folder = world.cache_path().parent().unwrap().read_dir().unwrap();
                let names: Vec<_> = folder.map(|entry| text(entry.unwrap().file_name().into())).collect();
                let kept = names.iter().any(|name| name.ends_with(".damaged-1"));
                assert!(
                    kept && !names.iter().any(|name| name.ends_with(".rebuilding")),
                    "{names:?} after {what}"
                );
                Shell::of(&world).sync(&world, &[]).code(0).shows("0 uploaded");
                all_is_well(&world);
            },
        );
    }
    assert!(faults > 20, "{faults} faults");
    println!("{faults} faults");
}

/// The catalog is written under another name, synced, and renamed.
#[test]
fn p4_catalog_that_cannot_be_written_leaves_the_old_one() {
    if !can_inject() {
        return;
    }
    for (call, error) in [("rename,renameat,renameat2", "EIO"), ("fsync", "EIO"), ("write", "ENOSPC")] {
        let faults = sweep(call, error, |_| Vec::new());
        assert!(faults >= 2, "{faults} faults of {call}");
        println!("{call}: {faults} faults");
    }
}

/// No thread can be started, from the n-th on.
#[test]
fn p4_threads_that_cannot_be_started_are_an_error_that_says_so() {
    if !can_inject() {
        return;
    }
    let faults = sweep("clone,clone3", "EAGAIN", |_| Vec::new());
    assert!(faults > 10, "{faults} faults: the workers alone are ten threads");
    println!("{faults} faults");
}

/// The descriptors are used up, at each file that is opened below the root or the cache's folder.
#[test]
fn p4_descriptors_that_run_out_cost_no_object() {
    if !can_inject() {
        return;
    }
    let faults = sweep("openat,openat2", "EMFILE", |world| {
        vec![
            text(world.root()),
            text(world.path("d0")),
            text(world.path("new.txt")),
            text(world.cache_path()),
        ]
    });
    println!("{faults} faults");
    assert!(faults > 3, "{faults} faults");
}

/// Runs commands on a file system of their own, which is gone afterwards.
fn mounted(world: &World, options: &str, commands: &str) -> Ended {
    let disk = world.cache_path().with_extension("disk");
    fs::create_dir_all(&disk).unwrap();
    let (disk, root) = (text(disk), text(world.root()));
    let script = format!(
        "set -e; mount -t tmpfs -o {options} none '{disk}'; D='{disk}'; R='{root}'; B=\"$1\"; \
         sync() {{ rc=0; \"$B\" sync \"$R\" {DEST} --cache \"$D/c/site.cache\" || rc=$?; echo \"sync ended with $rc\"; }}; {commands}"
    );
    let brigade = Shell::of(world).std_command(&[]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(brigade.get_program());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(brigade.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ended::of(command.output().unwrap())
}

fn can_mount() -> bool {
    runs("unshare", &["-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"])
}

/// A disk that is full: the cache is as it was, nothing is deleted, and with room again the run is whole.
#[test]
fn p4_full_disk_is_told_and_mended_by_room() {
    if !can_mount() {
        return;
    }
    let world = some_files(8);
    for number in 0..400 {
        world.write(&format!("many/{number:03} {}", "x".repeat(150)), "1");
    }
    let fill = "cat /dev/zero > \"$D/fill\" 2>/dev/null || true";
    let ended = mounted(
        &world,
        "size=2m",
        &format!(
            "sync; {fill}; rm \"$R/{REMOVED}\"; for n in $(seq 2000 3500); do echo 2 > \"$R/new-$n-{}\"; done; sync; \
             \"$B\" status {DEST} --cache \"$D/c/site.cache\"; rm \"$D/fill\"; mount -o remount,size=16m none \"$D\"; sync; sync",
            "y".repeat(100)
        ),
    );
    let codes: Vec<_> = ended.out.lines().filter(|line| line.starts_with("sync ended")).collect();
    let expected = ["sync ended with 0", "sync ended with 4", "sync ended with 0", "sync ended with 0"];
    assert_eq!(codes, expected, "{ended:#?}");
    ended.code(0).says("No space left on device");
    assert_eq!(world.objects().len(), 8 - 1 + 400 + 1501);
}

/// A disk that became read-only: an error for a sync with work, and none for one without; readers read.
#[test]
fn p4_read_only_disk_is_told_and_readers_go_on() {
    if !can_mount() {
        return;
    }
    let world = some_files(8);
    let ended = mounted(
        &world,
        "size=8m",
        &format!(
            "sync; mount -o remount,ro none \"$D\"; rm \"$R/{REMOVED}\"; echo 2 > \"$R/new.txt\"; sync; \
             \"$B\" status {DEST} --cache \"$D/c/site.cache\"; mount -o remount,rw none \"$D\"; sync"
        ),
    );
    let codes: Vec<_> = ended.out.lines().filter(|line| line.starts_with("sync ended")).collect();
    assert_eq!(codes, ["sync ended with 0", "sync ended with 4", "sync ended with 0"], "{ended:#?}");
    ended.code(0).says("Read-only file system").shows("8 objects");
    assert_eq!(world.objects().len(), 8);
    assert!(!world.objects().contains_key(REMOVED) && world.objects().contains_key("new.txt"));
}
