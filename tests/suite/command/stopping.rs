//! Signals, and two at once.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{DEST, Ended, Shell, all_is_well, held, some_files, started, text, wait_until_it_stops};
use crate::support::proxy::{Fault, Rule, Seen, latch};

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn ended(child: Child) -> Ended {
    Ended::of(child.wait_with_output().unwrap())
}

/// P2: what is in flight ends, what is done is recorded, nothing more is started.
#[test]
fn p2_first_signal_stops_gently() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = some_files(60);
        let shell = Shell::of(&world);
        let held = held(&world, 5);
        let mut child = started(&shell, &world, &["--json", "--batch-size", "4"]);
        assert!(held.wait_for_arrivals(4));
        send(&child, signal);
        wait_until_it_stops(&mut child);
        held.release();
        let ended = ended(child).code(code);
        let object = ended.json();
        assert_eq!((&object["outcome"], &object["stop_reason"]), (&"partial".into(), &"cancelled".into()));
        let uploaded = object["uploaded"].as_u64().unwrap();
        assert!((5..=13).contains(&uploaded), "{object}");
        assert_eq!(world.keys().len() as u64, uploaded, "what was in flight ended, and is recorded");
        world.proxy.clear_rules();
        shell.sync(&world, &[]).code(0).shows(&format!("{} uploaded", 60 - uploaded));
        all_is_well(&world);
    }
}

/// P2: a store that does not answer holds nobody up for longer than the grace.
#[test]
fn p2_a_store_that_does_not_answer_is_left_within_five_seconds() {
    let world = some_files(60);
    let shell = Shell::of(&world);
    let held = held(&world, 5);
    let child = started(&shell, &world, &["--json"]);
    assert!(held.wait_for_arrivals(4));
    let began = Instant::now();
    send(&child, Signal::TERM);
    let ended = ended(child).code(143).says("stopping: ");
    // Long enough for a machine that is busy; without a limit it is 120 s.
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(ended.json()["stop_reason"], "cancelled", "it came to its report");
    held.release();
    world.proxy.clear_rules();
    shell.sync(&world, &[]).code(0);
    all_is_well(&world);
}

/// P2: the code is that of the signal that ended it.
#[test]
fn p2_second_signal_ends_at_once_and_the_next_sync_converges() {
    let (int, term) = (Signal::INT, Signal::TERM);
    for (first, second, code) in [(int, int, 130), (term, term, 143), (int, term, 143), (term, int, 130)] {
        let world = some_files(60);
        let shell = Shell::of(&world);
        let held = held(&world, 5);
        let mut child = started(&shell, &world, &["--json"]);
        assert!(held.wait_for_arrivals(4));
        send(&child, first);
        // Two signals of one kind that come at once are one signal.
        wait_until_it_stops(&mut child);
        send(&child, second);
        let ended = ended(child).code(code);
        assert_eq!(ended.out, "", "there was no time for a report");
        held.release();
        world.proxy.clear_rules();
        shell.sync(&world, &[]).code(0);
        all_is_well(&world);
    }
}

/// P2: parts that are in flight end, no other is begun, and the upload stays recorded: the next sync sends what is left.
#[test]
fn p2_signal_among_parts_leaves_an_upload_that_the_next_sync_resumes() {
    for signal in [Signal::INT, Signal::TERM] {
        let world = some_files(2);
        let bytes = world.write_random("large", 64 << 20, 1);
        let shell = Shell::of(&world);
        let part = |seen: &Seen| seen.target.contains("partNumber");
        let parts = || world.proxy.requests().iter().filter(|seen| part(seen)).count();
        let held = latch();
        world
            .proxy
            .add(Rule::new(Fault::Hold(held.clone())).method("PUT").path_contains("partNumber").skip(2));
        let args = ["--json", "--part-size", "8MiB", "--part-threshold", "8MiB", "--parts-in-flight", "2"];
        let mut child = started(&shell, &world, &args);
        assert!(held.wait_for_arrivals(2));
        send(&child, signal);
        wait_until_it_stops(&mut child);
        held.release();
        let code = if signal == Signal::INT { 130 } else { 143 };
        let object = ended(child).code(code).json();
        assert_eq!((&object["outcome"], &object["stop_reason"]), (&"partial".into(), &"cancelled".into()));
        let sent = parts();
        assert!((4..8).contains(&sent), "of 8 parts: {sent}");
        assert_eq!(world.store.uploads().len(), 1, "it is not aborted");
        world.proxy.clear_rules();
        shell.sync(&world, &args).code(0);
        assert_eq!(parts(), 8, "no part was sent twice");
        assert!(world.objects()["large"] == bytes && world.store.uploads().is_empty());
        all_is_well(&world);
    }
}

#[test]
fn p2_verify_stops_too() {
    let world = some_files(60);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let held = latch();
    world.proxy.add(Rule::new(Fault::Hold(held.clone())).method("GET").path_contains(".txt"));
    let cache = text(world.cache_path());
    let mut command = shell.std_command(&["verify", DEST, "--cache", &cache, "--content"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(held.wait_for_arrivals(4));
    send(&child, Signal::INT);
    wait_until_it_stops(&mut child);
    held.release();
    ended(child).code(130);
    all_is_well(&world);
}

/// A plan of a first run waits for the store, too.
#[test]
fn p2_plan_stops_too() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    let held = latch();
    world.proxy.add(Rule::new(Fault::Hold(held.clone())).method("GET"));
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    let mut command = shell.std_command(&["plan", &root, DEST, "--cache", &cache]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(held.wait_for_arrivals(1));
    send(&child, Signal::INT);
    ended(child).code(130);
    held.release();
}

/// P3: the second fails, names the file, and harms nothing.
#[test]
fn p3_two_at_once_on_one_cache() {
    let world = some_files(30);
    let shell = Shell::of(&world);
    let held = held(&world, 5);
    let child = started(&shell, &world, &[]);
    assert!(held.wait_for_arrivals(1));
    let second = shell.sync(&world, &["--lock-wait", "0"]).code(4).says(&text(world.cache_path()));
    second.says("wait for the other run to end");
    shell.ask(&world, "verify", &["--lock-wait", "0"]).code(4).says(&text(world.cache_path()));
    // Whoever only reads sees how far it is.
    shell.ask(&world, "status", &[]).code(0).shows("(last sync incomplete)");
    shell.plan(&world, &[]).code(0);
    let url = shell.ask(&world, "url", &["d0/f000.txt"]).code(0);
    assert!(url.out.ends_with("/bucket/site/d0/f000.txt\n"));
    held.release();
    ended(child).code(0).shows("30 uploaded");
    all_is_well(&world);
}

/// What the store has acknowledged by now, and what is still to be done: while a sync runs as after it.
#[test]
fn status_and_url_follow_a_sync_that_runs() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    world.write("new\tfile", "x");
    let held = latch();
    world.proxy.add(Rule::new(Fault::Hold(held.clone())).method("PUT"));
    let child = started(&shell, &world, &[]);
    assert!(held.wait_for_arrivals(1));
    let status = shell.ask(&world, "status", &["--json"]).code(0).json();
    assert_eq!((&status["published"], &status["synced"]), (&3.into(), &false.into()));
    assert!(status["pending"].as_array().unwrap().iter().any(|file| file["key"] == "new\tfile"), "{status}");
    let all = shell.ask(&world, "url", &["--all"]).code(0);
    assert!(all.out.lines().any(|line| line.starts_with("new\\tfile\t") && line.ends_with("\tpending")));
    let url = shell.ask(&world, "url", &["d0/f000.txt"]).code(0);
    assert!(url.out.ends_with("/bucket/site/d0/f000.txt\n"), "{url:?}");
    shell.ask(&world, "url", &["new\tfile"]).code(0);
    held.release();
    Ended::of(child.wait_with_output().unwrap()).code(0);
    let all = shell.ask(&world, "url", &["--all"]).code(0).out;
    let row = all.lines().find(|line| line.starts_with("new\\tfile\t")).unwrap();
    let columns: Vec<_> = row.split('\t').collect();
    assert!(columns[1].ends_with("/bucket/site/new%09file"), "{row}");
    let x = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    assert_eq!(columns[2..], ["1", x, "published"]);
    let json = shell.ask(&world, "url", &["--all", "--json"]).code(0).json();
    let list = json.as_array().unwrap();
    assert_eq!((list.len(), all.lines().count()), (4, 4));
    assert_eq!(list[3]["digest"], x);
    shell.run(&["url", DEST]).code(2).says("<KEY>");
}

/// A program of an earlier version locks readers out; the catalog is all that they need.
#[test]
fn status_and_url_answer_from_the_catalog_where_the_cache_cannot_be_read() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let status = shell.ask(&world, "status", &["--json"]).code(0).json();
    let all = shell.ask(&world, "url", &["--all"]).code(0).out;
    let holder = redb::Database::open(world.cache_path()).unwrap();
    let answered =
        shell.ask(&world, "status", &["--json"]).code(0).says("showing the state after the last sync");
    assert_eq!(answered.json(), status);
    let answered = shell.ask(&world, "url", &["--all"]).code(0).says("showing the state after the last sync");
    assert_eq!(answered.out, all);
    std::fs::remove_file(bucket_brigade::Catalog::path_for(world.cache_path())).unwrap();
    shell.ask(&world, "status", &[]).code(4).says(&text(world.cache_path()));
    shell.ask(&world, "url", &["--all"]).code(4);
    let url = shell.ask(&world, "url", &["d0/f000.txt"]).code(0).says("another program has locked the cache");
    assert!(url.out.ends_with("/bucket/site/d0/f000.txt\n"), "{url:?}");
    shell.sync(&world, &["--lock-wait", "0"]).code(4);
    drop(holder);
    all_is_well(&world);
}
