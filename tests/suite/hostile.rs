//! S1 and S6: secrets that show nowhere, whatever happens, and stores that mean harm.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bucket_brigade::{FirstRun, MaxDelete, RescanConfig, RescanOrchestrator, RescanReport, Run, Verify};

use crate::support::oracle::check_idle;
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

/// Every file below a folder that holds one of the secrets.
fn files_with_secrets(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with_secrets(&path));
            continue;
        }
        let bytes = fs::read(&path).unwrap_or_default();
        let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        if [SECRET_KEY, SESSION_TOKEN].into_iter().any(holds) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Under each fault, with every record of every crate at TRACE: no record, event, report or error has a secret, and no file of the
/// library's has one. All other tests of this binary search their records in the same way.
#[test]
fn s1_secrets_show_nowhere_under_any_fault() {
    let mut searched = 0;
    for (number, fault) in faults().into_iter().enumerate() {
        let world = if number % 2 == 0 { tree() } else { World::over_tls(4) };
        world.write("one.txt", "1");
        let site = world.orchestrator();
        for method in ["PUT", "GET", "POST", "DELETE"] {
            world.proxy.add(Rule::new(fault.clone()).method(method).times(3));
        }
        for round in 0..3 {
            world.write("one.txt", format!("round {round}"));
            let result = site.rescan_with(&Run::new().verify(Verify::List));
            assert_eq!(logs::leak_in(&format!("{result:?}")), None, "{fault:?}");
        }
        world.proxy.clear_rules();
        world.clock.advance(Duration::from_secs(600));
        site.rescan().unwrap();
        check_idle(&world, &site);
        assert_eq!(files_with_secrets(world.root().parent().unwrap()), Vec::<String>::new(), "{fault:?}");
        searched = logs::searched();
    }
    println!("{searched} records searched, {} leaks", logs::leaks().len());
    assert!(searched > 1_000, "{searched} records: is the log watched?");
    assert_eq!(logs::leaks(), Vec::<String>::new());
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
