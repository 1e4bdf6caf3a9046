//! What a sync does, flag by flag.

use crate::command::{DEST, Shell, all_is_well, next_release, some_files, text};
use crate::support::proxy::{Fault, Rule};
use crate::support::{PREFIX, World};

const MIB: usize = 1024 * 1024;

#[test]
fn sync_publishes_then_has_nothing_to_do_then_follows_the_tree() {
    let world = some_files(40);
    let shell = Shell::of(&world);
    let first = shell.sync(&world, &[]).code(0).shows("published s3://bucket/site\n");
    assert_eq!(first.out.lines().count(), 4, "a summary of four lines: {first:?}");
    let first = first.shows("40 files: 40 uploaded").shows("0 failed, 0 pending, 0 kept, 0 skipped; cache /");
    first.shows("requests on ");
    assert_eq!(world.keys().len(), 40);
    let before = world.proxy.requests().len();
    shell.sync(&world, &[]).code(0).shows("unchanged s3://bucket/site").shows("0 requests on 0 connections");
    assert_eq!(world.proxy.requests().len(), before);
    world.write("new.html", "<p>");
    world.write("d1/f001.txt", "other");
    world.remove("d2/f002.txt");
    shell.sync(&world, &[]).code(0).shows("2 uploaded").shows("1 deleted");
    assert!(
        world.keys().contains(&"new.html".to_owned()) && !world.keys().contains(&"d2/f002.txt".to_owned())
    );
    all_is_well(&world);
}

#[test]
fn plan_says_what_sync_does_and_does_nothing() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    world.write("a new\nfile", "1");
    world.write("d1/f001.txt", "other");
    world.remove("d2/f002.txt");
    let requests = world.proxy.requests().len();
    let plan = shell.plan(&world, &[]).code(0);
    let plan = plan.shows("+ a new\\nfile (1 B)\n").shows("~ d1/f001.txt (5 B)\n").shows("- d2/f002.txt\n");
    plan.shows("2 to upload (6 B)").shows("1 to delete");
    let object = shell.plan(&world, &["--json"]).code(0).json();
    assert_eq!(
        (&object["outcome"], &object["uploaded"], &object["deleted"]),
        (&"published".into(), &2.into(), &1.into())
    );
    assert_eq!(object["upload_list"][0]["key"], "a new\nfile");
    assert_eq!(
        (&object["upload_list"][0]["kind"], &object["upload_list"][1]["kind"]),
        (&"added".into(), &"modified".into())
    );
    assert_eq!(object["delete_list"][0], "d2/f002.txt");
    assert_eq!((world.proxy.requests().len(), world.keys().len()), (requests, 3));
    shell.plan(&world, &["--json-events"]).code(2).says("a dry run has no events");
    shell.sync(&world, &["--quiet"]).code(0);
    all_is_well(&world);
    let other = shell.path("other.cache");
    let args = ["plan", &text(world.root()), DEST, "--cache", other.to_str().unwrap(), "--retries", "3"];
    let bare = Shell::bare().set("AWS_ENDPOINT_URL", &world.proxy.endpoint());
    bare.run(&args).code(0).shows("3 to upload");
    assert!(!other.exists(), "a plan leaves nothing behind");
}

#[test]
fn f9_excluded_files_stay_at_home_and_published_ones_are_kept_and_said() {
    let world = some_files(2);
    world.write("app.map", "m");
    let shell = Shell::of(&world);
    shell.sync(&world, &["--exclude", "*.map", "--exclude", "/d0"]).code(0);
    assert_eq!(world.keys(), ["d1/f001.txt"]);
    let kept = shell.sync(&world, &["--include", "/d0", "--include", "*.map"]).code(0);
    kept.says("note: kept d1/f001.txt: its path is excluded now").shows("1 kept");
    assert_eq!(world.keys(), ["app.map", "d0/f000.txt", "d1/f001.txt"]);
    shell.sync(&world, &["--exclude", "["]).code(2).says("exclude: \"[\" is not a valid pattern");
    all_is_well(&world);
}

#[test]
fn i3_deletes_are_bounded_switched_off_or_allowed() {
    let world = some_files(30);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    for n in 0..20 {
        world.remove(&format!("d{}/f{n:03}.txt", n % 7));
    }
    world.write("new", "1");
    let refused = shell.sync(&world, &[]).code(4).shows("nothing was deleted").shows("--max-delete");
    assert_eq!(refused.err, "", "it is said once");
    assert_eq!(world.keys().len(), 31, "uploads stand");
    refused.shows(
        "the tree has 11 files, less than half of the 30 published; if that is right, use --max-delete 20 ",
    );
    shell.plan(&world, &[]).code(4).shows("sync would delete nothing: the tree has 11 files");
    shell.sync(&world, &["--max-delete", "60%"]).code(4);
    shell.sync(&world, &["--no-delete"]).code(0).says("deletes are switched off").shows("20 kept");
    assert_eq!(world.keys().len(), 31);
    shell.sync(&world, &["--max-delete", "20"]).code(0).shows("20 deleted");
    assert_eq!(world.keys().len(), 11);
    shell.sync(&world, &["--max-delete", "all"]).code(2).says("use a number of files");
    all_is_well(&world);
}

#[test]
fn f5_empty_directory_is_refused_until_it_is_allowed() {
    let world = World::new();
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(4).says("it has no files").says("--allow-empty");
    world.write("a", "1");
    shell.sync(&world, &["--exclude", "*"]).code(4).says("patterns, ignore files and sizes leave no files");
    shell.sync(&world, &[]).code(0);
    world.remove("a");
    shell.sync(&world, &[]).code(4).says("is it mounted?");
    assert_eq!(world.keys(), ["a"]);
    shell.sync(&world, &["--allow-empty"]).code(0).shows("1 deleted");
    assert_eq!(world.keys(), [""; 0]);
    shell.sync(&world, &["--allow-empty"]).code(0).shows("unchanged");
}

/// Release folders of different names are published to one prefix, one after another.
#[test]
fn f9_another_folder_deletes_only_when_it_is_told_to() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let release = next_release(&world, &shell);
    let release: Vec<&str> = release.iter().map(String::as_str).collect();
    let args = release;
    shell.run(&args).code(0).shows("3 kept").says("another root published it");
    assert_eq!(world.keys().len(), 4);
    shell.run(&[&args[..], &["--allow-new-root"]].concat()).code(0).shows("3 deleted");
    assert_eq!(world.keys(), ["only"]);
}

#[test]
fn first_run_over_others_objects_is_said_or_refused() {
    let world = some_files(1);
    world.stranger("theirs", "x");
    let shell = Shell::of(&world);
    let refused = shell.sync(&world, &["--first-run", "refuse"]).code(4);
    refused.says("1 objects under the prefix were not published by this cache").says("--first-run overwrite");
    assert_eq!(world.keys(), ["theirs"]);
    shell.sync(&world, &["--first-run", "overwrite"]).code(0).says("warning: 1 objects under the prefix");
    assert_eq!(world.keys().len(), 2);
    all_is_well(&world);
}

#[test]
fn headers_sizes_and_numbers_reach_the_store() {
    let world = World::new();
    world.write_random("film.mp4", 20 * MIB, 1);
    for n in 0..8 {
        world.write(&format!("f{n}"), "x");
    }
    let shell = Shell::of(&world);
    let args = ["--header", "Cache-Control: public,  max-age=60", "--header", "x-amz-meta-by: ci"];
    let sizes =
        ["--part-size", "8MiB", "--part-threshold", "10MiB", "--chunk-size", "64KiB", "--batch-size", "2"];
    shell.sync(&world, &[&args[..], &sizes[..]].concat()).code(0).shows("on 2 connections");
    let object = world.store.get(&format!("{PREFIX}film.mp4")).unwrap();
    assert_eq!(object.cache_control.as_deref(), Some("public, max-age=60"));
    assert_eq!(object.metadata["by"], "ci");
    let parts = world.proxy.requests().iter().filter(|seen| seen.target.contains("partNumber=")).count();
    assert_eq!(parts, 3);
    for (wrong, says) in [
        (["--part-size", "5KiB"], "part_size: \"5KiB\": use 8MiB to 5GiB"),
        (["--part-threshold", "9GiB"], "part_threshold"),
        (["--chunk-size", "1"], "chunk_size"),
        (["--chunk-size", "many"], "many"),
        (["--batch-size", "0"], "batch_size: \"0\": use 1 to 256"),
        (["--header", "Host: x"], "headers: \"Host\": it is set by this library"),
        (["--header", "nothing"], "'Name: value'"),
        (["--deadline", "soon"], "deadline: \"soon\": use a number and a unit"),
    ] {
        shell.sync(&world, &wrong).code(2).says(says);
    }
    // Without them the objects lose them again.
    shell.sync(&world, &sizes).code(0);
    assert_eq!(world.store.get(&format!("{PREFIX}film.mp4")).unwrap().cache_control, None);
    all_is_well(&world);
}

#[test]
fn n5_requests_are_tried_again_as_often_as_is_said() {
    let world = some_files(20);
    let shell = Shell::of(&world);
    let error = || Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("PUT").path_contains("f007");
    world.proxy.add(error().times(2));
    shell.sync(&world, &["--retries", "2"]).code(0).shows("2 retries");
    world.write("d0/f007.txt", "again");
    world.write("more", "1");
    world.proxy.add(error().times(1));
    let failed =
        shell.sync(&world, &["--retries", "0"]).code(1).shows("1 failed, 1 pending").shows("partial");
    failed
        .says("error: upload d0/f007.txt: the store answered 500")
        .says("it stays pending: sync again later");
    shell.sync(&world, &[]).code(0).shows("1 uploaded");
    all_is_well(&world);
}

#[test]
fn deadline_leaves_the_rest_pending() {
    let world = some_files(30);
    world.proxy.add(Rule::new(Fault::Delay(std::time::Duration::from_millis(300))).method("PUT"));
    let shell = Shell::of(&world);
    let late = shell.sync(&world, &["--deadline", "700ms", "--batch-size", "2"]).code(1);
    late.shows("partial s3://bucket/site: the deadline passed");
    world.proxy.clear_rules();
    shell.ask(&world, "status", &[]).code(0).shows("  + d").shows("(last sync incomplete)");
    shell.sync(&world, &[]).code(0);
    all_is_well(&world);
}

#[test]
fn n14_outage_is_told_and_urls_lead_to_the_fallback_until_it_is_over() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    world.proxy.refuse();
    let away = shell.sync(&world, &["--retries", "0", "--fallback-url", "http://local/files"]).code(3);
    away.shows("local only s3://bucket/site: Cloud sync failed").shows("3 pending");
    let quiet = shell.sync(&world, &["--retries", "0", "--quiet"]).code(3);
    let quiet = quiet.says("error: local only s3://bucket/site, 3 pending: Cloud").says("Connection refused");
    assert_eq!(quiet.err.lines().count(), 1, "it is said once: {quiet:?}");
    let url = |args: &[&str]| shell.ask(&world, "url", args);
    let fallback = ["--fallback-url", "http://local/files", "d0/f000.txt"];
    assert_eq!(url(&fallback).code(0).out, "http://local/files/d0/f000.txt\n");
    world.proxy.accept_again();
    shell.sync(&world, &[]).code(0);
    let published = url(&fallback).code(0).out;
    assert_eq!(published, format!("{}/bucket/site/d0/f000.txt\n", world.proxy.endpoint()));
    assert_eq!(crate::support::server::http_get(published.trim_end()).1, b"content of 0");
    all_is_well(&world);
}

#[test]
fn verify_finds_what_is_missing_different_or_unknown() {
    let world = some_files(10);
    let shell = Shell::of(&world);
    shell.ask(&world, "verify", &[]).code(2).says("does not exist: nothing was published from here");
    shell.sync(&world, &["--verify", "list"]).code(0).shows("10 match; 0 missing");
    shell.sync(&world, &["--verify", "content"]).code(0).shows("10 match, 10 read");
    shell.ask(&world, "verify", &[]).code(0).shows("10 match; 0 missing, 0 different, 0 unknown");
    world.store.remove_raw(&format!("{PREFIX}d0/f000.txt"));
    world.store.put_raw(&format!("{PREFIX}d1/f001.txt"), "longer than it was");
    world.store.corrupt(&format!("{PREFIX}d2/f002.txt"), b"CONTENT OF 2");
    world.stranger("theirs", "x");
    let found = shell.ask(&world, "verify", &["--content"]).code(1).shows("missing d0/f000.txt\n");
    let found =
        found.shows("different d1/f001.txt\n").shows("different d2/f002.txt\n").shows("unknown theirs\n");
    found.shows("published again by the next sync");
    let again = shell.ask(&world, "verify", &["--json"]).code(1).json();
    assert_eq!((&again["good"], &again["matching"]), (&false.into(), &7.into()));
    assert_eq!(again["unknown"].as_array().unwrap().len(), 1);
    shell.sync(&world, &["--verify", "content", "--json"]).code(0);
    all_is_well(&world);
    world.store.remove_raw(&format!("{PREFIX}d0/f000.txt"));
    shell.ask(&world, "verify", &["-q"]).code(1).says("note: 9 match; 1 missing");
}

/// I6: a verification that did not come to its end says so, and its code is that of what ended it.
#[test]
fn i6_verification_that_was_cut_off_is_not_good() {
    let world = some_files(30);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let denied = || Fault::Answer(403, Vec::new(), b"<Error><Code>AccessDenied</Code></Error>".to_vec());
    world.proxy.add(Rule::new(denied()).method("GET").path_contains("list-type"));
    let object = shell.sync(&world, &["--verify", "list", "--json"]).code(1).json();
    assert_eq!(
        (&object["verified"]["good"], &object["verified"]["complete"]),
        (&false.into(), &false.into())
    );
    shell.ask(&world, "verify", &[]).code(5).says("s3:ListBucket is needed");
    world.proxy.clear_rules();
    world.proxy.add(Rule::new(denied()).method("GET").path_contains(".txt"));
    let cut_off = shell.ask(&world, "verify", &["--content"]).code(5).says("s3:GetObject is needed");
    cut_off.shows("not every object was checked");
    world.proxy.clear_rules();
    let expired = b"<Error><Code>ExpiredToken</Code></Error>".to_vec();
    world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), expired)).method("GET"));
    let object = shell.sync(&world, &["--verify", "list", "--json"]).code(5).json();
    assert_eq!(object["stop_reason"], "credentials");
    world.proxy.clear_rules();
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("GET"));
    shell.sync(&world, &["--verify", "list", "--retries", "1"]).code(3);
    shell.ask(&world, "verify", &["--retries", "1"]).code(3);
    world.proxy.clear_rules();
    all_is_well(&world);
}

#[test]
fn uploads_that_were_left_open_are_listed_and_aborted() {
    let world = World::new();
    world.write_random("large", 20 * MIB, 1);
    let shell = Shell::of(&world);
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).path_contains("partNumber=2"));
    shell.sync(&world, &["--retries", "0"]).code(1).says("upload large: the store answered 500");
    let listed =
        shell.ask(&world, "uploads", &[]).code(0).shows("large ").shows("16.00 MiB of 20.00 MiB sent");
    let object = shell.ask(&world, "uploads", &["--json"]).code(0).json();
    assert_eq!((&object["open"][0]["key"], &object["open"][0]["certain"]), (&"large".into(), &true.into()));
    assert!(listed.out.contains(object["open"][0]["upload_id"].as_str().unwrap()));
    shell.ask(&world, "status", &[]).code(0).shows("open        1 multipart upload,");
    Shell::of(&world).set("AWS_SECRET_ACCESS_KEY", "wrong").ask(&world, "uploads", &["--abort"]).code(5);
    shell
        .ask(&world, "uploads", &["--abort"])
        .code(0)
        .shows("aborted large")
        .shows("1 aborted, 0 left, 0 failed");
    assert!(world.store.uploads().is_empty());
    shell.ask(&world, "uploads", &[]).code(0).shows("no multipart uploads are open");
    world.proxy.clear_rules();
    shell.sync(&world, &[]).code(0);
    all_is_well(&world);
}

#[test]
fn status_and_url_answer_without_credentials() {
    let world = some_files(30);
    let shell = Shell::of(&world);
    let bare = Shell::bare().set("AWS_ENDPOINT_URL", &world.proxy.endpoint());
    bare.ask(&world, "status", &[]).code(0).shows("nothing was published from here");
    shell.sync(&world, &[]).code(0);
    let status = bare.ask(&world, "status", &[]).code(0).shows("published   30 objects, ");
    status.shows("pending     0 (last sync complete)").shows(&text(world.cache_path()));
    world.write("new", "1");
    world.proxy.refuse();
    shell.sync(&world, &["--retries", "0"]).code(3);
    let object = bare.ask(&world, "status", &["--json"]).code(0).json();
    assert_eq!((&object["published"], &object["synced"]), (&30.into(), &false.into()));
    assert_eq!(object["pending"], serde_json::json!([{ "key": "new", "kind": "added", "bytes": 1 }]));
    let urls =
        bare.ask(&world, "url", &["--public-url", "https://cdn.example.com/", "d1/f001.txt", "no such"]);
    let urls = urls.code(1).says("note: no such is not published");
    assert_eq!(
        urls.out,
        "https://cdn.example.com/site/d1/f001.txt\nhttps://cdn.example.com/site/no%20such\n"
    );
    let resolved = bare.ask(&world, "url", &["--json", "d1/f001.txt", "new"]).code(0).json();
    assert_eq!((&resolved[0]["state"], &resolved[1]["state"]), (&"published".into(), &"pending".into()));
    let many: Vec<String> = (0..256).map(|n| format!("none/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    bare.ask(&world, "url", &many).code(1);
    bare.ask(&world, "url", &["../x"]).code(2).says("a key has no '.' or '..' segment");
    world.proxy.accept_again();
}
