//! What stores, and what stands in their place, answer beyond the rows of the faults: per key, per store, with our
//! own secrets, without end, or from a login page.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bucket_brigade::{ErrorKind, RescanOrchestrator, RescanOutcome, RescanReport, RetryPolicy, Run, Verify};

use crate::large::in_small_parts;
use crate::network::{acquainted, answer, heals, rescan, site_with};
use crate::support::oracle::check;
use crate::support::proxy::{Fault, Made, Maker, Rule, Seen};
use crate::support::server::SECRET_KEY;
use crate::support::{HEAD, PREFIX, SESSION_TOKEN, World};

const MIB: usize = 1024 * 1024;

fn impatient(world: &World) -> RescanOrchestrator {
    site_with(world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)))
}

fn xml(text: String) -> Made {
    (200, vec![("Content-Type".to_owned(), "application/xml".to_owned())], text.into_bytes())
}

/// These files are published, and then gone.
fn with_files_gone(world: &World, site: &RescanOrchestrator, keys: &[&str]) {
    for key in keys {
        world.write(key, "1");
    }
    acquainted(world, site);
    for key in keys {
        world.remove(key);
    }
}

fn bulk_deletes(world: &World) -> Vec<Seen> {
    let requests = world.proxy.requests().into_iter();
    requests.filter(|seen| seen.method == "POST" && seen.target.contains("delete")).collect()
}

/// A 403 of a real store for `x-amz-meta-build` beside `x-amz-meta-build-id`, and for an encryption beside its key:
/// the signed headers were sorted by `name:value`, where `-` comes before `:`, and the list of their names by name.
/// Both now come from one list.
#[test]
fn headers_whose_names_begin_alike_are_signed_right() {
    let world = World::with_workers(2);
    let config = [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
        ("x-amz-meta-build", "7"),
        ("x-amz-meta-build-id", "seven"),
    ]
    .into_iter()
    .fold(world.s3_config().part_threshold(8 << 20), |config, (name, value)| config.header(name, value));
    let site = site_with(&world, config);
    world.write("small", "x");
    world.write_random("large", 9 * MIB, 1);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2), "{:?}", report.failed);
    for key in ["small", "large"] {
        let metadata = world.store.get(&format!("{PREFIX}{key}")).unwrap().metadata;
        assert_eq!((metadata["build"].as_str(), metadata["build-id"].as_str()), ("7", "seven"));
    }
    heals(&world, &site);
}

/// A run that deleted a thousand keys failed for the three that a busy store put off with `SlowDown` in an answer of
/// status 200, and called that three outages. Those keys alone are asked for again.
#[test]
fn n05_keys_that_a_store_puts_off_are_deleted_by_the_next_try() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    with_files_gone(&world, &site, &["a", "b", "c", "d"]);
    world.store.fail_delete(&format!("{PREFIX}a"), "SlowDown", 2);
    world.store.fail_delete(&format!("{PREFIX}b"), "InternalError", 1);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count, report.failed_count), (RescanOutcome::Published, 4, 0));
    let bodies: Vec<_> = bulk_deletes(&world).iter().map(|seen| seen.received_body).collect();
    assert!(bodies.len() == 3 && bodies[0] > bodies[1] && bodies[1] > bodies[2], "{bodies:?}");
    assert_eq!(report.metrics.retries, 2);
    heals(&world, &site);
}

/// What is put off for good fails with its tries; what was refused is not asked for again, and what was deleted
/// stays deleted, however the tries after it end.
#[test]
fn n05_keys_that_stay_put_off_fail_alone() {
    let world = World::with_workers(2);
    let site = impatient(&world);
    with_files_gone(&world, &site, &["a", "b", "c", "d"]);
    world.store.fail_delete(&format!("{PREFIX}a"), "InternalError", 100);
    world.store.deny_delete(&format!("{PREFIX}d"));
    let report = rescan(&world, &site);
    assert_eq!((report.deleted.len(), report.failed_count), (2, 2), "{report:?}");
    let of = |key: &str| report.failed.iter().find(|error| error.key() == Some(key)).unwrap();
    assert_eq!((of("a").kind(), of("a").attempts()), (ErrorKind::Server, 2));
    assert_eq!((of("d").kind(), of("d").attempts()), (ErrorKind::AccessDenied, 1));
    assert!(of("a").to_string().contains("(2 attempts in"), "{}", of("a"));
    world.store.clear_faults();
    heals(&world, &site);

    let world = World::with_workers(2);
    let site = impatient(&world);
    with_files_gone(&world, &site, &["a", "b", "c"]);
    world.store.fail_delete(&format!("{PREFIX}a"), "InternalError", 1);
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").skip(1));
    let report = rescan(&world, &site);
    assert_eq!((report.deleted.len(), report.failed_count), (2, 1), "{report:?}");
    assert_eq!((report.failed[0].key(), report.failed[0].kind()), (Some("a"), ErrorKind::Network));
    world.proxy.clear_rules();
    heals(&world, &site);
}

/// `MinIO` lists unfinished uploads of a whole key only. One list of the whole prefix was empty there, and the
/// recorded intent of an upload whose name was lost was forgotten, its parts left behind for ever.
#[test]
fn n09b_lost_upload_is_found_on_a_store_that_lists_by_whole_keys() {
    for by_whole_key in [true, false] {
        let world = World::new();
        if by_whole_key {
            world.store.list_uploads_by_whole_key();
        }
        world.strange_upload("f2");
        world.write_random("f", 17 * MIB, 1);
        world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploads=").times(1));
        world.lost_begins.store(true, Ordering::SeqCst);
        let site = in_small_parts(&world);
        assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Published);
        world.lose_names_of_uploads();
        let lost = world.store.uploads().into_iter().find(|(key, _)| key.ends_with("/f")).unwrap().1;
        let left = site.cache().abort_uploads(&world.engine, &*world.backend()).unwrap().left;
        assert_eq!(
            left.iter().map(|one| one.upload_id.as_deref()).collect::<Vec<_>>(),
            [Some(lost.as_str())]
        );
        let listed = site.cache().unfinished_uploads(&world.engine, &*world.backend()).unwrap();
        assert_eq!((listed.len(), listed[0].key.as_str(), listed[0].certain), (1, "f", false));
    }
}

/// GCS has no `DeleteObjects`, and says 400 `InvalidArgument` where others say 501: nothing was ever deleted there.
#[test]
fn store_that_calls_deletes_of_many_an_invalid_argument_is_asked_for_each() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    with_files_gone(&world, &site, &["a", "b", "c"]);
    world.proxy.add(Rule::new(answer(400, "InvalidArgument")).method("POST").path_contains("delete"));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 3), "{:?}", report.failed);
    for key in ["d", "e"] {
        world.write(key, "1");
    }
    rescan(&world, &site);
    world.remove("d");
    world.remove("e");
    let report = rescan(&world, &site);
    assert_eq!((report.deleted_count, bulk_deletes(&world).len()), (2, 1), "remembered");
}

/// One key is the invalid argument: that key fails for it, the others are deleted, and the next request may have many.
#[test]
fn invalid_argument_of_one_key_is_told_and_no_lack_of_the_store() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    with_files_gone(&world, &site, &["a", "b", "c"]);
    world
        .proxy
        .add(Rule::new(answer(400, "InvalidArgument")).method("POST").path_contains("delete").times(1));
    world.store.fail_delete(&format!("{PREFIX}b"), "InvalidArgument", 1);
    let report = rescan(&world, &site);
    assert_eq!((report.deleted_count, report.failed_count), (2, 1), "{report:?}");
    assert_eq!((report.failed[0].key(), report.failed[0].code()), (Some("b"), Some("InvalidArgument")));
    for key in ["a", "c"] {
        world.write(key, "1");
    }
    rescan(&world, &site);
    world.remove("a");
    world.remove("c");
    let report = rescan(&world, &site);
    assert_eq!((report.deleted_count, bulk_deletes(&world).len()), (2, 2));
}

/// Garage refuses a clock with `InvalidRequest`, which said nothing of the clock and was not mended by the store's own.
#[test]
fn n07_clock_that_garage_refuses_is_learned() {
    let world = World::with_workers(2);
    world.clock.step_wall(-26 * 3600);
    world.write("a", "1");
    let date = vec![("Date".to_owned(), httpdate::fmt_http_date(SystemTime::now()))];
    let body = b"<Error><Code>InvalidRequest</Code><Message>Bad request: Date is too old</Message></Error>";
    let at = time::OffsetDateTime::from(SystemTime::now() - Duration::from_secs(24 * 3600));
    let oldest = format!("{:04}{:02}{:02}T{:02}", at.year(), u8::from(at.month()), at.day(), at.hour());
    world.proxy.add(Rule::new(Fault::Answer(400, date, body.to_vec())).when(move |headers| {
        let sent = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"));
        sent.is_none_or(|(_, value)| *value < oldest)
    }));
    let site = site_with(&world, world.s3_config());
    let report = rescan(&world, &site);
    assert_eq!(
        (report.outcome, report.metrics.retries),
        (RescanOutcome::Published, 1),
        "{:?}",
        report.failed
    );
}

/// A login page: 200 to whatever is asked.
fn portal() -> Fault {
    page_of(200, "text/html; charset=utf-8", "<html><body>Please log in</body></html>")
}

fn page_of(status: u16, content_type: &str, body: &str) -> Fault {
    let headers = [("Content-Type", content_type), ("Server", "nginx")];
    let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Fault::Answer(status, headers, body.as_bytes().to_vec())
}

fn says_who_answered(report: &RescanReport) {
    let error = report.failed.first().expect("something failed");
    let says = "answered 200 with text/html; charset=utf-8 (server: nginx), which no S3 store does: \
                is a proxy or login page in between?";
    assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains(says), "{error}");
}

/// A train's login page answered every PUT with 200, and the run reported all files as published.
#[test]
fn i2_login_page_stores_nothing() {
    let world = World::with_workers(2);
    let site = impatient(&world);
    acquainted(&world, &site);
    world.write("f", "x");
    world.proxy.add(Rule::new(portal()).method("PUT"));
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.failed_count, report.failed[0].attempts()), (0, 1, 2));
    says_who_answered(&report);
    // An ETag is on pages, too; and a success that shows nothing of a store is none.
    let html = [("Content-Type", "text/html"), ("ETag", "\"page\"")];
    let tagged = html.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    for (fault, says) in [
        (Fault::Answer(200, tagged, b"<html/>".to_vec()), "answered 200 with text/html, which no"),
        (
            page_of(200, "application/json", "{}"),
            "answered 200 with application/json (server: nginx), which no",
        ),
        (page_of(201, "", ""), "answered 201 with no content type (server: nginx), which no"),
        (page_of(204, "", ""), "answered 204 with no content type (server: nginx), which no"),
    ] {
        world.proxy.clear_rules();
        world.proxy.add(Rule::new(fault).method("PUT"));
        let report = rescan(&world, &site);
        assert!(report.failed[0].to_string().contains(says), "{}", report.failed[0]);
    }
    world.proxy.clear_rules();
    heals(&world, &site);
}

#[test]
fn i2_login_page_takes_no_part_and_begins_completes_and_aborts_nothing() {
    for (method, path) in [("POST", "?uploads="), ("PUT", "partNumber=2&"), ("POST", "?uploadId=")] {
        let world = World::with_workers(2);
        let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
        let site = site_with(&world, s3.retry(RetryPolicy::default().with_attempts(2)));
        acquainted(&world, &site);
        world.write_random("f", 17 * MIB, 1);
        world.proxy.add(Rule::new(portal()).method(method).path_contains(path));
        let report = rescan(&world, &site);
        assert_eq!((report.uploaded_count, report.failed_count), (0, 1), "{method} {path}");
        says_who_answered(&report);
        world.proxy.clear_rules();
        if path == "partNumber=2&" {
            world.write("f", "small by now");
            world.proxy.add(Rule::new(portal()).method("DELETE"));
            let report = rescan(&world, &site);
            assert_eq!((report.open_uploads, world.store.uploads().len()), (1, 1), "not aborted");
            says_who_answered(&report);
            world.proxy.clear_rules();
        }
        heals(&world, &site);
        assert_eq!(world.store.uploads(), []);
    }
}

#[test]
fn i2_login_page_deletes_and_lists_nothing() {
    for keys in [&["a"][..], &["a", "b"]] {
        let world = World::with_workers(2);
        let site = impatient(&world);
        with_files_gone(&world, &site, keys);
        // The preflight finds it; where it comes later, the deletes do.
        world.proxy.add(Rule::new(portal()));
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::LocalOnly, 0));
        let outage = report.outage.unwrap().to_string();
        assert!(outage.contains("which no S3 store does"), "{outage}");
        world.proxy.clear_rules();
        world.proxy.add(Rule::new(portal()).method("POST"));
        world.proxy.add(Rule::new(portal()).method("DELETE"));
        let report = rescan(&world, &site);
        assert_eq!((report.deleted_count, report.failed_count as usize), (0, keys.len()), "{report:?}");
        says_who_answered(&report);
        world.proxy.clear_rules();
        heals(&world, &site);
    }
    let world = World::with_workers(2);
    let site = impatient(&world);
    with_files_gone(&world, &site, &["a"]);
    rescan(&world, &site);
    world.proxy.add(Rule::new(portal()).method("GET"));
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    check(&world, &site, &report);
    says_who_answered(&report);
}

/// A store's 204 may have nothing that tells it from another's: such a delete is believed, unless it is a page.
#[test]
fn delete_answered_204_is_believed_where_it_is_no_page() {
    let world = World::with_workers(2);
    let site = impatient(&world);
    with_files_gone(&world, &site, &["a"]);
    world.proxy.add(Rule::new(page_of(204, "text/html", "")).method("DELETE"));
    assert_eq!(rescan(&world, &site).failed_count, 1);
    world.proxy.clear_rules();
    let plain = Fault::Answer(204, Vec::new(), Vec::new());
    world.store.remove_raw(&format!("{PREFIX}a"));
    world.proxy.add(Rule::new(plain).method("DELETE"));
    assert_eq!(rescan(&world, &site).deleted, ["a"]);
}

/// `moto` labels its empty answers as HTML; they have a tag, or the ID that it gives each request.
#[test]
fn empty_answer_that_a_store_labels_as_html_is_a_store_s() {
    let world = World::with_workers(2);
    let site = impatient(&world);
    world.write("f", "x");
    world.proxy.add(Rule::new(Fault::WithHeader("content-type", "text/html".to_owned())).method("PUT"));
    assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Published);
    world.remove("f");
    world.write("other", "x");
    world.store.remove_raw(&format!("{PREFIX}f"));
    let headers = [("Content-Type", "text/html"), ("x-amzn-requestid", "1")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    world.proxy.add(Rule::new(Fault::Answer(204, headers, Vec::new())).method("DELETE"));
    assert_eq!(rescan(&world, &site).deleted, ["f"]);
}

/// All that a run said and kept: events, report, and the cache and catalog as they lie on the disk.
fn said_and_kept(world: &World, report: &RescanReport) -> String {
    let mut all = format!("{:?} {report:?}", world.events.lock().unwrap());
    report.failed.iter().for_each(|error| all.push_str(&error.to_string()));
    for file in std::fs::read_dir(world.cache_path().parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
    all
}

/// The signatures and `Authorization` headers of all requests so far, and the secrets that are never sent.
fn secrets_of(world: &World) -> Vec<String> {
    let mut all = vec![SECRET_KEY.to_owned(), SESSION_TOKEN.to_owned()];
    for seen in world.proxy.requests() {
        let authorization = seen.header("authorization").unwrap_or_default();
        all.extend(authorization.rsplit_once("Signature=").map(|(_, signature)| signature.to_owned()));
        all.push(authorization.to_owned());
    }
    all.retain(|secret| !secret.is_empty());
    all
}

fn no_secret_is_repeated(world: &World, report: &RescanReport) {
    let all = said_and_kept(world, report);
    let secrets = secrets_of(world);
    assert!(secrets.len() > 3, "there are signatures");
    for secret in secrets {
        assert!(!all.contains(&secret), "{secret} was said or kept");
    }
}

/// What is cut out of the texts of errors was shown by `-v` as the request's ID, and kept in the cache as an object's
/// tag.
#[test]
fn i7_secrets_in_headers_of_successes_are_neither_shown_nor_kept() {
    for name in ["x-amz-request-id", "etag"] {
        for (secret, world) in [(SESSION_TOKEN, World::with_workers(2)), (SECRET_KEY, World::over_tls(2))] {
            let site = impatient(&world);
            acquainted(&world, &site);
            world.write("f", "x");
            world.proxy.add(Rule::new(Fault::WithHeader(name, format!("a{secret}b"))));
            let report = rescan(&world, &site);
            assert_eq!(report.uploaded_count, 1, "{report:?}");
            no_secret_is_repeated(&world, &report);
        }
    }
}

/// What a store can say in the text of an error: all that it was sent.
fn echo(status: u16, text: &'static str) -> Fault {
    Fault::Made(Maker::new(move |seen| {
        let authorization = seen.header("authorization").unwrap_or_default();
        let signature = authorization.rsplit_once("Signature=").map_or("", |(_, signature)| signature);
        let said = format!("{authorization} {signature} {SESSION_TOKEN} {SECRET_KEY}");
        let headers = [("x-amz-request-id", &said), ("Content-Type", &"application/xml".to_owned())];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.clone())).to_vec();
        let each = |form: fn(u8) -> String| SESSION_TOKEN.bytes().map(form).collect::<String>();
        let text = text.replace("SECRETS", &said).replace("ENTITIES", &each(|byte| format!("&#{byte};")));
        let text = text.replace("PERCENT", &each(|byte| format!("%{byte:02x}")));
        (status, headers, text.replace("ESCAPES", &each(|byte| format!("\\u{byte:04x}"))).into_bytes())
    }))
}

/// Answers that say something wrong, and what of them is replaced by secrets: as they are, in entities, percent-encoded,
/// in escapes. Those to GET are listings, or the head of a state.
fn answers_with_secrets() -> Vec<(&'static str, u16, &'static str)> {
    let whole = "<Error><Code>X SECRETS</Code><Message>SECRETS</Message><RequestId>SECRETS</RequestId>\
                 <Region>SECRETS</Region><Endpoint>SECRETS</Endpoint></Error>";
    vec![
        ("PUT", 400, whole),
        ("PUT", 301, whole),
        ("PUT", 500, "<Error><Code>SECRETS</Code></Error>"),
        (
            "POST",
            200,
            "<DeleteResult><Error><Key>site/a</Key><Code>SECRETS</Code><Message>SECRETS</Message></Error></DeleteResult>",
        ),
        (
            "POST",
            200,
            "<DeleteResult><Error><Key>SECRETS</Key><Code>AccessDenied</Code></Error></DeleteResult>",
        ),
        ("GET", 200, "<ListBucketResult><IsTruncated>SECRETS</IsTruncated></ListBucketResult>"),
        (
            "GET",
            200,
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>SECRETS</NextContinuationToken></ListBucketResult>",
        ),
        (
            "GET",
            200,
            "<ListBucketResult><Contents><Key>site/SECRETS</Key><Size>1</Size></Contents></ListBucketResult>",
        ),
        (
            "PUT",
            400,
            "<Error><Code>ENTITIES</Code><Message>support-session<![CDATA[-token-CANARY]]></Message></Error>",
        ),
        (
            "GET",
            200,
            "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>site/PERCENT</Key><Size>1</Size>\
             <ETag>ENTITIES</ETag></Contents></ListBucketResult>",
        ),
        (
            "GET",
            200,
            "<ListBucketResult><Contents><Key>SECRETS</Key><Size>1</Size></Contents></ListBucketResult>",
        ),
        ("GET", 200, r#"{"elsewhere": {"bucket": "SECRETS", "prefix": "ESCAPES"}}"#),
    ]
}

#[test]
fn i7_secrets_in_errors_are_not_repeated() {
    for (method, status, text) in answers_with_secrets() {
        let world = World::with_workers(2);
        let site = impatient(&world);
        with_files_gone(&world, &site, &["a", "b"]);
        if method == "PUT" {
            world.write("f", "x");
        }
        let target = match (method, text) {
            ("GET", text) if text.starts_with('{') => HEAD,
            ("GET", _) => "list-type",
            _ => "",
        };
        world.proxy.add(Rule::new(echo(status, text)).method(method).path_contains(target));
        let report = match site.rescan_with(&Run::new().verify(Verify::List)) {
            Ok(report) => report,
            Err(error) => {
                let said = format!("{error} {error:?} {:?}", world.events.lock().unwrap());
                assert!(secrets_of(&world).iter().all(|secret| !said.contains(secret)), "{said}");
                assert!(target != HEAD || error.to_string().contains("s3://[secret]"), "{error}");
                continue;
            }
        };
        check(&world, &site, &report);
        assert!(
            !report.failed.is_empty() || report.verified.as_ref().is_some_and(|found| !found.is_good()),
            "{text}"
        );
        no_secret_is_repeated(&world, &report);
    }
}

/// An upload ID is kept, shown and sent back: one that holds a secret is none, and one of megabytes neither.
#[test]
fn i7_i8_upload_ids_that_cannot_be_meant_are_refused() {
    for (text, says) in [
        ("SECRETS".to_owned(), "upload ID that repeats a secret"),
        ("u".repeat(7 << 20), "upload ID of 7340032 bytes"),
    ] {
        let world = World::with_workers(2);
        let s3 = world.s3_config().part_threshold(8 << 20).retry(RetryPolicy::default().with_attempts(2));
        let site = site_with(&world, s3);
        acquainted(&world, &site);
        world.write_random("f", 9 * MIB, 1);
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{text}</UploadId></InitiateMultipartUploadResult>"
        );
        world.proxy.add(Rule::new(echo(200, body.leak())).method("POST").path_contains("?uploads="));
        let report = rescan(&world, &site);
        let error = &report.failed[0];
        assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains(says), "{error}");
        assert_eq!(error.attempts(), 1, "each try would begin an upload");
        no_secret_is_repeated(&world, &report);
    }
}

/// What stood behind an endpoint that an answer named was shown with it: the path and the query of a signed URL.
#[test]
fn i7_endpoint_of_a_redirect_is_named_without_its_path_and_query() {
    let world = World::with_workers(2);
    world.write("f", "x");
    let body = "<Error><Code>PermanentRedirect</Code><Endpoint>https://user:word@b.eu.example:99/key?token=CANARY\
                </Endpoint></Error>";
    world.proxy.add(Rule::new(Fault::Answer(301, Vec::new(), body.as_bytes().to_vec())));
    let text = impatient(&world).rescan().unwrap_err().to_string();
    assert!(text.contains("is served by https://b.eu.example:99: set endpoint"), "{text}");
}

/// A tag of more than 1 KiB is refused, and so is a continuation token of more than 8 KiB.
#[test]
fn i8_tags_and_tokens_that_cannot_be_meant_are_refused() {
    let world = World::with_workers(2);
    let site = impatient(&world);
    acquainted(&world, &site);
    world.write("f", "x");
    world.proxy.add(Rule::new(Fault::WithHeader("etag", "e".repeat(2000))).method("PUT"));
    let report = rescan(&world, &site);
    assert!(report.failed[0].to_string().contains("ETag of 2000 bytes"), "{}", report.failed[0]);
    let token = "t".repeat(9000);
    let page = format!(
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>\
         </ListBucketResult>"
    );
    let page = Fault::Answer(200, Vec::new(), page.into_bytes());
    world.proxy.add(Rule::new(page).method("GET").path_contains("list-type"));
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    let says =
        |error: &bucket_brigade::StorageError| error.to_string().contains("continuation token of 9000 bytes");
    assert!(report.failed.iter().any(says), "{:?}", report.failed);
}

/// Pages of a listing of unfinished uploads, each with a marker of its own.
fn uploads_page(number: usize, key: &str, id: &str) -> Made {
    xml(format!(
        "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>{PREFIX}f</NextKeyMarker>\
         <NextUploadIdMarker>{number:08}</NextUploadIdMarker>\
         <Upload><Key>{PREFIX}{key}</Key><UploadId>{id}</UploadId></Upload></ListMultipartUploadsResult>"
    ))
}

/// Ever new markers, and the same upload on each page: the list went on for 30 million pages, and its marks were kept.
#[test]
fn n16_list_of_uploads_that_says_nothing_new_ends() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploads=").times(1));
    world.lost_begins.store(true, Ordering::SeqCst);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    let pages = Arc::new(AtomicUsize::new(0));
    for key in ["f", "f2"] {
        let counter = pages.clone();
        counter.store(0, Ordering::Relaxed);
        world.proxy.clear_rules();
        world.proxy.add(Rule::new(Fault::Made(Maker::new(move |_| {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            assert!(number < 2000, "for ever");
            uploads_page(number, key, "the-same")
        }))));
        let error = site.cache().unfinished_uploads(&world.engine, &*world.backend()).unwrap_err();
        assert!(error.to_string().contains("listing has no end"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}

/// Ever new uploads of one key: what is shown of them has a bound.
#[test]
fn n16_list_of_ever_new_uploads_of_one_key_is_cut_short() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploads=").times(1));
    world.lost_begins.store(true, Ordering::SeqCst);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    let pages = AtomicUsize::new(0);
    world.proxy.add(Rule::new(Fault::Made(Maker::new(move |_| {
        let number = pages.fetch_add(1, Ordering::Relaxed);
        assert!(number < 2000, "for ever");
        uploads_page(number, "f", &format!("upload-{number}"))
    }))));
    let listed = site.cache().unfinished_uploads(&world.engine, &*world.backend()).unwrap();
    assert_eq!(listed.len(), 1000);
}

/// A list of parts names each part once, in order, and no part that cannot be.
#[test]
fn n16_list_of_parts_that_repeats_or_exceeds_them_is_not_believed() {
    let world = World::with_workers(2);
    let site = in_small_parts(&world);
    acquainted(&world, &site);
    world.write_random("f", 25 * MIB, 1);
    let completes = || Rule::new(answer(500, "InternalError")).method("POST").path_contains("?uploadId=");
    world.proxy.add(completes());
    assert_eq!(rescan(&world, &site).open_uploads, 1);
    world.proxy.clear_rules();
    let part =
        |number: u32| format!("<Part><PartNumber>{number}</PartNumber><ETag>x</ETag><Size>1</Size></Part>");
    let many: String = (0..70_000).map(|_| part(1)).collect();
    for parts in [many, part(10_001)] {
        world.proxy.add(
            Rule::new(Fault::Made(Maker::new(move |_| {
                xml(format!("<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>"))
            })))
            .method("GET")
            .path_contains("uploadId="),
        );
        world.proxy.add(completes());
        let before = world.store.uploads();
        rescan(&world, &site);
        assert_eq!(world.store.uploads(), before, "the upload is gone on with as the cache knows it");
        world.proxy.clear_rules();
    }
    heals(&world, &site);
}

/// A page of a listing of objects, with a token of its own.
fn objects_page(number: usize, key: &str) -> Made {
    xml(format!(
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t{number}</NextContinuationToken>\
         <Contents><Key>{PREFIX}{key}</Key><Size>1</Size></Contents></ListBucketResult>"
    ))
}

/// Ever new tokens, and the same two objects on each page.
#[test]
fn n16_listing_that_says_nothing_new_ends() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    let pages = AtomicUsize::new(0);
    world.proxy.add(
        Rule::new(Fault::Made(Maker::new(move |_| {
            let number = pages.fetch_add(1, Ordering::Relaxed);
            assert!(number < 2000, "for ever");
            objects_page(number, if number.is_multiple_of(2) { "stranger" } else { "other" })
        })))
        .method("GET"),
    );
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    assert!(report.failed[0].to_string().contains("listing has no end"), "{}", report.failed[0]);
}

/// Ever new objects are a large bucket, however the store orders them: such a listing goes on to its end.
#[test]
fn n16_listing_of_ever_new_objects_in_no_order_is_read_to_its_end() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    let pages = AtomicUsize::new(0);
    world.proxy.add(
        Rule::new(Fault::Made(Maker::new(move |_| {
            let number = pages.fetch_add(1, Ordering::Relaxed) % 3000;
            let (status, headers, body) = objects_page(number, &format!("{:05}", (number * 7919) % 3001));
            let text = String::from_utf8(body).unwrap();
            let last = text.replace("<IsTruncated>true", "<IsTruncated>false");
            (status, headers, if number == 2999 { last } else { text }.into_bytes())
        })))
        .method("GET")
        .path_contains("max-keys=1000"),
    );
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    let found = report.verified.unwrap();
    assert_eq!((found.unknown_count, found.missing.as_slice()), (3000, &["known".to_owned()][..]));
}
