//! Commands that only read: beside a sync, and on a disk that cannot be written.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use bucket_brigade::Catalog;

use crate::command::{DEST, Ended, Shell, all_is_well, held, some_files, started, text};
use crate::support::{PREFIX, World};

/// Beside a poller that asked `status` each second one of 30 syncs ended with exit code 4, beside a tight one 17:
/// `status` opened the cache as a writer does, and locked syncs out. Whoever only reads shares the file with a
/// writer now, so that these syncs need not wait for the lock at all.
#[test]
fn p3_syncs_beside_tight_pollers_never_fail() {
    let world = some_files(5);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let over = AtomicBool::new(false);
    let (syncs, polls) = std::thread::scope(|scope| {
        let (world, shell, over) = (&world, &shell, &over);
        let pollers = [("status", &["--json"][..]), ("url", &["d0/f000.txt"])].map(|(command, args)| {
            scope.spawn(move || {
                let mut polls = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    polls.push(shell.ask(world, command, args));
                }
                polls
            })
        });
        let syncs: Vec<_> = (0..32)
            .map(|n| {
                world.write("d0/f000.txt", format!("version {n}"));
                if n == 16 {
                    // From here on the pollers read the cache itself now and then.
                    fs::remove_file(Catalog::path_for(world.cache_path())).unwrap();
                }
                shell.sync(world, &["--lock-wait", "0"])
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        (syncs, pollers.map(|poller| poller.join().unwrap()))
    });
    for sync in syncs {
        sync.code(0).shows("1 uploaded");
    }
    for poll in polls.into_iter().flatten() {
        poll.code(0);
    }
    all_is_well(&world);
}

/// Readers come upon what a killed run left, and put it right or wait for the sync that does.
#[test]
fn p1_readers_and_syncs_after_a_killed_run_get_along() {
    let world = some_files(5);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    for round in 0..8 {
        world.write("d0/f000.txt", format!("version {round}"));
        let held = held(&world, 0);
        let mut child = started(&shell, &world, &[]);
        assert!(held.wait_for_arrivals(1));
        child.kill().unwrap();
        child.wait().unwrap();
        held.release();
        world.proxy.clear_rules();
        std::thread::scope(|scope| {
            let (world, shell) = (&world, &shell);
            let readers = ["status", "status", "uploads"]
                .map(|command| scope.spawn(move || shell.ask(world, command, &[])));
            let sync = shell.sync(world, &[]);
            for reader in readers {
                reader.join().unwrap().code(0);
            }
            sync.code(0);
        });
    }
    all_is_well(&world);
}

/// P3: a sync that finds another one at work waits for its end, as long as it is told to.
#[test]
fn p3_sync_waits_for_another_one() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    let held = held(&world, 0);
    let first = started(&shell, &world, &[]);
    assert!(held.wait_for_arrivals(1));
    let refused = shell.sync(&world, &["--lock-wait", "0"]).code(4).says(&text(world.cache_path()));
    refused.says("--lock-wait");
    shell.sync(&world, &["--lock-wait", "200ms"]).code(4).says("waited 200ms");
    let mut second = started(&shell, &world, &["--lock-wait", "5m"]);
    let mut said = BufReader::new(second.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("note: waiting")), "it says that it waits");
    held.release();
    Ended::of(first.wait_with_output().unwrap()).code(0).shows("3 uploaded");
    // What it says must not fill the pipe.
    let rest: Vec<_> = said.map(Result::unwrap).collect();
    let second = Ended::of(second.wait_with_output().unwrap());
    assert_eq!(second.code, 0, "{second:?} {rest:?}");
    second.shows("0 uploaded");
    all_is_well(&world);
}

/// P2, P3: whoever waits for a lock can be stopped.
#[test]
fn p2_sync_that_waits_for_the_lock_is_stopped_at_once() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    let held = held(&world, 0);
    let first = started(&shell, &world, &[]);
    assert!(held.wait_for_arrivals(1));
    let mut second = started(&shell, &world, &["--lock-wait", "1h"]);
    let mut said = BufReader::new(second.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("note: waiting")));
    let pid = rustix::process::Pid::from_raw(i32::try_from(second.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let rest: Vec<_> = said.map(Result::unwrap).collect();
    assert_eq!(second.wait().unwrap().code(), Some(143), "{rest:?}");
    held.release();
    Ended::of(first.wait_with_output().unwrap()).code(0);
    all_is_well(&world);
}

/// How a command is made to meet a disk that it cannot write.
#[derive(Clone, Copy, Debug)]
enum Disk {
    /// The folder of the cache is mounted read-only.
    Mounted,
    /// Neither the file nor its folder may be written by who runs the command.
    Forbidden,
}

const NOBODY: u32 = 65_534;
const MOUNT: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";

impl Disk {
    /// Whether this can be had here; a mount needs a namespace of one's own.
    fn is_there(self) -> bool {
        let tried =
            || Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|o| o.status.success());
        matches!(self, Self::Forbidden) || tried()
    }

    fn run(self, world: &World, shell: &Shell, args: &[&str]) -> Ended {
        let folder = world.cache_path().parent().unwrap().to_owned();
        let command = shell.std_command(args);
        let mut limited = match self {
            Self::Mounted => {
                let mut limited = Command::new("unshare");
                limited.args(["-rm", "sh", "-c", MOUNT]).arg(&folder).arg(command.get_program());
                limited.args(command.get_args()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
                limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
                limited
            }
            Self::Forbidden => {
                let mut limited = command;
                if rustix::process::geteuid().is_root() {
                    limited.uid(NOBODY).gid(NOBODY);
                }
                limited
            }
        };
        Ended::of(limited.output().unwrap())
    }

    fn ask(self, world: &World, shell: &Shell, command: &str, args: &[&str]) -> Ended {
        let cache = text(world.cache_path());
        self.run(world, shell, &[&[command, DEST, "--cache", &cache], args].concat())
    }

    fn plan(self, world: &World, shell: &Shell) -> Ended {
        let (root, cache) = (text(world.root()), text(world.cache_path()));
        self.run(world, shell, &["plan", &root, DEST, "--cache", &cache])
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Lets everybody read all of a world, and nobody write its cache.
fn published_for_all(world: &World, shell: &Shell) {
    mode(shell.home.path(), 0o755);
    mode(world.root().parent().unwrap(), 0o755);
    mode(&world.cache_path(), 0o444);
    mode(world.cache_path().parent().unwrap(), 0o555);
}

fn reads_without_writing(disk: Disk) {
    if !disk.is_there() {
        return;
    }
    let world = some_files(5);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    world.write("new", "1");
    world.store.remove_raw(&format!("{PREFIX}d0/f000.txt"));
    fs::remove_file(Catalog::path_for(world.cache_path())).unwrap();
    published_for_all(&world, &shell);
    disk.ask(&world, &shell, "status", &[]).code(0).shows("published   5 objects");
    let url = disk.ask(&world, &shell, "url", &["d0/f000.txt"]).code(0);
    assert!(url.out.ends_with("/bucket/site/d0/f000.txt\n"), "{url:?}");
    disk.ask(&world, &shell, "url", &["--all"]).code(0).shows("\tpublished\n");
    disk.plan(&world, &shell).code(0).shows("+ new (1 B)").shows("1 to upload");
    for args in [&[][..], &["--content"]] {
        let found = disk.ask(&world, &shell, "verify", args).code(1).shows("missing d0/f000.txt\n");
        found.says("note: ").says("cannot be written").shows("4 match");
    }
    disk.ask(&world, &shell, "uploads", &[]).code(0).shows("no multipart uploads are open");
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    let sync = disk.run(&world, &shell, &["sync", &root, DEST, "--cache", &cache]).code(4);
    sync.says(&cache);
    mode(world.cache_path().parent().unwrap(), 0o700);
    mode(&world.cache_path(), 0o600);
    // What was not recorded is found once more where it can be.
    shell.ask(&world, "verify", &[]).code(1).shows("missing d0/f000.txt\n");
    shell.sync(&world, &[]).code(0).shows("2 uploaded");
    all_is_well(&world);
}

/// `status`, `url`, `plan` and `verify` failed where the disk was mounted read-only: each opened the cache for
/// writing.
#[test]
fn readers_work_on_a_disk_that_is_mounted_read_only() {
    reads_without_writing(Disk::Mounted);
}

/// The same where the file and its folder belong to somebody else.
#[test]
fn readers_work_on_a_cache_that_they_may_not_write() {
    reads_without_writing(Disk::Forbidden);
}

/// A run was killed, and then its disk cannot be written: a cache that has to be put right is read all the same.
#[test]
fn p1_readers_read_what_a_killed_run_left_on_a_read_only_disk() {
    let world = some_files(5);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    world.write("new", "1");
    let held = held(&world, 0);
    let mut child = started(&shell, &world, &[]);
    assert!(held.wait_for_arrivals(1));
    child.kill().unwrap();
    child.wait().unwrap();
    held.release();
    world.proxy.clear_rules();
    fs::remove_file(Catalog::path_for(world.cache_path())).unwrap();
    published_for_all(&world, &shell);
    let before = fs::read(world.cache_path()).unwrap();
    for disk in [Disk::Mounted, Disk::Forbidden].into_iter().filter(|disk| disk.is_there()) {
        let status = disk.ask(&world, &shell, "status", &[]).code(0).shows("published   5 objects");
        status.shows("  + new\n");
        disk.plan(&world, &shell).code(0).shows("+ new (1 B)");
    }
    assert_eq!(fs::read(world.cache_path()).unwrap(), before);
    mode(world.cache_path().parent().unwrap(), 0o700);
    mode(&world.cache_path(), 0o600);
    // Where it can be written, whoever reads puts it right.
    shell.ask(&world, "status", &[]).code(0).shows("  + new\n");
    shell.sync(&world, &[]).code(0);
    all_is_well(&world);
}

/// A poller that comes upon a cache that is just being made is told that nothing is published.
#[test]
fn cache_in_which_nothing_is_recorded_yet_is_an_empty_one() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    fs::create_dir_all(world.cache_path().parent().unwrap()).unwrap();
    fs::write(world.cache_path(), "").unwrap();
    mode(&world.cache_path(), 0o600);
    shell.ask(&world, "status", &[]).code(0).shows("published   0 objects");
    shell.ask(&world, "url", &["d0/f000.txt"]).code(1).says("not published");
    shell.sync(&world, &[]).code(0).shows("1 uploaded");
    all_is_well(&world);
}

/// A cache of the format before this one was upgraded by whoever read it, and where it could not be written nothing
/// could be read.
#[test]
fn readers_work_on_a_cache_of_the_format_before_that_they_may_not_write() {
    let world = World::new();
    // Where the cache was published to.
    let shell = Shell::of(&world).set("AWS_ENDPOINT_URL", "http://127.0.0.1:45351");
    let before = include_bytes!("../../support/format2.cache");
    for disk in [Disk::Mounted, Disk::Forbidden].into_iter().filter(|disk| disk.is_there()) {
        let folder = world.cache_path().parent().unwrap().to_owned();
        fs::create_dir_all(&folder).unwrap();
        mode(&folder, 0o700);
        let _ = fs::remove_file(world.cache_path());
        fs::write(world.cache_path(), before).unwrap();
        published_for_all(&world, &shell);
        let status = disk.ask(&world, &shell, "status", &[]).code(0).shows("published   6 objects");
        status.shows("  + open.bin\n").shows("  - gone.js\n").shows("open        1 multipart upload,");
        disk.ask(&world, &shell, "url", &["a.html"]).code(0).shows("/bucket/site/a.html");
        assert_eq!(fs::read(world.cache_path()).unwrap(), before);
    }
    mode(world.cache_path().parent().unwrap(), 0o700);
    mode(&world.cache_path(), 0o600);
    shell.ask(&world, "status", &[]).code(0).shows("published   6 objects");
    assert_ne!(fs::read(world.cache_path()).unwrap(), before, "upgraded, where it can be");
}
