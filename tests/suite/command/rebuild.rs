//! `rebuild`: a damaged or lost cache is made anew, and a cache is bound to another endpoint.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::command::{DEST, Ended, Shell, all_is_well, some_files, text, write_home};
use crate::shared_state::Machine;
use crate::support::World;
use crate::support::proxy::{Fault, FaultProxy, Rule, latch};

fn rebuild(shell: &Shell, world: &World, args: &[&str]) -> Ended {
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    shell.run(&[&["rebuild", &root, DEST, "--cache", &cache], args].concat())
}

/// Kills a command (SIGKILL) when its request of this number, from 0, is answered. Returns false if it sent no such request,
/// and succeeded.
pub(crate) fn killed_at(number: u64, world: &World, shell: &Shell, args: &[&str]) -> bool {
    let held = latch();
    world.proxy.add(Rule::new(Fault::Hold(held.clone())).skip(number));
    let mut child = shell.std_command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ended = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if held.arrivals() > 0 {
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if ended.is_none() {
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
    }
    held.release();
    world.proxy.clear_rules();
    assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
    ended.is_none()
}

/// P5: the error of a damaged cache names the way out, which works.
#[test]
fn p5_damaged_cache_is_made_anew_by_the_command_that_its_error_names() {
    let world = some_files(5);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    fs::write(world.cache_path(), "no cache at all").unwrap();
    shell.sync(&world, &[]).code(4).says("brigade rebuild");
    world.write("d0/f000.txt", "version 2");
    world.stranger("not ours", "x");
    world.store.clear_logs();
    let object = rebuild(&shell, &world, &["--json"]).code(0).says("kept as").json();
    let kept = text(world.cache_path()) + ".damaged-1";
    assert_eq!((&object["found"], &object["kept_as"]), (&json!("damaged"), &json!(kept)));
    assert!(object["damage"].as_str().unwrap().contains("nothing was deleted because of it"));
    assert_eq!(
        (&object["published"], &object["pending"], &object["failed_count"]),
        (&json!(4), &json!(1), &json!(0))
    );
    assert_eq!(object["adoption"]["without_file"], 1);
    assert!(world.store.puts().is_empty() && world.store.deletes().is_empty());
    assert_eq!(fs::read(kept).unwrap(), b"no cache at all");
    // It can be used now.
    rebuild(&shell, &world, &[]).code(4).says("--force");
    rebuild(&shell, &world, &["--force"])
        .code(0)
        .shows("4 keys published, 1 file to be sent by the next sync");
    shell.sync(&world, &[]).code(0).shows("1 uploaded");
    all_is_well(&world);
    // A lost one is made, too.
    fs::remove_file(world.cache_path()).unwrap();
    let made = rebuild(&shell, &world, &["-q"]).code(0);
    assert!(made.out.is_empty() && !made.err.contains("kept as"), "nothing was there: {made:?}");
    shell.sync(&world, &[]).code(0).shows("0 uploaded");
    all_is_well(&world);
}

#[test]
fn rebuild_says_what_it_needs() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    shell.ask(&world, "rebuild", &[]).code(2).says("brigade rebuild DIR DEST").says("--state bucket");
    fs::remove_file(world.cache_path()).unwrap();
    shell.ask(&world, "rebuild", &["--rebind"]).code(2).says("does not exist");
    shell
        .ask(&world, "rebuild", &["--state", "bucket"])
        .code(2)
        .says("nothing was published with its state there");
    rebuild(&shell, &world, &["--force", "--rebind"]).code(2).says("cannot be used with");
    assert!(!world.cache_path().exists());
    let held = world.cache();
    rebuild(&shell, &world, &["--lock-wait", "0"]).code(4).says("try again when it has finished");
    drop(held);
    // A destination of a configuration file has its directory.
    let toml = format!(
        "[destination.live]\nbucket = \"bucket\"\nprefix = \"site\"\nroot = {:?}\ncache = {:?}\n",
        text(world.root()),
        text(world.cache_path()),
    );
    write_home(&shell, "brigade.toml", &toml);
    let file = text(shell.path("brigade.toml"));
    let object = shell.run(&["rebuild", "live", "--config", &file, "--json"]).code(0).json();
    assert_eq!((&object["name"], &object["published"]), (&json!("live"), &json!(2)), "{object}");
}

#[test]
fn p5_damaged_cache_is_made_anew_from_the_state_in_the_bucket_by_the_command() {
    let world = World::new();
    let machine = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    machine.publish();
    let (shell, cache, root) = (Shell::of(&world), text(machine.cache_path()), text(machine.root()));
    fs::write(&cache, "no cache at all").unwrap();
    let args = ["rebuild", DEST, "--cache", &cache, "--state", "bucket", "--json"];
    let object = shell.run(&args).code(0).json();
    assert_eq!((&object["published"], &object["state"]["generation"]), (&json!(2), &json!(1)), "{object}");
    assert_eq!(object["found"], "damaged");
    let again =
        shell.run(&["sync", &root, DEST, "--cache", &cache, "--state", "bucket", "--json"]).code(0).json();
    assert_eq!((&again["outcome"], &again["requests"]), (&json!("unchanged"), &json!(1)), "{again}");
    // Without the setting it says where the state lies.
    fs::write(&cache, "no cache at all").unwrap();
    shell.run(&["rebuild", &root, DEST, "--cache", &cache]).code(2).says("--state bucket");
    assert_eq!(fs::read(&cache).unwrap(), b"no cache at all");
}

/// Killed (SIGKILL) at each of its requests, and then repeated: the path leads to what was there until the new cache is
/// whole.
#[test]
fn p5_killed_rebuild_leaves_what_was_there_and_can_be_repeated() {
    let world = some_files(6);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    // No ETag is an MD5: each file is asked for.
    world.store.lists_no_etags(true);
    world.store.page_limit(2);
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    let mut kills = 0;
    let begin = || fs::write(world.cache_path(), "no cache at all").unwrap();
    begin();
    while killed_at(kills, &world, &shell, &["rebuild", &root, DEST, "--cache", &cache]) {
        assert_eq!(fs::read(world.cache_path()).unwrap(), b"no cache at all", "killed at request {kills}");
        begin();
        kills += 1;
    }
    assert!(kills > 5, "{kills}");
    world.store.lists_no_etags(false);
    shell.sync(&world, &[]).code(0).shows("0 uploaded");
    all_is_well(&world);
}

/// The endpoint moved: the error of the cache names the way out, which works.
#[test]
fn cache_is_bound_to_another_endpoint_by_the_command_that_its_error_names() {
    let world = some_files(5);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let moved = FaultProxy::start(world.server.as_ref().unwrap().addr());
    let endpoint = moved.endpoint();
    let at = ["--endpoint-url", &endpoint];
    shell.sync(&world, &at).code(4).says("brigade rebuild --rebind");
    world.store.remove_raw("site/d0/f000.txt");
    // Nothing is there.
    let cache = text(world.cache_path());
    let elsewhere = ["rebuild", "--rebind", "s3://bucket/elsewhere", "--cache", &cache];
    shell.run(&[&elsewhere, &at[..]].concat()).code(4).says("none of its 5 objects");
    let bound = shell.ask(&world, "rebuild", &[&["--rebind", "--json"], &at[..]].concat()).code(0).json();
    assert_eq!((&bound["verified"]["matching"], &bound["verified"]["missing_count"]), (&json!(4), &json!(1)));
    assert!(bound["was"].as_str() != bound["destination"].as_str() && bound["was"].is_string(), "{bound}");
    shell.ask(&world, "rebuild", &[&["--rebind"], &at[..]].concat()).code(0).shows("is bound to s3://");
    shell.sync(&world, &at).code(0).shows("1 uploaded");
    let quiet = shell.sync(&world, &[&["--json"], &at[..]].concat()).code(0).json();
    assert_eq!((&quiet["outcome"], &quiet["requests"]), (&json!("unchanged"), &json!(0)), "{quiet}");
    shell.sync(&world, &[]).code(4).says("--rebind");
}

/// P5: a copied cache is told of once, by one warning, and compared with one listing.
#[test]
fn p5_old_copy_of_the_cache_is_told_of_by_the_command() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let copy = text(world.cache_path()) + ".copy";
    fs::copy(world.cache_path(), &copy).unwrap();
    let root = text(world.root());
    let sync = |args: &[&str]| shell.run(&[&["sync", &root, DEST, "--cache", &copy], args].concat());
    shell.run(&["plan", &root, DEST, "--cache", &copy]).code(0).says("was copied, or put back by a backup");
    let first = sync(&["--json"]).code(0).says("was copied, or put back by a backup");
    assert_eq!(first.err.matches("warning").count(), 1, "{first:?}");
    let object = first.json();
    assert_eq!(
        (&object["copied_cache"]["matching"], &object["requests"]),
        (&json!(3), &json!(1)),
        "{object}"
    );
    let second = sync(&["--json"]).code(0);
    assert_eq!((second.err.as_str(), &second.json()["copied_cache"]), ("", &json!(null)));
}

/// Killed (SIGKILL) at each request of the run that compares an old copy: whatever was forgotten by then, the next run
/// compares again, and deletes only what is proven.
#[test]
fn p5_killed_while_an_old_copy_is_compared_converges() {
    let mut kills = 0;
    loop {
        let world = some_files(8);
        let shell = Shell::of(&world);
        shell.sync(&world, &[]).code(0);
        let old = text(world.cache_path()) + ".old";
        fs::copy(world.cache_path(), &old).unwrap();
        world.write("d0/f000.txt", "version 2");
        world.write("new", "since the backup");
        shell.sync(&world, &[]).code(0);
        fs::rename(&old, world.cache_path()).unwrap();
        world.remove("d1/f001.txt");
        world.remove("d2/f002.txt");
        world.stranger("d2/f002.txt", "another publisher's");
        world.store.page_limit(3);
        let (root, cache) = (text(world.root()), text(world.cache_path()));
        let killed = killed_at(kills, &world, &shell, &["sync", &root, DEST, "--cache", &cache]);
        shell.sync(&world, &[]).code(0);
        assert_eq!(world.store.deletes(), ["site/d1/f001.txt"], "killed at request {kills}");
        all_is_well(&world);
        if !killed {
            break;
        }
        kills += 1;
    }
    // Two listings of three pages, the preflight and the delete.
    assert!(kills > 6, "{kills}");
}
