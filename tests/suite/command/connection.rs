//! How the store is reached: flags, variables, profiles.

use std::fs;

use crate::command::{DEST, Ended, Shell, some_files, text, write_home};
use crate::support::server::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::tls::TestCa;
use crate::support::{BUCKET, World};

/// The region that requests were signed for.
fn signed_region(world: &World) -> String {
    let requests = world.proxy.requests();
    let authorization = requests.last().unwrap().header("authorization").unwrap().to_owned();
    authorization.split('/').nth(2).unwrap().to_owned()
}

/// A shell that knows its store by files alone.
fn with_profiles(world: &World) -> Shell {
    let shell = Shell::bare();
    let keys = format!("aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    write_home(
        &shell,
        ".aws/credentials",
        &format!("[default]\naws_access_key_id=x\naws_secret_access_key=y\n[site]\n{keys}"),
    );
    let config = format!("[profile site]\nregion = eu-north-7\nendpoint_url = {}\n", world.proxy.endpoint());
    write_home(&shell, ".aws/config", &config);
    shell
}

#[test]
fn a_profile_is_enough() {
    let world = some_files(3);
    let shell = with_profiles(&world);
    shell.sync(&world, &["--profile", "site"]).code(0).shows("3 uploaded");
    assert_eq!(signed_region(&world), "eu-north-7");
    world.write("more", "1");
    let shell = shell.set("AWS_PROFILE", "site");
    shell.sync(&world, &[]).code(0).shows("1 uploaded");
    world.write("even more", "1");
    let shell = shell.set("AWS_REGION", "variable-1");
    shell.sync(&world, &[]).code(0);
    assert_eq!(signed_region(&world), "variable-1");
    world.write("still more", "1");
    shell.sync(&world, &["--region", "flag-1"]).code(0);
    assert_eq!(signed_region(&world), "flag-1");
}

/// S3: plain HTTP is used only where the URL says so, and is warned of once by each command, unless nothing leaves this machine.
#[test]
fn s3_plain_http_is_used_only_where_it_is_asked_for_and_warned_of_once() {
    let world = some_files(2);
    let shell = Shell::of(&world);
    let quiet = shell.sync(&world, &[]).code(0);
    assert!(!quiet.err.contains("http endpoint"), "{quiet:?}");
    // Without a scheme it is https, which the store does not speak: nothing is sent in the clear.
    world.write("more", "x");
    world.proxy.clear_counts();
    let authority = world.proxy.endpoint().replace("http://", "");
    for endpoint in [authority.clone(), format!("https://{authority}")] {
        let cache = text(world.cache_path()) + ".tls";
        let root = text(world.root());
        let args = ["sync", &root, DEST, "--cache", &cache, "--endpoint-url", &endpoint, "--retries", "0"];
        let ended = shell.run(&args);
        assert!(ended.code != 0 && !ended.err.contains("http endpoint"), "{endpoint} {ended:?}");
        assert_eq!(world.proxy.requests().len(), 0, "{endpoint}");
    }
    for wrong in ["ftp://127.0.0.1", "HTTP+unix://x", "//127.0.0.1"] {
        shell.sync(&world, &["--endpoint-url", wrong]).code(2).says("endpoint");
    }
    // A host that is not this machine; 192.0.2.0/24 is nobody's.
    for args in [&["-v"][..], &[], &["--json"]] {
        let cache = text(world.cache_path()) + ".plain";
        let root = text(world.root());
        let plain = ["sync", &root, DEST, "--cache", &cache, "--endpoint-url", "http://192.0.2.1:9000"];
        let limits = ["--retries", "0", "--connect-timeout", "1s"];
        let ended = shell.run(&[&plain, &limits[..], args].concat());
        assert_eq!(ended.err.matches("http endpoint: ").count(), 1, "{ended:?}");
    }
}

#[test]
fn no_credentials_names_every_place_that_was_looked_at() {
    let world = some_files(1);
    let shell = Shell::bare().set("AWS_ENDPOINT_URL", &world.proxy.endpoint());
    let failed = shell.sync(&world, &[]).code(2).says("credentials: none were found. Looked at:\n");
    let failed = failed.says("  - AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: not set\n");
    failed.says(".aws/credentials: no such file\n").says(".aws/config: no such file\n").says("aws configure");
    let failed = with_profiles(&world).sync(&world, &["--profile", "other", "--region", "r"]).code(2);
    failed.says("there is no [other] in ").says("no [profile other] in ");
    assert!(world.proxy.requests().is_empty() && !world.cache_path().exists());
}

#[test]
fn a_ca_of_ones_own_is_trusted_when_it_is_named() {
    let world = some_files(2);
    let (ca, folder) = (TestCa::new(), tempfile::tempdir().unwrap());
    let server = S3Server::start_tls(world.store.service(), ca.server_config());
    let pem = text(ca.write_into(folder.path()));
    let shell = Shell::of(&world).set("AWS_ENDPOINT_URL_S3", &server.endpoint());
    let refused = shell.sync(&world, &[]).code(2);
    refused.says("ca_file").says("127.0.0.1");
    shell.sync(&world, &["--ca-file", &pem]).code(0).shows("2 uploaded");
    let shell = shell.set("AWS_CA_BUNDLE", &pem);
    shell.ask(&world, "verify", &["--content"]).code(0).shows("2 match, 2 read");
    shell.sync(&world, &["--ca-file", "/no/such/file"]).code(2).says("/no/such/file");
}

/// N14b: a certificate that signed itself is its own authority. As `openssl req -x509` makes it, it may sign others
/// and so may not stand for a server: `CaUsedAsEndEntity` was all that was said of that.
#[test]
fn n14b_certificate_that_signed_itself_is_trusted_or_the_reason_is_told() {
    let world = some_files(2);
    for (is_ca, folder) in [(false, "plain"), (true, "ca")] {
        let ca = TestCa::self_signed(is_ca);
        let server = S3Server::start_tls(world.store.service(), ca.server_config());
        let shell = Shell::of(&world).set("AWS_ENDPOINT_URL_S3", &server.endpoint());
        fs::create_dir(shell.path(folder)).unwrap();
        let pem = text(ca.write_into(&shell.path(folder)));
        let cache = text(shell.path("cache"));
        let args = ["sync", &text(world.root()), DEST, "--cache", &cache, "--ca-file", &pem];
        if is_ca {
            let refused =
                shell.run(&args).code(2).says("127.0.0.1").says("is that of an authority (CA:TRUE)");
            refused.says("basicConstraints=critical,CA:FALSE");
        } else {
            shell.run(&args).code(0).shows("2 uploaded");
        }
    }
}

#[test]
fn addresses_are_as_they_are_asked_for() {
    let shell = Shell::bare();
    let url = |args: &[&str]| -> Ended { shell.run(&[&["url", DEST, "a b"], args].concat()) };
    let aws = url(&["--region", "eu-central-1"]).code(0).out;
    assert!(aws.starts_with("https://bucket.s3") && aws.ends_with("/site/a%20b\n"), "{aws}");
    let endpoint = ["--endpoint-url", "https://s3.example.com"];
    assert_eq!(url(&endpoint).code(0).out, "https://s3.example.com/bucket/site/a%20b\n");
    let virtual_host = [&endpoint[..], &["--virtual-host"]].concat();
    assert_eq!(url(&virtual_host).code(0).out, "https://bucket.s3.example.com/site/a%20b\n");
    let public = [&endpoint[..], &["--public-url", "https://cdn"]].concat();
    assert_eq!(url(&public).code(0).out, "https://cdn/site/a%20b\n");
    url(&[]).code(2).says("region: missing").says("--region, AWS_REGION");
    url(&["--profile", "typo"]).code(2).says("there is no [typo] in ");
    url(&["--fallback-url", "files"]).code(2).says("is no absolute URL without a query: write https://HOST");
    url(&["--endpoint-url", "ftp://h"]).code(2).says("endpoint_url: \"ftp://h\"");
}

/// One cache a destination, so that folders of different names can be published to one prefix.
#[test]
fn the_cache_lies_below_xdg_state_home_one_a_destination() {
    let world = some_files(3);
    let shell = Shell::of(&world);
    let root = text(world.root());
    shell.run(&["sync", &root, DEST]).code(0);
    let cache = shell.run(&["status", DEST, "--json"]).code(0).json()["cache"].as_str().unwrap().to_owned();
    let folder = text(shell.path(".local/state/brigade"));
    assert!(cache.starts_with(&format!("{folder}/127.0.0.1_")) && cache.contains("_bucket_site-"), "{cache}");
    shell.run(&["sync", &root, DEST]).code(0).shows("unchanged").shows(&cache);
    shell.run(&["sync", &root, "s3://bucket/other"]).code(0).shows("3 uploaded");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 4, "two caches and their catalogs");
    let state = shell.path("state");
    let shell = shell.set("XDG_STATE_HOME", state.to_str().unwrap());
    shell.run(&["sync", &root, "s3://bucket/site"]).code(0).shows("3 adopted");
    assert_eq!(fs::read_dir(state.join("brigade")).unwrap().count(), 2);
    let other = ["sync", &root, "s3://bucket/other", "--cache", &cache];
    shell.run(&other).code(4).says("it records what is published at").says("--cache");
    let foreign = shell.run(&["status", "s3://bucket/other", "--cache", &cache]).code(4);
    foreign.says(&format!("/{BUCKET}/site/"));
}
