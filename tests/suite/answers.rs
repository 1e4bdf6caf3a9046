//! What a store answers, by the rows of its faults: refusals, errors in the place of successes, answers without end.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bucket_brigade::{
    CacheManager, Credentials, ErrorKind, NetworkConfig, RescanConfig, RescanOrchestrator, RescanOutcome,
    RetryPolicy, Run, S3Backend, StopReason, Verify,
};

use crate::network::{acquainted, answer, both, heals, rescan, site_with};
use crate::support::oracle::check;
use crate::support::proxy::{Fault, FaultProxy, Headers, Rule};
use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::tls::TestCa;
use crate::support::{NEXT_TOKEN, PREFIX, World};

const MIB: usize = 1024 * 1024;

/// Temporary credentials expire in the middle: others are asked for once, and the run goes on.
#[test]
fn n06_expired_credentials_are_renewed_and_the_run_goes_on() {
    both(|world| {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = asked.clone();
        let config = world.s3_config().renew_credentials(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Credentials::new(ACCESS_KEY, SECRET_KEY).with_session_token(NEXT_TOKEN))
        });
        let site = site_with(&world, config);
        acquainted(&world, &site);
        for n in 0..30 {
            world.write(&format!("f{n:02}"), "x");
        }
        let old = |headers: &Headers| {
            !headers.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case("x-amz-security-token") && value.starts_with(NEXT_TOKEN)
            })
        };
        world.proxy.add(Rule::new(answer(403, "ExpiredToken")).method("PUT").skip(10).when(old));
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 30));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        heals(&world, &site);
    });
}

/// Nobody has better ones: nothing more is started, nothing is deleted, what is finished stays recorded.
#[test]
fn n06_credentials_that_stay_refused_stop_the_run() {
    let world = World::with_workers(2);
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let config = world.s3_config().renew_credentials(move || {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        Ok(Credentials::new(ACCESS_KEY, format!("another-that-is-wrong-{number}")))
    });
    let site = site_with(&world, config);
    acquainted(&world, &site);
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "x");
    }
    world.remove("known");
    world.proxy.add(Rule::new(answer(403, "ExpiredToken")).method("PUT").skip(10));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Credentials)));
    assert_eq!((report.uploaded_count, report.deleted_count), (10, 0));
    assert_eq!(world.keys().len(), 11);
    // Each refused request is sent once more, and no request asks twice for better ones.
    let puts = world.proxy.requests().into_iter().filter(|seen| seen.method == "PUT").skip(10);
    let mut tries = std::collections::BTreeMap::<String, u32>::new();
    puts.for_each(|seen| *tries.entry(seen.target).or_default() += 1);
    assert!(tries.values().all(|tries| *tries == 2), "{tries:?}");
    // Two files are sent and two wait for the workers when the first refusal comes back.
    assert!(tries.len() <= 4, "nothing more is started: {tries:?}");
    assert!((1..=tries.len() as u32).contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
    drop(site);
    world.proxy.clear_rules();
    heals(&world, &site_with(&world, world.s3_config()));
}

/// The store's own clock is believed, and requests are signed with it.
#[test]
fn n07_clock_that_is_off_is_learned_and_the_request_signed_anew() {
    both(|world| {
        world.clock.step_wall(-2 * 3600);
        world.write("a", "1");
        world.write("b", "2");
        let date = httpdate::fmt_http_date(SystemTime::now());
        let skewed = Fault::Answer(
            403,
            vec![("Date".to_owned(), date)],
            b"<Error><Code>RequestTimeTooSkewed</Code></Error>".to_vec(),
        );
        let hour = |headers: &Headers| {
            let sent = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"));
            sent.map(|(_, value)| value[..11].to_owned())
        };
        // What is signed with a time of this or the last hour is right.
        let right = [0, 3600].map(|ago| {
            let at = time::OffsetDateTime::from(SystemTime::now() - Duration::from_secs(ago));
            format!("{:04}{:02}{:02}T{:02}", at.year(), u8::from(at.month()), at.day(), at.hour())
        });
        world.proxy.add(
            Rule::new(skewed).when(move |headers| hour(headers).is_none_or(|hour| !right.contains(&hour))),
        );
        let site = site_with(&world, world.s3_config());
        let report = rescan(&world, &site);
        assert_eq!(
            (report.outcome, report.metrics.retries),
            (RescanOutcome::Published, 1),
            "once for all requests"
        );
        // The clock is set right in the middle of the work: whatever is refused then is signed anew.
        world.clock.step_wall(2 * 3600);
        for n in 0..20 {
            world.write(&format!("f{n:02}"), "x");
        }
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 20));
    });
}

#[test]
fn n07_request_timeout_is_tried_again() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    world.write("f", "x");
    world.proxy.add(Rule::new(answer(400, "RequestTimeout")).method("PUT").times(2));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 2));
}

/// A store that gives no tags is believed by its answers alone.
#[test]
fn n10_answer_without_an_etag_is_a_receipt_without_one() {
    both(|world| {
        world.proxy.add(Rule::new(Fault::WithoutHeader("etag")).method("PUT"));
        let site = site_with(&world, world.s3_config());
        for n in 0..5 {
            world.write(&format!("f{n}"), "x");
        }
        let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.verified.unwrap().matching), (RescanOutcome::Published, 5));
        heals(&world, &site);
    });
}

/// The other place is named, and nobody there hears of us.
#[test]
fn n15_temporary_redirect_is_not_followed() {
    both(|world| {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        let address = elsewhere.local_addr().unwrap();
        let headers = vec![("Location".to_owned(), format!("http://{address}/bucket/"))];
        let body =
            "<Error><Code>TemporaryRedirect</Code><Endpoint>bucket.s3.eu-west-3.example</Endpoint></Error>";
        world.proxy.add(Rule::new(Fault::Answer(307, headers, body.as_bytes().to_vec())));
        world.write("f", "x");
        let error = site_with(&world, world.s3_config()).rescan().unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Region, 1), "{error}");
        assert!(
            error.to_string().contains("is served by bucket.s3.eu-west-3.example: set endpoint"),
            "{error}"
        );
        assert!(elsewhere.accept().is_err() && world.proxy.requests().len() == 1);
    });
}

/// I8: nothing that a server sends is taken without a limit.
#[test]
fn n16_endless_answers_and_floods_of_headers_are_cut_off() {
    both(|world| {
        let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
        acquainted(&world, &site);
        for fault in [Fault::Endless(200), Fault::HeaderFlood] {
            world.write("f", format!("{fault:?}"));
            world.proxy.add(Rule::new(fault.clone()).method("PUT"));
            let report = rescan(&world, &site);
            let error = &report.failed[0];
            assert_eq!(
                (report.failed_count, error.kind(), error.attempts()),
                (1, ErrorKind::Protocol, 2),
                "{error}"
            );
            world.proxy.clear_rules();
            heals(&world, &site);
            world.proxy.add(Rule::new(fault).method("GET"));
            let listed = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
            assert!(!listed.verified.unwrap().is_good());
            world.proxy.clear_rules();
            heals(&world, &site);
        }
    });
}

#[test]
fn n16_listing_that_repeats_its_token_is_an_error() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    let page = format!(
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>\
         <Contents><Key>{PREFIX}known</Key><Size>1</Size></Contents></ListBucketResult>"
    );
    let requests = AtomicUsize::new(0);
    world.proxy.on_request(move |_| assert!(requests.fetch_add(1, Ordering::Relaxed) < 50, "for ever"));
    world.proxy.add(Rule::new(Fault::Answer(200, Vec::new(), page.into_bytes())).method("GET"));
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    assert_eq!((report.outcome, report.failed[0].kind()), (RescanOutcome::Partial, ErrorKind::Protocol));
}

/// Why there are no better ones is in the error.
#[test]
fn n06_renewal_that_fails_is_told() {
    let world = World::with_workers(1);
    let sealed = || Err(bucket_brigade::StorageError::config("credentials", "the vault is sealed"));
    let site = site_with(&world, world.s3_config().renew_credentials(sealed));
    world.write("f", "x");
    world.proxy.add(Rule::new(answer(403, "ExpiredToken")));
    let error = site.rescan().unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Credentials, 1));
    assert!(
        error.to_string().contains("could not be renewed: configure: credentials: the vault is sealed"),
        "{error}"
    );
}

/// Giving up an upload is refused for the credentials: nothing is deleted with them.
#[test]
fn n06_credentials_refused_while_uploads_are_given_up_stop_the_run() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    world.write_random("f", 17 * MIB, 1);
    world.proxy.add(Rule::new(answer(500, "InternalError")).method("POST").path_contains("?uploadId="));
    assert_eq!(rescan(&world, &site).open_uploads, 1);
    world.proxy.clear_rules();
    world.write("other", "x");
    world.remove("f");
    world.remove("known");
    world.proxy.add(Rule::new(answer(403, "ExpiredToken")).method("DELETE"));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Credentials)));
    assert_eq!((report.deleted_count, world.keys().len()), (0, 2));
    world.proxy.clear_rules();
    // The answer to the request that would have made an object of its parts said nothing for certain: a HEAD does.
    heals(&world, &site);
}

/// 200 is only how the answer began.
#[test]
fn n08_delete_that_answers_200_with_an_error_deleted_nothing() {
    both(|world| {
        let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
        for key in ["a", "b", "c", "d"] {
            world.write(key, "1");
        }
        rescan(&world, &site);
        world.remove("a");
        world.remove("b");
        world.proxy.clear_counts();
        world.proxy.add(Rule::new(answer(200, "InternalError")).method("POST").path_contains("delete"));
        let report = rescan(&world, &site);
        assert_eq!((report.deleted_count, report.failed_count, report.pending), (0, 2, 2), "{report:?}");
        let posts = world.proxy.requests().iter().filter(|seen| seen.method == "POST").count();
        assert_eq!((report.failed[0].kind(), posts), (ErrorKind::Server, 2));
        world.proxy.clear_rules();
        world.store.deny_delete(&format!("{PREFIX}a"));
        let report = rescan(&world, &site);
        assert_eq!((report.deleted.as_slice(), report.failed_count), (&["b".to_owned()][..], 1));
        assert_eq!((report.failed[0].kind(), report.failed[0].key()), (ErrorKind::AccessDenied, Some("a")));
        world.store.clear_faults();
        heals(&world, &site);
        assert_eq!(world.keys(), ["c", "d"]);
    });
}

/// N14b: an authority that is trusted vouches for another name, or did so until 2001.
#[test]
fn n14b_certificate_of_another_name_or_time_is_an_error_and_never_local_only() {
    let world = World::new();
    world.write("a", "1");
    let folder = tempfile::tempdir().unwrap();
    let cases =
        [("not valid for name", TestCa::for_names(&["elsewhere.example"])), ("xpired", TestCa::expired())];
    for (says, ca) in cases {
        let upstream = world.server.as_ref().unwrap().addr();
        let proxy = FaultProxy::start_tls(upstream, ca.server_config());
        let config = world
            .s3_config()
            .endpoint(proxy.endpoint())
            .network(NetworkConfig::new().ca_file(ca.write_into(folder.path())));
        let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
        let cache = CacheManager::open(folder.path().join(says)).unwrap();
        let site =
            RescanOrchestrator::with_config(&world.engine, world.root(), backend, cache, RescanConfig::new());
        let error = site.unwrap().rescan().unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Tls, 1), "{error}");
        assert!(error.to_string().contains(says) && error.to_string().contains("ca_file"), "{error}");
    }
}

/// I8: an error is read up to 64 KiB, whoever sends more.
#[test]
fn n16_endless_errors_are_read_up_to_64_kib() {
    both(|world| {
        let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
        acquainted(&world, &site);
        let before = world.engine.metrics().bytes_received;
        world.write("f", "x");
        world.proxy.add(Rule::new(Fault::Endless(500)).method("PUT"));
        let report = rescan(&world, &site);
        assert_eq!((report.failed_count, report.failed[0].kind()), (1, ErrorKind::Server), "{report:?}");
        let received = world.engine.metrics().bytes_received - before;
        // What fits one of the connection's buffers more, and the handshakes.
        assert!((128 * 1024..=240 * 1024).contains(&received), "{received} bytes of two errors");
        world.proxy.clear_rules();
        heals(&world, &site);
    });
}

/// Pages that name each other, and pages without end that are empty.
#[test]
fn n16_listings_without_end_are_errors() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    let page = |next: &str| {
        let text = format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>\
             </ListBucketResult>"
        );
        Fault::Answer(200, Vec::new(), text.into_bytes())
    };
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    world.proxy.on_request(move |_| assert!(counter.fetch_add(1, Ordering::Relaxed) < 50, "for ever"));
    world.proxy.add(Rule::new(page("odd")).method("GET").path_contains("token=even"));
    world.proxy.add(Rule::new(page("even")).method("GET"));
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.failed[0].kind()), (RescanOutcome::Partial, ErrorKind::Protocol));
    assert!(report.failed[0].to_string().contains("repeats a continuation token"), "{}", report.failed[0]);
    assert_eq!(requests.load(Ordering::Relaxed), 3);
}
