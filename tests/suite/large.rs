//! Files that go up in parts.

use std::sync::{Arc, Mutex};

use bucket_brigade::{
    ErrorKind, Event, NetworkConfig, Observer, Progress, RescanConfig, RescanOrchestrator, RescanOutcome,
    Run, S3Backend, StorageBackend,
};
use sha2::{Digest, Sha256};

use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Rule, Seen, latch};
use crate::support::server::S3Server;
use crate::support::tls::TestCa;
use crate::support::{PREFIX, World};

const MIB: usize = 1024 * 1024;

/// Parts of 8 MiB, for files of more than 8 MiB.
pub(crate) fn in_small_parts(world: &World) -> RescanOrchestrator {
    in_parts(world, 8, 8, RescanConfig::new())
}

fn in_parts(world: &World, threshold: u64, part: u64, config: RescanConfig) -> RescanOrchestrator {
    let s3 = world.s3_config().part_threshold(threshold << 20).part_size(part << 20);
    world.orchestrator_on(Arc::new(S3Backend::new(&world.engine, s3).unwrap()), config)
}

/// How many requests of each step were sent: begin, part, complete.
pub(crate) fn steps(world: &World) -> (usize, usize, usize) {
    let requests = world.proxy.requests();
    let count = |is: &dyn Fn(&Seen) -> bool| requests.iter().filter(|seen| is(seen)).count();
    (
        count(&|seen| seen.method == "POST" && seen.target.ends_with("?uploads=")),
        count(&|seen| seen.method == "PUT" && seen.target.contains("partNumber=")),
        count(&|seen| seen.method == "POST" && seen.target.contains("?uploadId=")),
    )
}

#[test]
fn large_file_goes_up_in_parts_and_is_one_object_with_its_headers() {
    let world = World::new();
    let bytes = world.write_random("a/film.mp4", 40 * MIB + 1, 1);
    world.write("small", "x");
    // What was hashed while it waited for the first answer is not hashed again.
    world.let_files_settle();
    let s3 = world.s3_config().header("Cache-Control", "max-age=60").part_size(8 << 20);
    let backend = Arc::new(S3Backend::new(&world.engine, s3).unwrap());
    let site = world.orchestrator_on(backend, RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2));
    assert_eq!(steps(&world), (1, 6, 1));
    let object = world.store.get(&format!("{PREFIX}a/film.mp4")).unwrap();
    assert_eq!(
        (object.content_type.as_deref(), object.cache_control.as_deref()),
        (Some("video/mp4"), Some("max-age=60"))
    );
    assert_eq!(object.metadata["brigade-upload"].len(), 32);
    let lengths: Vec<usize> = world
        .proxy
        .requests()
        .iter()
        .filter(|seen| seen.target.contains("partNumber="))
        .map(|seen| seen.header("content-length").unwrap().parse().unwrap())
        .collect();
    assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
    assert_eq!(lengths.iter().filter(|length| **length == 8 * MIB).count(), 5);
    let resolved = site.cache().resolve("a/film.mp4").unwrap().unwrap();
    assert_eq!((resolved.digest.unwrap().part_size(), resolved.whole_digest), (Some(8 << 20), None));
    assert_eq!(report.metrics.bytes_hashed, bytes.len() as u64 + 1, "hashed once");
    check_idle(&world, &site);
}

/// A file at the threshold is one request; one byte more makes two parts.
#[test]
fn threshold_divides_files_to_the_byte() {
    let world = World::new();
    world.write_random("at", 16 * MIB, 1);
    world.write_random("above", 16 * MIB + 1, 2);
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((world.store.puts(), steps(&world)), (vec![format!("{PREFIX}at")], (1, 2, 1)));
}

#[test]
fn touched_large_file_is_hashed_and_not_sent() {
    let world = World::new();
    let bytes = world.write_random("f", 24 * MIB, 1);
    let site = in_small_parts(&world);
    site.rescan().unwrap();
    world.let_files_settle();
    site.rescan().unwrap();
    world.write("f", &bytes);
    world.proxy.clear_counts();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.unchanged), (RescanOutcome::Unchanged, 1));
    assert_eq!((report.metrics.bytes_hashed, world.proxy.requests().len()), (bytes.len() as u64, 0));
    check_idle(&world, &site);
}

/// What was hashed to compare is not hashed once more to be sent; another size needs no comparison.
#[test]
fn changed_large_file_is_hashed_once_and_sent() {
    let world = World::new();
    world.write_random("f", 24 * MIB, 1);
    let site = in_small_parts(&world);
    site.rescan().unwrap();
    for (size, seed) in [(24 * MIB, 2), (25 * MIB, 3)] {
        let bytes = world.write_random("f", size, seed);
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 1));
        assert_eq!(report.metrics.bytes_hashed, bytes.len() as u64);
        assert_eq!(world.objects()["f"], bytes);
    }
    check_idle(&world, &site);
}

/// A tool re-uploaded a whole bucket because its part size had changed, and with it every checksum.
#[test]
fn changed_knobs_send_nothing_again() {
    let world = World::new();
    let (large, small) = (world.write_random("large", 33 * MIB, 1), world.write_random("small", 12 * MIB, 2));
    in_parts(&world, 16, 16, RescanConfig::new()).rescan().unwrap();
    // Other parts; then all in parts; then none in parts.
    for (threshold, part) in [(16, 8), (8, 8), (64, 64), (16, 32)] {
        world.write("large", &large);
        world.write("small", &small);
        world.proxy.clear_counts();
        let site = in_parts(&world, threshold, part, RescanConfig::new());
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!(report.outcome, RescanOutcome::Unchanged, "threshold {threshold}, parts of {part}");
        assert_eq!(world.proxy.requests().len(), 0, "threshold {threshold}, parts of {part}");
        assert_eq!(
            site.cache().resolve("large").unwrap().unwrap().digest.unwrap().part_size(),
            Some(16 << 20)
        );
    }
}

/// A changed file is sent under the knobs of now, whichever it was sent with before.
#[test]
fn changed_file_is_sent_as_the_knobs_say_now() {
    let world = World::new();
    world.write_random("f", 20 * MIB, 1);
    for (round, (threshold, part)) in [(16, 16), (32, 8), (8, 8), (8, 16)].into_iter().enumerate() {
        world.write_random("f", 20 * MIB, 10 + round as u64);
        let site = in_parts(&world, threshold, part, RescanConfig::new());
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 1));
        let expected = (threshold < 20).then_some(part << 20);
        assert_eq!(site.cache().resolve("f").unwrap().unwrap().digest.unwrap().part_size(), expected);
    }
}

/// One file is sent by all workers.
#[test]
fn one_large_file_uses_all_workers_and_no_more_than_them() {
    let world = World::new();
    world.write_random("f", 90 * MIB, 1);
    let hold = latch();
    world.proxy.add(Rule::new(Fault::Hold(hold.clone())).path_contains("partNumber="));
    let site = in_small_parts(&world);
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| site.rescan().unwrap());
        assert!(hold.wait_for_arrivals(10), "ten parts at once");
        assert_eq!(steps(&world).1, 10);
        hold.release();
        run.join().unwrap()
    });
    check(&world, &site, &report);
    assert_eq!((report.outcome, steps(&world)), (RescanOutcome::Published, (1, 12, 1)));
    assert!(report.metrics.connections <= 10);
}

/// Ten large files are no hundred parts at once: the workers are shared, and `parts_in_flight` limits them.
#[test]
fn parts_of_all_files_together_are_limited() {
    let world = World::new();
    for n in 0..10 {
        world.write_random(&format!("f{n}"), 17 * MIB, n);
    }
    let hold = latch();
    world.proxy.add(Rule::new(Fault::Hold(hold.clone())).path_contains("partNumber="));
    let site = in_parts(&world, 8, 8, RescanConfig::new().parts_in_flight(3));
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| site.rescan().unwrap());
        assert!(hold.wait_for_arrivals(3));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(steps(&world).1, 3);
        hold.release();
        run.join().unwrap()
    });
    check(&world, &site, &report);
    assert_eq!((report.uploaded_count, steps(&world)), (10, (10, 30, 10)));
}

/// A release's large image came first in the listing, and its thousand small files hours later.
#[test]
fn small_files_do_not_wait_behind_a_large_one() {
    let world = World::new();
    world.write_random("a-large", 90 * MIB, 1);
    world.write_random("b-large", 90 * MIB, 2);
    for n in 0..60 {
        world.write(&format!("small/f{n:02}"), "x");
    }
    let hold = latch();
    world.proxy.add(Rule::new(Fault::Hold(hold.clone())).path_contains("partNumber="));
    let site = in_small_parts(&world);
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| site.rescan().unwrap());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while world.store.puts().len() < 60 {
            assert!(std::time::Instant::now() < deadline, "small files wait: {}", world.store.puts().len());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        hold.release();
        run.join().unwrap()
    });
    check(&world, &site, &report);
    assert_eq!(report.uploaded_count, 62);
}

/// Some of each, in each order: added before modified, all of them whole.
#[test]
fn large_and_small_added_modified_and_removed_files_go_together() {
    let world = World::new();
    for n in 0..3 {
        world.write_random(&format!("old/large{n}"), 17 * MIB, n);
        world.write(&format!("old/small{n}"), format!("{n}"));
    }
    let site = in_small_parts(&world);
    site.rescan().unwrap();
    world.write_random("old/large0", 20 * MIB, 7);
    world.write_random("old/large1", 17 * MIB, 8);
    world.remove("old/large2");
    world.remove("old/small2");
    world.write("old/small0", "changed");
    world.write_random("new/large", 30 * MIB, 9);
    world.write("new/small", "new");
    world.store.clear_logs();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.uploaded_count, report.deleted_count), (5, 2));
    let commits = world.store.commits();
    let place = |key: &str| commits.iter().position(|commit| commit.ends_with(key)).unwrap();
    let added = place("new/large").max(place("new/small"));
    assert!(["old/large0", "old/large1", "old/small0"].iter().all(|key| place(key) > added), "{commits:?}");
    check_idle(&world, &site);
}

#[test]
fn progress_and_events_tell_of_each_part_with_its_bytes() {
    let world = World::new();
    let bytes = world.write_random("f", 20 * MIB + 5, 1);
    let parts = Arc::new(Mutex::new(Vec::new()));
    let sink = parts.clone();
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event| {
        if let Event::PartFinished { key, number, bytes, of, resumed } = event {
            sink.lock().unwrap().push((key.clone(), *number, *bytes, *of, *resumed));
        }
    });
    let progress = Progress::default();
    let site = in_small_parts(&world);
    let report = site.rescan_with(&Run::new().observer(observer).progress(progress.clone())).unwrap();
    check(&world, &site, &report);
    let mut parts = parts.lock().unwrap().clone();
    parts.sort();
    let length = bytes.len() as u64;
    let part = |number, bytes| ("f".to_owned(), number, bytes, length, false);
    assert_eq!(parts, [part(1, 8 << 20), part(2, 8 << 20), part(3, (4 << 20) + 5)]);
    let at = progress.snapshot();
    assert_eq!((at.bytes_done, at.bytes_sent, at.bytes_hashed, at.files_done), (length, length, length, 1));
}

/// What was there from an earlier run counted as sent: rate and time left were wrong by it.
#[test]
fn progress_of_a_resumed_file_tells_what_was_there_from_what_is_sent() {
    let world = World::new();
    let length = world.write_random("f", 20 * MIB, 1).len() as u64;
    world.let_files_settle();
    let third = Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).path_contains("partNumber=3");
    world.proxy.add(third);
    let no_retry = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
    let no_retry = no_retry.retry(bucket_brigade::RetryPolicy::default().with_attempts(1));
    let backend = Arc::new(bucket_brigade::S3Backend::new(&world.engine, no_retry).unwrap());
    let report = world.orchestrator_on(backend, RescanConfig::new()).rescan().unwrap();
    assert_eq!(report.open_uploads, 1);
    world.proxy.clear_rules();
    let resumed = Arc::new(Mutex::new(Vec::new()));
    let sink = resumed.clone();
    let observer: Arc<dyn Observer> = Arc::new(move |event: &Event| {
        if let Event::PartFinished { number, resumed, .. } = event {
            sink.lock().unwrap().push((*number, *resumed));
        }
    });
    let (progress, site) = (Progress::default(), in_small_parts(&world));
    let report = site.rescan_with(&Run::new().observer(observer).progress(progress.clone())).unwrap();
    check(&world, &site, &report);
    let at = progress.snapshot();
    assert_eq!((at.bytes_total, at.bytes_done, at.bytes_sent), (length, length, 4 << 20));
    let mut resumed = resumed.lock().unwrap().clone();
    resumed.sort_unstable();
    assert_eq!(resumed, [(1, true), (2, true), (3, false)]);
}

#[test]
fn whole_file_digest_is_what_sha256sum_prints() {
    let world = World::new();
    let bytes = world.write_random("f", 20 * MIB, 1);
    let site = in_parts(&world, 8, 8, RescanConfig::new().whole_file_digest(true));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let whole = |site: &RescanOrchestrator| site.cache().resolve("f").unwrap().unwrap().whole_digest;
    assert_eq!(whole(&site).unwrap().to_hex(), format!("{:x}", Sha256::digest(&bytes)));
    // It outlives a confirmation.
    world.write("f", &bytes);
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(whole(&site).unwrap().to_hex(), format!("{:x}", Sha256::digest(&bytes)));
}

/// Each chunk left in two writes, one of a whole record but 22 bytes and one of the rest: over TLS a buffer of
/// the chunk's own size has no room for the record's overhead.
#[test]
fn over_tls_a_chunk_is_one_write() {
    let world = World::new();
    let bytes = world.write_random("f", 33 * MIB, 1);
    let (ca, folder) = (TestCa::new(), tempfile::tempdir().unwrap());
    let server = S3Server::start_tls(world.store.service(), ca.server_config());
    let config = |chunk: usize| {
        let s3 = world
            .s3_config()
            .endpoint(server.endpoint())
            .network(NetworkConfig::new().ca_file(ca.write_into(folder.path())));
        s3.part_threshold(8 << 20).part_size(8 << 20).chunk_size(chunk)
    };
    for chunk in [8 * 1024, 16 * 1024] {
        let backend = S3Backend::new(&world.engine, config(chunk)).unwrap();
        let before = world.engine.metrics();
        backend.upload_file(&world.path("f"), &format!("of-{chunk}")).unwrap();
        let after = world.engine.metrics();
        assert_eq!(world.objects()[&format!("of-{chunk}")], bytes);
        let (sends, requests) = (after.sends - before.sends, after.requests - before.requests);
        let chunks = (bytes.len() / chunk) as u64;
        // The handshake and each request's head are a few more.
        assert!(sends <= chunks + 2 * requests + 10, "{sends} writes for {chunks} chunks of {chunk}");
        assert!(sends >= chunks, "{sends} writes for {chunks} chunks: not streamed");
        // A record adds 22 bytes to its chunk.
        let overhead = after.bytes_sent - before.bytes_sent - bytes.len() as u64;
        assert!(
            overhead < 24 * (chunks + requests) + 4096 * requests,
            "{overhead} bytes besides the content"
        );
    }
}

/// A rescan over TLS: the same, and each worker's connection is kept.
#[test]
fn over_tls_a_large_file_uses_few_connections() {
    let world = World::new();
    world.write_random("f", 65 * MIB, 1);
    let (ca, folder) = (TestCa::new(), tempfile::tempdir().unwrap());
    let server = S3Server::start_tls(world.store.service(), ca.server_config());
    let s3 = world
        .s3_config()
        .endpoint(server.endpoint())
        .network(NetworkConfig::new().ca_file(ca.write_into(folder.path())));
    let s3 = s3.part_threshold(8 << 20).part_size(8 << 20);
    let site =
        world.orchestrator_on(Arc::new(S3Backend::new(&world.engine, s3).unwrap()), RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 0));
    assert!(report.metrics.connections <= 10, "{}", report.metrics.connections);
}

/// The one method of the contract does the same, one part after another.
#[test]
fn upload_file_sends_a_large_file_in_parts_too() {
    let world = World::new();
    let bytes = world.write_random("f", 20 * MIB, 1);
    let backend =
        S3Backend::new(&world.engine, world.s3_config().part_threshold(8 << 20).part_size(8 << 20)).unwrap();
    let url = backend.upload_file(&world.path("f"), "g").unwrap();
    assert_eq!((world.objects()["g"].as_slice(), url), (bytes.as_slice(), backend.get_url("g")));
    assert_eq!(steps(&world), (1, 3, 1));
    // What fails leaves nothing behind.
    let denied = b"<Error><Code>AccessDenied</Code></Error>".to_vec();
    world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), denied)).path_contains("partNumber=2"));
    let error = backend.upload_file(&world.path("f"), "h").unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::AccessDenied, Some("h")));
    assert_eq!((world.store.uploads(), world.keys()), (Vec::new(), vec!["g".to_owned()]));
}

/// Parts carry checksums where they are wanted, and the store compares them.
#[test]
fn checksums_travel_with_the_parts_where_they_are_wanted() {
    let world = World::new();
    world.write_random("f", 20 * MIB, 1);
    let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20).checksum_header(true);
    let site =
        world.orchestrator_on(Arc::new(S3Backend::new(&world.engine, s3).unwrap()), RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let requests = world.proxy.requests();
    let begin = requests.iter().find(|seen| seen.target.ends_with("uploads=")).unwrap();
    assert_eq!(begin.header("x-amz-checksum-algorithm"), Some("SHA256"));
    let parts: Vec<_> = requests.iter().filter(|seen| seen.target.contains("partNumber=")).collect();
    assert!(parts.iter().all(|seen| seen.header("x-amz-checksum-sha256").is_some_and(|sum| sum.len() == 44)));
}
