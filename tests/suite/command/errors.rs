//! What people get wrong, and what they are told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::command::{DEST, Shell, all_is_well, some_files, text};
use crate::support::proxy::{Fault, Rule};
use crate::support::{HEAD, PREFIX, World};

fn answer(status: u16, code: &str, headers: &[(&str, &str)], more: &str) -> Rule {
    let body = format!("<Error><Code>{code}</Code><Message>as the store says</Message>{more}</Error>");
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Rule::new(Fault::Answer(status, headers, body.into_bytes()))
}

#[test]
fn wrong_region_names_the_right_one() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    world.proxy.add(answer(301, "PermanentRedirect", &[("x-amz-bucket-region", "eu-west-1")], ""));
    shell.sync(&world, &[]).code(2).says("lives in region eu-west-1: set region to that");
    world.proxy.clear_rules();
    world.proxy.add(answer(400, "AuthorizationHeaderMalformed", &[], "<Region>ap-south-1</Region>"));
    shell.sync(&world, &[]).code(2).says("lives in region ap-south-1: set region to that");
    assert!(world.keys().is_empty());
}

#[test]
fn wrong_bucket_and_wrong_keys_are_told_from_each_other() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    let root = text(world.root());
    shell.run(&["sync", &root, "s3://no-such-bucket"]).code(2).says("there is no bucket \"no-such-bucket\"");
    let wrong = Shell::of(&world).set("AWS_SECRET_ACCESS_KEY", "wrong");
    wrong.sync(&world, &[]).code(5).says("check access key, secret key");
    world.proxy.add(answer(403, "AccessDenied", &[], ""));
    shell.sync(&world, &["--json"]).code(5).says("s3:ListBucket");
    shell.ask(&world, "verify", &[]).code(5);
    shell.ask(&world, "uploads", &[]).code(0);
    assert!(world.keys().is_empty());
}

/// D14: the error names the flag, once. What only reads goes on as before.
#[test]
fn d14_state_that_lies_in_the_bucket_is_told_with_the_flag_to_set() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    world.stranger(HEAD, r#"{"format": 1}"#);
    for attempt in [shell.plan(&world, &[]), shell.sync(&world, &[])] {
        let refused = attempt.code(2).says("the state of this destination lies in its bucket");
        assert_eq!(refused.err.matches("--state").count(), 1, "{refused:?}");
    }
    let object = shell.sync(&world, &["--json"]).code(2).json();
    assert_eq!((&object["outcome"], &object["uploaded"]), (&"error".into(), &0.into()));
    assert_eq!(world.keys(), [HEAD]);
    shell.ask(&world, "status", &[]).code(0).shows("pending     2 ");
    shell.ask(&world, "uploads", &[]).code(0);
    shell.ask(&world, "url", &["d0/f000.txt"]).code(0);
}

#[test]
fn credentials_refused_in_the_middle_stop_the_run() {
    let world = some_files(40);
    let shell = Shell::of(&world);
    world.proxy.add(answer(403, "ExpiredToken", &[], "").method("PUT").skip(10));
    let stopped = shell.sync(&world, &["--batch-size", "2"]).code(5);
    stopped
        .shows("the store refused the credentials; earlier uploads and deletes of this run are not affected")
        .shows("10 uploaded");
    world.proxy.clear_rules();
    shell.sync(&world, &[]).code(0).shows("30 uploaded");
    all_is_well(&world);
}

#[test]
fn n7_clock_that_is_off_is_told_by_how_much() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    let theirs = httpdate::fmt_http_date(SystemTime::now() + std::time::Duration::from_secs(3600));
    world.proxy.add(answer(403, "RequestTimeTooSkewed", &[("date", &theirs)], ""));
    let failed = shell.sync(&world, &[]).code(2);
    let at = failed.err.find("this machine's clock is ").unwrap_or_else(|| panic!("{failed:?}"));
    let text = &failed.err[at..];
    assert!(
        text.starts_with("this machine's clock is 60 min behind") || text.contains("is 61 min"),
        "{text}"
    );
}

#[test]
fn http_endpoint_spoken_to_with_https_says_so() {
    let world = some_files(1);
    // What Go's and other servers do with a handshake that is no request.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
    });
    let shell = Shell::of(&world).set("AWS_ENDPOINT_URL", &format!("https://{host}"));
    let says = format!("seems to speak http, not https: write the endpoint as http://{host}");
    shell.sync(&world, &[]).code(2).says(&says).says("--endpoint-url");
    answers.join().unwrap();
    // Others only hang up.
    let host = world.proxy.endpoint().replace("http://", "https://");
    let shell = shell.set("AWS_ENDPOINT_URL", &host);
    let other = text(shell.path("other.cache"));
    let args = ["sync", &text(world.root()), DEST, "--cache", &other, "--retries", "0"];
    shell.run(&args).code(3).shows("during the TLS handshake: does it speak http?");
}

#[test]
fn wrong_directories_and_destinations_are_refused_by_name() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    let root = text(world.root());
    let sync = |dir: &str, dest: &str| shell.run(&["sync", dir, dest]);
    sync(&format!("{root}/d0/f000.txt"), DEST)
        .code(2)
        .says("f000.txt is a file; give the directory to publish");
    sync("/no/such/dir", DEST).code(4).says("/no/such/dir").says("mounted");
    sync(&root, "my/bucket").code(2).says("\"my/bucket\" does not begin with s3://; write s3://BUCKET");
    sync(&root, "s3:///my/bucket").code(2).says("names no bucket");
    sync(&root, "s3://my bucket/x").code(2).says("bucket: \"my bucket\"");
    sync(&root, "s3://bucket/a//b").code(2).says("prefix: \"a//b\"");
    sync(&root, "s3://bucket/../x").code(2).says("prefix: \"../x\"");
    assert!(!shell.path(".local").exists(), "nothing is left of what could not begin");
    shell.run(&[]).code(2).says("Usage: brigade");
    shell.run(&["sync"]).code(2).says("give DIR and DEST");
    shell.run(&["sync", &root, DEST, "--exlude", "x"]).code(2).says("--exclude");
    shell.run(&["sync", &root, DEST, "--json", "--json-events"]).code(2).says("cannot be used with");
    assert!(world.proxy.requests().is_empty());
}

/// Names of everything below a folder.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(names(&entry.path()));
        }
    }
    found.sort();
    found
}

/// `plan` said what would be published, `sync` refused, and left a cache, or its folder, in the tree: it made them
/// before it looked where they are.
#[test]
fn cache_inside_the_directory_is_refused_by_plan_and_sync_alike_and_leaves_nothing_there() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    let (root, folder) = (world.root(), world.root().parent().unwrap().to_owned());
    let link = |to: PathBuf, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    link(root.clone(), "to-tree");
    link(root.join("d0"), "to-folder");
    let before = names(&root);
    for cache in [
        root.join("cache"),
        root.join("new/folder/cache"),
        root.join("d0/f000.txt"),
        root.join("d0/../cache"),
        root.join("missing/../../tree/cache"),
        folder.join("to-tree/cache"),
        folder.join("to-folder/new/cache"),
        folder.join("to-folder/../cache"),
    ] {
        for dir in [root.clone(), folder.join("to-tree")] {
            let run = |command: &str| {
                let ended = shell.run(&[command, &text(dir.clone()), DEST, "--cache", &text(cache.clone())]);
                let ended = ended.code(2).says("cache: ").says("is inside DIR").says("would be published");
                ended.says("--cache").err
            };
            assert_eq!(run("plan"), run("sync"), "{}", cache.display());
            assert_eq!(names(&root), before, "{}", cache.display());
        }
    }
    // What is only called like it is outside.
    let beside = folder.join("tree-cache");
    shell.run(&["sync", &text(root), DEST, "--cache", &text(beside)]).code(0).shows("1 uploaded");
    assert_eq!(world.keys(), ["d0/f000.txt"]);
}

/// What else is wrong with a cache's path is told by a plan as by a sync, and by both before anything is made.
#[test]
fn plan_refuses_what_sync_refuses() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    let root = text(world.root());
    std::os::unix::fs::symlink(shell.path("elsewhere"), shell.path("link")).unwrap();
    fs::write(shell.path("no-cache"), "something else").unwrap();
    fs::set_permissions(shell.path("no-cache"), fs::Permissions::from_mode(0o600)).unwrap();
    let (link, no_cache) = (text(shell.path("link")), text(shell.path("no-cache")));
    for (args, code) in [
        (vec![&root, DEST, "--cache", &link], 4),
        (vec![&root, DEST, "--cache", &no_cache], 4),
        (vec!["/no/such/dir", DEST], 4),
        (vec![&root, DEST, "--include", "nothing"], 4),
        (vec![&root, DEST, "--exclude", "["], 2),
        (vec![&root, DEST, "--batch-size", "0"], 2),
        (vec![&root, "s3://bucket/a//b"], 2),
        (vec![&root, DEST, "--endpoint-url", "https://h", "--ca-file", "/no/such/file"], 2),
    ] {
        let error = |command: &str| {
            let ended = shell.run(&[&[command], &args[..]].concat()).code(code);
            ended.err.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(error("plan"), error("sync"), "{args:?}");
    }
    assert!(world.keys().is_empty() && !shell.path("elsewhere").exists());
}

/// A run that had published something and was then ended by an error said in its JSON that nothing was sent.
#[test]
fn i6_json_of_a_run_that_an_error_ended_counts_what_was_sent() {
    let world = some_files(40);
    let shell = Shell::of(&world);
    world.write("d0/f000.txt", "x".repeat(1000));
    let cache = world.cache_path();
    let seen = AtomicUsize::new(0);
    world.proxy.on_request(move |_| {
        if seen.fetch_add(1, Ordering::SeqCst) == 30 {
            fs::remove_file(&cache).unwrap();
        }
    });
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("PUT").times(1));
    let ended = shell.sync(&world, &["--json", "--batch-size", "2"]).code(4);
    let object = ended.json();
    assert_eq!((&object["outcome"], &object["scanned"]), (&"error".into(), &40.into()));
    let uploaded = object["uploaded"].as_u64().unwrap();
    assert!(uploaded >= 25 && uploaded as usize <= world.keys().len(), "{object}");
    assert!(object["uploaded_bytes"].as_u64().unwrap() > 1000, "{object}");
    assert!(object["requests"].as_u64().unwrap() > uploaded && object["retries"] == 1, "{object}");
    assert!(object["connections"].as_u64().unwrap() >= 1 && object["elapsed_s"].as_f64().unwrap() > 0.0);
    assert_eq!((&object["failed_count"], &object["failed"].as_array().unwrap().len()), (&1.into(), &1));
    world.proxy.on_request(|_| ());
    shell.sync(&world, &[]).code(0);
    all_is_well(&world);
}

/// Uploads stand, deletes are pending, and the reason is said once for each.
#[test]
fn key_that_may_not_delete_publishes_all_the_same() {
    let world = some_files(5);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    world.write("new", "1");
    for key in ["d0/f000.txt", "d1/f001.txt"] {
        world.remove(key);
        world.store.deny_delete(&format!("{PREFIX}{key}"));
    }
    let denied = shell.sync(&world, &[]).code(1).shows("1 uploaded").shows("2 failed, 2 pending");
    let denied =
        denied.says("error: delete d0/f000.txt: ").says("error: delete d1/f001.txt: ").says("AccessDenied");
    denied.says("s3:DeleteObject is needed").says("the delete stays pending; uploads are not affected");
    shell.ask(&world, "status", &[]).shows("  - d0/f000.txt");
    world.store.clear_faults();
    shell.sync(&world, &[]).code(0).shows("2 deleted");
    all_is_well(&world);
}

#[test]
fn f4_every_failure_is_told_with_its_path_its_reason_and_what_to_do() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    world.write(&"n".repeat(200), "1");
    std::os::unix::fs::symlink("f001.txt", world.path("d1/link")).unwrap();
    world.store.refuse_put("d1/f001.txt", "InvalidArgument");
    world.store.refuse_put("d2/f002.txt", "EntityTooLarge");
    let failed = shell.sync(&world, &[]).code(1).shows("2 failed, 2 pending");
    let failed =
        failed.says("error: upload d1/f001.txt: ").says("send the request ID to the store's operator");
    failed
        .says("error: upload d2/f002.txt: ")
        .says("--exclude it, or split it")
        .says("note: skipped d1/link: a symbolic");
    world.store.clear_faults();
    shell.sync(&world, &[]).code(0);
    all_is_well(&world);
}

#[test]
fn p5_damaged_cache_says_what_to_do() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    fs::write(world.cache_path(), "no cache at all").unwrap();
    shell.sync(&world, &[]).code(4).says(&text(world.cache_path())).says("brigade rebuild");
    shell.ask(&world, "status", &[]).code(4);
    fs::remove_file(world.cache_path()).unwrap();
    shell.sync(&world, &[]).code(0).shows("0 uploaded").shows("3 adopted");
    all_is_well(&world);
}

#[test]
fn unwritable_cache_folder_is_named() {
    let world = World::new();
    world.write("a", "1");
    let args = ["sync", &text(world.root()), DEST, "--cache", "/proc/no/cache"];
    Shell::of(&world).run(&args).code(4).says("/proc/no").says("space and permissions");
}
