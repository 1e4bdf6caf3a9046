//! Faults of the disk, by their rows: in this process, and in ones with fewer rights or limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, ErrorKind, KeptReason, LocalBackend, RescanConfig, RescanOrchestrator, RescanOutcome,
    SkipReason, StorageBackend,
};

use crate::support::World;
use crate::support::oracle::{check, check_idle};

/// Set it for the rows in their full size: 100,000 files through a store.
const LONG: &str = "BRIGADE_TEST_LONG";

/// F3: gone between the scan and the reading: reported, and nothing is deleted on this run.
#[test]
fn f3_what_vanishes_after_the_scan_is_reported_and_suspends_deletes() {
    let world = World::with_workers(1);
    world.write("old", "x");
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.remove("old");
    for n in 0..4 {
        world.write(&format!("dir/f{n}"), "x");
    }
    world.write("a first", "x");
    let folder = world.path("dir");
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" {
            let _ = fs::remove_dir_all(&folder);
        }
    });
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Partial, 0));
    assert!(report.failed_count >= 3, "{report:?}");
    for error in &report.failed {
        assert_eq!(error.kind(), ErrorKind::SourceVanished, "{error}");
        assert!(error.to_string().contains("dir/f"), "{error}");
    }
    assert!(world.keys().contains(&"old".to_owned()));
    world.proxy.on_request(|_| ());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, world.keys()), (RescanOutcome::Published, vec!["a first".to_owned()]));
}

#[test]
fn f7_empty_files_and_deep_folders_are_published() {
    let world = World::new();
    world.write("empty", "");
    let deep = format!("{}file", "d/".repeat(300));
    world.write(&deep, "down here");
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, world.keys()), (RescanOutcome::Published, vec![deep, "empty".to_owned()]));
    world.let_files_settle();
    site.rescan().unwrap();
    check_idle(&world, &site);
}

#[test]
fn f7_folder_of_100_000_files_is_walked_and_recorded() {
    let world = World::new();
    let count = 100_000;
    fs::create_dir(world.path("one")).unwrap();
    for n in 0..count {
        fs::write(world.path(&format!("one/f{n:06}")), "").unwrap();
    }
    let local: Arc<dyn StorageBackend> = Arc::new(LocalBackend::new("http://local", world.root()));
    let long = std::env::var_os(LONG).is_some();
    let backend = if long { world.backend() } else { local };
    let cache = CacheManager::open(world.cache_path()).unwrap();
    let site =
        RescanOrchestrator::with_config(&world.engine, world.root(), backend, cache, RescanConfig::new())
            .unwrap();
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, count));
    assert_eq!(site.cache().published_count().unwrap(), count);
    world.let_files_settle();
    site.rescan().unwrap();
    assert_eq!(site.rescan().unwrap().metrics.commits, 0);
}

/// F6: nothing that is no file is read or waited for, and what it hides stays away from the store.
#[test]
fn f6_links_fifos_sockets_and_devices_are_skipped_and_the_rest_goes_on() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let world = World::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "not to be published").unwrap();
    world.write("file", "1");
    let link = |to: &std::path::Path, name: &str| std::os::unix::fs::symlink(to, world.path(name)).unwrap();
    link(&world.root(), "loop");
    link(outside.path(), "outside");
    link(&outside.path().join("secret"), "secret");
    let _socket = std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap();
    let node = |kind, device| mknodat(CWD, world.path("node"), kind, Mode::RUSR, device);
    node(FileType::Fifo, 0).unwrap();
    fs::rename(world.path("node"), world.path("fifo")).unwrap();
    // /dev/zero, where one may be made.
    let device = node(FileType::CharacterDevice, makedev(1, 5)).is_ok();
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, world.keys()), (RescanOutcome::Published, vec!["file".to_owned()]));
    let skipped: Vec<_> =
        report.skipped.iter().map(|skip| (skip.path.to_str().unwrap(), skip.reason)).collect();
    let special = if device { &["fifo", "node", "socket"][..] } else { &["fifo", "socket"] };
    let mut expected: Vec<_> = special.iter().map(|name| (*name, SkipReason::Special)).collect();
    expected.extend(["loop", "outside", "secret"].map(|name| (name, SkipReason::Symlink)));
    expected.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(skipped, expected);
    check_idle(&world, &site);
}

/// F2: the clock goes back an hour: every file seems to be of the future, is hashed once, and not sent again.
#[test]
fn f2_clock_that_is_stepped_back_costs_hashing_and_no_upload() {
    let world = World::new();
    for n in 0..5 {
        world.write(&format!("f{n}"), "x");
    }
    world.let_files_settle();
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.clock.step_wall(-3600);
    world.proxy.clear_counts();
    for _ in 0..2 {
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.metrics.requests), (RescanOutcome::Unchanged, 0));
    }
    // What changes meanwhile is seen, also where size and mtime are as they were.
    let stamp = fs::metadata(world.path("f1")).unwrap().modified().unwrap();
    world.write("f1", "y");
    fs::File::options().write(true).open(world.path("f1")).unwrap().set_modified(stamp).unwrap();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.uploaded_count, world.objects()["f1"].as_slice()), (1, b"y".as_slice()));
    world.clock.step_wall(3600);
    check_idle(&world, &site);
}

/// Whether a program did what it was asked to do with a place.
#[cfg(target_os = "linux")]
fn run(program: &str, args: &[&str], place: &std::path::Path) -> bool {
    let output = std::process::Command::new(program).args(args).arg(place).output();
    output.is_ok_and(|output| output.status.success())
}

/// F9: a disk inside the tree is not mounted: what was published from it is kept. Where nothing may be mounted, there is
/// nothing to be seen.
#[test]
#[cfg(target_os = "linux")]
fn f9_nested_mount_that_is_gone_keeps_its_objects() {
    let world = World::new();
    let disk = world.path("disk");
    fs::create_dir(&disk).unwrap();
    if !run("mount", &["-t", "tmpfs", "tmpfs"], &disk) {
        eprintln!("nothing may be mounted here");
        return;
    }
    world.write("disk/a", "1");
    world.write("b", "1");
    let site = world.orchestrator();
    let published = site.rescan();
    assert!(run("umount", &[], &disk));
    assert_eq!(published.unwrap().uploaded_count, 2);
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let kept: Vec<_> = report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect();
    assert_eq!(kept, [("disk/a", KeptReason::OtherDevice)]);
    assert_eq!(world.keys(), ["b", "disk/a"]);
}

/// F6: a file that is said to be empty and gives bytes was published as an empty one. Where nothing may be mounted,
/// there is nothing to be seen.
#[test]
#[cfg(target_os = "linux")]
fn f6_file_that_is_said_to_be_empty_and_gives_bytes_is_skipped() {
    let world = World::new();
    let kernel = world.path("kernel");
    fs::create_dir(&kernel).unwrap();
    if !run("mount", &["--bind", "/proc/sys/kernel/random"], &kernel) {
        eprintln!("nothing may be mounted here");
        return;
    }
    world.write("empty", "");
    let site = world.orchestrator();
    let reports = [site.rescan(), site.rescan()];
    assert!(run("umount", &[], &kernel));
    for report in reports {
        let report = report.unwrap();
        let skipped: Vec<_> =
            report.skipped.iter().map(|skip| (skip.path.to_str().unwrap(), skip.reason)).collect();
        assert!(skipped.contains(&("kernel/boot_id", SkipReason::Sizeless)), "{skipped:?}");
        assert_eq!(report.pending, 0, "{:?}", site.cache().pending().unwrap());
    }
    assert_eq!(world.keys(), ["empty"]);
}

/// What can be done in a process of its own: with the command.
#[cfg(feature = "cli")]
mod in_a_process {
    use std::os::unix::fs::chown;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;
    use crate::command::{DEST, Ended, Shell, all_is_well, text};

    const NOBODY: u32 = 65_534;

    /// F4: root reads everything, so somebody else runs it.
    #[test]
    fn f4_what_may_not_be_read_is_reported_and_its_objects_are_kept() {
        let world = World::new();
        for key in ["a", "closed/b", "secret", "gone"] {
            world.write(key, "1");
        }
        let shell = Shell::of(&world);
        shell.sync(&world, &[]).code(0);
        world.write("a", "2");
        world.write("secret", "2");
        world.remove("gone");
        let (closed, secret) = (world.path("closed"), world.path("secret"));
        let mode = |path: &std::path::Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&closed, 0o000);
        mode(&secret, 0o000);
        let mut command =
            shell.std_command(&["sync", &text(world.root()), DEST, "--cache", &text(world.cache_path())]);
        if rustix::process::geteuid().is_root() {
            // All but those two is for everybody.
            let state = world.cache_path().parent().unwrap().to_owned();
            mode(world.root().parent().unwrap(), 0o755);
            mode(shell.home.path(), 0o755);
            chown(&state, Some(NOBODY), None).unwrap();
            chown(world.cache_path(), Some(NOBODY), None).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let ended = Ended::of(command.output().unwrap()).code(1).shows("1 uploaded").shows("0 deleted");
        let ended = ended
            .says("/closed: Permission denied")
            .says("give this user permission to read it, or --exclude it");
        ended.says("secret").says("deletes wait for a run without errors");
        assert_eq!(world.keys(), ["a", "closed/b", "gone", "secret"]);
        mode(&closed, 0o755);
        mode(&secret, 0o644);
        shell.sync(&world, &[]).code(0).shows("1 deleted");
        all_is_well(&world);
    }

    /// F4: the folder of a removed file cannot be looked at. It was told as another device, with exit code 0.
    #[test]
    fn f4_folder_of_a_removed_file_that_cannot_be_looked_at_is_a_failure() {
        let world = World::new();
        for key in ["a", "closed/deep/b", "gone"] {
            world.write(key, "1");
        }
        let shell = Shell::of(&world);
        shell.sync(&world, &[]).code(0);
        world.remove("closed/deep/b");
        world.remove("gone");
        let closed = world.path("closed");
        let mode = |path: &std::path::Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&closed, 0o000);
        let mut command = shell.std_command(&[
            "sync",
            &text(world.root()),
            DEST,
            "--json",
            "--cache",
            &text(world.cache_path()),
        ]);
        if rustix::process::geteuid().is_root() {
            let state = world.cache_path().parent().unwrap().to_owned();
            mode(world.root().parent().unwrap(), 0o755);
            mode(shell.home.path(), 0o755);
            chown(&state, Some(NOBODY), None).unwrap();
            chown(world.cache_path(), Some(NOBODY), None).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let object = Ended::of(command.output().unwrap()).code(1).json();
        assert_eq!((&object["kept"], &object["deleted"]), (&0.into(), &0.into()), "{object}");
        let failed: Vec<_> =
            object["failed"].as_array().unwrap().iter().map(|one| one["error"].to_string()).collect();
        let of_the_look = failed.iter().find(|error| error.contains("closed/deep: Permission denied"));
        assert!(of_the_look.is_some(), "{failed:?}");
        mode(&closed, 0o755);
        shell.sync(&world, &[]).code(0).shows("2 deleted");
    }

    /// F8: a limit that ten workers, a cache and a walk hardly fit into.
    #[test]
    fn f8_sixty_four_file_descriptors_are_enough() {
        let world = World::new();
        for n in 0..300 {
            world.write(&format!("d{}/f{n:03}", n % 20), format!("{n}"));
        }
        world.write_random("large", 40 << 20, 1);
        sync_within(&world, "ulimit -n 64", &[]).shows("301 uploaded");
        all_is_well(&world);
    }

    /// Publishes with a limit on the process.
    fn sync_within(world: &World, limit: &str, options: &[&str]) -> Ended {
        let (root, cache) = (text(world.root()), text(world.cache_path()));
        let all = [&["sync", &root, DEST, "--cache", &cache], options].concat();
        let sync = Shell::of(world).std_command(&all);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("{limit}; exec \"$@\""), "sh"]);
        limited.arg(sync.get_program()).args(sync.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
        limited.envs(sync.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ended::of(limited.output().unwrap()).code(0)
    }

    /// F7: the disk holds nothing of it, and the memory not much: 64 MiB of heap and stacks are enough.
    #[test]
    fn f7_sparse_gibibyte_is_published() {
        let world = World::new();
        let size: u64 = if std::env::var_os(LONG).is_some() { 4 << 30 } else { 1 << 30 };
        fs::File::create(world.path("sparse")).unwrap().set_len(size).unwrap();
        sync_within(&world, "ulimit -d 65536", &["--chunk-size", "256KiB", "--quiet"]);
        assert_eq!(world.store.sizes().values().sum::<usize>() as u64, size);
    }
}
