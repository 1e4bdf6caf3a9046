//! Configuration files, as a shell uses them.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{Shell, some_files, text};
use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::{SESSION_TOKEN, World};

/// A shell with `brigade.toml` in its home, with two destinations that publish the tree of the world.
fn with_file(world: &World, more: &str) -> Shell {
    let shell = Shell::bare()
        .set("SITE_KEY", ACCESS_KEY)
        .set("SITE_SECRET", SECRET_KEY)
        .set("SITE_TOKEN", SESSION_TOKEN);
    let root = text(world.root());
    let file = format!(
        r#"
        [connection]
        endpoint_url = "{}"
        access_key_id = {{ env = "SITE_KEY" }}
        secret_access_key = {{ env = "SITE_SECRET" }}
        session_token = {{ env = "SITE_TOKEN" }}

        [destination.live]
        bucket = "bucket"
        prefix = "site"
        root = "{root}"
        cache = "live.cache"

        [destination.staging]
        bucket = "bucket"
        prefix = "staging"
        root = "{root}"
        cache = "staging.cache"
        exclude = ["d1"]
        {more}
        "#,
        world.proxy.endpoint(),
    );
    fs::write(shell.path("brigade.toml"), file).unwrap();
    shell
}

fn at_home(shell: &Shell, args: &[&str]) -> crate::command::Ended {
    let mut command = shell.std_command(args);
    command.current_dir(shell.home.path());
    crate::command::Ended::of(command.output().unwrap())
}

#[test]
fn destinations_of_a_file_are_published_by_name_or_all_of_them() {
    let world = some_files(6);
    let shell = with_file(&world, "");
    at_home(&shell, &["sync", "live"]).code(0).shows("published live\n").shows("6 uploaded");
    let path = text(shell.path("brigade.toml"));
    shell.run(&["sync", "--config", &path, "staging"]).code(0).shows("published staging\n");
    let all = at_home(&shell, &["sync"]).code(0).shows("unchanged live\n").shows("unchanged staging\n");
    assert!(all.err.contains("live:") && all.err.contains("staging:"), "{all:?}");
    let staging = world.store.objects().keys().filter(|key| key.starts_with("staging/")).count();
    assert!(staging > 0 && staging < 6, "{staging} of 6: d1 is excluded there");
    let objects = at_home(&shell, &["status", "--json"]).code(0);
    let names: Vec<_> = objects
        .out
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(names, ["live", "staging"]);
    at_home(&shell, &["verify", "live", "staging"]).code(0);
    at_home(&shell, &["uploads"]).code(0);
    at_home(&shell, &["url", "live", "d2/f002.txt"]).code(0).shows("/bucket/site/d2/f002.txt\n");
    at_home(&shell, &["plan", "live", "--json"]).code(0).shows("\"name\":\"live\"");
    // A flag precedes the file; a list gets one more.
    at_home(&shell, &["plan", "live", "--exclude", "*.txt"])
        .code(4)
        .says("include and exclude leave no file");
    at_home(&shell, &["sync", "typo"]).code(2).says("has no [destination.typo]; it has live, staging");
    at_home(&shell, &["sync", "live", "s3://bucket", "x"]).code(2).says("give DIR and DEST");
    shell
        .run(&["sync", "--config", &path, "dir", "s3://bucket"])
        .code(2)
        .says("give names of its destinations, not a URL");
    shell.run(&["sync", "live"]).code(2).says("give DIR and DEST");
    shell.run(&["status"]).code(2).says("give s3://BUCKET");
}

#[test]
fn one_destination_that_fails_does_not_stop_the_others_and_the_gravest_code_is_returned() {
    let world = some_files(2);
    let shell = with_file(&world, "order = 3");
    let mixed = at_home(&shell, &["sync", "staging", "live"]).code(2).shows("published live\n");
    mixed.says("order: it needs the state in the bucket").says("brigade.toml, line");
    let json = at_home(&shell, &["sync", "--json", "staging", "live"]).code(2);
    let outcomes: Vec<_> = json
        .out
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["outcome"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(outcomes, ["error", "unchanged"]);
}

#[test]
fn config_check_names_every_mistake_and_show_says_where_each_value_came_from() {
    let world = some_files(1);
    let shell = with_file(&world, "").set("AWS_REGION", "eu-west-1").set("AWS_CA_BUNDLE", "/etc/ca.pem");
    at_home(&shell, &["config", "check"]).code(0).shows("brigade.toml: 2 destinations, no mistakes");
    let shown = at_home(&shell, &["config", "show", "staging"]).code(0);
    for line in [
        "[destination.staging]\n",
        "bucket = bucket  # brigade.toml, line 15\n",
        "exclude = d1  # brigade.toml, line 19\n",
        "secret_access_key = { env = \"SITE_SECRET\" }  # brigade.toml, line 5\n",
        "region = eu-west-1  # AWS_REGION\n",
        "ca_file = /etc/ca.pem  # AWS_CA_BUNDLE\n",
    ] {
        assert!(shown.out.contains(line), "{line}: {}", shown.out);
    }
    assert!(!shown.out.contains("part_size"), "{}", shown.out);
    at_home(&shell, &["config", "show", "--all", "live"]).code(0).shows("part_size = 16MiB  # default\n");
    fs::write(shell.path("brigade.toml"), "[destination.a]\nbucket = \"b\"\nretires = 2\ndelete = 1\n")
        .unwrap();
    let wrong = at_home(&shell, &["config", "check"]).code(2);
    let wrong = wrong
        .says("brigade.toml, line 3, column 1: retires: there is no such setting; did you mean retries?");
    wrong.says("brigade.toml, line 4, column 1: delete: expected true or false");
    fs::remove_file(shell.path("brigade.toml")).unwrap();
    at_home(&shell, &["config", "check"]).code(2).says("there is no brigade.toml in this folder");
    at_home(&shell, &["config", "check", "--config", "/none.toml"]).code(2).says("/none.toml: No such file");
}

#[test]
fn header_rules_of_a_file_and_of_flags_reach_the_store() {
    let world = World::new();
    world.write("index.html", "<p>");
    world.write("app.js", "1");
    let shell = with_file(
        &world,
        "[[destination.live.headers]]\nset = { \"Cache-Control\" = \"max-age=60\" }\n\
         [[destination.live.headers]]\nmatch = \"*.html\"\nset = { \"Cache-Control\" = \"no-cache\" }\n",
    );
    at_home(&shell, &["sync", "live"]).code(0);
    let header = |key: &str| world.store.get(&format!("site/{key}")).unwrap().cache_control;
    assert_eq!(
        (header("index.html").as_deref(), header("app.js").as_deref()),
        (Some("no-cache"), Some("max-age=60"))
    );
    world.let_files_settle();
    let rule = "[/app.js] Cache-Control: immutable";
    at_home(&shell, &["plan", "live", "--header", rule]).code(0).shows("1 to get new headers");
    let object = at_home(&shell, &["sync", "live", "--header", rule, "--json"]).code(0).json();
    assert_eq!((&object["headers_updated"], &object["uploaded"]), (&1.into(), &0.into()));
    assert_eq!(object["headers_updated_list"][0], "app.js");
    assert_eq!(header("app.js").as_deref(), Some("immutable"));
    at_home(&shell, &["sync", "live", "--header", "[a b"])
        .code(2)
        .says("write it as 'Name: value', or as '[GLOB] Name: value'");
}

/// Patterns may come through a pipe, and a value from a variable that only one command has.
#[test]
fn what_stands_elsewhere_is_read_once_and_only_by_commands_that_use_it() {
    let world = World::new();
    world.write("a.html", "1");
    world.write("key.pem", "1");
    let shell = with_file(
        &world,
        "state = \"bucket\"\norder = { env = \"BUILD\" }\nallow_empty = { env = \"EMPTY\" }",
    );
    let (root, path) = (text(world.root()), text(shell.path("brigade.toml")));
    let piped = format!(
        "exec '{}' plan '{root}' s3://bucket/pipe --cache '{}/c' --exclude-from <(echo '*.pem')",
        env!("CARGO_BIN_EXE_brigade"),
        text(shell.path(".")),
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &piped]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    bash.env("HOME", shell.home.path()).env("AWS_ENDPOINT_URL", world.proxy.endpoint());
    bash.env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_SESSION_TOKEN", SESSION_TOKEN);
    let plan = crate::command::Ended::of(bash.output().unwrap()).code(0).shows("+ a.html");
    assert!(!plan.out.contains("key.pem"), "{plan:?}");
    shell.run(&["status", "--config", &path, "staging"]).code(0);
    shell.run(&["config", "check", "--config", &path]).code(0);
    shell.run(&["sync", "--config", &path, "staging"]).code(2).says("allow_empty: EMPTY is not set");
    let shell = shell.set("BUILD", "7").set("EMPTY", "true");
    shell.run(&["sync", "--config", &path, "staging"]).code(0).shows("2 uploaded");
    world.remove("a.html");
    world.remove("key.pem");
    shell.run(&["sync", "--config", &path, "staging"]).code(0).shows("2 deleted");
}

/// What a signal leaves out is no success, and says so.
#[test]
fn p2_destinations_that_a_signal_leaves_out_are_no_success() {
    let world = some_files(20);
    let shell = with_file(&world, "");
    let held = crate::command::held(&world, 2);
    let mut command = shell.std_command(&["sync", "--json", "--batch-size", "2", "live", "staging"]);
    command.current_dir(shell.home.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    assert!(held.wait_for_arrivals(2));
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    held.release();
    let ended = crate::command::Ended::of(child.wait_with_output().unwrap()).code(130);
    let object = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let found: Vec<_> = ended
        .out
        .lines()
        .map(|line| (object(line)["name"].clone(), object(line)["outcome"].clone()))
        .collect();
    assert_eq!(found, [("live".into(), "partial".into()), ("staging".into(), "error".into())]);
    ended.says("stopped before it began");
    assert!(!world.store.objects().keys().any(|key| key.starts_with("staging/")));
}

#[test]
fn a_destination_that_cannot_be_set_up_has_its_object_with_its_name() {
    let world = some_files(1);
    let shell = with_file(&world, "region = { env = \"NOWHERE\" }");
    for (command, code) in [("sync", 2), ("plan", 2), ("status", 2), ("verify", 2)] {
        let ended = at_home(&shell, &[command, "staging", "--json"]).code(code);
        let object = ended.json();
        assert_eq!((&object["name"], &object["outcome"]), (&"staging".into(), &"error".into()), "{command}");
        assert!(object["failed"][0]["error"].as_str().unwrap().contains("NOWHERE is not set"), "{object}");
    }
}

#[test]
fn headers_apply_in_the_order_of_file_destination_and_flags() {
    let world = World::new();
    world.write("a.html", "1");
    let shell = with_file(
        &world,
        "[[destination.live.headers]]\nmatch = \"*.html\"\nset = { \"Cache-Control\" = \"b\" }\n",
    );
    let sent = |flags: &[&str]| {
        at_home(&shell, &[&["sync", "live", "--force"], flags].concat()).code(0);
        world.store.get("site/a.html").unwrap().cache_control.unwrap()
    };
    assert_eq!(sent(&[]), "b");
    assert_eq!(sent(&["--header", "Cache-Control: c"]), "c", "a flag comes last, also one for every object");
    assert_eq!(sent(&["--header", "Cache-Control: c", "--header", "[/a.html] Cache-Control: d"]), "d");
    assert_eq!(sent(&["--header", "[/a.html] Cache-Control: d", "--header", "Cache-Control: e"]), "e");
}

#[test]
fn a_profile_takes_the_place_of_keys_and_a_secrets_command_runs_beside_the_file() {
    let world = some_files(1);
    let shell = with_file(&world, "");
    at_home(&shell, &["sync", "live", "--profile", "none"]).code(2).says("there is no [none] in ");
    fs::create_dir(shell.path(".aws")).unwrap();
    fs::write(shell.path(".aws/config"), "[profile empty]\nregion = us-east-1\n").unwrap();
    at_home(&shell, &["sync", "live", "--profile", "empty"]).code(2).says("credentials: none were found");
    let file = fs::read_to_string(shell.path("brigade.toml")).unwrap();
    let file = file.replace(
        "secret_access_key = { env = \"SITE_SECRET\" }",
        "secret_access_key = { command = [\"cat\", \"secret\"] }",
    );
    fs::write(shell.path("brigade.toml"), file).unwrap();
    fs::write(shell.path("secret"), SECRET_KEY).unwrap();
    let shell = shell.set("PATH", &std::env::var("PATH").unwrap());
    shell.run(&["sync", "live", "--config", &text(shell.path("brigade.toml"))]).code(0).shows("1 uploaded");
}

#[test]
fn a_key_in_two_places_and_a_secret_that_cannot_be_read_are_named() {
    let world = some_files(1);
    let shell = with_file(&world, "credentials = \"chain\"");
    at_home(&shell, &["sync", "staging"]).code(2).says("credentials: none were found");
    let lacking = with_file(&world, "").set("SITE_SECRET", "");
    let told = at_home(&lacking, &["sync", "live"]).code(2);
    told.says("secret_access_key: { env = \"SITE_SECRET\" } is empty").says("brigade.toml, line 5");
}

#[test]
fn the_manual_page_names_every_flag_and_the_log_goes_to_a_file() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    let page = shell.run(&["man"]).code(0).out;
    assert!(page.starts_with(".ie ") || page.contains(".TH"), "{}", &page[..200]);
    for (_, setting) in bucket_brigade::all_settings().filter(|(_, setting)| setting.applies_to("sync")) {
        let flag = setting.flag().replace('-', "\\-");
        assert!(page.contains(&flag), "{flag}");
    }
    assert!(
        page.contains(".SH EXIT STATUS") && !page.contains("sync(1)") && page.contains(".I brigade.toml"),
        "{page}"
    );
    let log = shell.path("brigade.log");
    shell.sync(&world, &["--log-file", log.to_str().unwrap()]).code(0).shows("2 uploaded");
    let first = fs::read_to_string(&log).unwrap();
    assert!(first.contains("upload ended") && first.contains("rescan ended"), "{first}");
    assert!(
        !first.contains('\u{1b}') && !first.contains(SESSION_TOKEN) && !first.contains(SECRET_KEY),
        "{first}"
    );
    shell.sync(&world, &["--log-file", log.to_str().unwrap()]).code(0);
    assert!(fs::read_to_string(&log).unwrap().starts_with(&first), "it is appended to");
    let inside = text(world.path("log"));
    shell.sync(&world, &["--log-file", &inside]).code(2).says("use a --log-file outside of it");
    world.remove("log");
    shell.sync(&world, &["--log-file", "/nowhere/log"]).code(2).says("/nowhere/log: No such file");
}
