//! What belongs to one call: dry run, cancel, deadline, verification; and who may call.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bucket_brigade::{
    CacheManager, CancelToken, Clock, ErrorKind, Event, FileDiff, LocalBackend, Observer, Progress,
    RemoteState, RescanConfig, RescanOrchestrator, RescanOutcome, RescanReport, Run, S3Backend, StopReason,
    StorageBackend, StorageError, Transfers, Verify, channel,
};

use crate::large::in_small_parts;
use crate::shared_state::published;
use crate::shared_state_faults::{AFTER_LEASE, pass};
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Headers, Rule, latch};
use crate::support::{PREFIX, World, files_below};

fn tree(files: usize) -> World {
    let world = World::new();
    for n in 0..files {
        world.write(&format!("d{}/f{n:03}", n % 7), format!("{n}"));
    }
    world
}

#[test]
fn dry_run_says_what_would_be_done_and_does_nothing() {
    let world = tree(20);
    let site = world.orchestrator();
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!(
        (planned.outcome, planned.uploaded_count, planned.dry_run),
        (RescanOutcome::Published, 20, true)
    );
    // The first one looks at what lies under the prefix.
    let reads = world.proxy.requests().iter().all(|seen| seen.method == "GET");
    assert!(reads && planned.metrics.commits == 0);
    assert_eq!((world.keys().len(), site.cache().pending_count().unwrap()), (0, 0));
    let done = site.rescan().unwrap();
    check(&world, &site, &done);
    let urls = |report: &bucket_brigade::RescanReport| {
        let mut urls: Vec<_> = report.uploaded.iter().map(|file| file.url.clone()).collect();
        urls.sort();
        urls
    };
    assert_eq!(urls(&planned), urls(&done));
    world.remove("d0/f000");
    world.write("d1/f001", "changed");
    world.proxy.clear_counts();
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert!(planned.deleted == ["d0/f000"] && planned.uploaded.iter().any(|file| file.key == "d1/f001"));
    assert_eq!(world.proxy.requests().len(), 0);
    assert_eq!(world.keys().len(), 20);
}

/// Cancelled in the middle: nothing more is started, what is done is recorded, the next run goes on.
#[test]
fn cancelled_run_keeps_what_is_done_and_the_next_goes_on() {
    let world = tree(100);
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let observer = Arc::new(move |event: &Event| {
        if matches!(event, Event::UploadFinished { .. }) {
            token.cancel();
        }
    });
    let site = world.orchestrator();
    let report = site.rescan_with(&Run::new().cancel(cancel).observer(observer)).unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Cancelled)));
    assert!(report.uploaded_count >= 1 && report.uploaded_count < 100);
    assert_eq!(site.cache().published_count().unwrap(), report.uploaded_count);
    let rest = site.rescan().unwrap();
    check(&world, &site, &rest);
    assert_eq!((rest.outcome, rest.uploaded_count), (RescanOutcome::Published, 100 - report.uploaded_count));
}

#[test]
fn run_cancelled_before_it_began_does_nothing() {
    let world = tree(5);
    let cancel = CancelToken::new();
    cancel.cancel();
    let site = world.orchestrator();
    let report = site.rescan_with(&Run::new().cancel(cancel)).unwrap();
    check(&world, &site, &report);
    assert_eq!(report.stop_reason, Some(StopReason::Cancelled));
    assert_eq!(world.proxy.requests().len(), 0);
}

#[test]
fn deadline_stops_the_run() {
    let world = tree(100);
    let clock = world.clock.clone();
    let observer = Arc::new(move |event: &Event| {
        if matches!(event, Event::UploadFinished { .. }) {
            clock.advance(Duration::from_secs(61));
        }
    });
    let site = world.orchestrator();
    let report = site.rescan_with(&Run::new().deadline(Duration::from_secs(60)).observer(observer)).unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Deadline)));
    assert!(report.uploaded_count < 100);
}

/// P2: a store that keeps its answers to itself does not hold up a caller who wants to stop. What it did
/// with the requests is not known, and is done again.
#[test]
fn p2_cancelled_run_does_not_wait_for_answers_that_do_not_come() {
    let world = tree(30);
    let site = world.orchestrator();
    site.rescan().unwrap();
    for n in 0..20 {
        world.write(&format!("d0/new{n}"), "new");
        world.write(&format!("d1/f{:03}", 2 * n + 1), "other");
    }
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let stalled = latch();
    world.proxy.add(Rule::new(Fault::Hold(stalled.clone())).method("PUT").skip(5));
    let requests = AtomicU32::new(0);
    world.proxy.on_request(move |_| {
        if requests.fetch_add(1, Ordering::Relaxed) == 8 {
            token.cancel();
        }
    });
    let report = site.rescan_with(&Run::new().cancel(cancel)).unwrap();
    stalled.release();
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Cancelled)));
    assert!(report.failed.is_empty() && report.uploaded_count >= 1, "{report:?}");
    assert_eq!(report.metrics.retries, 0);
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.outcome, RescanOutcome::Published);
    check_idle(&world, &site);
}

/// What somebody else removed or replaced in the bucket is found, and published again.
#[test]
fn verification_finds_what_is_missing_or_different_and_the_next_rescan_mends_it() {
    let world = tree(30);
    world.store.page_limit(7);
    let site = world.orchestrator();
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    check(&world, &site, &report);
    assert_eq!(report.verified.unwrap().matching, 30);
    world.store.remove_raw(&format!("{PREFIX}d0/f000"));
    world.store.put_raw(&format!("{PREFIX}d1/f001"), "other bytes");
    world.stranger("theirs", "x");
    let backend: Arc<dyn bucket_brigade::StorageBackend> = world.backend();
    let found = site.cache().verify(&world.engine, &backend, &Run::new().verify(Verify::List)).unwrap();
    assert_eq!((found.matching, found.unknown), (28, vec!["theirs".to_owned()]));
    assert_eq!((found.missing, found.different), (vec!["d0/f000".to_owned()], vec!["d1/f001".to_owned()]));
    assert_eq!(site.rescan_with(&Run::new().dry_run(true)).unwrap().uploaded_count, 2);
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2));
    check_idle(&world, &site);
}

/// What verification finds lost may have changed on disk meanwhile: what is pending for it stands, and the
/// fallback's URL comes with the digest of what the fallback serves.
#[test]
fn verification_does_not_overwrite_what_is_known_of_a_changed_file() {
    let world = World::new();
    world.write("a", "old");
    world.write("b", "x");
    let local = Arc::new(LocalBackend::new("http://local", world.root()));
    let site = world.orchestrator_with(RescanConfig::new().fallback(local));
    site.rescan().unwrap();
    world.write("a", "newer");
    world.store.refuse_put("/a", "InvalidArgument");
    world.store.remove_raw(&format!("{PREFIX}a"));
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    check(&world, &site, &report);
    assert_eq!(report.verified.as_ref().unwrap().missing, ["a"]);
    let resolved = site.cache().resolve("a").unwrap().unwrap();
    let newer = <sha2::Sha256 as sha2::Digest>::digest("newer");
    assert_eq!((resolved.size, resolved.digest.unwrap().to_hex()), (Some(5), hex::encode(newer)));
    world.store.clear_faults();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 1));
}

/// P3: the second of two rescans on one cache fails at once and names the file.
#[test]
fn p3_second_rescan_on_one_cache_fails_at_once() {
    let world = tree(3);
    let gate = latch();
    world.proxy.add(Rule::new(Fault::Hold(gate.clone())).method("PUT").times(1));
    let site = Arc::new(world.orchestrator());
    let first = std::thread::spawn({
        let site = site.clone();
        move || site.rescan().unwrap()
    });
    assert!(gate.wait_for_arrivals(1));
    let error = site.rescan().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::CacheLocked, Some(world.cache_path().as_path())));
    let error = CacheManager::open(world.cache_path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CacheLocked);
    gate.release();
    check(&world, &site, &first.join().unwrap());
}

/// P8: callable from a worker of any rayon pool, from two threads at once, and from an async runtime, all with one worker in
/// the engine, small files and one in parts.
#[test]
fn p8_rescan_completes_whoever_calls_it() {
    let world = World::with_workers(1);
    let site = Arc::new(in_small_parts(&world));
    let mut round = 0;
    // Changes something, lets it be published, and looks whether it was.
    let mut published_by = |call: &dyn Fn() -> RescanReport| {
        round += 1;
        for n in 0..20 {
            world.write(&format!("d{}/f{n:03}", n % 7), format!("{round} {n}"));
        }
        world.write_random("large", 17 << 20, round);
        let report = call();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 21), "round {round}");
        assert!(world.objects() == files_below(&world.root()), "round {round}");
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    published_by(&|| pool.install(|| site.rescan().unwrap()));
    // The global pool, while every one of its workers waits for a rescan: for this one, or for its refusal.
    published_by(&|| {
        let all = rayon::broadcast(|_| site.rescan());
        let mut done = all.into_iter().filter_map(|result| match result {
            Ok(report) => (report.uploaded_count > 0).then_some(report),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::CacheLocked, "{error}");
                None
            }
        });
        done.next().unwrap()
    });
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    // `block_on` alone runs on the caller's thread.
    let spawned = |runtime: &tokio::runtime::Runtime| {
        let site = site.clone();
        runtime.block_on(async { tokio::spawn(async move { site.rescan().unwrap() }).await.unwrap() })
    };
    published_by(&|| spawned(&threads));
    published_by(&|| threads.block_on(async { site.rescan().unwrap() }));
    published_by(&|| spawned(&tokio::runtime::Builder::new_current_thread().build().unwrap()));

    // Two sites of one engine at once: a worker that waited for another would hold up both.
    let second = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalBackend::new("http://h", world.root()));
    let other_cache = CacheManager::open(second.path().join("cache")).unwrap();
    let other = RescanOrchestrator::new(&world.engine, world.root(), local, other_cache).unwrap();
    published_by(&|| {
        std::thread::scope(|threads| {
            let local = threads.spawn(|| other.rescan().unwrap());
            let remote = threads.spawn(|| site.rescan().unwrap());
            assert_eq!(local.join().unwrap().failed_count, 0);
            remote.join().unwrap()
        })
    });
    assert!(site.cache().is_synced().unwrap() && other.cache().is_synced().unwrap());
}

/// P5: not a cache, a truncated cache, a damaged one: refused with what to do, never a panic, and
/// nothing is deleted.
#[test]
fn p5_damaged_cache_is_refused_with_what_to_do() {
    let world = tree(200);
    world.orchestrator().rescan().unwrap();
    let good = fs::read(world.cache_path()).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(world.cache_path(), bytes).unwrap();
        CacheManager::open(world.cache_path()).err()
    };
    for bytes in
        [b"this is no database, but long enough to be one".repeat(100), good[..good.len() / 2].to_vec()]
    {
        let error = refused(&bytes).unwrap();
        assert_eq!(error.kind(), ErrorKind::CacheDamaged);
        assert!(error.to_string().contains("Make the cache anew"), "{error}");
    }
    for at in (100..good.len()).step_by(4096) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        if let Some(error) = refused(&bytes) {
            assert!(matches!(error.kind(), ErrorKind::CacheDamaged | ErrorKind::Cache), "byte {at}: {error}");
        }
    }
    assert_eq!(world.keys().len(), 200);
}

/// S4: the cache is for its owner alone, and a planted link is not followed.
#[test]
fn s4_cache_is_private_and_follows_no_link() {
    use std::os::unix::fs::PermissionsExt;
    let world = tree(1);
    world.orchestrator().rescan().unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.cache_path()), 0o600);
    assert_eq!(mode(world.cache_path().parent().unwrap()), 0o700);
    let link = world.root().with_extension("link");
    std::os::unix::fs::symlink(world.cache_path(), &link).unwrap();
    assert_eq!(CacheManager::open(link).unwrap_err().kind(), ErrorKind::Cache);
}

#[test]
fn observers_channels_and_progress_see_the_whole_run() {
    let world = tree(12);
    let (observer, events) = channel(10_000);
    let progress = Progress::new();
    let site = world.orchestrator();
    let run = Run::new().observer(observer.clone()).progress(progress.clone());
    let report = site.rescan_with(&run).unwrap();
    check(&world, &site, &report);
    let (mut started, mut finished) = (0, 0);
    for event in events.try_iter() {
        match event {
            Event::UploadStarted { .. } => started += 1,
            Event::UploadFinished { .. } => finished += 1,
            _ => {}
        }
    }
    assert_eq!((started, finished, observer.missed()), (12, 12, 0));
    let seen = progress.snapshot();
    assert_eq!((seen.files_total, seen.files_done, seen.bytes_done), (12, 12, seen.bytes_total));
    assert!(seen.bytes_total > 0);
}

/// A failure's kind, and whether it may go away, were to be guessed from its text; an outcome of a later version would
/// have been none of those that a caller knows.
#[test]
fn failed_upload_tells_its_kind_and_an_outcome_is_one_of_four() {
    let world = tree(2);
    world.store.refuse_put("/f000", "InvalidArgument");
    world
        .proxy
        .add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("PUT").path_contains("f001"));
    let (observer, events) = channel(1000);
    let report = world.orchestrator().rescan_with(&Run::new().observer(observer)).unwrap();
    let mut failures: Vec<_> = events
        .try_iter()
        .filter_map(|event| match event {
            Event::UploadFailed { key, kind, retryable, .. } => Some((key, kind, retryable)),
            _ => None,
        })
        .collect();
    failures.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("d0/f000", ErrorKind::Rejected, false), ("d1/f001", ErrorKind::Server, true)];
    assert_eq!(failures, expected.map(|(key, kind, retryable)| (key.to_owned(), kind, retryable)));
    // No arm for the rest: this does not compile if there is another one.
    let is_whole = match report.outcome {
        RescanOutcome::Unchanged | RescanOutcome::Published => true,
        RescanOutcome::Partial | RescanOutcome::LocalOnly => false,
    };
    assert!(!is_whole);
}

/// What runs without deletes note of each key was gathered in memory to the end of the walk, however many they were.
#[test]
fn i8_marks_of_kept_objects_are_written_while_the_tree_is_walked() {
    let world = tree(1);
    for n in 0..9000 {
        world.write(&format!("many/{n}"), "");
    }
    let backend = || Arc::new(LocalBackend::new("http://h", world.root()));
    world.orchestrator_on(backend(), RescanConfig::new()).rescan().unwrap();
    fs::remove_dir_all(world.path("many")).unwrap();
    let report = world.orchestrator_on(backend(), RescanConfig::new().delete(false)).rescan().unwrap();
    assert_eq!((report.kept_count, report.deleted_count), (9000, 0));
    assert!(report.metrics.commits >= 3, "4,096 at a time: {}", report.metrics.commits);
}

#[test]
fn published_version_can_be_compared_with_another() {
    let world = tree(3);
    let site = world.orchestrator();
    site.rescan().unwrap();
    let before = site.cache().published().unwrap();
    world.remove("d0/f000");
    world.write("d1/f001", "changed");
    world.write("new", "n");
    site.rescan().unwrap();
    let diff = FileDiff::compute(&before, &site.cache().published().unwrap());
    assert_eq!((diff.added.len(), diff.modified.len(), diff.removed.len()), (1, 1, 1));
}

/// F2: same size and mtime, new content, within one tick of the clock.
#[test]
fn f2_racy_rewrite_is_noticed_and_a_future_mtime_is_not_hashed_for_ever() {
    let world = tree(1);
    world.write("racy", "old!");
    let times = fs::metadata(world.path("racy")).unwrap().modified().unwrap();
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.write("racy", "new!");
    fs::File::options().write(true).open(world.path("racy")).unwrap().set_modified(times).unwrap();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(world.objects()["racy"], b"new!");
    let future = times + Duration::from_secs(86_400 * 365);
    fs::File::options().write(true).open(world.path("racy")).unwrap().set_modified(future).unwrap();
    check_idle(&world, &site);
}

/// A store that refuses what is signed with a time that is off by more than 15 minutes.
fn refuses_skewed_times(world: &World) {
    let stamp = |time: time::OffsetDateTime| {
        let date = format!("{:04}{:02}{:02}", time.year(), u8::from(time.month()), time.day());
        format!("{date}T{:02}{:02}{:02}Z", time.hour(), time.minute(), time.second())
    };
    let is_skewed = move |headers: &Headers| {
        let signed = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"));
        let now = time::OffsetDateTime::now_utc();
        let right = stamp(now - time::Duration::minutes(15))..stamp(now + time::Duration::minutes(15));
        signed.is_none_or(|(_, value)| !right.contains(value))
    };
    let body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>no</Message></Error>".to_vec();
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let refused = Fault::Answer(403, vec![("Date".to_owned(), date)], body);
    world.proxy.add(Rule::new(refused).when(is_skewed));
}

/// Lets the clock jump by so many seconds when a request is tried again for the first time.
fn jumps_at_a_retry(world: &World, step: i64) -> Arc<dyn Observer> {
    let (clock, jumped) = (world.clock.clone(), AtomicU32::new(0));
    Arc::new(move |event: &Event| {
        if matches!(event, Event::Retrying { .. }) && jumped.fetch_add(1, Ordering::SeqCst) == 0 {
            clock.step_wall(step);
        }
    })
}

/// P6: the clock jumps an hour either way, while a request is retried, with files in parts and small ones. No wait gets longer, no
/// deadline ends, and what is signed after it is signed with the time of the store.
#[test]
fn p6_clock_that_jumps_disturbs_no_retry() {
    for (step, kind) in [(-3600, "/d"), (3600, "/d"), (-3600, "partNumber"), (3600, "partNumber")] {
        let world = tree(10);
        world.write_random("large", 17 << 20, 1);
        let fails = Fault::Answer(500, Vec::new(), Vec::new());
        world.proxy.add(Rule::new(fails).method("PUT").path_contains(kind).times(1));
        refuses_skewed_times(&world);
        let observer = jumps_at_a_retry(&world, step);
        let site = in_small_parts(&world);
        let began = world.clock.now();
        let run = Run::new().observer(observer).deadline(Duration::from_secs(600));
        let report = site.rescan_with(&run).unwrap();
        check(&world, &site, &report);
        let case = format!("{step} {kind} {:?}", report.metrics);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 11), "{case}");
        // The one that failed, and each request that was signed before the store's time was known.
        assert!((2..14).contains(&report.metrics.retries), "{case}");
        let waited = world.clock.now().saturating_sub(began);
        assert!(waited < Duration::from_secs(60), "{case}: {waited:?}");
        assert!(world.objects() == files_below(&world.root()), "{case}");
        // The offset that was learned is right from the first request on.
        world.write("later", "x");
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 0), "{case}");
    }
}

/// P6, with the state in the bucket: a clock that jumps forward ends the lease at the worst, and one that jumps back does not
/// make it longer. What the run did is right, and the next one needs to wait for nobody.
#[test]
fn p6_clock_that_jumps_under_a_claim_harms_nothing() {
    for step in [-3600, 3600] {
        let world = tree(10);
        let state = || RescanConfig::new().state(RemoteState::new());
        let site = world.orchestrator_with(state());
        site.rescan().unwrap();
        for n in 0..10 {
            world.write(&format!("d{}/f{n:03}", n % 7), format!("other {n}"));
        }
        let fails = Fault::Answer(500, Vec::new(), Vec::new());
        world.proxy.add(Rule::new(fails).method("PUT").path_contains("/d").times(1));
        refuses_skewed_times(&world);
        let observer = jumps_at_a_retry(&world, step);
        let report = site.rescan_with(&Run::new().observer(observer)).unwrap();
        // The clock that shows most ends the lease: whatever was not sent by then is left to the next run. If the first
        // write has failed, the store has answered nothing else by then.
        let is_left = matches!(report.outcome, RescanOutcome::Partial | RescanOutcome::LocalOnly);
        let is_cut_short = step > 0 && is_left;
        assert!(report.outcome == RescanOutcome::Published || is_cut_short, "{step} {report:?}");
        let report = site.rescan().unwrap();
        assert_eq!((report.failed_count, report.stop_reason), (0, None), "{step} {report:?}");
        let stored = published(&world).into_iter().map(|(key, text)| (key, text.into_bytes()));
        assert!(stored.collect::<std::collections::BTreeMap<_, _>>() == files_below(&world.root()), "{step}");
    }
}

/// A panic that no hook prints.
fn panic_quietly(what: String) -> ! {
    std::panic::resume_unwind(Box::new(what))
}

/// A backend that panics at some of its calls: whatever part of a run makes them.
struct Panicky {
    s3: S3Backend,
    calls: AtomicU32,
    /// The first call that panics, and how many do from there on.
    at: u32,
    times: u32,
}

impl Panicky {
    fn called(&self, what: &str) -> &S3Backend {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call >= self.at && call - self.at < self.times {
            panic_quietly(format!("call {call} of {what}"));
        }
        &self.s3
    }
}

impl StorageBackend for Panicky {
    fn upload_file(&self, path: &std::path::Path, key: &str) -> Result<String, StorageError> {
        self.called("upload_file").upload_file(path, key)
    }

    fn delete_file(&self, key: &str) -> Result<(), StorageError> {
        self.called("delete_file").delete_file(key)
    }

    fn get_url(&self, key: &str) -> String {
        self.called("get_url").get_url(key)
    }

    fn is_remote(&self) -> bool {
        self.called("is_remote").is_remote()
    }

    fn transfers(&self) -> Option<&dyn Transfers> {
        self.called("transfers").transfers()
    }

    fn destination(&self) -> String {
        self.called("destination").destination()
    }
}

/// A tree of which one run has something to upload, to upload in parts, to delete and to verify.
fn much_to_do(config: &dyn Fn() -> RescanConfig) -> World {
    let world = tree(6);
    let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
    let backend = Arc::new(S3Backend::new(&world.engine, s3).unwrap());
    world.orchestrator_on(backend, config()).rescan().unwrap();
    world.write("d0/f000", "changed");
    world.write("new", "new");
    world.write_random("large", (8 << 20) + 1, 1);
    world.remove("d1/f001");
    world.remove("d2/f002");
    world
}

/// What runs ended with that panicked at each call in turn.
#[derive(Debug, Default)]
struct Ends {
    runs: u32,
    whole: u32,
    partial: u32,
    errors: u32,
    /// Claims that were not given back, because that panicked.
    claims_left: u32,
}

/// Lets a backend panic at its k-th call, so many times. Each run ends, with a report or an error, and never with a
/// panic; what it did obeys the invariants; and the run after it makes everything right.
fn panics_at_each_call(times: u32, has_state: bool, config: &dyn Fn() -> RescanConfig) -> Ends {
    let mut ends = Ends::default();
    // Each call in the long form, and every fifth of them in the short one.
    let step = if std::env::var_os("BRIGADE_TEST_LONG").is_some() { 1 } else { 5 };
    for at in (0..).step_by(step) {
        let world = much_to_do(config);
        let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
        let s3 = S3Backend::new(&world.engine, s3).unwrap();
        let backend = Arc::new(Panicky { s3, calls: AtomicU32::new(0), at, times });
        let cache = world.cache();
        let site =
            RescanOrchestrator::with_config(&world.engine, world.root(), backend.clone(), cache, config());
        let result = site.and_then(|site| site.rescan_with(&Run::new().verify(Verify::List)));
        let case = format!("call {at}, {times} times: {result:?}");
        if backend.calls.load(Ordering::SeqCst) <= at {
            break;
        }
        ends.runs += 1;
        match &result {
            Ok(report) if report.outcome == RescanOutcome::Published => ends.whole += 1,
            Ok(report) => {
                ends.partial += 1;
                let panicked = report.failed.iter().any(|error| error.kind() == ErrorKind::Panicked);
                assert!(panicked || report.stop_reason.is_some() || report.outage.is_some(), "{case}");
                // One panic costs one file at most: the others are there.
                if times == 1 && !has_state {
                    assert!(report.failed_count <= 2 && report.uploaded_count >= 2, "{case}");
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Panicked, "{case}");
                ends.errors += 1;
            }
        }
        let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
        let site = world.orchestrator_on(Arc::new(S3Backend::new(&world.engine, s3).unwrap()), config());
        let mut report = site.rescan().unwrap();
        if report.stop_reason == Some(StopReason::Claimed) {
            ends.claims_left += 1;
            pass(&world, AFTER_LEASE);
            report = site.rescan().unwrap();
        }
        assert_eq!((report.failed_count, report.stop_reason), (0, None), "{case}, then {report:?}");
        let stored = world.objects().into_iter().filter(|(key, _)| !key.contains(".brigade/"));
        assert!(stored.collect::<std::collections::BTreeMap<_, _>>() == files_below(&world.root()), "{case}");
        assert_eq!(world.store.uploads(), [], "{case}");
        if !has_state {
            check(&world, &site, &report);
        }
    }
    ends
}

/// P7: wherever a run calls a backend, a panic there costs no more than what the call was for. One in a getter that was called
/// before a run began, as one ended, or by the constructor, reached the host; now all of that is inside of what catches it.
#[test]
fn p7_backend_that_panics_at_any_call_costs_no_other_file() {
    for times in [1, u32::MAX] {
        let ends = panics_at_each_call(times, false, &RescanConfig::new);
        println!("{times}: {ends:?}");
        assert!(ends.runs > 5 && ends.partial + ends.errors > 2, "{ends:?}");
    }
}

/// P7, with the state in the bucket: the claim is given back all the same. After a panic on the host's thread the jobs of the
/// workers went on, under a claim that was given back, and the cache could not be opened again until they were done. Now
/// whatever hands out jobs waits for them, however it ends.
#[test]
fn p7_backend_that_panics_under_a_claim_gives_it_back() {
    let ends = panics_at_each_call(1, true, &|| RescanConfig::new().state(RemoteState::new()));
    println!("{ends:?}");
    assert!(ends.runs > 5 && ends.partial + ends.errors > 2, "{ends:?}");
    // The requests that give it back are calls of the backend, too.
    assert!(ends.claims_left <= 3, "{ends:?}");
}

/// P7: an observer that panics at every event, of the engine and of the run, disturbs neither uploads in parts, deletes and
/// verifications, nor the renewal of a claim.
#[test]
fn p7_observer_that_panics_at_every_event_disturbs_nothing() {
    for config in [RescanConfig::new, || RescanConfig::new().state(RemoteState::new())] {
        let world = much_to_do(&config);
        let events = Arc::new(AtomicU32::new(0));
        let seen = events.clone();
        let loud: Arc<dyn Observer> = Arc::new(move |event: &Event| {
            seen.fetch_add(1, Ordering::SeqCst);
            panic_quietly(format!("no mood for {event:?}"));
        });
        let engine = bucket_brigade::EngineConfig::new().workers(2).clock(world.clock.clone());
        let engine = engine.observer(loud.clone()).build().unwrap();
        let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
        let s3 = Arc::new(S3Backend::new(&engine, s3).unwrap());
        let site =
            RescanOrchestrator::with_config(&engine, world.root(), s3, world.cache(), config()).unwrap();
        let report = site.rescan_with(&Run::new().observer(loud).verify(Verify::List)).unwrap();
        assert_eq!(report.outcome, RescanOutcome::Published, "{report:?}");
        assert_eq!((report.uploaded_count, report.deleted_count, report.failed_count), (3, 2, 0));
        assert_eq!(report.verified.unwrap().matching, 6);
        assert!(events.load(Ordering::SeqCst) > 20);
    }
}

/// A dry run refuses the deletes that a run would refuse, and a run that failed is not in sync.
#[test]
fn i6_dry_run_and_is_synced_say_no_better_than_the_truth() {
    let world = tree(40);
    let site = world.orchestrator();
    site.rescan().unwrap();
    assert!(site.cache().is_synced().unwrap());
    for n in 0..30 {
        world.remove(&format!("d{}/f{n:03}", n % 7));
    }
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!(
        (planned.outcome, planned.stop_reason),
        (RescanOutcome::Partial, Some(StopReason::DeletesRefused))
    );
    assert!(site.cache().is_synced().unwrap(), "a dry run records nothing");
    fs::rename(world.root(), world.root().with_extension("away")).unwrap();
    site.rescan().unwrap_err();
    assert!(!site.cache().is_synced().unwrap());
}

/// An observer runs on a worker, and a rescan waits for workers.
#[test]
fn rescan_from_an_observer_is_refused_and_does_not_hang() {
    let world = World::with_workers(1);
    world.write("a", "1");
    let other_root = tempfile::tempdir().unwrap();
    fs::write(other_root.path().join("f"), "x").unwrap();
    let state = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalBackend::new("http://h", other_root.path()));
    let cache = CacheManager::open(state.path().join("cache")).unwrap();
    let other = RescanOrchestrator::new(&world.engine, other_root.path(), local, cache).unwrap();
    let seen = Arc::new(std::sync::Mutex::new(None));
    let sink = seen.clone();
    let observer = Arc::new(move |event: &Event| {
        if matches!(event, Event::UploadFinished { .. }) {
            *sink.lock().unwrap() = other.rescan().err();
        }
    });
    let site = world.orchestrator();
    check(&world, &site, &site.rescan_with(&Run::new().observer(observer)).unwrap());
    assert_eq!(seen.lock().unwrap().as_ref().unwrap().kind(), ErrorKind::Config);
}
