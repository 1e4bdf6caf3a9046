//! Settings by name, configuration files, and what is opened from them.

use std::fs;
use std::path::Path;

use bucket_brigade::{
    Config, ConfigFile, ErrorKind, RescanOutcome, Setting, all_settings, open, settings_chapter,
};

use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::{SESSION_TOKEN, World};

const FILE: &str = "/etc/site/brigade.toml";

fn parse(text: &str) -> ConfigFile {
    ConfigFile::parse(text, FILE).unwrap()
}

fn mistake(text: &str) -> String {
    let error = ConfigFile::parse(text, FILE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.message().to_owned()
}

/// The value of a setting as TOML.
fn toml_of(setting: &Setting) -> String {
    let example = setting.example_value();
    match setting.type_name() {
        "true or false" | "number" => example.to_owned(),
        "list of texts" | "list of paths" => format!("[{example:?}]"),
        "secret" => "{ env = \"BRIGADE_NOBODY_SETS_THIS\" }".to_owned(),
        _ => format!("{example:?}"),
    }
}

#[test]
fn every_setting_can_be_set_by_name_and_in_a_file_and_is_in_the_manual() {
    let chapter = settings_chapter();
    for (_, setting) in all_settings() {
        let name = setting.name();
        assert!(chapter.contains(&format!("### `{name}`")), "{name}");
        let mut config = Config::new();
        config.set(name, setting.example_value()).unwrap();
        if !setting.is_secret() {
            assert_eq!(config.get(name).as_deref(), Some(setting.example_value()));
        }
        // Headers have tables of their own.
        if name == "headers" {
            continue;
        }
        let bucket = if name == "bucket" { "" } else { "bucket = \"b\"\n" };
        let text = format!("[destination.live]\n{bucket}{name} = {}\n", toml_of(setting));
        if setting.is_for_one_run() {
            assert!(
                mistake(&text)
                    .contains(&format!("{name}: it is for one run only; use the flag {}", setting.flag()))
            );
            continue;
        }
        let file = parse(&text);
        let entries = file.destination("live").unwrap().entries();
        let entry = entries.iter().find(|entry| entry.setting.name() == name).unwrap();
        let line = if name == "bucket" { 2 } else { 3 };
        assert_eq!(entry.origin, format!("{FILE}, line {line}"));
        let expected = match setting.type_name() {
            "path" | "list of paths" => {
                Path::new("/etc/site").join(setting.example_value()).display().to_string()
            }
            "secret" => "{ env = \"BRIGADE_NOBODY_SETS_THIS\" }".to_owned(),
            _ => setting.example_value().to_owned(),
        };
        assert_eq!(entry.value.as_deref(), Some(expected.as_str()), "{name}");
    }
}

#[test]
fn a_misspelt_name_of_every_setting_is_an_error_with_the_right_one() {
    for (_, setting) in all_settings() {
        let name = setting.name();
        let misspelt = format!("{}x{}", &name[..name.len() - 1], &name[name.len() - 1..]);
        let says = Config::new().set(&misspelt, "1").unwrap_err().message().to_owned();
        assert_eq!(says, format!("{misspelt}: there is no such setting; did you mean {name}?"));
        if !setting.is_for_one_run() {
            let says = mistake(&format!("[destination.live]\nbucket = \"b\"\n{misspelt} = 1\n"));
            assert_eq!(
                says,
                format!(
                    "{FILE}, line 3, column 1: {misspelt}: there is no such setting; did you mean {name}?"
                )
            );
        }
    }
    let says = Config::new().set("zebra", "1").unwrap_err();
    assert_eq!(says.message(), "zebra: there is no such setting");
}

/// Run with `BRIGADE_WRITE_MANUAL=1` to write the chapter after a change of the definitions.
#[test]
fn the_chapter_of_the_manual_is_the_one_that_the_definitions_make() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/settings.md");
    let made = settings_chapter();
    if std::env::var_os("BRIGADE_WRITE_MANUAL").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == made, "run this test with BRIGADE_WRITE_MANUAL=1");
}

#[test]
fn destinations_inherit_precede_and_add_up() {
    let file = parse(
        r#"
        [rescan]
        exclude = ["*.map"]
        max_delete = "10%"
        batch_size = 4

        [destination.live]
        bucket = "site"
        batch_size = 20
        exclude = "/drafts"

        [connection]
        endpoint_url = "http://127.0.0.1:9000"

        [destination.a-second]
        bucket = "other"
        "#,
    );
    let names: Vec<_> = file.destinations().iter().map(|config| config.name().unwrap()).collect();
    assert_eq!(names, ["live", "a-second"], "in the order of the file");
    let get = |name: &str, setting: &str| file.destination(name).unwrap().get(setting);
    assert_eq!(get("live", "batch_size").as_deref(), Some("20"));
    assert_eq!(get("a-second", "batch_size").as_deref(), Some("4"));
    assert_eq!(get("a-second", "max_delete").as_deref(), Some("10%"));
    assert_eq!(get("live", "endpoint_url").as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(get("live", "retries").as_deref(), Some("5"), "a default");
    let entries = file.destination("live").unwrap().entries();
    let excluded = entries.iter().filter(|entry| entry.setting.name() == "exclude");
    let excluded: Vec<_> = excluded.map(|entry| entry.value.clone().unwrap()).collect();
    assert_eq!(excluded, ["*.map", "/drafts"]);
    let error = file.destination("lvie").unwrap_err();
    assert!(error.message().contains("has no [destination.lvie]; it has live, a-second"), "{error}");
}

#[test]
fn every_mistake_is_named_with_file_line_and_field() {
    for (text, says) in [
        (
            "[destination.a]\nbucket = \"b\"\nretries = \"5\"",
            "line 3, column 1: retries: expected number, such as 2, and found a value of type string",
        ),
        (
            "[destination.a]\nbucket = \"b\"\ndelete = \"no\"",
            "line 3, column 1: delete: expected true or false",
        ),
        (
            "[destination.a]\nbucket = \"b\"\npart_size = \"1MiB\"",
            "line 3, column 1: part_size: \"1MiB\": use 8MiB to 5GiB",
        ),
        (
            "[destination.a]\nbucket = \"b\"\nlease = 300",
            "lease: expected time, such as \"2m\", and found a value of type integer",
        ),
        (
            "[destination.a]\nbucket = \"b\"\nfirst_run = \"keep\"",
            "first_run: \"keep\": use adopt, overwrite, refuse or mirror",
        ),
        (
            "[destination.a]\nbucket = \"b\"\nregion = \"eu west\"",
            "region: invalid name \"eu west\": use a name such as eu-central-1",
        ),
        ("[destination.a]\nbucket = \"a/b\"", "line 2, column 1: bucket: \"a/b\": a bucket name has no '/'"),
        ("[destination.a]\nprefix = \"x\"", "destination.a: bucket is missing"),
        (
            "[rescan]\nendpoint_url = \"http://h\"\n[destination.a]\nbucket = \"b\"",
            "line 2, column 1: endpoint_url: it belongs into [connection], not [rescan]",
        ),
        (
            "[connection]\nbucket = \"b\"\n[destination.a]\nbucket = \"b\"",
            "line 2, column 1: bucket: it belongs into [destination.NAME], not [connection]",
        ),
        (
            "[destinaton.a]\nbucket = \"b\"",
            "line 1, column 2: destinaton: no table of this name; did you mean destination?",
        ),
        ("destination = 3", "line 1, column 15: destination: a table is needed"),
        ("[destination.a]\nbucket = \"b\"\nbucket = \"c\"", "line 3, column 1: duplicate key"),
        ("[destination.a\nbucket = \"b\"", "line 1, column 15: "),
        ("", "destination: the file has none; begin one with [destination.NAME]"),
        (
            "[destination.a]\nbucket = \"b\"\nexclude = [\"ok\", \"a//b\"]",
            "line 3, column 18: exclude: \"a//b\" matches no path below the root",
        ),
        ("[[headers]]\nmatch = \"*.html\"\n[destination.a]\nbucket = \"b\"", "headers: set is missing"),
        (
            "[[headers]]\nset = { Host = \"x\" }\n[destination.a]\nbucket = \"b\"",
            "headers: \"Host\": it is set by this library",
        ),
        (
            "[[headers]]\nmacth = \"*.html\"\nset = { A = \"x\" }\n[destination.a]\nbucket = \"b\"",
            "headers: a rule has match and set, and no macth; did you mean match?",
        ),
        (
            "[headers]\nCache-Control = 3\n[destination.a]\nbucket = \"b\"",
            "headers: Cache-Control: the value is a text",
        ),
        (
            "[destination.a]\nbucket = { environment = \"B\" }",
            "bucket: use { env = \"NAME\" }, { file = \"PATH\" }",
        ),
        ("[destination.a]\nbucket = { command = [\"x\"] }", "bucket: use { env = \"NAME\" }"),
        (
            "[destination.a]\nbucket = \"b\"\nsecret_access_key = \"CANARY-hunter2\"",
            "secret_access_key: write no secret into the file",
        ),
    ] {
        let message = mistake(text);
        assert!(message.starts_with(FILE) && message.contains(says), "{text}\n{message}");
        assert!(!message.contains("CANARY"), "{message}");
    }
    let all = mistake("[rescan]\nretires = 1\n[destination.a]\nbukcet = \"b\"\npart_size = 3\n");
    assert_eq!(all.lines().count(), 4, "all mistakes at once, and that the bucket is missing: {all}");
    let error = ConfigFile::load("/nowhere/brigade.toml").unwrap_err();
    assert!(error.message().contains("/nowhere/brigade.toml: No such file"), "{error}");
}

#[test]
fn a_file_opens_the_orchestrator_of_each_destination_with_its_settings() {
    let world = World::new();
    world.write("index.html", "<p>");
    world.write("app.js.map", "{}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), format!("{SECRET_KEY}\n")).unwrap();
    fs::write(folder.path().join("token"), SESSION_TOKEN).unwrap();
    let text = format!(
        r#"
        [connection]
        endpoint_url = "{}"
        access_key_id = {{ command = ["echo", "{ACCESS_KEY}"] }}
        secret_access_key = {{ file = "secret" }}
        session_token = {{ file = "token" }}

        [rescan]
        exclude = ["*.map"]

        [headers]
        "Cache-Control" = "no-cache"

        [destination.live]
        bucket = "bucket"
        prefix = "site"
        root = "{}"
        cache = "live.cache"
        "#,
        world.proxy.endpoint(),
        world.root().display(),
    );
    let path = folder.path().join("brigade.toml");
    fs::write(&path, text).unwrap();
    let file = ConfigFile::load(&path).unwrap();
    let config = file.destination("live").unwrap();
    config.check().unwrap();
    let report = open(config).unwrap().rescan_with(&config.run().unwrap()).unwrap();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 1));
    assert_eq!(world.keys(), ["index.html"]);
    let object = world.store.get("site/index.html").unwrap();
    assert_eq!(object.cache_control.as_deref(), Some("no-cache"));
    assert!(folder.path().join("live.cache").exists(), "a path is relative to the file");
    let again = open(config).unwrap().rescan().unwrap();
    assert_eq!((again.outcome, again.metrics.requests), (RescanOutcome::Unchanged, 0));
    let shown = format!("{config:?} {:?}", config.entries());
    for secret in [SECRET_KEY, SESSION_TOKEN, ACCESS_KEY] {
        assert!(!shown.contains(secret), "I7: {shown}");
    }
    assert_eq!(world.objects()["index.html"], b"<p>");
}

/// What a run reads from elsewhere it reads once: a pipe has its patterns only once, and a file may change meanwhile.
#[test]
fn patterns_and_values_from_elsewhere_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let (patterns, secret) = (folder.path().join("patterns"), folder.path().join("prefix"));
    fs::write(&patterns, "*.pem\n").unwrap();
    fs::write(&secret, "one\n").unwrap();
    let text = format!(
        "[destination.a]\nbucket = \"b\"\nprefix = {{ file = {secret:?} }}\nexclude_from = [{patterns:?}]\n"
    );
    let mut config = parse(&text).destination("a").unwrap().clone();
    config.resolve().unwrap();
    fs::write(&patterns, "").unwrap();
    fs::write(&secret, "two").unwrap();
    assert_eq!(config.get("prefix").as_deref(), Some("one"));
    assert_eq!(config.get("exclude").as_deref(), Some("*.pem"));
    let entries = config.entries();
    let origin =
        |name: &str| entries.iter().find(|entry| entry.setting.name() == name).unwrap().origin.clone();
    assert_eq!((origin("prefix"), origin("exclude")), (format!("{FILE}, line 3"), format!("{FILE}, line 4")));
}

#[test]
fn the_password_of_a_proxy_is_shown_nowhere() {
    for url in ["http://user:CANARY@proxy:3128", "user:CANARY@proxy:3128"] {
        let mut config = Config::new();
        config.set("proxy", url).unwrap();
        let shown = format!("{config:?} {:?} {:?}", config.entries(), config.get("proxy"));
        assert!(!shown.contains("CANARY") && shown.contains("(hidden)@proxy:3128"), "{shown}");
    }
    let wrong = Config::new().set("proxy", "gopher://user:CANARY").unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("CANARY"), "{wrong}");
}

#[test]
fn the_rate_of_a_configuration_is_one_and_can_be_changed() {
    let mut config = Config::new();
    assert!(config.bandwidth().unwrap().is_none());
    config.set("bandwidth", "10MB/s").unwrap();
    let rate = config.bandwidth().unwrap().unwrap();
    assert_eq!(rate.get(), Some(10_000_000));
    rate.set(Some(1 << 20));
    assert_eq!(config.clone().bandwidth().unwrap().unwrap().get(), Some(1 << 20), "a clone shares it");
    config.set("bandwidth", "20MB/s").unwrap();
    assert_eq!((config.bandwidth().unwrap().unwrap().get(), rate.get()), (Some(20_000_000), Some(1 << 20)));
}

#[test]
fn a_local_state_needs_nothing_that_others_inherit() {
    let file = parse(
        "[rescan]\nstate = \"bucket\"\norder = 3\nwait = \"1m\"\n[connection]\nregion = \"us-east-1\"\n\
         [destination.a]\nbucket = \"a\"\n[destination.b]\nbucket = \"b\"\nstate = \"local\"\n",
    );
    for config in file.destinations() {
        config.check().unwrap();
    }
    assert!(
        !file.destination("b").unwrap().is_set("order") && file.destination("a").unwrap().is_set("order")
    );
}

#[test]
fn secrets_that_a_program_sets_are_never_shown() {
    let mut config = Config::new();
    config.set("secret_access_key", "CANARY-1").unwrap();
    config.set("session_token", "CANARY-2").unwrap();
    let shown = format!("{config:?} {:?} {:?}", config.entries(), config.get("secret_access_key"));
    assert!(!shown.contains("CANARY") && shown.contains("(hidden)"), "{shown}");
    assert!(!config.set("secret_access_key", "").unwrap_err().to_string().contains("CANARY"));
}

#[test]
fn what_is_missing_or_contradictory_is_named_with_the_way_out() {
    let with = |settings: &[(&str, &str)]| {
        let mut config = Config::new();
        for (name, value) in settings {
            config.set(name, value).unwrap();
        }
        open(&config).map(drop).unwrap_err().message().to_owned()
    };
    let all =
        [("root", "/tmp"), ("cache", "/tmp/c"), ("bucket", "b"), ("endpoint_url", "http://127.0.0.1:1")];
    assert!(with(&[]).starts_with("root: missing"));
    assert!(with(&all[..1]).starts_with("cache: missing"));
    assert!(with(&all[..2]).starts_with("bucket: missing"));
    assert!(with(&all).starts_with(
        "access_key_id: missing: set access_key_id and secret_access_key, or credentials to chain"
    ));
    let half = [&all[..], &[("access_key_id", "k")]].concat();
    assert!(with(&half).starts_with("secret_access_key: missing"));
    let both = [&half[..], &[("secret_access_key", "s"), ("credentials", "chain")]].concat();
    assert!(with(&both).starts_with("credentials: keys are given, too"));
    let inherited = parse(
        "[connection]\ncredentials = \"chain\"\n[destination.a]\nbucket = \"b\"\naccess_key_id = { env = \"NONE\" }\n\
         [destination.b]\nbucket = \"c\"\n",
    );
    let source = |name: &str| inherited.destination(name).unwrap().get("credentials");
    assert_eq!(
        (source("a").as_deref(), source("b").as_deref()),
        (Some("keys"), Some("chain")),
        "keys take its place"
    );
    let ordered = [&half[..], &[("secret_access_key", "s"), ("order", "3")]].concat();
    assert!(with(&ordered).starts_with("order: it needs the state in the bucket"));
    let file = parse("[destination.a]\nbucket = \"b\"\nparts_in_flight = 20\nregion = \"us-east-1\"");
    let error = file.destination("a").unwrap().check().unwrap_err();
    assert!(
        error.message().contains(&format!(
            "parts_in_flight: 20 is not from 1 to the engine's 10 workers; it is set in {FILE}, line 3"
        )),
        "{error}"
    );
}
