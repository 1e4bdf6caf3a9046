//! The contract of the log, and the counters.

use std::collections::BTreeMap;

use bucket_brigade::{Event, RescanConfig};
use log::Level;

use crate::support::oracle::check;
use crate::support::proxy::{Fault, Rule};
use crate::support::{BUCKET, SESSION_TOKEN, World, s3_config_at};

type Fields = BTreeMap<&'static str, String>;

fn records(world: &World, level: Level, message: &str) -> Vec<Fields> {
    let matching = |event: &Event| match event {
        Event::Log { level: at, message: text, fields } if *at == level && text == message => {
            Some(fields.iter().cloned().collect())
        }
        _ => None,
    };
    world.events.lock().unwrap().iter().filter_map(matching).collect()
}

/// Uploads and deletes: one info record when they start and one when they end, with all their fields.
#[test]
fn every_upload_and_delete_leaves_two_records() {
    let world = World::new();
    world.write("a/b.txt", "four");
    world.write("c", "x");
    world.write("d", "y");
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).path_contains("b.txt").times(1));
    let site = world.orchestrator();
    check(&world, &site, &site.rescan().unwrap());
    let started = records(&world, Level::Info, "upload started");
    let ended = records(&world, Level::Info, "upload ended");
    assert_eq!((started.len(), ended.len()), (3, 3));
    let of_file = ended.iter().find(|fields| fields["key"] == "a/b.txt").unwrap();
    for (field, value) in
        [("operation", "upload"), ("bucket", BUCKET), ("bytes", "4"), ("attempts", "2"), ("outcome", "ok")]
    {
        assert_eq!(of_file[field], value, "{field}");
    }
    assert!(of_file.contains_key("elapsed") && of_file.contains_key("request_id"));
    world.remove("c");
    world.remove("d");
    site.rescan().unwrap();
    let deleted: Vec<_> = records(&world, Level::Info, "delete ended")
        .into_iter()
        .map(|mut f| f.remove("key").unwrap())
        .collect();
    assert_eq!(deleted, ["c", "d"]);
    assert_eq!(records(&world, Level::Info, "delete started").len(), 2);
    assert!(records(&world, Level::Debug, "GET ended").len() == 3, "two preflights, and the survey");
}

/// Also where the store cannot delete many at once: what starts ends.
#[test]
fn every_delete_that_starts_ends_in_the_log() {
    let world = World::new();
    for key in ["a", "b", "c", "keep"] {
        world.write(key, key);
    }
    world.store.lacks_bulk_delete(true);
    let site = world.orchestrator();
    site.rescan().unwrap();
    for key in ["a", "b", "c"] {
        world.remove(key);
    }
    check(&world, &site, &site.rescan().unwrap());
    let started = records(&world, Level::Info, "delete started");
    let ended = records(&world, Level::Info, "delete ended");
    assert!(!ended.is_empty() && started.len() == ended.len(), "{} and {}", started.len(), ended.len());
    let deleted = ended.iter().filter(|fields| fields["outcome"] == "ok").count();
    assert_eq!(deleted, 3);
}

/// S2: a name with a line end and an ANSI code forges no record.
#[test]
fn s2_names_with_control_characters_are_escaped_in_the_log() {
    let world = World::new();
    world.write("evil\n[INFO] all is well\u{1b}[2J", "x");
    let site = world.orchestrator();
    check(&world, &site, &site.rescan().unwrap());
    for fields in records(&world, Level::Info, "upload ended") {
        assert_eq!(fields["key"], "evil\\n[INFO] all is well\\u{1b}[2J");
    }
}

/// S3: an http endpoint is said once, unless nothing leaves this machine.
#[test]
fn s3_plain_http_is_warned_of_once() {
    let world = World::new();
    world.write("a", "x");
    let site = world.orchestrator_with(RescanConfig::new());
    site.rescan().unwrap();
    site.rescan().unwrap();
    let warned = world.logged(Level::Warn).iter().filter(|text| text.starts_with("http endpoint")).count();
    assert_eq!(warned, 0, "the proxy is on this machine");
    let config = s3_config_at("http://storage.example:9000");
    bucket_brigade::S3Backend::new(&world.engine, config).unwrap();
    let warned = world.logged(Level::Warn).iter().filter(|text| text.starts_with("http endpoint")).count();
    assert_eq!(warned, 1);
}

/// I7, the other way round: the detector fires on rows such as the HTTP layer would write if it were
/// given the secrets, although no single row holds one.
#[test]
fn i7_detector_of_secrets_fires() {
    use crate::support::logs::{leak_in, rows_of};
    let sent = format!("authorization: AWS4-HMAC-SHA256 Credential=x, Signature=y {SESSION_TOKEN}");
    assert!(sent.as_bytes().chunks(16).all(|row| !row.windows(16).any(|part| part == b"AWS4-HMAC-SHA256")));
    assert_eq!(leak_in(&rows_of(sent.as_bytes())), Some("Signature="));
}

/// Look-ups of a name, by way of the whole HTTP layer: one for all connections and requests.
#[test]
fn host_name_is_looked_up_once_for_all_uploads() {
    let world = World::new();
    for n in 0..40 {
        world.write(&format!("f{n:02}"), "x");
    }
    let config = world.s3_config().endpoint(world.proxy.host_endpoint());
    let backend = std::sync::Arc::new(bucket_brigade::S3Backend::new(&world.engine, config).unwrap());
    let site = world.orchestrator_on(backend, RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.metrics.lookups, report.metrics.requests), (1, 42));
}

#[test]
fn counters_agree_with_what_the_wire_saw() {
    let world = World::new();
    for n in 0..25 {
        world.write(&format!("f{n:02}"), vec![n; 1000]);
    }
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let (run, engine) = (report.metrics, world.engine.metrics());
    assert_eq!(run.requests, world.proxy.requests().len() as u64);
    assert_eq!(run.connections, world.proxy.connections());
    assert!(run.connections <= 10);
    assert_eq!((run.uploads, run.upload_bytes, run.uploads_failed), (25, 25_000, 0));
    assert!(run.bytes_sent > 25_000 && run.bytes_received > 0 && run.bytes_hashed >= 25_000);
    assert_eq!((engine.requests, engine.rescans, engine.pending_files), (run.requests, 1, 0));
    assert!(engine.rescan_time >= engine.last_rescan_time);
    world.remove("f00");
    world.store.refuse_put("/bad", "InvalidArgument");
    world.write("bad", "x");
    let report = site.rescan().unwrap();
    assert_eq!((report.metrics.uploads_failed, report.metrics.deletes), (1, 0));
    assert_eq!(world.engine.metrics().pending_files, 2);
}
