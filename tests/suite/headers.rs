//! Header rules, and objects that are brought in line by a copy in place when rules change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bucket_brigade::{
    ErrorKind, Event, HeaderRule, PendingKind, RescanConfig, RescanOrchestrator, RescanOutcome, RescanReport,
    RetryPolicy, Run, S3Backend, S3Config, Verify,
};

use crate::network::{answer, rescan, site_with};
use crate::support::memory_store::{Conditional, ETags, StoredObject};
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Headers, Maker, Rule, Seen};
use crate::support::seaweedfs;
use crate::support::{BUCKET, PREFIX, World};

const MIB: usize = 1024 * 1024;
/// The names that rules match.
const PAGE: &str = ".html";
const LARGE: usize = 9 * MIB;

/// Pages and scripts, none racy.
fn tree(pages: usize) -> World {
    let world = World::new();
    for n in 0..pages {
        world.write(&format!("d{}/p{n:02}.html", n % 3), format!("page {n}"));
        world.write(&format!("d{}/s{n:02}.js", n % 3), format!("script {n}"));
    }
    world.let_files_settle();
    world
}

fn pages(value: &str) -> HeaderRule {
    HeaderRule::new("*.html").set("Cache-Control", value)
}

fn small_parts(config: S3Config) -> S3Config {
    config.part_threshold(8 << 20).part_size(8 << 20)
}

fn site(world: &World, rules: &[HeaderRule]) -> RescanOrchestrator {
    let config = rules.iter().cloned().fold(small_parts(world.s3_config()), S3Config::header_rule);
    site_with(world, config)
}

/// Publishes with these rules, and forgets what was sent.
fn published_with(world: &World, rules: &[HeaderRule]) {
    let site = site(world, rules);
    let report = rescan(world, &site);
    assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Published, 0), "{report:?}");
    world.let_files_settle();
    world.proxy.clear_counts();
    world.store.clear_logs();
}

fn object(world: &World, key: &str) -> StoredObject {
    world.store.get(&format!("{PREFIX}{key}")).unwrap()
}

fn cache_control(world: &World, key: &str) -> Option<String> {
    object(world, key).cache_control
}

fn is_copy(headers: &Headers) -> bool {
    headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-amz-copy-source"))
}

fn copies(world: &World) -> Vec<Seen> {
    world.proxy.requests().into_iter().filter(|seen| is_copy(&seen.headers)).collect()
}

/// What the run did: headers updated, files sent, of these for headers alone.
fn counts(report: &RescanReport) -> (u64, u64, u64) {
    (report.headers_updated_count, report.uploaded_count, report.headers_resent_count)
}

/// What a dry run says of it, and the run then does.
fn planned_and_done(world: &World, site: &RescanOrchestrator) -> (RescanReport, RescanReport) {
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    let done = rescan(world, site);
    (planned, done)
}

#[test]
fn objects_get_the_headers_of_all_rules_that_match_them() {
    let world = tree(1);
    world.write("d0/raw/x.html", "raw");
    let config = world.s3_config().header("Cache-Control", "public").header("x-amz-meta-team", "web");
    let config = config
        .header_rule(pages("no-cache").set("x-amz-meta-page", "1"))
        .header_rule(HeaderRule::new("/d0/raw").set("Content-Type", "text/plain").set("x-amz-meta-page", ""))
        .header_rule(HeaderRule::new("*.js").set("Cache-Control", ""));
    let site = site_with(&world, config);
    rescan(&world, &site);
    let page = object(&world, "d0/p00.html");
    assert_eq!(page.cache_control.as_deref(), Some("no-cache"));
    assert_eq!(page.content_type.as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!((page.metadata["page"].as_str(), page.metadata["team"].as_str()), ("1", "web"));
    let raw = object(&world, "d0/raw/x.html");
    assert_eq!(
        (raw.cache_control.as_deref(), raw.content_type.as_deref()),
        (Some("no-cache"), Some("text/plain"))
    );
    assert!(!raw.metadata.contains_key("page") && raw.metadata["team"] == "web");
    let script = object(&world, "d0/s00.js");
    assert_eq!((script.cache_control, script.metadata["team"].as_str()), (None, "web"));
    check_idle(&world, &site);
}

#[test]
fn changed_rule_copies_the_objects_that_it_matches_and_sends_no_content() {
    let world = tree(20);
    published_with(&world, &[pages("no-cache")]);
    let before = object(&world, "d0/p00.html");
    let site = site(&world, &[pages("max-age=60")]);
    let (planned, report) = planned_and_done(&world, &site);
    assert_eq!((report.outcome, counts(&report)), (RescanOutcome::Published, (20, 0, 0)), "{report:?}");
    assert_eq!((planned.outcome, counts(&planned)), (report.outcome, counts(&report)));
    let mut updated = report.headers_updated.clone();
    updated.sort_unstable();
    let mut expected = planned.headers_updated.clone();
    expected.sort_unstable();
    assert_eq!(updated, expected);
    assert_eq!((planned.unchanged, report.unchanged), (20, 20));
    // The preflight, and a copy for each page.
    let copies = copies(&world);
    assert_eq!((copies.len(), world.proxy.requests().len()), (20, 21));
    assert_eq!(copies.iter().map(|seen| seen.received_body).sum::<u64>(), 0);
    assert_eq!((world.store.puts().len(), world.store.copies().len()), (0, 20));
    assert_eq!((report.metrics.bytes_hashed, report.metrics.headers_updated), (0, 20));
    for key in world.keys() {
        let expected = key.ends_with(PAGE).then(|| "max-age=60".to_owned());
        assert_eq!(cache_control(&world, &key), expected, "{key}");
    }
    let after = object(&world, "d0/p00.html");
    assert_eq!(
        (&after.bytes, &after.etag, &after.content_type),
        (&before.bytes, &before.etag, &before.content_type)
    );
    // The proof of origin is that of the run which copied it.
    let field = |object: &StoredObject, name: &str| {
        let proof = object.metadata["brigade"].clone();
        proof.split(';').find_map(|field| field.strip_prefix(name).map(str::to_owned))
    };
    for name in ["sha256=", "size=", "key="] {
        assert!(field(&after, name).is_some() && field(&after, name) == field(&before, name), "{name}");
    }
    assert_ne!(field(&after, "run="), field(&before, "run="));
    check_idle(&world, &site);
}

#[test]
fn each_copy_names_its_source_the_etag_and_all_headers() {
    let world = World::new();
    world.write("a b/ü+&.html", "x");
    world.let_files_settle();
    published_with(&world, &[]);
    let rule = pages("no-cache").set("x-amz-meta-a", "b").set("x-amz-storage-class", "STANDARD_IA");
    let rule = rule.set("x-amz-tagging", "k=v");
    let config = world.s3_config().checksum_header(true).header_rule(rule);
    let report = rescan(&world, &site_with(&world, config));
    assert_eq!(counts(&report), (1, 0, 0), "{report:?}");
    let seen = &copies(&world)[0];
    let source = format!("/{BUCKET}/{PREFIX}a%20b/%C3%BC%2B%26.html");
    let etag = format!("\"{}\"", object(&world, "a b/ü+&.html").etag);
    for (name, value) in [
        ("x-amz-copy-source", source.as_str()),
        ("x-amz-copy-source-if-match", &etag),
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-tagging-directive", "REPLACE"),
        ("x-amz-checksum-algorithm", "SHA256"),
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-amz-storage-class", "STANDARD_IA"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert!(object(&world, "a b/ü+&.html").checksum_sha256.is_some());
}

#[test]
fn removed_rule_takes_its_headers_away_again() {
    let world = tree(3);
    published_with(&world, &[pages("no-cache").set("Content-Type", "text/plain")]);
    let site = site(&world, &[]);
    let report = rescan(&world, &site);
    assert_eq!(counts(&report), (3, 0, 0), "{report:?}");
    let page = object(&world, "d0/p00.html");
    assert_eq!(page.cache_control, None);
    assert_eq!(page.content_type.as_deref(), Some("text/html; charset=utf-8"));
    check_idle(&world, &site);
}

#[test]
fn changed_file_is_sent_with_the_new_headers_and_a_touched_one_is_hashed_and_copied() {
    let world = tree(3);
    published_with(&world, &[pages("no-cache")]);
    world.write("d0/p00.html", "other");
    world.write("d1/p01.html", "page 1");
    world.let_files_settle();
    let site = site(&world, &[pages("max-age=60")]);
    let (planned, report) = planned_and_done(&world, &site);
    assert_eq!((counts(&planned), counts(&report)), ((2, 1, 0), (2, 1, 0)), "{report:?}");
    assert_eq!(report.metrics.bytes_hashed, ("other".len() + "page 1".len()) as u64);
    for n in 0..3 {
        let key = format!("d{n}/p0{n}.html");
        assert_eq!(cache_control(&world, &key).as_deref(), Some("max-age=60"), "{key}");
    }
    check_idle(&world, &site);
}

/// All files were only touched, and rules changed: hashing alone does not settle that.
#[test]
fn tree_that_was_only_touched_is_hashed_once_and_copied() {
    let world = tree(4);
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    published_with(&world, &[]);
    for n in 0..4 {
        world.write(&format!("d{}/p{n:02}.html", n % 3), format!("page {n}"));
    }
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!(counts(&report), (5, 0, 0), "{report:?}");
    assert_eq!(report.metrics.bytes_hashed, (LARGE + 4 * "page 0".len()) as u64);
    assert!(world.store.commits().is_empty());
    check_idle(&world, &site);
}

#[test]
fn store_without_copies_gets_the_files_again_and_is_asked_no_more() {
    let world = tree(20);
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    published_with(&world, &[]);
    world.store.lacks_copy(true);
    let config = small_parts(world.s3_config()).header_rule(pages("no-cache"));
    let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
    let site = world.orchestrator_on(backend.clone(), RescanConfig::new());
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, counts(&report)), (RescanOutcome::Published, (0, 21, 21)), "{report:?}");
    assert!(report.uploaded.iter().all(|sent| sent.kind == PendingKind::Modified));
    let asked = copies(&world).len();
    assert!((1..=12).contains(&asked), "{asked} copies, with 10 workers");
    assert!(world.keys().iter().all(|key| cache_control(&world, key).is_some() == key.ends_with(PAGE)));
    let warned = world.logged(log::Level::Warn);
    assert_eq!(warned.iter().filter(|text| text.contains("refuses to copy")).count(), 1, "{warned:?}");
    check_idle(&world, &site);
    drop(site);
    // The backend remembers it: of another tree nothing is copied, and the dry run knows.
    std::fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    let site = world.orchestrator_on(backend, RescanConfig::new());
    let (planned, report) = planned_and_done(&world, &site);
    assert_eq!((copies(&world).len(), report.headers_updated_count), (asked, 0), "{planned:?}");
}

/// 403 for an archived object, 400 for one that is too large to be copied. An error in a 200 is one.
#[test]
fn objects_that_are_not_copied_are_sent_again_one_by_one() {
    let world = tree(12);
    published_with(&world, &[]);
    world.store.refuse_copy("p03.html", "InvalidObjectState");
    world.store.refuse_copy("p07.html", "InvalidRequest");
    let error = b"<Error><Code>InvalidRequest</Code><Message>late</Message></Error>".to_vec();
    let rule = Rule::new(Fault::Answer(200, Vec::new(), error)).path_contains("p05.html");
    world.proxy.add(rule.when(is_copy).times(1));
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    // The error in a 200 may come after the copy, and is retried.
    assert_eq!((counts(&report), report.failed_count), ((10, 2, 2), 0), "{report:?}");
    assert_eq!((report.metrics.retries, copies(&world).len()), (1, 13));
    assert!(world.keys().iter().all(|key| cache_control(&world, key).is_some() == key.ends_with(PAGE)));
    check_idle(&world, &site);
}

#[test]
fn object_that_somebody_changed_or_deleted_is_sent_as_a_modified_file() {
    let world = tree(3);
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    published_with(&world, &[]);
    world.store.put_raw(&format!("{PREFIX}d0/p00.html"), "of somebody else");
    world.store.put_raw(&format!("{PREFIX}large.html"), "of somebody else");
    world.store.remove_raw(&format!("{PREFIX}d1/p01.html"));
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.failed_count), ((1, 3, 0), 0), "{report:?}");
    assert!(world.keys().iter().all(|key| cache_control(&world, key).is_some() == key.ends_with(PAGE)));
    check_idle(&world, &site);
}

/// Garage ignores conditions of writes. If a store ignored that of a copy, its answer would show another MD5.
#[test]
fn copy_of_another_object_is_noticed_where_the_store_ignores_the_condition() {
    let world = tree(3);
    published_with(&world, &[]);
    world.store.ignores_conditions_of(&[Conditional::CopySource]);
    world.store.put_raw(&format!("{PREFIX}d0/p00.html"), "of somebody else");
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.failed_count), ((2, 1, 0), 0), "{report:?}");
    check_idle(&world, &site);
}

/// No MD5 shows whose content was copied: neither for an object of a multipart upload, nor for made-up or encrypted ETags.
#[test]
fn other_object_without_an_md5_is_not_taken_for_ours_where_the_store_ignores_the_condition() {
    for etags in [ETags::Md5, ETags::MadeUp, ETags::Encrypted] {
        for size in [2 * LARGE, 1000] {
            let world = tree(3);
            world.store.etags(etags);
            world.write_random("large.html", 2 * LARGE, 1);
            world.let_files_settle();
            published_with(&world, &[]);
            world.store.ignores_conditions_of(&[Conditional::CopySource]);
            world.store.put_raw(&format!("{PREFIX}large.html"), vec![7; size]);
            world.store.put_raw(&format!("{PREFIX}d0/p00.html"), "path 0");
            let site = site(&world, &[pages("no-cache")]);
            let report = rescan(&world, &site);
            assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Published, 0), "{report:?}");
            for key in ["large.html", "d0/p00.html"] {
                let sent = report.uploaded.iter().find(|sent| sent.key == key);
                assert_eq!(sent.map(|sent| sent.kind), Some(PendingKind::Modified), "{etags:?} {key}");
            }
            assert!(
                world.keys().iter().all(|key| cache_control(&world, key).is_some() == key.ends_with(PAGE))
            );
            check_idle(&world, &site);
        }
    }
}

/// An object that is swapped between the HEAD before its copy and the copy shows in the HEAD after it.
#[test]
fn object_that_changed_just_before_its_copy_is_sent_where_the_store_ignores_the_condition() {
    let world = World::new();
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    published_with(&world, &[]);
    world.store.ignores_conditions_of(&[Conditional::CopySource]);
    let (store, swapped) = (world.store.clone(), AtomicBool::new(false));
    world.proxy.on_request(move |seen| {
        if is_copy(&seen.headers) && !swapped.swap(true, Ordering::SeqCst) {
            store.put_raw(&format!("{PREFIX}large.html"), "of somebody else");
        }
    });
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.failed_count), ((0, 1, 0), 0), "{report:?}");
    check_idle(&world, &site);
}

fn methods(world: &World) -> Vec<(String, bool)> {
    world.proxy.requests().into_iter().map(|seen| (seen.method.clone(), is_copy(&seen.headers))).collect()
}

/// The first copy is made twice: the second one must be refused, as the object has another ETag by then.
#[test]
fn copy_whose_etag_shows_nothing_costs_one_request_once_the_store_has_kept_a_condition() {
    for etags in [ETags::MadeUp, ETags::Encrypted] {
        let world = World::with_workers(1);
        for n in 0..5 {
            world.write(&format!("{n}.html"), format!("page {n}"));
        }
        world.let_files_settle();
        world.store.etags(etags);
        published_with(&world, &[]);
        let site = site(&world, &[pages("no-cache")]);
        let report = rescan(&world, &site);
        assert_eq!((counts(&report), world.store.copies().len()), ((5, 0, 0), 5), "{report:?}");
        let looks = usize::from(etags == ETags::MadeUp);
        let methods = methods(&world);
        assert_eq!(methods.iter().filter(|(method, _)| method == "HEAD").count(), looks, "{methods:?}");
        assert_eq!((methods.len(), copies(&world).len()), (1 + looks + 6, 6), "{methods:?}");
        check_idle(&world, &site);
    }
}

#[test]
fn own_objects_are_copied_between_two_looks_where_the_store_ignores_the_condition() {
    let world = World::with_workers(1);
    for n in 0..4 {
        world.write_random(&format!("{n}.html"), LARGE, n);
    }
    world.let_files_settle();
    published_with(&world, &[]);
    world.store.ignores_conditions_of(&[Conditional::CopySource]);
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.failed_count), ((4, 0, 0), 0), "{report:?}");
    // The preflight, a copy that is made twice to see whether that is refused, and three others; two looks at each.
    let methods = methods(&world);
    assert_eq!((copies(&world).len(), methods.len()), (5, 1 + 5 + 2 * 4), "{methods:?}");
    check_idle(&world, &site);
}

/// Under SSE-KMS each copy has an ETag of its own.
#[test]
fn etags_that_change_with_each_copy_are_recorded() {
    for etags in [ETags::Encrypted, ETags::MadeUp] {
        let world = tree(3);
        world.store.etags(etags);
        published_with(&world, &[]);
        let before = object(&world, "d0/p00.html").etag;
        let config = world.s3_config().header_rule(pages("no-cache"));
        let site = site_with(&world, config);
        let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
        check(&world, &site, &report);
        assert_eq!((counts(&report), report.failed_count), ((3, 0, 0), 0), "{report:?}");
        assert!(report.verified.unwrap().is_good());
        assert_ne!(object(&world, "d0/p00.html").etag, before);
        check_idle(&world, &site);
    }
}

#[test]
fn composite_object_is_copied_and_verified_under_its_new_etag() {
    let world = World::new();
    let bytes = world.write_random("large.html", 2 * LARGE, 1);
    world.let_files_settle();
    published_with(&world, &[]);
    assert!(object(&world, "large.html").etag.ends_with("-3"));
    let site = site(&world, &[pages("no-cache")]);
    let (planned, report) = planned_and_done(&world, &site);
    assert_eq!((counts(&planned), counts(&report)), ((1, 0, 0), (1, 0, 0)), "{report:?}");
    assert_eq!((report.metrics.bytes_hashed, world.store.copies().len()), (0, 1));
    let copied = object(&world, "large.html");
    assert!(!copied.etag.contains('-') && copied.bytes == bytes);
    assert!(copied.metadata["brigade"].contains("part-size=8388608;"), "{:?}", copied.metadata);
    for how in [Verify::List, Verify::Content] {
        let report = site.rescan_with(&Run::new().verify(how)).unwrap();
        check(&world, &site, &report);
        let verified = report.verified.unwrap();
        assert!(verified.is_good() && verified.matching == 1, "{verified:?}");
    }
    check_idle(&world, &site);
    // A machine without the cache takes it over as it is.
    drop(site);
    std::fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    let report = rescan(&world, &site_with(&world, small_parts(world.s3_config())));
    assert_eq!((report.adopted_count, counts(&report)), (1, (0, 0, 0)), "{report:?}");
}

/// The copy took effect, and its answer was lost. A composite object has another ETag then: the condition of the retry
/// fails, and a HEAD shows the copy of this run.
#[test]
fn retry_of_a_copy_whose_answer_was_lost_recognises_its_own_copy() {
    let world = tree(2);
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    published_with(&world, &[]);
    for key in ["p00.html", "large.html"] {
        world.proxy.add(Rule::new(Fault::DropAnswer).path_contains(key).when(is_copy).times(1));
    }
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.failed_count), ((3, 0, 0), 0), "{report:?}");
    assert!(world.store.commits().is_empty(), "nothing was sent again");
    check_idle(&world, &site);
}

#[test]
fn copy_without_an_answer_stays_pending_and_is_settled_by_the_next_run() {
    let world = tree(3);
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    published_with(&world, &[]);
    for key in ["p00.html", "large.html"] {
        world.proxy.add(Rule::new(Fault::DropAnswer).path_contains(key).when(is_copy));
    }
    let config = small_parts(world.s3_config()).header_rule(pages("no-cache"));
    let site = site_with(&world, config.retry(RetryPolicy::default().with_attempts(1)));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, counts(&report)), (RescanOutcome::Partial, (2, 0, 0)), "{report:?}");
    assert_eq!((report.failed_count, report.pending), (2, 2));
    let pending = site.cache().pending().unwrap();
    assert!(pending.iter().all(|file| file.kind == PendingKind::Headers), "{pending:?}");
    world.proxy.clear_rules();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.pending, report.failed_count), (RescanOutcome::Published, 0, 0));
    assert!(world.keys().iter().all(|key| cache_control(&world, key).is_some() == key.ends_with(PAGE)));
    check_idle(&world, &site);
}

/// A store that does not know the header takes the request for an upload of nothing.
#[test]
fn store_that_takes_a_copy_for_an_upload_gets_the_file_back_at_once() {
    let world = tree(20);
    published_with(&world, &[]);
    let (store, empty) = (world.store.clone(), "d41d8cd98f00b204e9800998ecf8427e".to_owned());
    let upload = Maker::new(move |seen: &Seen| {
        let key = seen.target.trim_start_matches('/').trim_start_matches(BUCKET).trim_start_matches('/');
        store.put_raw(key, "");
        (200, vec![("ETag".to_owned(), format!("\"{empty}\""))], Vec::new())
    });
    world.proxy.add(Rule::new(Fault::Made(upload)).when(is_copy));
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.failed_count), ((0, 20, 20), 0), "{report:?}");
    assert!(copies(&world).len() <= 12, "with 10 workers");
    check_idle(&world, &site);
}

#[test]
fn taken_over_objects_get_headers_only_where_settings_name_some() {
    let world = tree(5);
    published_with(&world, &[]);
    let forget = || std::fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    // Without rules: one listing.
    forget();
    world.proxy.clear_counts();
    let report = rescan(&world, &site(&world, &[]));
    assert_eq!((report.adopted_count, counts(&report)), (10, (0, 0, 0)), "{report:?}");
    assert_eq!(world.proxy.requests().len(), 2, "the preflight and a listing");
    // With a rule: the same run copies what the rule matches.
    forget();
    let first = site(&world, &[pages("no-cache")]);
    let (planned, report) = planned_and_done(&world, &first);
    assert_eq!((report.adopted_count, counts(&report)), (10, (5, 0, 0)), "{report:?}");
    assert_eq!((planned.adopted_count, counts(&planned)), (10, (5, 0, 0)), "{planned:?}");
    check_idle(&world, &first);
    drop(first);
    // With a header for all objects: the others, too.
    let config = world.s3_config().header("x-amz-meta-a", "1").header_rule(pages("no-cache"));
    let site = site_with(&world, config);
    let report = rescan(&world, &site);
    assert_eq!(counts(&report), (10, 0, 0), "{report:?}");
    check_idle(&world, &site);
}

/// Headers of a request that stores do not keep change nothing.
#[test]
fn headers_that_are_not_stored_bring_nothing_in_line() {
    let world = tree(2);
    published_with(&world, &[]);
    let site = site_with(&world, world.s3_config().header("x-amz-request-payer", "requester"));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, counts(&report)), (RescanOutcome::Unchanged, (0, 0, 0)));
}

#[test]
fn outage_during_copies_leaves_them_pending_and_deletes_wait() {
    let world = tree(5);
    published_with(&world, &[]);
    world.remove("d0/s00.js");
    world.proxy.add(Rule::new(answer(503, "ServiceUnavailable")).when(is_copy));
    let config = world.s3_config().header_rule(pages("no-cache"));
    let site = site_with(&world, config.retry(RetryPolicy::default().with_attempts(1)));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Partial, 0), "{report:?}");
    assert!(report.failed.iter().all(|error| error.kind() == ErrorKind::Throttled));
    world.proxy.clear_rules();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 1), "{report:?}");
    assert_eq!(counts(&report), (5, 0, 0));
    check_idle(&world, &site);
}

#[test]
fn observers_and_readers_see_copies_for_what_they_are() {
    let world = tree(3);
    published_with(&world, &[]);
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).when(|_| true).path_contains("p00.html"));
    let site = site(&world, &[pages("no-cache")]);
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.failed_count), ((2, 0, 0), 1), "{report:?}");
    // The object is still the version on disk.
    let resolved = site.cache().resolve("d0/p00.html").unwrap().unwrap();
    assert_eq!(resolved.state, bucket_brigade::KeyState::Published);
    let events = world.events.lock().unwrap();
    let updated = events.iter().filter(|event| matches!(event, Event::HeadersUpdated { .. })).count();
    assert_eq!(updated, 2);
}

#[test]
fn seaweedfs_copies_in_place_small_and_composite_objects() {
    let Some(weed) = seaweedfs::shared() else { return };
    let (world, bucket) = (tree(3), weed.new_bucket());
    world.write_random("large.html", LARGE, 1);
    world.let_files_settle();
    let config = || small_parts(weed.s3_config(&bucket));
    site_with(&world, config()).rescan().unwrap();
    world.let_files_settle();
    let site = site_with(&world, config().header_rule(pages("no-cache").set("x-amz-meta-a", "b")));
    let report = site.rescan_with(&Run::new().verify(Verify::Content)).unwrap();
    assert_eq!((counts(&report), report.failed_count), ((4, 0, 0), 0), "{report:?}");
    assert!(report.verified.unwrap().is_good());
    let client = weed.client(&bucket);
    for key in ["d0/p00.html", "large.html"] {
        let head = client.head(key, &[]);
        assert_eq!(
            (head.header("cache-control"), head.header("x-amz-meta-a")),
            (Some("no-cache"), Some("b"))
        );
        assert_eq!(head.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(head.header("x-amz-meta-brigade").unwrap().contains(";size="));
    }
    assert_eq!(client.head("d0/s00.js", &[]).header("cache-control"), None);
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.metrics.requests), (RescanOutcome::Unchanged, 0), "{report:?}");
    // Somebody else has changed an object: it is sent.
    drop(site);
    client.put("d0/p00.html", "of somebody else", &[]);
    let site = site_with(&world, config().header_rule(pages("max-age=1")));
    let report = site.rescan_with(&Run::new().verify(Verify::Content)).unwrap();
    assert_eq!((counts(&report), report.failed_count), ((3, 1, 0), 0), "{report:?}");
    assert!(report.verified.unwrap().is_good());
}
