//! What a process leaves behind when it is killed, and what one needs: this binary as its own child.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bucket_brigade::{CacheManager, Engine, RescanOrchestrator, RescanOutcome, S3Backend};

use crate::large::in_small_parts;
use crate::publishers::wait_for;
use crate::support::oracle::{check, check_idle};
use crate::support::{World, files_below, s3_config_at};

const MIB: usize = 1024 * 1024;
const ROOT: &str = "BRIGADE_TEST_ROOT";
const CACHE: &str = "BRIGADE_TEST_CACHE";
const ENDPOINT: &str = "BRIGADE_TEST_ENDPOINT";

/// One rescan of a tree, where this process was started for that; prints the most memory that it held, in KiB.
fn acted_as_child() -> bool {
    let (Ok(root), Ok(cache), Ok(endpoint)) =
        (std::env::var(ROOT), std::env::var(CACHE), std::env::var(ENDPOINT))
    else {
        return false;
    };
    let engine = Engine::new().unwrap();
    let config = s3_config_at(&endpoint).part_threshold(8 << 20).part_size(8 << 20);
    let backend = Arc::new(S3Backend::new(&engine, config).unwrap());
    let cache = CacheManager::open(cache).unwrap();
    let site = RescanOrchestrator::new(&engine, root, backend, cache).unwrap();
    let report = site.rescan().unwrap();
    assert!(matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged), "{report:?}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("peak {}", peak.split_whitespace().next().unwrap_or_default());
    true
}

fn spawn(world: &World) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::p1_killed_at_each_request_converges_and_leaves_no_upload", "--nocapture"])
        .env(ROOT, world.root())
        .env(CACHE, world.cache_path())
        .env(ENDPOINT, world.proxy.endpoint())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// I8: a file eight times as large takes no more memory, and no part is held in it.
#[test]
#[cfg(target_os = "linux")]
fn i8_memory_does_not_grow_with_a_file() {
    let peak = |size: usize| -> i64 {
        let world = World::new();
        // The store keeps what it gets: a file of holes costs the tree nothing.
        std::fs::File::create(world.path("f")).unwrap().set_len(size as u64).unwrap();
        let output = spawn(&world).wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let peak = text.lines().find_map(|line| line.split_once("peak ")).unwrap();
        peak.1.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (small, large) = (peak(80 * MIB), peak(640 * MIB));
    // Threads that share the work in another way have other peaks, by some chunks and arenas of the allocator.
    assert!(large - small < 4096, "{small} KiB for 80 MiB, {large} KiB for 640 MiB");
    assert!(large < 40 * 1024, "half of ten parts in flight would be 40 MiB, not {large} KiB");
}

/// P1: killed (SIGKILL) when its k-th request arrives at the store, for each k; the next run makes it right
/// and sends no part again that was recorded.
#[test]
fn p1_killed_at_each_request_converges_and_leaves_no_upload() {
    if acted_as_child() {
        return;
    }
    let mut killed = 0;
    for k in 1.. {
        if !killed_at(k) {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 12, "the run has a dozen requests at least: {killed}");
}

/// Runs a child, which is killed when its k-th request arrives. Returns false if it ended before.
fn run_killed_at(world: &World, k: u64) -> bool {
    let victim: Arc<Mutex<Option<Child>>> = Arc::default();
    let (arrived, handle) = (AtomicU64::new(0), victim.clone());
    world.proxy.on_request(move |_| {
        if arrived.fetch_add(1, Ordering::SeqCst) + 1 == k {
            while handle.lock().unwrap().as_mut().map(|child| child.kill().unwrap()).is_none() {
                std::thread::yield_now();
            }
        }
    });
    *victim.lock().unwrap() = Some(spawn(world));
    let mut child = loop {
        // The callback above needs the lock for its kill.
        let mut slot = victim.lock().unwrap();
        if slot.as_mut().unwrap().try_wait().unwrap().is_some() {
            break slot.take().unwrap();
        }
        drop(slot);
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let was_killed = !child.wait().unwrap().success();
    world.proxy.on_request(|_| ());
    was_killed
}

/// Whether the run was killed before its end.
fn killed_at(k: u64) -> bool {
    let world = World::new();
    world.write_random("large", 17 * MIB, 1);
    world.write_random("larger", 25 * MIB, 2);
    world.write("small", "x");
    world.write("small2", "y");
    world.lost_begins.store(true, Ordering::SeqCst);
    let was_killed = run_killed_at(&world, k);
    world.let_files_settle();
    let site = in_small_parts(&world);
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert!(
        matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged),
        "killed at {k}: {:?}",
        report.failed
    );
    assert_eq!(world.keys().len(), 4, "killed at {k}");
    if k.is_multiple_of(5) {
        check_idle(&world, &site);
    }
    was_killed
}

/// A number from the environment, for a longer run than CI's.
fn number_of(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Changes, removes, renames and adds some files.
fn edit(world: &World, random: &mut fastrand::Rng, round: usize) {
    let mut keys: Vec<_> = files_below(&world.root()).into_keys().collect();
    random.shuffle(&mut keys);
    for (n, key) in keys.iter().take(keys.len().min(12)).enumerate() {
        let text = format!("{round} {n}");
        match n % 4 {
            0 => world.write(key, text),
            1 => world.remove(key),
            2 => {
                let bytes = std::fs::read(world.path(key)).unwrap();
                world.write(&format!("renamed/{round}-{n}"), bytes);
                world.remove(key);
            }
            _ => world.write(&format!("new/{round}-{n}"), text),
        }
    }
    world.write_random("large", 17 * MIB, round as u64);
}

/// Instants at which a child is killed, chosen at random within the time that a whole run takes.
pub(crate) struct RandomInstants {
    random: fastrand::Rng,
    run_time: Duration,
    kills: usize,
    ended_before: usize,
}

impl RandomInstants {
    pub(crate) fn within(run_time: Duration, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), run_time, kills: 0, ended_before: 0 }
    }

    /// The kills in all: some, or those of the long form.
    pub(crate) fn wanted() -> usize {
        let is_long = std::env::var_os("BRIGADE_TEST_LONG").is_some();
        number_of("BRIGADE_TEST_KILLS", if is_long { 200 } else { 6 })
    }

    /// Waits for the next instant and kills the child (SIGKILL). Returns false if it ended before.
    pub(crate) fn kill(&mut self, child: &mut Child) -> bool {
        let at = Instant::now() + self.run_time.mul_f64(self.random.f64());
        while Instant::now() < at && child.try_wait().unwrap().is_none() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()).min(Duration::from_millis(1)));
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        assert!(killed || status.success(), "{status:?}");
        self.kills += usize::from(killed);
        self.ended_before += usize::from(!killed);
        killed
    }

    pub(crate) fn kills(&self) -> usize {
        self.kills
    }
}

impl Drop for RandomInstants {
    fn drop(&mut self) {
        println!(
            "{} kills, {} runs ended before, a run takes {:?}",
            self.kills, self.ended_before, self.run_time
        );
    }
}

/// What a child is to publish: two files in parts and small ones, each of a content of its own.
fn edit_all(world: &World, random: &mut fastrand::Rng, round: usize) {
    edit(world, random, round);
    world.write_random("larger", 9 * MIB + round % 7, round as u64);
}

/// P1: killed (SIGKILL) at a random instant, again and again, between edits, deletes and renames of small files and of files
/// in parts. Each time the next run makes it right: the store holds the tree, nothing more and nothing less, and no
/// upload is left whose ID was received.
#[test]
fn p1_killed_at_a_random_instant_converges_with_the_next_run() {
    // A world has so many kills, so that its versions and logs stay few.
    const EACH: usize = 20;
    let (wanted, mut kills, mut files, mut midway, mut round) = (RandomInstants::wanted(), 0, 0, 0, 0);
    let mut lost_begins = 0;
    while kills < wanted {
        let world = World::new();
        for n in 0..60 {
            world.write(&format!("d{}/f{n:04}", n % 10), format!("{n}"));
        }
        world.lost_begins.store(true, Ordering::SeqCst);
        let mut random = fastrand::Rng::with_seed(round as u64);
        edit_all(&world, &mut random, round);
        let began = Instant::now();
        assert!(spawn(&world).wait().unwrap().success());
        let mut instants = RandomInstants::within(began.elapsed(), round as u64);
        while kills + instants.kills() < wanted && instants.kills() < EACH {
            round += 1;
            edit_all(&world, &mut random, round);
            world.proxy.clear_counts();
            let killed = instants.kill(&mut spawn(&world));
            wait_for("the connections to end", || world.proxy.open_connections() == 0);
            midway += usize::from(killed && !world.proxy.requests().is_empty());
            files += converged(&world, round);
        }
        lost_begins += world.store.uploads().len();
        kills += instants.kills();
    }
    println!(
        "{kills} kills, {midway} of them after the first request, {files} files in all, 0 lost, 0 objects left"
    );
    println!("{lost_begins} uploads whose ID was never received, all of them listed");
}

/// Runs to the end and checks everything. Returns the number of files.
fn converged(world: &World, round: usize) -> usize {
    world.let_files_settle();
    let site = in_small_parts(world);
    let report = site.rescan().unwrap();
    check(world, &site, &report);
    let is_whole = matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged);
    assert!(is_whole && report.kept_count == 0, "round {round}: {report:?}");
    let (tree, stored) = (files_below(&world.root()), world.objects());
    assert!(stored == tree, "round {round}: {:?}, not {:?}", stored.keys(), tree.keys());
    if round.is_multiple_of(5) {
        check_idle(world, &site);
    }
    world.forget_earlier_versions();
    tree.len()
}

/// I4: publishers that are killed again and again between edits, deletes and renames; the run after them leaves no
/// object that is not in the tree. `BRIGADE_TEST_KILLS=300` for the long run.
#[test]
fn i4_kills_between_edits_leave_no_object_that_is_not_in_the_tree() {
    let world = World::new();
    let kills = number_of("BRIGADE_TEST_KILLS", 12);
    // Each round changes a dozen. Of fewer files none would be left that was published, and nothing would be deleted.
    let files = number_of("BRIGADE_TEST_KILL_FILES", 60.max(4 * kills));
    for n in 0..files {
        world.write(&format!("d{}/f{n:04}", n % 10), format!("{n}"));
    }
    // A kill between CreateMultipartUpload and its record leaves an upload whose ID nobody knows.
    world.lost_begins.store(true, Ordering::SeqCst);
    let (mut random, mut killed) = (fastrand::Rng::with_seed(17), 0);
    for round in 0..kills {
        // Of a large tree also far into the uploads.
        let k = random.u64(1..40.max(files as u64 / 4));
        killed += usize::from(run_killed_at(&world, k));
        edit(&world, &mut random, round);
    }
    assert!(killed * 2 > kills, "{killed} of {kills} runs were killed");
    world.let_files_settle();
    let site = in_small_parts(&world);
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let (tree, stored) = (files_below(&world.root()), world.objects());
    let left: Vec<_> = stored.keys().filter(|key| !tree.contains_key(*key)).collect();
    assert!(left.is_empty() && report.kept_count == 0, "{left:?} {report:?}");
    assert_eq!((stored == tree, report.pending), (true, 0), "{:?}", report.failed);
    println!("{killed} kills, {} objects, {} not in the tree", stored.len(), left.len());
    check_idle(&world, &site);
}
