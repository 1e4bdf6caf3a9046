//! What is printed where.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::command::{DEST, Shell, all_is_well, some_files, text};
use crate::support::World;
use crate::support::proxy::{Fault, Rule};

const MIB: usize = 1024 * 1024;

/// The schema of `--json` as `guide::command` has it.
const FIELDS: [&str; 34] = [
    "adopted",
    "adopted_bytes",
    "adopted_list",
    "adoption",
    "connections",
    "copied_cache",
    "deleted",
    "deleted_list",
    "deletes_refused",
    "elapsed_s",
    "failed",
    "failed_count",
    "headers_resent",
    "headers_updated",
    "headers_updated_list",
    "kept",
    "kept_list",
    "open_uploads",
    "outage",
    "outcome",
    "outside_sizes",
    "pending",
    "requests",
    "retries",
    "scanned",
    "skipped",
    "skipped_list",
    "state",
    "stop_reason",
    "unchanged",
    "uploaded",
    "uploaded_bytes",
    "uploaded_list",
    "verified",
];

fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn json_is_one_object_of_a_stable_schema() {
    let world = some_files(12);
    let shell = Shell::of(&world);
    let object = shell.sync(&world, &["--json", "--batch-size", "3"]).code(0).json();
    assert_eq!(fields(&object), FIELDS);
    assert_eq!((&object["outcome"], &object["stop_reason"]), (&"published".into(), &Value::Null));
    assert_eq!((&object["scanned"], &object["uploaded"]), (&12.into(), &12.into()));
    assert!(object["connections"].as_u64().unwrap() <= 3 && object["requests"] == 14);
    assert!(object["elapsed_s"].as_f64().unwrap() > 0.0 && object["failed"] == Value::Array(Vec::new()));
    world.write("x", "1");
    world.store.refuse_put("/x", "InvalidArgument");
    let object = shell.sync(&world, &["--json"]).code(1).json();
    assert_eq!((&object["outcome"], &object["pending"]), (&"partial".into(), &1.into()));
    assert_eq!(object["failed"][0]["path"], "x");
    assert_eq!(object["failed"][0]["retryable"], false);
    assert!(object["failed"][0]["error"].as_str().unwrap().contains("InvalidArgument"));
    let refused = shell.sync(&world, &["--json", "--exclude", "["]).code(2).json();
    assert_eq!((fields(&refused), &refused["outcome"]), (FIELDS.to_vec(), &"error".into()));
    let listed = shell.sync(&world, &["--json", "--verify", "list"]).code(1).json();
    assert_eq!(listed["verified"]["matching"], 12);
    world.store.clear_faults();
    shell.sync(&world, &["--json"]).code(0);
    all_is_well(&world);
}

#[test]
fn json_events_are_all_of_them_a_line_each_and_the_report_comes_last() {
    let world = some_files(200);
    world.write_random("large", 20 * MIB, 1);
    let shell = Shell::of(&world);
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).path_contains("f007").times(1));
    let ended = shell.sync(&world, &["--json-events"]).code(0);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &lines[..lines.len() - 1] {
        *counts.entry(line["event"].as_str().unwrap()).or_default() += 1;
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or_default();
    assert_eq!((count("run_started"), count("planned"), count("run_finished")), (1, 1, 1));
    assert_eq!((count("upload_started"), count("upload_finished"), count("part_finished")), (201, 201, 2));
    assert_eq!(count("retrying"), 1);
    assert_eq!(
        (lines[0]["event"].as_str(), fields(&lines[lines.len() - 1])),
        (Some("run_started"), FIELDS.to_vec())
    );
    let refused = shell.sync(&world, &["--json-events", "--exclude", "["]).code(2);
    assert_eq!(refused.json()["outcome"], "error");
}

#[test]
fn quiet_says_failures_only_and_verbose_says_more() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    let quiet = shell.sync(&world, &["--quiet"]).code(0);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
    world.write("x", "1");
    world.store.refuse_put("/x", "InvalidArgument");
    let quiet = shell.sync(&world, &["-q"]).code(1).says("error: upload x");
    assert_eq!((quiet.out.as_str(), quiet.err.lines().count()), ("", 1), "{quiet:?}");
    let verbose = shell.sync(&world, &["-v"]).code(1).says("upload started").says("key=x");
    assert!(!verbose.err.contains("PUT ended"), "{verbose:?}");
    shell.sync(&world, &["-vv"]).code(1).says("PUT ended");
    world.store.clear_faults();
    world.proxy.refuse();
    let away = shell.sync(&world, &["-q", "--retries", "0"]).code(3).says("Connection refused");
    assert_eq!(away.out, "");
    let host = world.proxy.endpoint().trim_start_matches("http://").to_owned();
    let cause = format!("(state: {host}: Connection refused");
    shell.sync(&world, &["--retries", "0"]).code(3).shows(&cause);
    let object = shell.sync(&world, &["--json", "--retries", "0"]).code(3).json();
    let outage = object["outage"]["error"].as_str().unwrap();
    assert!(outage.contains(&host) && outage.contains("refused"), "{outage}");
    world.proxy.accept_again();
    shell.sync(&world, &["-vvv"]).code(0);
    let logging = shell.set("RUST_LOG", "bucket_brigade=info");
    world.write("y", "1");
    logging.sync(&world, &[]).code(0).says("upload ended");
}

#[test]
fn help_fits_a_screen_and_has_examples_and_every_code() {
    let shell = Shell::bare();
    let help = shell.run(&["sync", "-h"]).code(0).out;
    let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(help.lines().count() <= 76 && widest <= 90, "{} lines of {widest}", help.lines().count());
    assert_eq!(help.matches("\n  brigade sync ").count(), 4);
    let all = shell.run(&["sync", "--help"]).code(0).out;
    assert!(all.contains("--min-tls") && !help.contains("--min-tls"), "the long help has all flags");
    let help = shell.run(&["--help"]).code(0);
    for code in ["  2  ", "  5  ", "  4  ", "  6  ", "  3  ", "  1  ", "  0  ", "  130  ", "143"] {
        assert!(help.out.contains(code), "{code}: {}", help.out);
    }
    assert!(shell.run(&["--version"]).code(0).out.starts_with("brigade 0."));
}

#[test]
fn completions_are_for_every_shell() {
    let shell = Shell::bare();
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shell.run(&["completions", name]).code(0).out;
        assert!(script.contains("brigade") && script.contains("max-delete"), "{name}");
    }
    shell.run(&["completions", "cmd"]).code(2).says("bash");
}

/// What a terminal of 100 columns is sent.
fn on_a_terminal(shell: &Shell, world: &World, more: &[(&str, &str)]) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = || {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        Stdio::from(file)
    };
    let dimensions = rustix::termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, dimensions).unwrap();
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    let mut command = shell.std_command(&["sync", &root, DEST, "--cache", &cache]);
    command.env("TERM", "xterm-256color").envs(more.iter().copied()).process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(side()).stderr(side()).spawn().unwrap();
    drop(command);
    let mut seen = Vec::new();
    // The last of the other side being closed is an error here.
    let _ = std::fs::File::from(terminal).read_to_end(&mut seen);
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&seen));
    String::from_utf8(seen).unwrap()
}

#[test]
fn terminal_sees_one_line_of_progress_and_one_for_each_large_file() {
    let world = some_files(30);
    world.write_random("films/large.mp4", 40 * MIB, 1);
    world
        .proxy
        .add(Rule::new(Fault::Delay(Duration::from_millis(400))).method("PUT").path_contains("partNumber"));
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).path_contains("f007").times(1));
    let shell = Shell::of(&world);
    let seen = on_a_terminal(&shell, &world, &[]);
    for what in ["30/31 files", "1 retry", "films/large.mp4", "MiB/s", " left", "/40.00 MiB"] {
        assert!(seen.contains(what), "{what}: {seen:?}");
    }
    assert!(
        seen.contains("\u{1b}[1m\u{1b}[32mpublished") || seen.contains("\u{1b}[32m"),
        "in colour: {seen:?}"
    );
    world.write("more", "1");
    let plain = on_a_terminal(&shell, &world, &[("NO_COLOR", "1")]);
    assert!(
        plain.contains("published") && !plain.contains("\u{1b}[3") && !plain.contains("[1m"),
        "{plain:?}"
    );
    all_is_well(&world);
}

/// S2: a name turned the direction of the line that it stood in, and moved the cursor by a control of the second set.
/// What people and machines are given has it as an escape; machines read the same name.
#[test]
fn s2_marks_of_direction_and_what_is_invisible_are_escaped_wherever_they_are_printed() {
    let world = World::new();
    let name = "a\u{202e}txt.exe\u{9b}2J\u{200f}\u{feff}\u{e0041}";
    let shown = "a\\u{202e}txt.exe\\u{9b}2J\\u{200f}\\u{feff}\\u{e0041}";
    world.write(name, "1");
    let shell = Shell::of(&world);
    shell.plan(&world, &[]).code(0).shows(&format!("+ {shown} (1 B)"));
    world.store.refuse_put(name, "InvalidArgument");
    let mut all = vec![shell.sync(&world, &["-v"]).code(1).says(&format!("error: upload {shown}: "))];
    all.push(shell.ask(&world, "status", &[]).code(0).shows(&format!("  + {shown}\n")));
    let status = shell.ask(&world, "status", &["--json"]).code(0);
    assert_eq!(status.json()["pending"][0]["key"], name);
    assert!(status.out.contains(r"a\u202etxt.exe\u009b2J\u200f\ufeff\udb40\udc41"), "{status:?}");
    let failed = shell.sync(&world, &["--json"]).code(1);
    assert_eq!(failed.json()["failed"][0]["path"], name);
    let plan = shell.plan(&world, &["--json"]).code(0);
    assert_eq!(plan.json()["upload_list"][0]["key"], name);
    all.extend([status, failed, plan, shell.ask(&world, "url", &["--all"]).code(0)]);
    world.store.clear_faults();
    all.push(shell.sync(&world, &["--json-events", "-v"]).code(0));
    let urls = shell.ask(&world, "url", &["--all", "--json"]).code(0);
    assert_eq!(urls.json()[0]["key"], name);
    all.extend([urls, shell.ask(&world, "url", &["--all"]).code(0).shows(shown)]);
    all.push(shell.ask(&world, "url", &["no\u{202e}ne"]).code(1).says("no\\u{202e}ne is not published"));
    let destination = "s3://bucket/\u{202e}etis";
    all.push(shell.run(&["status", destination]).code(0).shows("\\u{202e}etis"));
    all.push(shell.run(&["sync", &text(world.root()), destination]).code(0));
    for ended in all {
        let raw = |c: char| matches!(c, '\u{202e}' | '\u{9b}' | '\u{200f}' | '\u{feff}' | '\u{e0041}');
        assert!(!ended.out.contains(raw) && !ended.err.contains(raw), "{ended:?}");
    }
    all_is_well(&world);
}

/// S2: what a store says in its errors is escaped in whatever each command prints, and begins no line of its own.
#[test]
fn s2_errors_of_a_store_are_escaped_by_every_command_and_forge_no_line() {
    let said = "no\nerror: all is well\r\u{1b}[2J\u{202e}\u{9b}31m\u{7}x";
    let body = format!("<Error><Code>Odd\nerror: code</Code><Message>{said}</Message></Error>").into_bytes();
    let id = vec![("x-amz-request-id".to_owned(), "id\u{9b}\u{202e}".to_owned())];
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &["--state", "bucket"]).code(0);
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    let other = cache.clone() + ".other";
    let commands: [&[&str]; 9] = [
        &["sync", &root, DEST, "--cache", &cache, "--state", "bucket"],
        &["sync", &root, DEST, "--cache", &other],
        &["plan", &root, DEST, "--cache", &other],
        &["verify", DEST, "--cache", &cache],
        &["verify", DEST, "--cache", &cache, "--content"],
        &["pull", DEST, "--cache", &cache],
        &["uploads", DEST, "--cache", &cache],
        &["rebuild", &root, DEST, "--cache", &(other.clone() + "s")],
        &["status", DEST, "--cache", &cache],
    ];
    let takes_retries = |command| ["sync", "plan", "verify", "rebuild"].contains(&command);
    let mut failed = 0;
    for (status, command) in
        [400, 403, 500].into_iter().flat_map(|status| commands.map(|command| (status, command)))
    {
        for format in [&["-v"][..], &["--json"]] {
            let has_verbose = !["uploads", "status"].contains(&command[0]);
            // Retries take their time.
            if (format == ["-v"] && !has_verbose) || (status == 500 && !takes_retries(command[0])) {
                continue;
            }
            world.write("d0/f000.txt", format!("{status} {command:?}"));
            world.proxy.clear_rules();
            world.proxy.add(Rule::new(Fault::Answer(status, id.clone(), body.clone())));
            let retries: &[&str] = if takes_retries(command[0]) { &["--retries", "0"] } else { &[] };
            let ended = shell.run(&[command, format, retries].concat());
            let case = format!("{status} {command:?} {ended:?}");
            assert!(ended.code != 2, "{case}");
            failed += u32::from(ended.code != 0);
            for shown in [&ended.out, &ended.err] {
                let is_raw = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{202e}');
                assert!(!shown.contains(is_raw), "{case}");
                let is_forged = |line: &str| {
                    ["error: all is well", "error: code"].iter().any(|start| line.starts_with(start))
                };
                assert!(!shown.lines().any(is_forged), "{case}");
            }
        }
    }
    println!("{failed} commands failed");
    assert!(failed > 20, "{failed}");
}

/// The most memory that a process held so far, in bytes; `None` once it has ended.
fn peak(child: &std::process::Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// A report of 200,000 failures was built as a tree of values and then as one text: 242 MiB.
#[test]
#[cfg(target_os = "linux")]
fn i8_json_of_many_failures_is_written_as_it_is_made() {
    let world = World::new();
    let count = if std::env::var_os("BRIGADE_TEST_LONG").is_some() { 200_000 } else { 40_000 };
    for n in 0..count {
        let path = world.path(&format!("d{:03}", n / 1000));
        if n % 1000 == 0 {
            std::fs::create_dir(&path).unwrap();
        }
        // Nobody can store it, and nobody has to be asked.
        std::fs::File::create(path.join(format!("f{n:06}"))).unwrap().set_len((5 << 40) + 1).unwrap();
    }
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    let shell = Shell::of(&world);
    let mut command = shell.std_command(&["sync", &root, DEST, "--cache", &cache, "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut out, mut most, mut length) = (child.stdout.take().unwrap(), 0, 0);
    let mut chunk = vec![0; 64 << 10];
    let mut tail = Vec::new();
    loop {
        let count = out.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        most = most.max(peak(&child).unwrap_or_default());
        length += count;
        tail.extend_from_slice(&chunk[..count]);
        tail.drain(..tail.len().saturating_sub(4096));
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(length > 150 * count.min(100_000) && tail.ends_with(b"}\n"), "{length} bytes");
    assert!((1..64 << 20).contains(&most), "{} MiB", most >> 20);
}
