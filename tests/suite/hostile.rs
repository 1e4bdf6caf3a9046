//! S1 and S6: secrets that show nowhere, whatever happens, and stores that mean harm.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bucket_brigade::{
    FirstRun, MaxDelete, RemoteState, RescanConfig, RescanOrchestrator, RescanReport, Run, S3Backend, Verify,
};

use crate::shared_state_faults::{AFTER_LEASE, pass};

use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Maker, Rule};
use crate::support::server::SECRET_KEY;
use crate::support::{PREFIX, SESSION_TOKEN, World, logs};

/// A tree of some files and a large one.
fn tree() -> World {
    let world = World::new();
    for number in 0..12 {
        world.write(&format!("d{}/f{number}.txt", number % 3), format!("{number}"));
    }
    world.write_random("large.bin", 300_000, 7);
    world
}

/// One of each kind of fault that a store and the network between have.
fn faults() -> Vec<Fault> {
    let body =
        format!("<Error><Code>InternalError</Code><Message>{SECRET_KEY} {SESSION_TOKEN}</Message></Error>");
    vec![
        Fault::ResetBefore,
        Fault::ResetInBody(2),
        Fault::ResetAfter,
        Fault::DropAnswer,
        Fault::TruncateAnswer(20),
        Fault::EarlyAnswer(400, body.clone().into_bytes()),
        Fault::Answer(500, Vec::new(), body.clone().into_bytes()),
        Fault::Answer(503, vec![("Retry-After".to_owned(), "1".to_owned())], Vec::new()),
        Fault::Answer(403, Vec::new(), body.replace("InternalError", "AccessDenied").into_bytes()),
        Fault::Answer(307, vec![("Location".to_owned(), format!("http://x/{SESSION_TOKEN}"))], Vec::new()),
        Fault::Delay(Duration::from_millis(5)),
        Fault::CloseIdle,
        Fault::WithHeader("x-amz-request-id", SECRET_KEY.to_owned()),
    ]
}

/// Under each fault, with every record of every crate at TRACE, over plain connections and TLS, with small files and one in
/// parts, with the state in the cache and in the bucket: no record, event, report or error has a secret, and no file of the
/// library's and no object of the state has one. All other tests with a world search in the same way as it ends.
///
/// The body of an answer to a download was taken for an object's content, which is left as it is, also where it was an error; and
/// AWS repeats the session token in errors. The HTTP layer logged it at TRACE. Now only the body of a success is left as it is.
#[test]
fn s1_secrets_show_nowhere_under_any_fault() {
    let before = logs::searched();
    for (number, fault) in faults().into_iter().enumerate() {
        for has_state in [false, true] {
            let world = if (number % 2 == 0) == has_state { World::over_tls(4) } else { tree() };
            world.write("one.txt", "1");
            world.write_random("large.bin", (8 << 20) + 1, 7);
            world.lost_begins.store(true, Ordering::SeqCst);
            shows_no_secret(&world, &fault, has_state);
            assert_eq!(logs::leaks(), Vec::<String>::new(), "{fault:?} {has_state}");
        }
    }
    let searched = logs::searched() - before;
    println!("{searched} records searched, {} leaks", logs::leaks().len());
    assert!(searched > 10_000, "{searched} records: is the log watched?");
    assert_eq!(logs::leaks(), Vec::<String>::new());
}

fn shows_no_secret(world: &World, fault: &Fault, has_state: bool) {
    let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
    let config = RescanConfig::new();
    let config = if has_state { config.state(RemoteState::new()) } else { config };
    let site = world.orchestrator_on(Arc::new(S3Backend::new(&world.engine, s3).unwrap()), config);
    for method in ["PUT", "GET", "POST", "DELETE", "HEAD"] {
        world.proxy.add(Rule::new(fault.clone()).method(method).times(3));
    }
    for round in 0..3 {
        world.write("one.txt", format!("round {round}"));
        let result = site.rescan_with(&Run::new().verify(Verify::List));
        let shown =
            format!("{result:?} {}", result.as_ref().err().map(ToString::to_string).unwrap_or_default());
        assert_eq!(logs::leak_in(&shown), None, "{fault:?}");
        for error in result.iter().flat_map(|report| &report.failed) {
            assert_eq!(logs::leak_in(&error.to_string()), None, "{fault:?}");
        }
    }
    world.proxy.clear_rules();
    world.clock.advance(Duration::from_secs(600));
    pass(world, AFTER_LEASE);
    let report = site.rescan().unwrap();
    assert_eq!((report.failed_count, report.stop_reason), (0, None), "{fault:?} {report:?}");
    let events = format!("{:?}", world.events.lock().unwrap());
    assert_eq!(logs::leak_in(&events), None, "{fault:?}");
    if !has_state {
        check_idle(world, &site);
    }
    let folder = world.root().parent().unwrap().to_owned();
    assert_eq!(logs::files_with_secrets(&folder), Vec::<String>::new(), "{fault:?}");
    let searched = world.store.keys_of_ours(|_| true).len();
    assert!(searched > 1, "{fault:?}");
}

/// S1, the other way round: files and objects with a secret are found.
#[test]
fn s1_search_for_secrets_in_files_and_objects_finds_them() {
    let world = World::new();
    let folder = world.root().join("a/b");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("f"), format!("x{SESSION_TOKEN}x")).unwrap();
    assert_eq!(logs::files_with_secrets(&world.root()).len(), 1);
    let object = format!("{PREFIX}.brigade/head");
    world.store.put_raw(&object, format!("{{\"who\": \"{SECRET_KEY}\"}}"));
    world.store.put_raw_with("x", "x", &[("x-amz-meta-brigade", SECRET_KEY)]);
    assert_eq!(world.store.keys_of_ours(logs::holds_secret), [object.clone(), "x".to_owned()]);
    world.store.remove_raw(&object);
    world.store.remove_raw("x");
}

/// What the report and the log say, with nothing in it that moves a cursor or ends a line.
fn shown(world: &World, report: &RescanReport) -> String {
    let mut text: Vec<_> = report.failed.iter().map(ToString::to_string).collect();
    text.extend(report.skipped.iter().map(ToString::to_string));
    text.extend(world.logged(log::Level::Debug));
    text.join(" ")
}

/// Keys that no listing of this prefix may have.
fn foreign_keys() -> Vec<String> {
    let names = [
        "../outside",
        "a/../../outside",
        "a/..",
        ".",
        "./a",
        "a/./b",
        "/absolute",
        "a//b",
        "",
        "a/",
        "nul\u{0}",
    ];
    let mut keys: Vec<String> = names.iter().map(|name| format!("{PREFIX}{name}")).collect();
    keys.extend(["elsewhere/x", "/etc/passwd", "..", ""].map(str::to_owned));
    keys
}

fn listing(key: &str, etag: &str) -> Rule {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('\u{0}', "&#0;");
    let body = format!(
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{}</Key><Size>1</Size><ETag>{}</ETag>\
         </Contents></ListBucketResult>",
        escape(key),
        escape(etag)
    );
    let headers = vec![("Content-Type".to_owned(), "application/xml".to_owned())];
    Rule::new(Fault::Answer(200, headers, body.into_bytes())).method("GET").path_contains("list-type=2")
}

fn mirror(world: &World) -> RescanOrchestrator {
    world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Mirror).max_delete(MaxDelete::Count(100)))
}

/// A mirror takes over and deletes all that is listed under its prefix. A listing with a key that lies elsewhere, or that another
/// program could take for one, deletes nothing, and no request names such a key.
#[test]
fn s6_listed_keys_that_lead_elsewhere_are_never_deleted_or_asked_for() {
    // One that lies under the prefix is deleted: the listing is what the mirror goes by.
    let world = tree();
    world.store.put_raw(&format!("{PREFIX}old"), "o");
    world.proxy.add(listing(&format!("{PREFIX}old"), "\"00\""));
    mirror(&world).rescan().unwrap();
    assert!(world.store.get(&format!("{PREFIX}old")).is_none());

    for key in foreign_keys() {
        let world = tree();
        for other in ["outside", "elsewhere/x", "etc/passwd"] {
            world.store.put_raw(other, "theirs");
        }
        world.proxy.add(listing(&key, "\"00\""));
        let site = mirror(&world);
        for _ in 0..2 {
            // Whether it is an error or a report, the store's word has no effect.
            drop(site.rescan_with(&Run::new().verify(Verify::List)));
        }
        for other in ["outside", "elsewhere/x", "etc/passwd"] {
            assert!(world.store.get(other).is_some(), "{key:?} deleted {other}");
        }
        let asked: Vec<_> = world.proxy.requests().into_iter().map(|seen| seen.target).collect();
        let is_foreign = |target: &&String| {
            let path = target.split('?').next().unwrap_or_default();
            path.split('/').any(|part| part == ".." || part == ".") || path.contains("//")
        };
        assert_eq!(asked.iter().find(is_foreign), None, "{key:?}");
        assert!(
            !asked.iter().any(|target| target.contains("passwd") || target.contains("elsewhere")),
            "{key:?}"
        );
        world.proxy.clear_rules();
    }
}

/// ETags, keys, codes and messages with what moves a cursor, ends a line or turns the text around: shown escaped, or refused.
#[test]
fn s6_what_a_store_says_is_never_printed_raw() {
    let evil = "a\u{1b}[2Jb\u{202e}c\u{9b}d";
    for rule in [
        listing(&format!("{PREFIX}{evil}"), "\"00\""),
        listing(&format!("{PREFIX}f"), &format!("\"{evil}\"")),
        Rule::new(Fault::Answer(
            400,
            vec![("x-amz-request-id".to_owned(), "id\u{1b}[31m".to_owned())],
            format!("<Error><Code>{evil}</Code><Message>{evil}</Message></Error>").into_bytes(),
        )),
        Rule::new(Fault::WithHeader("ETag", format!("\"{evil}\""))).method("PUT"),
    ] {
        let world = tree();
        world.proxy.add(rule);
        let text = match mirror(&world).rescan_with(&Run::new().verify(Verify::List)) {
            Ok(report) => shown(&world, &report),
            Err(error) => error.to_string() + &world.logged(log::Level::Debug).join(" "),
        };
        let raw = text.chars().find(|c| matches!(c, '\u{1b}' | '\u{202e}' | '\u{9b}'));
        assert_eq!(raw, None, "{text}");
    }
}

/// Documents that are made to fill memory or to never end, in the place of each answer that is XML.
#[test]
fn s6_xml_that_means_harm_is_an_error_and_deletes_nothing() {
    let bomb = "<!DOCTYPE a [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><ListBucketResult>&b;</ListBucketResult>";
    let nested = "<a>".repeat(200_000);
    let huge = format!(
        "<ListBucketResult><Contents><Key>{PREFIX}x</Key><Size>{}</Size></Contents></ListBucketResult>",
        "9".repeat(10_000)
    );
    for body in [bomb.to_owned(), nested, huge, "<ListBucketResult".to_owned(), "\u{0}".repeat(1000)] {
        let world = tree();
        let site = world.orchestrator();
        site.rescan().unwrap();
        world.remove("d0/f0.txt");
        let before = world.objects();
        let answer = body.clone().into_bytes();
        let made = Maker::new(move |_| {
            (200, vec![("Content-Type".to_owned(), "application/xml".to_owned())], answer.clone())
        });
        world.proxy.add(Rule::new(Fault::Made(made.clone())).method("GET"));
        world.proxy.add(Rule::new(Fault::Made(made)).method("POST"));
        let result = site.rescan_with(&Run::new().verify(Verify::List));
        let is_told = result.as_ref().map_or(true, |report| {
            report.failed_count > 0 || report.stop_reason.is_some() || report.outage.is_some()
        });
        assert!(is_told, "{} {result:?}", &body[..40.min(body.len())]);
        world.proxy.clear_rules();
        assert!(before.keys().filter(|key| *key != "d0/f0.txt").all(|key| world.objects().contains_key(key)));
        world.clock.advance(Duration::from_secs(600));
        site.rescan().unwrap();
        check_idle(&world, &site);
    }
}

/// S6: a redirect of any kind, as the answer to any request in the middle of the work: nobody is asked at the other place, nothing
/// is taken for done, and nothing is deleted.
#[test]
fn s6_redirects_in_the_middle_of_the_work_are_never_followed() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let location = format!("http://{}/bucket/site/x", elsewhere.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        for method in ["PUT", "POST", "GET", "HEAD"] {
            let world = tree();
            let site = world.orchestrator();
            site.rescan().unwrap();
            let before = world.objects();
            world.write("one.txt", "new");
            world.remove("d0/f0.txt");
            world.remove("d1/f1.txt");
            let headers = vec![("Location".to_owned(), location.clone())];
            world.proxy.add(Rule::new(Fault::Answer(status, headers, Vec::new())).method(method));
            let result = site.rescan_with(&Run::new().verify(Verify::Content));
            let case = format!("{status} {method} {result:?}");
            assert!(elsewhere.accept().is_err(), "{case}");
            if !["HEAD"].contains(&method) {
                let is_told = result.as_ref().map_or(true, |report| {
                    report.failed_count > 0 || report.stop_reason.is_some() || report.outage.is_some()
                });
                assert!(is_told, "{case}");
            }
            let gone: Vec<_> = before.keys().filter(|key| !world.objects().contains_key(*key)).collect();
            assert!(
                gone.iter().all(|key| ["d0/f0.txt", "d1/f1.txt"].contains(&key.as_str())),
                "{case} {gone:?}"
            );
            world.proxy.clear_rules();
            world.clock.advance(Duration::from_secs(600));
            let report = site.rescan().unwrap();
            check(&world, &site, &report);
            check_idle(&world, &site);
        }
    }
}

/// S6: answers that name what they were not asked for: keys that were not to be deleted, uploads of other keys. None of it has an
/// effect on them.
#[test]
fn s6_answers_that_name_what_was_not_asked_for_have_no_effect_on_it() {
    let world = tree();
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.remove("d0/f0.txt");
    world.remove("d1/f1.txt");
    // It says that others were deleted, and that one of those that were asked for, and another one, could not be.
    let body = format!(
        "<DeleteResult><Deleted><Key>{PREFIX}d2/f2.txt</Key></Deleted><Deleted><Key>../x</Key></Deleted>\
         <Error><Key>{PREFIX}d0/f0.txt</Key><Code>AccessDenied</Code><Message>no</Message></Error>\
         <Error><Key>{PREFIX}d2/f5.txt</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    );
    let xml = vec![("Content-Type".to_owned(), "application/xml".to_owned())];
    world.proxy.add(Rule::new(Fault::Answer(200, xml.clone(), body.into_bytes())).method("POST"));
    let report = site.rescan().unwrap();
    let published =
        |key: &str| site.cache().resolve(key).unwrap().is_some_and(|found| found.digest.is_some());
    assert!(published("d2/f2.txt") && published("d2/f5.txt"), "{report:?}");
    assert!(!report.deleted.iter().any(|key| key.starts_with("d2/") || key.contains("..")), "{report:?}");
    assert!(report.failed_count > 0, "what it says of the keys that were asked for is believed: {report:?}");
    world.proxy.clear_rules();

    // The list of uploads of one key has uploads of others in it.
    let world = World::new();
    world.write_random("large", 17 << 20, 1);
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploads=").times(1));
    world.lost_begins.store(true, Ordering::SeqCst);
    let site = crate::large::in_small_parts(&world);
    site.rescan().unwrap();
    let theirs = [("other", world.strange_upload("other")), ("large/x", world.strange_upload("large/x"))];
    let listed = |(key, id): &(&str, String)| {
        format!("<Upload><Key>{PREFIX}{key}</Key><UploadId>{id}</UploadId></Upload>")
    };
    let uploads = theirs.iter().map(listed).collect::<Vec<_>>().concat();
    let body = format!(
        "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{uploads}</ListMultipartUploadsResult>"
    );
    world
        .proxy
        .add(Rule::new(Fault::Answer(200, xml, body.into_bytes())).method("GET").path_contains("uploads="));
    let listed = site.cache().unfinished_uploads(&world.engine, &*world.backend()).unwrap();
    let ids: Vec<_> = listed.iter().filter_map(|upload| upload.upload_id.clone()).collect();
    assert!(theirs.iter().all(|(_, id)| !ids.contains(id)), "{listed:?}");
    drop(site.cache().abort_uploads(&world.engine, &*world.backend()));
    let open = world.store.uploads();
    assert!(theirs.iter().all(|(_, id)| open.iter().any(|(_, other)| other == id)), "{open:?}");
}
