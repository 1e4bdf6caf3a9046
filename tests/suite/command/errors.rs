//! What people get wrong, and what they are told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::SystemTime;

use crate::command::{DEST, Shell, all_is_well, some_files, text};
use crate::support::proxy::{Fault, Rule};
use crate::support::{PREFIX, World};

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

#[test]
fn credentials_refused_in_the_middle_stop_the_run() {
    let world = some_files(40);
    let shell = Shell::of(&world);
    world.proxy.add(answer(403, "ExpiredToken", &[], "").method("PUT").skip(10));
    let stopped = shell.sync(&world, &["--batch-size", "2"]).code(5);
    stopped.shows("the store refused the credentials; what was done before stands").shows("10 uploaded");
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
    shell.sync(&world, &[]).code(2).says(&says);
    answers.join().unwrap();
    // Others only hang up.
    let host = world.proxy.endpoint().replace("http://", "https://");
    let shell = shell.set("AWS_ENDPOINT_URL", &host);
    let other = text(shell.path("other.cache"));
    let args = ["sync", &text(world.root()), DEST, "--cache", &other, "--retries", "0"];
    shell.run(&args).code(3).says("before TLS was agreed on: does it speak http?");
}

#[test]
fn wrong_directories_and_destinations_are_refused_by_name() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    let root = text(world.root());
    let sync = |dir: &str, dest: &str| shell.run(&["sync", dir, dest]);
    sync(&format!("{root}/d0/f000.txt"), DEST).code(4).says("f000.txt: it is a file; DIR is a directory");
    sync("/no/such/dir", DEST).code(4).says("/no/such/dir").says("mounted");
    sync(&root, "my/bucket").code(2).says("\"my/bucket\" does not begin with s3://; write s3://BUCKET");
    sync(&root, "s3:///my/bucket").code(2).says("names no bucket");
    sync(&root, "s3://my bucket/x").code(2).says("bucket: \"my bucket\"");
    sync(&root, "s3://bucket/a//b").code(2).says("bucket_prefix");
    sync(&root, "s3://bucket/../x").code(2).says("bucket_prefix");
    assert!(!shell.path(".local").exists(), "nothing is left of what could not begin");
    shell.run(&[]).code(2).says("Usage: brigade");
    shell.run(&["sync"]).code(2).says("<DIR>");
    shell.run(&["sync", &root, DEST, "--exlude", "x"]).code(2).says("--exclude");
    shell.run(&["sync", &root, DEST, "--json", "--json-events"]).code(2).says("cannot be used with");
    assert!(world.proxy.requests().is_empty());
}

#[test]
fn a_cache_inside_the_directory_is_refused() {
    let world = some_files(1);
    let cache = text(world.path("cache"));
    Shell::of(&world)
        .run(&["sync", &text(world.root()), DEST, "--cache", &cache])
        .code(2)
        .says("would be published");
    assert!(world.keys().is_empty());
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
    denied.says("s3:DeleteObject is needed").says("the delete stays pending; what was uploaded stands");
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
        failed.says("error: upload d1/f001.txt: ").says("show the request id to the store's operator");
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
    shell.sync(&world, &[]).code(4).says(&text(world.cache_path())).says("move it away");
    shell.ask(&world, "status", &[]).code(4);
    fs::remove_file(world.cache_path()).unwrap();
    shell.sync(&world, &[]).code(0).shows("3 uploaded");
    all_is_well(&world);
}

#[test]
fn unwritable_cache_folder_is_named() {
    let world = World::new();
    world.write("a", "1");
    let args = ["sync", &text(world.root()), DEST, "--cache", "/proc/no/cache"];
    Shell::of(&world).run(&args).code(4).says("/proc/no").says("space and permissions");
}
