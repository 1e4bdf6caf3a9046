//! What people do first, who come from other tools: builds with new names, links, lists of patterns, a second thought.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::command::{DEST, Shell, all_is_well, next_release, some_files, text};
use crate::support::proxy::{Fault, Rule};
use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::{PREFIX, SESSION_TOKEN, World};

fn names_of<'a>(object: &'a Value, list: &str) -> Vec<&'a str> {
    let name = |item: &'a Value| item.as_str().or_else(|| item["key"].as_str()).unwrap();
    object[list].as_array().unwrap().iter().map(name).collect()
}

/// Every deploy of a site with hashed names ended with exit code 4, deleted nothing, and the bucket grew for ever.
#[test]
fn i3_three_builds_with_new_names_leave_one_build_in_the_bucket() {
    let world = World::new();
    let shell = Shell::of(&world);
    for build in 0..3 {
        world.write("index.html", format!("<p>{build}"));
        for n in 0..30 {
            world.write(&format!("assets/app-{build}{n:02}.js"), format!("{build} {n}"));
            if build > 0 {
                world.remove(&format!("assets/app-{}{n:02}.js", build - 1));
            }
        }
        shell.sync(&world, &[]).code(0);
        assert_eq!(world.keys().len(), 31);
    }
    all_is_well(&world);
}

#[test]
fn i3_tree_that_shrank_or_is_another_one_deletes_nothing_and_an_empty_one_needs_a_word() {
    let world = some_files(40);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let files = world.objects();
    for key in files.keys() {
        world.remove(key);
    }
    world.write("other", "1");
    let refused = shell.sync(&world, &["--json"]).code(4);
    let why = &refused.json()["deletes_refused"];
    assert_eq!(
        (&why["reason"], &why["removed"], &why["files"]),
        (&"none_in_common".into(), &40.into(), &1.into())
    );
    let refused = shell.sync(&world, &[]).code(4);
    refused
        .shows("the tree (1 file) has none of the 40 published files; if that is right, use --max-delete 40 ")
        .shows(
            "--max-delete N or P% is a hard cap; without it, nothing is deleted if DIR has fewer than half",
        );
    assert_eq!(world.keys().len(), 41);
    world.remove("other");
    shell.sync(&world, &[]).code(4).says("--allow-empty permits it");
    shell.sync(&world, &["--allow-empty", "--max-delete", "5"]).code(4).shows("--max-delete 41");
    shell.sync(&world, &["--allow-empty"]).code(0).shows("41 deleted");
    assert!(world.keys().is_empty());
}

/// The second run took the wrong tree for the right one, as the first had published it, and deleted the right one.
#[test]
fn i3_wrong_tree_is_refused_every_time_until_the_right_one_is_back() {
    let world = some_files(31);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let right = world.objects();
    for key in right.keys() {
        world.remove(key);
    }
    for n in 0..31 {
        world.write(&format!("other/{n:02}"), "x");
    }
    for _ in 0..3 {
        shell.sync(&world, &[]).code(4).shows("the tree (31 files) has none of the 31 published files");
        assert_eq!(world.keys().len(), 62);
    }
    for (key, bytes) in &right {
        world.write(key, bytes);
    }
    for n in 0..31 {
        world.remove(&format!("other/{n:02}"));
    }
    shell.sync(&world, &[]).code(0).shows("31 deleted");
    assert_eq!(world.objects(), right);
    all_is_well(&world);
}

/// What failed deploys had added outnumbered every good one after them: none deleted anything any more.
#[test]
fn i3_deploys_that_could_not_delete_do_not_hold_up_those_that_can() {
    let world = World::new();
    let shell = Shell::of(&world);
    let build = |build: u32| {
        for n in 0..30 {
            if build > 0 {
                world.remove(&format!("app-{}{n:02}.js", build - 1));
            }
            world.write(&format!("app-{build}{n:02}.js"), format!("{build} {n}"));
        }
        world.write("index.html", format!("<p>{build}"));
    };
    build(0);
    shell.sync(&world, &[]).code(0);
    for failing in 1..4 {
        build(failing);
        world.store.refuse_put(&format!("/app-{failing}07.js"), "InvalidArgument");
        shell.sync(&world, &[]).code(1);
        world.store.clear_faults();
    }
    for kept in 4..6 {
        build(kept);
        shell.sync(&world, &["--no-delete"]).code(0);
    }
    assert!(world.keys().len() > 150);
    build(6);
    shell.sync(&world, &[]).code(0);
    assert_eq!(world.keys().len(), 31);
    all_is_well(&world);
}

/// A run without deletes over half a disk must not make the half that is missing a thing of the past.
#[test]
fn i3_no_delete_over_half_a_disk_allows_no_deletes_later() {
    let world = some_files(60);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let all = world.objects();
    for key in all.keys().skip(20) {
        world.remove(key);
    }
    for _ in 0..2 {
        shell.sync(&world, &["--no-delete"]).code(0).shows("40 kept");
        shell.sync(&world, &[]).code(4).shows("the tree has 20 files, less than half of the 60 published");
    }
    for (key, bytes) in all.iter().skip(20) {
        world.write(key, bytes);
    }
    shell.sync(&world, &[]).code(0).shows("0 deleted");
    assert_eq!(world.objects(), all);
    all_is_well(&world);
}

/// A link in the tree led to the cache: it was published, changed with every run, and held up the deletes.
#[test]
fn cache_that_a_link_leads_to_is_not_published() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    symlink(world.cache_path().parent().unwrap(), world.root().join("state")).unwrap();
    for code in [0, 0] {
        let told = shell.sync(&world, &["--follow-symlinks=all"]).code(code);
        told.says("skipped state/cache: it is the cache of what is published");
    }
    assert_eq!(world.keys(), ["d0/f000.txt", "d1/f001.txt"]);
}

#[test]
fn what_was_done_is_listed_for_programs_and_people() {
    let world = some_files(4);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    world.write("new", "1");
    world.write("d1/f001.txt", "other");
    world.remove("d2/f002.txt");
    symlink("new", world.root().join("link")).unwrap();
    let object = shell.sync(&world, &["--json", "--exclude", "d3"]).code(0).json();
    let mut uploaded = names_of(&object, "uploaded_list");
    uploaded.sort_unstable();
    assert_eq!(uploaded, ["d1/f001.txt", "new"]);
    let new = object["uploaded_list"].as_array().unwrap().iter().find(|file| file["key"] == "new").unwrap();
    assert_eq!((&new["kind"], &new["bytes"]), (&"added".into(), &1.into()));
    assert!(new["url"].as_str().unwrap().ends_with("/bucket/site/new"));
    assert_eq!(names_of(&object, "deleted_list"), ["d2/f002.txt"]);
    assert_eq!(names_of(&object, "kept_list"), ["d3/f003.txt"]);
    assert_eq!(names_of(&object, "skipped_list"), ["link: a symbolic link is not followed"]);
    assert_eq!(names_of(&object, "adopted_list"), [""; 0]);
    world.write("new", "2!");
    world.remove("d1/f001.txt");
    let told = shell.sync(&world, &["-v"]).code(0);
    told.shows("~ new (2 B)\n")
        .shows("- d1/f001.txt\n")
        .shows("! link: a symbolic link")
        .says("upload started");
}

/// What a run had sent before an error ended it was in no list: nobody could purge it.
#[test]
fn what_was_done_before_an_error_is_listed_too() {
    let world = some_files(30);
    let shell = Shell::of(&world);
    shell.sync(&world, &["--exclude", "d1"]).code(0);
    world.write("d0/f000.txt", "other");
    let cache = world.cache_path();
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" {
            let _ = fs::remove_file(&cache);
        }
    });
    let object = shell.sync(&world, &["--json"]).code(4).json();
    assert_eq!(object["outcome"], "error");
    let listed = names_of(&object, "uploaded_list").len() as u64;
    assert_eq!((Some(listed), listed > 0), (object["uploaded"].as_u64(), true), "{object}");
}

#[test]
fn dry_run_is_a_plan_and_help_is_there_in_both_ways() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    let dry = shell.sync(&world, &["--dry-run"]).code(0).shows("3 to upload");
    assert_eq!(dry.out, shell.plan(&world, &[]).code(0).out);
    let object = shell.sync(&world, &["--dry-run", "--json"]).code(0).json();
    assert_eq!(names_of(&object, "upload_list").len(), 3);
    shell.sync(&world, &["--dry-run", "--json-events"]).code(2).says("a dry run has no events");
    let reads = world.proxy.requests().iter().all(|seen| seen.method == "GET");
    assert!(reads && world.keys().is_empty(), "a plan of a first run lists the prefix, and no more");
    let of = |args: &[&str]| shell.run(args).code(0).out;
    assert_eq!(of(&["help", "sync"]), of(&["sync", "--help"]));
    let wrong = shell
        .sync(&world, &["--delete"])
        .code(2)
        .says("sync deletes what is gone from DIR without a flag; --no-delete keeps it");
    assert!(!wrong.err.contains("similar argument"), "{wrong:?}");
    for (command, has, lacks) in [
        (
            "plan",
            // With the state in the bucket a plan writes the cache.
            ["--order", "--lock-wait"],
            vec!["--chunk-size", "--verify", "--json-events", "--take-over", "--dry-run"],
        ),
        ("pull", ["--tree", "--ca-file"], vec!["--order", "--retries"]),
        ("status", ["--cache", "--json"], vec!["--ca-file", "--public-url", "--quiet", "--virtual-host"]),
        ("url", ["--public-url", "--fallback-url"], vec!["--ca-file", "--verbose"]),
        ("verify", ["--content", "--ca-file"], vec!["--public-url", "--part-size"]),
        ("uploads", ["--abort", "--ca-file"], vec!["--public-url", "--retries"]),
    ] {
        let help = of(&[command, "--help"]);
        assert!(has.iter().all(|flag| help.contains(flag)), "{command}: {help}");
        assert!(!lacks.iter().any(|flag| help.contains(flag)), "{command}: {help}");
    }
    let refused = shell.plan(&world, &["--json", "--exclude", "["]).code(2).json();
    assert_eq!((names_of(&refused, "upload_list").len(), refused.get("uploaded_list")), (0, None));
    // The flags of one command serve another.
    shell.plan(&world, &["--retries", "1", "--deadline", "1m", "--ca-file", "/none"]).code(0);
}

#[test]
fn force_sends_everything_again() {
    let world = some_files(3);
    world.write_random("large", 17 << 20, 1);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    world.let_files_settle();
    shell.sync(&world, &[]).code(0).shows("0 uploaded");
    shell.plan(&world, &["--force"]).code(0).shows("4 to upload");
    // Somebody changed an object, which no record of ours tells.
    world.store.put_raw(&format!("{PREFIX}d0/f000.txt"), "somebody's");
    let forced = shell.sync(&world, &["--force", "--header", "Cache-Control: no-cache"]).code(0);
    forced.shows("4 uploaded").shows("0 unchanged");
    for key in ["d0/f000.txt", "large"] {
        let object = world.store.get(&format!("{PREFIX}{key}")).unwrap();
        assert_eq!(object.cache_control.as_deref(), Some("no-cache"), "{key}");
    }
    // Without the header the objects lose it again.
    shell.sync(&world, &[]).code(0).shows("0 uploaded");
    all_is_well(&world);
    // One that was interrupted is ended by the next run, which is told nothing.
    world
        .proxy
        .add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("PUT").path_contains("f001"));
    shell.sync(&world, &["--force", "--retries", "0"]).code(1);
    world.proxy.clear_rules();
    shell.sync(&world, &[]).code(0).shows("1 uploaded");
    all_is_well(&world);
}

#[test]
fn s5_links_are_followed_on_request_and_no_further_than_that() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    let outside = shell.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "of another tree").unwrap();
    symlink("d0", world.root().join("latest")).unwrap();
    symlink("d0/f000.txt", world.root().join("top.txt")).unwrap();
    symlink(&outside, world.root().join("out")).unwrap();
    symlink("..", world.root().join("d0/up")).unwrap();
    shell.sync(&world, &[]).code(0).shows("4 skipped").shows("1 uploaded");
    let inside = shell.sync(&world, &["--follow-symlinks"]).code(0).shows("2 uploaded");
    let inside = inside
        .says("out: a symbolic link that leads out of the tree")
        .says("d0/up: a symbolic link that leads back");
    inside.says("latest/up: a symbolic link that leads back");
    assert_eq!(world.keys(), ["d0/f000.txt", "latest/f000.txt", "top.txt"]);
    // Not followed any more: what is published is kept, and said.
    shell.sync(&world, &[]).code(0).shows("2 kept").says("kept latest/f000.txt");
    shell.sync(&world, &["--follow-symlinks=all"]).code(0).shows("1 uploaded");
    assert_eq!(world.objects()["out/secret"], b"of another tree");
    // A change behind a link is one, and what is gone behind it is gone.
    fs::write(outside.join("secret"), "changed").unwrap();
    shell.sync(&world, &["--follow-symlinks=all"]).code(0).shows("1 uploaded");
    assert_eq!(world.objects()["out/secret"], b"changed");
    fs::remove_file(outside.join("secret")).unwrap();
    shell.sync(&world, &["--follow-symlinks=all"]).code(0).shows("1 deleted");
    // A link that leads nowhere is no file that was removed.
    fs::remove_file(world.root().join("top.txt")).unwrap();
    symlink("gone", world.root().join("top.txt")).unwrap();
    let dangling = shell.sync(&world, &["--follow-symlinks"]).code(0).shows("1 kept");
    dangling.says("top.txt: a symbolic link that leads nowhere");
    shell.sync(&world, &["--follow-symlinks=some"]).code(2).says("use no, inside or all");
}

#[test]
fn patterns_come_from_files_too() {
    let world = some_files(3);
    world.write("app.js.map", "m");
    let shell = Shell::of(&world);
    let list = shell.path("ignore");
    fs::write(&list, "# maps are for us\n*.map\n\n/d1/\n").unwrap();
    let from = list.to_str().unwrap();
    shell.sync(&world, &["--exclude-from", from, "--exclude", "d2"]).code(0);
    assert_eq!(world.keys(), ["d0/f000.txt"]);
    fs::write(&list, "/d1\n").unwrap();
    shell.sync(&world, &["--include-from", from]).code(0).shows("1 uploaded");
    fs::write(&list, "*.map\n[\n").unwrap();
    shell
        .sync(&world, &["--exclude-from", from])
        .code(2)
        .says("ignore, line 2: \"[\" is not a valid pattern");
    shell
        .sync(&world, &["--exclude-from", "/none"])
        .code(2)
        .says("/none: No such file")
        .says("--exclude-from");
    fs::write(&list, "none.such\n").unwrap();
    shell.sync(&world, &["--include-from", from]).code(4).says("leave no file");
}

#[test]
fn content_type_may_be_said() {
    let world = World::new();
    world.write("page", "<p>");
    world.write("page.css", "p{}");
    let shell = Shell::of(&world);
    shell.sync(&world, &["--header", "Content-Type: text/html; charset=latin1"]).code(0);
    let type_of = |key: &str| world.store.get(&format!("{PREFIX}{key}")).unwrap().content_type;
    assert_eq!(type_of("page").as_deref(), Some("text/html; charset=latin1"));
    assert_eq!(type_of("page.css").as_deref(), Some("text/html; charset=latin1"));
    shell.sync(&world, &["--header", "Content-Type:"]).code(2).says("it has no value");
    shell.sync(&world, &["--force"]).code(0);
    assert_eq!(type_of("page").as_deref(), Some("application/octet-stream"));
    assert_eq!(type_of("page.css").as_deref(), Some("text/css; charset=utf-8"));
}

/// Files that can have no key were said in a note, and the exit code was 0.
#[cfg(target_os = "linux")]
#[test]
fn k2_files_that_cannot_be_published_are_no_success() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let world = some_files(2);
    let shell = Shell::of(&world);
    fs::write(world.root().join(OsStr::from_bytes(b"caf\xe9.txt")), "x").unwrap();
    let said = shell
        .sync(&world, &[])
        .code(1)
        .says("caf\\xe9.txt: not published: its name is not UTF-8")
        .says("rename it");
    said.shows("partial").shows("2 uploaded").shows("1 failed");
    let object = shell.sync(&world, &["--json"]).code(1).json();
    assert!(object["failed"][0]["path"].as_str().unwrap().ends_with("caf\\xe9.txt"), "{object}");
    shell.plan(&world, &[]).code(1).says("caf\\xe9.txt");
    // It holds up nothing else.
    world.remove("d1/f001.txt");
    let plan = shell.plan(&world, &[]).code(1).shows("- d1/f001.txt");
    assert!(!plan.out.contains("would delete nothing"), "{plan:?}");
    shell.sync(&world, &["-q"]).code(1);
    assert_eq!(world.keys(), ["d0/f000.txt"]);
}

#[test]
fn private_files_are_warned_of_once_before_they_are_published() {
    let world = some_files(1);
    for private in [".git/config", ".git/HEAD", ".env", "keys/id_rsa", "keys/site.pem"] {
        world.write(private, "mine");
    }
    let shell = Shell::of(&world);
    let warning = "warning: files that look private are about to be published";
    shell.plan(&world, &[]).code(0).says(warning);
    let told = shell.sync(&world, &["-q"]).code(0).says(warning).says("count=5");
    let told = told.says("--exclude '*.pem' --exclude '.env' --exclude '.git' --exclude 'id_rsa'");
    assert_eq!(told.err.matches("look private").count(), 1);
    let again = shell.sync(&world, &[]).code(0);
    assert!(!again.err.contains("look private"), "{again:?}");
    let fresh = World::new();
    fresh.write(".git/config", "mine");
    fresh.write("a", "1");
    let quiet = Shell::of(&fresh).sync(&fresh, &["--exclude", ".git"]).code(0);
    assert!(!quiet.err.contains("look private") && fresh.keys() == ["a"], "{quiet:?}");
}

#[test]
fn folders_in_the_place_of_files_and_the_other_way_round_are_usage() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    let root = text(world.root());
    let file = format!("{root}/d0/f000.txt");
    shell.run(&["sync", &file, DEST]).code(2).says("f000.txt is a file");
    let home = shell.home.path().to_str().unwrap();
    for command in [
        vec!["sync", root.as_str(), DEST],
        vec!["status", DEST],
        vec!["verify", DEST],
        vec!["plan", root.as_str(), DEST],
    ] {
        let told = shell.run(&[&command[..], &["--cache", home]].concat()).code(2);
        told.says("is a folder; give a file").says("--cache");
    }
    let fifo = shell.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for command in [vec!["sync", root.as_str(), DEST], vec!["status", DEST]] {
        let told = shell.run(&[&command[..], &["--cache", fifo.to_str().unwrap()]].concat()).code(2);
        told.says("fifo is a special file; give a file");
    }
    let gone = shell.path("gone");
    shell.run(&["sync", gone.to_str().unwrap(), DEST]).code(4).says("Is it mounted?");
}

#[test]
fn wrong_keys_in_the_words_of_other_stores_are_no_matter_of_policy() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    for message in ["Forbidden: Invalid signature", &format!("Forbidden: No such key: {ACCESS_KEY}")] {
        let body = format!("<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>");
        world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), body.into_bytes())));
        let told = shell.sync(&world, &[]).code(5).says(message).says("check access key, secret key");
        assert!(!told.err.contains("s3:"), "{told:?}");
        world.proxy.clear_rules();
    }
    let body = format!(
        "<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId></Error>"
    );
    world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), body.into_bytes())));
    shell.sync(&world, &[]).code(5).says(&format!("(access key {ACCESS_KEY})"));
}

#[test]
fn first_run_beside_others_objects_is_said_to_quiet_ones_too() {
    let world = some_files(1);
    world.stranger("theirs", "x");
    let shell = Shell::of(&world);
    let told = shell
        .sync(&world, &["-q"])
        .code(0)
        .says("1 objects under the prefix were not published by this cache");
    assert!(!told.err.contains("http endpoint"), "{told:?}");
}

/// The manual's files for cron and systemd, as they stand but for places and keys.
#[test]
fn examples_of_cron_and_systemd_run_as_they_stand() {
    let chapter = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/operations.md");
    let chapter = fs::read_to_string(chapter).unwrap();
    let block = |holds: &str| {
        let mut blocks = chapter.split("```").skip(1).step_by(2);
        let found = blocks.find(|block| block.contains(holds)).unwrap();
        found.split_once('\n').unwrap().1.to_owned()
    };
    let world = some_files(2);
    let shell = Shell::of(&world);
    let (file, state) = (shell.path("site.env"), shell.path("state"));
    let keys = block("AWS_SECRET_ACCESS_KEY=wJalr")
        .replace("AKIAIOSFODNN7EXAMPLE", ACCESS_KEY)
        .replace("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", SECRET_KEY)
        .replace("/var/lib", state.to_str().unwrap());
    let endpoint = world.proxy.endpoint();
    fs::write(&file, format!("{keys}AWS_ENDPOINT_URL={endpoint}\nAWS_SESSION_TOKEN={SESSION_TOKEN}\n"))
        .unwrap();
    let here = |line: &str| {
        line.replace("/etc/brigade/site.env", file.to_str().unwrap())
            .replace("/usr/local/bin/brigade", env!("CARGO_BIN_EXE_brigade"))
            .replace("/srv/www", world.root().to_str().unwrap())
            .replace("s3://site", DEST)
    };
    let run = |line: &str| {
        let ended = std::process::Command::new("sh").args(["-c", &here(line)]).env_clear().output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{line}: {ended:?}");
    };
    let cron = block("17 * * * *");
    let cron = cron.trim().strip_prefix("17 * * * *").unwrap();
    run(cron);
    assert_eq!(world.keys().len(), 2);
    assert!(state.join("brigade").read_dir().unwrap().next().is_some(), "the cache is where the file says");
    // A unit has one setting a line; its file of variables has no shell in it.
    let unit = block("[Service]");
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    assert_eq!(setting("EnvironmentFile="), "/etc/brigade/site.env");
    assert!(
        keys.lines().all(|line| line.split_once('=').is_some_and(|(name, _)| !name.contains(' '))),
        "{keys}"
    );
    assert!(!unit.contains("SuccessExitStatus"));
    world.write("new", "1");
    run(&format!("env $(cat /etc/brigade/site.env) {}", setting("ExecStart=")));
    assert_eq!(world.keys().len(), 3);
}

/// An error and its advice said the same thing twice.
#[test]
fn messages_do_not_repeat_themselves() {
    let world = some_files(1);
    let shell = Shell::of(&world);
    fs::create_dir_all(world.cache_path().parent().unwrap()).unwrap();
    fs::write(world.cache_path(), "no cache at all, and long enough to be looked at").unwrap();
    let told = shell.sync(&world, &[]).code(4);
    assert_eq!(told.err.to_lowercase().matches("brigade rebuild").count(), 1, "{told:?}");
    let fresh = World::new();
    fresh.write("a", "1");
    fresh.stranger("theirs", "x");
    let told = Shell::of(&fresh).sync(&fresh, &["--first-run", "refuse"]).code(4).says("--first-run");
    assert_eq!(told.err.matches("another prefix").count(), 1, "{told:?}");
}

/// `--allow-new-root` deleted what another root had published although `--no-delete` was said.
#[test]
fn i3_no_delete_holds_for_what_another_root_published_too() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0);
    let release = next_release(&world, &shell);
    let release: Vec<&str> = release.iter().map(String::as_str).collect();
    let args = [&release[..], &["--allow-new-root"]].concat();
    shell.run(&[&args[..], &["--no-delete"]].concat()).code(0).shows("3 kept").shows("0 deleted");
    assert_eq!(world.keys().len(), 4);
    shell.run(&args).code(0).shows("3 deleted");
}
