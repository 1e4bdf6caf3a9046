//! Several machines, each with the command, publish one tree with its state in the bucket.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::command::{DEST, Ended, Shell, text, wait_until_it_stops};
use crate::crash::RandomInstants;
use crate::shared_state::{Machine, published, requests, tree};
use crate::support::World;
use crate::support::proxy::{Fault, Latch, Rule, latch};

/// A machine with the command.
struct Runner<'a> {
    machine: Machine<'a>,
    shell: Shell,
}

impl<'a> Runner<'a> {
    fn new(world: &'a World, files: &[(&str, &str)]) -> Self {
        Self { machine: Machine::new(world, files), shell: Shell::of(world) }
    }

    /// `sync` or `plan` of its tree, with the state in the bucket unless the arguments say otherwise.
    fn words(&self, command: &str, args: &[&str]) -> Vec<String> {
        let (root, cache) = (text(self.machine.root()), text(self.machine.cache_path()));
        let own = [command, &root, DEST, "--cache", &cache];
        let state: &[&str] = if args.contains(&"--state") { &[] } else { &["--state", "bucket"] };
        [&own, state, args].concat().iter().map(|word| (*word).to_owned()).collect()
    }

    fn of_tree(&self, command: &str, args: &[&str]) -> Ended {
        let words = self.words(command, args);
        self.shell.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn sync(&self, args: &[&str]) -> Ended {
        self.of_tree("sync", args)
    }

    fn plan(&self, args: &[&str]) -> Ended {
        self.of_tree("plan", args)
    }

    /// A sync under way.
    fn start(&self, args: &[&str]) -> Child {
        let words = self.words("sync", args);
        let mut command = self.shell.std_command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A command that only needs the destination.
    fn ask(&self, command: &str, args: &[&str]) -> Ended {
        let cache = text(self.machine.cache_path());
        self.shell.run(&[&[command, DEST, "--cache", &cache], args].concat())
    }
}

fn ended(child: Child) -> Ended {
    Ended::of(child.wait_with_output().unwrap())
}

/// A sync that waits for another publisher, as it says.
fn waiting(runner: &Runner<'_>, args: &[&str]) -> (Child, impl Read + use<>) {
    let mut child = runner.start(args);
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for another publisher") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended without waiting: {:?}", ended(child));
    }
    (child, said)
}

/// Holds back the answers to the writes of one key.
fn hold(world: &World, key: &str) -> Latch {
    let held = latch();
    world
        .proxy
        .add(Rule::new(Fault::Hold(held.clone())).method("PUT").path_contains(&format!("/site/{key}")));
    held
}

/// Leaves the claim of a run that was killed as it sent this key.
fn killed_run(runner: &Runner<'_>, key: &str, args: &[&str]) {
    let world = runner.machine.world;
    let held = hold(world, key);
    let mut child = runner.start(args);
    assert!(held.wait_for_arrivals(1));
    child.kill().unwrap();
    child.wait().unwrap();
    held.release();
    world.proxy.clear_rules();
    requests(world);
}

/// The writes and deletes since the last call, but for those of the objects that tell the store's time.
fn writes(world: &World) -> Vec<String> {
    let mut lines = requests(world);
    let reads = ["GET", "HEAD", "PUT .brigade/now-", "DELETE .brigade/now-"];
    lines.retain(|line| !reads.iter().any(|start| line.starts_with(start)));
    lines
}

const NONE: [&str; 0] = [];

#[test]
fn two_machines_publish_one_tree() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    let two = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    let told = one.sync(&["--order", "7", "--publisher", "runner one"]).code(0);
    told.shows("published s3://bucket/site (generation 1)\n").shows("2 uploaded");
    requests(&world);
    let object = two.sync(&["--json"]).code(0).json();
    assert_eq!(requests(&world), ["GET .brigade/head"]);
    assert_eq!((&object["outcome"], &object["requests"]), (&"unchanged".into(), &1.into()));
    let since = &object["state"]["published_by"]["since"];
    let expected = json!({
        "generation": 1, "epoch": 1, "order": 7, "pulled": 2,
        "published_by": { "who": "runner one", "since": since },
        "claimed_by": null, "in_doubt": 0, "was_lost": false, "newer_order": null,
    });
    assert_eq!(object["state"], expected);
    assert!(since.as_str().unwrap().ends_with('Z') && since.as_str().unwrap().len() == 20, "{since}");
    two.machine.remove("a");
    two.machine.write("c", "3");
    let plan = two.plan(&[]).code(0).shows("+ c (1 B)\n- a\n").shows("generation 1, order 7\n");
    assert!(!plan.out.contains("is publishing"), "{plan:?}");
    two.sync(&[]).code(0).shows("(generation 2)").shows("1 uploaded").shows("1 deleted");
    assert_eq!(published(&world), tree(&[("b", "2"), ("c", "3")]));
    let plan = one.plan(&["--json"]).code(0).json();
    assert_eq!((&plan["state"]["pulled"], &plan["state"]["generation"]), (&2.into(), &2.into()), "{plan}");
    assert_eq!(plan["delete_list"], json!(["c"]));
}

#[test]
fn an_older_build_is_refused_and_a_rollback_is_not() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    let two = Runner::new(&world, &[("a", "older")]);
    one.sync(&["--order", "118"]).code(0);
    requests(&world);
    let told = two.sync(&["--order", "117"]).code(6);
    told.shows("partial s3://bucket/site: order 118 was published").shows("--reset-order");
    assert_eq!(writes(&world), NONE);
    let object = two.sync(&["--order", "117", "--json"]).code(6).says("order 118 was published").json();
    assert_eq!(object["stop_reason"], "claimed");
    assert_eq!((&object["state"]["newer_order"], &object["state"]["order"]), (&118.into(), &118.into()));
    // A plan refuses what a sync refuses.
    two.plan(&["--order", "117"]).code(6).shows("~ a (5 B)\n").shows("order 118 was published");
    two.plan(&["--order", "117", "--reset-order"]).code(0);
    assert_eq!(writes(&world), NONE);
    assert_eq!(published(&world), tree(&[("a", "1")]));
    two.sync(&["--order", "117", "--reset-order"]).code(0).shows("generation 2");
    assert_eq!(published(&world), tree(&[("a", "older")]));
    // An equal order is a rerun, and none at all keeps it.
    two.sync(&["--order", "117"]).code(0);
    two.sync(&[]).code(0);
    two.ask("status", &[]).code(0).shows("state       generation 2, order 117, as of the last pull\n");
}

#[test]
fn a_claim_of_another_is_named_waited_for_and_taken_over() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    let two = Runner::new(&world, &[("a", "1"), ("b", "two"), ("c", "3")]);
    one.sync(&[]).code(0);
    one.machine.write("b", "one");
    killed_run(&one, "b", &["--lease", "5s", "--publisher", "runner\u{202e} one"]);
    let told = two.sync(&[]).code(6);
    told.shows("partial s3://bucket/site: runner\\u{202e} one is publishing since ")
        .shows(" GMT; wait for it with --wait TIME, or, if it is certainly gone, use --take-over\n");
    two.sync(&["-q"]).code(6).says("is publishing since ");
    let object = two.sync(&["--json"]).code(6).says("is publishing since ").json();
    assert_eq!((&object["outcome"], &object["stop_reason"]), (&"partial".into(), &"claimed".into()));
    assert_eq!(object["state"]["claimed_by"]["who"], "runner\u{202e} one", "{object}");
    two.plan(&[]).code(0).shows("is publishing since ").shows("sync would wait for it").shows("~ b (3 B)\n");
    two.ask("status", &[]).code(0).shows("claim       runner\\u{202e} one since ");
    assert_eq!(writes(&world), NONE);
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "one")]));
    // Its lease ends 2 s after its last sign of life, and others leave it alone for 30 s more.
    world.store.advance_clock(Duration::from_secs(29));
    let told = two.sync(&["--wait", "1m"]).code(0).shows("2 uploaded");
    told.says("note: 1 interrupted run may still change objects");
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "two"), ("c", "3")]));
    two.ask("status", &[]).code(0).shows("in doubt    1 interrupted run\n");
    let state = two.ask("status", &["--json"]).code(0).json()["state"].clone();
    assert_eq!((&state["in_doubt"], &state["claimed_by"]), (&1.into(), &json!(null)));
}

#[test]
fn a_publisher_that_is_gone_is_replaced_at_once() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    let two = Runner::new(&world, &[("a", "1"), ("b", "two")]);
    one.sync(&[]).code(0);
    one.machine.write("b", "one");
    killed_run(&one, "b", &[]);
    two.sync(&["--take-over"]).code(0).shows("(generation 2)");
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "two")]));
    // The machine whose run was killed publishes again.
    one.sync(&[]).code(0).shows("(generation 3)");
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "one")]));
}

#[test]
fn a_publisher_at_work_is_waited_for() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    let two = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    let held = hold(&world, "a");
    let first = one.start(&[]);
    assert!(held.wait_for_arrivals(1));
    let (second, mut said) = waiting(&two, &["--wait", "5m"]);
    held.release();
    ended(first).code(0).shows("(generation 1)");
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let second = ended(second);
    assert_eq!(second.code, 0, "{second:?} {rest:?}");
    second.shows("(generation 2)").shows("1 uploaded");
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "2")]));
}

#[test]
fn p2_a_sync_that_waits_for_another_publisher_is_stopped_at_once() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    let two = Runner::new(&world, &[("a", "2")]);
    killed_run(&one, "a", &[]);
    let (second, _said) = waiting(&two, &["--wait", "5m", "--json"]);
    kill_process(Pid::from_raw(i32::try_from(second.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    let object = ended(second).code(130).json();
    assert_eq!(object["stop_reason"], "cancelled");
    assert_eq!(writes(&world), NONE);
    two.sync(&["--wait", "5m", "--deadline", "100ms"]).code(1).shows("the deadline passed");
}

/// P1: a reader that is killed (SIGKILL) at each request of its pull has the whole version that it had, or the whole new one, and
/// its next pull has all.
#[test]
fn p1_reader_that_is_killed_at_any_request_of_a_pull_has_a_whole_version() {
    let world = World::new();
    let (machine, shell) = (Machine::new(&world, &[]), Shell::of(&world));
    let mut random = fastrand::Rng::with_seed(1);
    // Names that do not compress, so that the state has segments of its own.
    let names: Vec<_> =
        (0..300).map(|_| format!("{:032x}{:032x}", random.u128(..), random.u128(..))).collect();
    let cache = text(machine.cache_path()) + ".reader";
    let pull = ["pull", DEST, "--cache", &cache];
    let sizes = || {
        let catalog = bucket_brigade::Catalog::open(bucket_brigade::Catalog::path_for(&cache)).unwrap();
        let sizes: Vec<_> = catalog.iter().filter_map(|(_, found)| found.size).collect();
        assert_eq!(sizes.len(), 300);
        sizes
    };
    let publish = |size: usize| {
        for name in &names {
            machine.write(name, &"x".repeat(size));
        }
        machine.publish();
    };
    publish(1);
    shell.run(&pull).code(0);
    let mut kills = 0;
    loop {
        let (before, now) = (kills + 1, kills + 2);
        publish(now as usize);
        let killed = crate::command::rebuild::killed_at(kills, &world, &shell, &pull);
        let found = sizes();
        assert!(
            [before, now].contains(&found[0]) && found.iter().all(|size| *size == found[0]),
            "{kills} {found:?}"
        );
        shell.run(&pull).code(0);
        assert!(sizes().iter().all(|size| *size == now), "{kills}");
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 2, "{kills}");
    // And at random instants, also while it writes.
    let began = std::time::Instant::now();
    shell.run(&pull).code(0);
    let mut instants = RandomInstants::within(began.elapsed() * 2, 1);
    let mut before = kills + 2;
    for round in 0..RandomInstants::wanted() {
        let now = 1000 + round as u64;
        publish(now as usize);
        let mut child = shell.std_command(&pull).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        instants.kill(&mut child);
        let found = sizes();
        assert!([before, now].contains(&found[0]) && found.iter().all(|size| *size == found[0]), "{round}");
        shell.run(&pull).code(0);
        assert!(sizes().iter().all(|size| *size == now), "{round}");
        before = now;
    }
}

/// P2, under a claim: what is acknowledged is recorded in the bucket, and the claim is given back, so that another machine need
/// not wait for the lease; also where the store keeps its answers to itself.
#[test]
fn p2_signal_under_a_claim_gives_it_back() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for answers in [true, false] {
            let world = World::new();
            let one = Runner::new(&world, &[("a", "1"), ("b", "1"), ("c", "1")]);
            let two = Runner::new(&world, &[("a", "1"), ("b", "two")]);
            one.sync(&[]).code(0);
            for key in ["a", "b", "c"] {
                one.machine.write(key, "one");
            }
            let held = hold(&world, "b");
            let mut first = one.start(&["--json"]);
            assert!(held.wait_for_arrivals(1));
            kill_process(Pid::from_child(&first), signal).unwrap();
            if answers {
                wait_until_it_stops(&mut first);
                held.release();
            }
            let object = ended(first).code(code).json();
            assert_eq!(
                (&object["outcome"], &object["stop_reason"]),
                (&"partial".into(), &"cancelled".into())
            );
            assert_eq!(object["state"]["claimed_by"], json!(null), "{object}");
            held.release();
            world.proxy.clear_rules();
            two.sync(&[]).code(0);
            assert_eq!(published(&world), tree(&[("a", "1"), ("b", "two")]));
            one.sync(&[]).code(0);
            assert_eq!(published(&world), tree(&[("a", "one"), ("b", "one"), ("c", "one")]));
        }
    }
}

#[test]
fn whoever_was_taken_over_from_says_so_and_goes_on_with_the_next_sync() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    let two = Runner::new(&world, &[("a", "1"), ("b", "2"), ("c", "3")]);
    one.sync(&[]).code(0);
    one.machine.write("b", "one");
    let held = hold(&world, "b");
    let first = one.start(&[]);
    assert!(held.wait_for_arrivals(1));
    two.sync(&["--take-over", "--exclude", "b"]).code(0);
    held.release();
    ended(first).code(6).shows("partial s3://bucket/site: another run took over; the next sync pulls");
    world.proxy.clear_rules();
    let object = one.sync(&["--json"]).code(0).json();
    assert_eq!((&object["outcome"], &object["deleted_list"]), (&"published".into(), &json!(["c"])));
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "one")]));
}

#[test]
fn a_machine_without_a_tree_pulls_and_answers() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    let server = Runner::new(&world, &[]);
    server.ask("pull", &[]).code(2).says("there is no s3://").says("brigade sync --state bucket");
    one.sync(&["--order", "5", "--tree", "www", "--publisher", "ci"]).code(0);
    let pulled = server.ask("pull", &[]).code(0).shows("generation 1, order 5 of s3://");
    pulled.shows("/bucket/site/: 2 keys, 2 changed; catalog ").shows("cache.catalog\n");
    let object = server.ask("pull", &["--json"]).code(0).json();
    let fields = ["destination", "cache", "catalog"].map(|field| object[field].as_str().unwrap());
    assert!(fields[0].ends_with("/bucket/site/") && fields[2].starts_with(fields[1]), "{object}");
    let since = &object["state"]["published_by"]["since"];
    let expected = json!({
        "destination": fields[0], "cache": fields[1], "catalog": fields[2], "published": 2,
        "state": {
            "generation": 1, "epoch": 1, "order": 5, "pulled": 0,
            "published_by": { "who": "ci", "since": since },
            "claimed_by": null, "in_doubt": 0, "was_lost": false, "newer_order": null,
        },
    });
    assert_eq!(object, expected);
    assert_eq!(server.ask("pull", &["-q"]).code(0).out, "");
    requests(&world);
    let url = server.ask("url", &["a", "gone"]).code(1).says("gone is not published");
    assert!(url.out.starts_with(&format!("{}/bucket/site/a\n", world.proxy.endpoint())), "{url:?}");
    assert_eq!(server.ask("url", &["--all"]).code(0).out.lines().count(), 2);
    let status = server.ask("status", &[]).code(0).shows("published   2 objects, 2 B\npending     0\n");
    status.shows("state       generation 1, order 5, as of the last pull\npublisher   ci since ");
    assert_eq!(server.ask("status", &["--json"]).code(0).json()["state"], expected["state"]);
    assert_eq!(requests(&world), NONE);
    // The cache that published it says the same, and one that never pulled says nothing.
    assert_eq!(one.ask("status", &["--json"]).code(0).json()["state"]["generation"], 1);
    assert_eq!(Runner::new(&world, &[]).ask("status", &["--json"]).code(0).json()["state"], json!(null));
}

#[test]
fn a_pull_that_fails_says_why_and_leaves_the_cache_as_it_was() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    one.sync(&["--tree", "www"]).code(0);
    let server = Runner::new(&world, &[]);
    server.ask("pull", &[]).code(0);
    server.ask("pull", &["--tree", "other"]).code(4).says("the flag is --tree");
    one.sync(&["--tree", "other"]).code(4).says("the flag is --tree");
    Shell::of(&world).set("AWS_SECRET_ACCESS_KEY", "wrong").run(&["pull", DEST]).code(5);
    world.proxy.add(Rule::new(Fault::ResetBefore));
    server.ask("pull", &[]).code(3).says("try again later");
    world.proxy.clear_rules();
    world.store.put_raw("site/.brigade/head", "no head");
    let damaged = server.ask("pull", &["--json"]).code(4).says("the head is damaged").json();
    assert_eq!(damaged["outcome"], "error");
    server.ask("url", &["a"]).code(0);
    server.ask("status", &[]).code(0).shows("state       generation 1, as of the last pull\n");
    one.plan(&["--tree", "www"]).code(0).shows("lost or damaged: sync would make it anew");
    let object = one.sync(&["--tree", "www", "--lease", "5s", "--json"]).code(0).json();
    assert_eq!(object["state"]["was_lost"], true, "{object}");
    server.ask("pull", &["--tree", "www"]).code(0);
}

#[test]
fn the_state_may_lie_in_another_place() {
    let world = World::new();
    let at: &[&str] = &["--state", "s3://bucket/state"];
    let one = Runner::new(&world, &[("a", "1")]);
    one.sync(at).code(0).shows("(generation 1)");
    let places = world.store.objects().into_keys().filter(|key| key.contains(".brigade/"));
    assert_eq!(places.collect::<Vec<_>>(), ["site/.brigade/head", "state/.brigade/head"]);
    let two = Runner::new(&world, &[("a", "1"), ("b", "2")]);
    two.sync(at).code(0).shows("(generation 2)").shows("1 uploaded");
    assert_eq!(published(&world).keys().filter(|key| !key.contains("state")).count(), 2);
    // Whoever looks in the wrong place is told the right one.
    let three = Runner::new(&world, &[("a", "1")]);
    let lies = "the state of this destination lies at s3://bucket/state/";
    three.sync(&[]).code(2).says(lies).says("check --state\n");
    three.sync(&["--state", "s3://bucket/other"]).code(2).says(lies);
    three.ask("pull", &[]).code(2).says(lies);
    three.ask("pull", at).code(0).shows("2 keys, 2 changed");
    three.sync(&["--state", "s3://"]).code(2).says("state: ");
    three.sync(&["--state", "s3://missing/state"]).code(2).says("NoSuchBucket");
    // The place of the destination itself is no other one.
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    one.sync(&["--state", "s3://bucket/site/"]).code(0);
    one.sync(&["--state", "bucket"]).code(0).shows("unchanged s3://bucket/site (generation 1)");
}

#[test]
fn flags_of_the_state_need_a_state_in_the_bucket() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    let flags: [&[&str]; 9] = [
        &["--order", "1"],
        &["--reset-order"],
        &["--wait", "1m"],
        &["--lease", "1m"],
        &["--single-writer"],
        &["--take-over"],
        &["--on-conflict", "fail"],
        &["--publisher", "me"],
        &["--tree", "www"],
    ];
    for flag in flags {
        for command in ["sync", "plan"] {
            let args = [&["--state", "local"], flag].concat();
            let told = one.of_tree(command, &args).code(2).says("use --state bucket or --state s3://");
            told.says(&flag[0].trim_start_matches("--").replace('-', "_"));
        }
    }
    let needs = one.sync(&["--state", "local", "--order", "1", "--json"]).code(2).json();
    assert_eq!(needs["outcome"], "error");
    for (flag, value) in [
        ("--lease", "0s"),
        ("--lease", "25h"),
        ("--order", "9999999999999999999"),
        ("--publisher", ""),
        ("--tree", "a\nb"),
        ("--on-conflict", "ask"),
        ("--state", "nowhere"),
        ("--wait", "long"),
    ] {
        one.sync(&[flag, value]).code(2).says(flag);
    }
    one.ask("pull", &["--state", "local"]).code(2).says("use bucket or s3://BUCKET/PREFIX");
    assert_eq!(requests(&world), NONE);
}

/// The cache of a plan held what is published at its destination and was bound to none: a sync to another destination
/// found everything published.
#[test]
fn i2_the_cache_of_a_plan_belongs_to_its_destination() {
    let world = World::new();
    Runner::new(&world, &[("a", "1")]).sync(&[]).code(0);
    let two = Runner::new(&world, &[("a", "1")]);
    two.plan(&[]).code(0).shows("0 to upload");
    let (root, cache) = (text(two.machine.root()), text(two.machine.cache_path()));
    two.shell.run(&["sync", &root, "s3://bucket/other", "--cache", &cache]).code(4).says("--cache");
}

/// A plan whose pull failed looked like one of a state that was read.
#[test]
fn i6_a_plan_says_that_the_state_could_not_be_read() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    one.sync(&[]).code(0);
    one.machine.write("b", "2");
    world.proxy.add(Rule::new(Fault::ResetBefore));
    let plan = one.plan(&["--retries", "0"]).code(3).shows("+ b (1 B)\n").shows("the store is unavailable (");
    plan.shows("this is the plan by what the last pull found\n");
    let object = one.plan(&["--retries", "0", "--json"]).code(3).json();
    assert_eq!((&object["stop_reason"], &object["state"]), (&"unavailable".into(), &json!(null)));
    let object = one.sync(&["--retries", "0", "--json"]).code(3).json();
    assert_eq!(object["state"], json!(null), "it was not read");
    let words = ["plan", &text(one.machine.root()), DEST, "--state", "bucket", "--region", "eu-central-1"];
    Shell::bare().run(&words).code(2).says("credentials: none were found");
}

#[test]
fn p3_a_plan_with_the_state_in_the_bucket_writes_the_cache_and_waits_for_it() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    let held = hold(&world, "a");
    let first = one.start(&[]);
    assert!(held.wait_for_arrivals(1));
    one.plan(&["--lock-wait", "0"]).code(4).says("--lock-wait");
    one.ask("pull", &["--lock-wait", "0"]).code(4).says("--lock-wait");
    one.ask("status", &[]).code(0).shows("claim       ");
    held.release();
    ended(first).code(0);
    one.plan(&[]).code(0).shows("0 to upload");
    one.plan(&["--state", "local"]).code(2).says("this cache is a copy of it").says("--state");
}

#[test]
fn conflicts_and_stores_without_conditions_name_their_flags() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    one.sync(&[]).code(0);
    world.store.put_raw("site/a", "somebody");
    one.machine.write("a", "2");
    let told = one.sync(&[]).code(1).says("error: upload a: somebody else changed the object");
    told.says("use --on-conflict overwrite");
    assert_eq!(published(&world), tree(&[("a", "somebody")]));
    one.sync(&["--on-conflict", "overwrite"]).code(0);
    assert_eq!(published(&world), tree(&[("a", "2")]));
    let world = World::new();
    world.store.ignores_conditions(true);
    let one = Runner::new(&world, &[("a", "1")]);
    one.sync(&[]).code(2).says("does not keep conditions").says("the flag is --single-writer\n");
    assert_eq!(published(&world), tree(&[]));
    one.sync(&["--single-writer"]).code(0).says("does not keep conditions");
    assert_eq!(published(&world), tree(&[("a", "1")]));
}

#[test]
fn a_ci_job_is_the_publisher() {
    let world = World::new();
    let one = Runner::new(&world, &[("a", "1")]);
    let in_ci = |name, shell: Shell| {
        let words = one.words("sync", &["--force"]);
        shell.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).code(0);
        one.ask("status", &[]).code(0).shows(&format!("publisher   {name} since "));
    };
    let github = || Shell::of(&world).set("GITHUB_REPOSITORY", "o/site").set("GITHUB_RUN_ID", "17");
    in_ci("GitHub o/site, run 17, attempt 2", github().set("GITHUB_RUN_ATTEMPT", "2"));
    in_ci("GitLab g/site, job 9", Shell::of(&world).set("CI_PROJECT_PATH", "g/site").set("CI_JOB_ID", "9"));
    let words = one.words("sync", &["--force", "--publisher", "me"]);
    github().run(&words.iter().map(String::as_str).collect::<Vec<_>>()).code(0);
    one.ask("status", &[]).code(0).shows("publisher   me since ");
}
