//! Faults of the network, by their rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bucket_brigade::{
    Clock, ErrorKind, RescanConfig, RescanOrchestrator, RescanOutcome, RescanReport, RetryPolicy, Run,
    S3Backend, S3Config, StopReason, Verify,
};

use crate::support::World;
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Headers, Rule};

const MIB: usize = 1024 * 1024;

pub(crate) fn answer(status: u16, code: &str) -> Fault {
    let body = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
    Fault::Answer(status, Vec::new(), body.into_bytes())
}

pub(crate) fn site_with(world: &World, config: S3Config) -> RescanOrchestrator {
    world.orchestrator_on(Arc::new(S3Backend::new(&world.engine, config).unwrap()), RescanConfig::new())
}

pub(crate) fn rescan(world: &World, site: &RescanOrchestrator) -> RescanReport {
    let report = site.rescan().unwrap();
    check(world, site, &report);
    report
}

/// Everything is published, and the next run has nothing to do.
pub(crate) fn heals(world: &World, site: &RescanOrchestrator) {
    let report = rescan(world, site);
    assert!(matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged), "{report:?}");
    world.let_files_settle();
    rescan(world, site);
    check_idle(world, site);
}

/// Over plain and over TLS.
pub(crate) fn both(test: impl Fn(World)) {
    test(World::with_workers(3));
    test(World::over_tls(3));
}

/// One file is published, so that what follows meets a store that is known.
pub(crate) fn acquainted(world: &World, site: &RescanOrchestrator) {
    world.write("known", "1");
    rescan(world, site);
    world.proxy.clear_counts();
}

#[test]
fn n01_reset_in_the_middle_of_a_body_sends_that_file_again() {
    both(|world| {
        let site = site_with(&world, world.s3_config());
        acquainted(&world, &site);
        let bytes = world.write_random("f", 3 * MIB, 1);
        world.proxy.add(Rule::new(Fault::ResetInBody(100_000)).method("PUT").times(1));
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 1));
        assert_eq!(world.objects()["f"], bytes);
        heals(&world, &site);
    });
}

/// It accepts and never reads, or never answers: the idle limit ends it, and the error names the phase.
#[test]
fn n02_server_that_stands_still_is_a_timeout_that_names_its_phase() {
    both(|world| {
        let limit = Duration::from_millis(400);
        let limits = world.s3_config().network(world.network().idle_timeout(limit).answer_timeout(limit));
        let limits = limits.retry(RetryPolicy::default().with_attempts(2));
        let site = site_with(&world, limits);
        acquainted(&world, &site);
        world.write_random("large body", 14 * MIB, 1);
        world.write("small body", "x");
        world.proxy.add(Rule::new(Fault::Stall).method("PUT"));
        let report = rescan(&world, &site);
        // The store lists: it is there.
        assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Partial, 2), "{report:?}");
        for error in &report.failed {
            assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 2));
            assert!(error.to_string().contains("timed out ("), "{error}");
        }
        world.proxy.clear_rules();
        heals(&world, &site);
    });
}

#[test]
fn n03_dripped_answer_is_ended_by_its_deadline() {
    both(|world| {
        let limits = world.s3_config().network(world.network().answer_timeout(Duration::from_millis(500)));
        let site = site_with(&world, limits.retry(RetryPolicy::default().with_attempts(2)));
        acquainted(&world, &site);
        world.write("f", "x");
        world.proxy.add(Rule::new(Fault::Drip(Duration::from_millis(40))).method("PUT"));
        let report = rescan(&world, &site);
        assert_eq!((report.failed_count, report.failed[0].kind()), (1, ErrorKind::Timeout), "{report:?}");
        world.proxy.clear_rules();
        heals(&world, &site);
    });
}

/// Everything that is answered is cut off somewhere, and nothing of it is believed.
#[test]
fn n04_answers_that_are_cut_off_are_not_believed() {
    both(|world| {
        let site = site_with(&world, world.s3_config());
        acquainted(&world, &site);
        for n in 0..4 {
            world.write(&format!("f{n}"), "x");
        }
        world.proxy.add(Rule::new(Fault::TruncateAnswer(30)).times(3));
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 3));
        world.proxy.add(Rule::new(Fault::TruncateAnswer(300)).method("GET").times(1));
        let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
        assert_eq!(report.verified.unwrap().matching, 5);
        heals(&world, &site);
    });
}

/// A store that is busy for half a minute costs no file: the waits are the policy's, on the clock's own time.
#[test]
fn n05_burst_of_30_seconds_costs_no_file() {
    for world in [World::with_workers(8), World::over_tls(8)] {
        let site = site_with(&world, world.s3_config());
        acquainted(&world, &site);
        for n in 0..40 {
            world.write(&format!("f{n:02}"), format!("{n}"));
        }
        let (clock, began) = (world.clock.clone(), world.clock.now());
        let busy = move |_: &Headers| clock.now().saturating_sub(began) < Duration::from_secs(30);
        let kinds =
            [answer(503, "SlowDown"), answer(503, "ServiceUnavailable"), answer(429, "TooManyRequests")];
        for (n, fault) in kinds.into_iter().enumerate() {
            let rule = Rule::new(fault).method("PUT").when(busy.clone());
            world.proxy.add(if n < 2 { rule.one_of(2, 7) } else { rule });
        }
        // How many it has at a time, while it is busy and afterwards.
        let most = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let (seen, proxy, counted) = (AtomicUsize::new(0), world.proxy.watch(), most.clone());
        world.proxy.on_request(move |_| {
            let number = seen.fetch_add(1, Ordering::SeqCst);
            // The first ones went out together, before the store had said anything.
            if number > 20 {
                let phase = usize::from(!busy(&[]));
                counted[phase].fetch_max(proxy.under_way(), Ordering::SeqCst);
            }
        });
        let report = rescan(&world, &site);
        let [during, after] = [0, 1].map(|phase| most[phase].load(Ordering::SeqCst));
        assert!(during <= 2 && after > during, "{during} at a time while it was busy, {after} afterwards");
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 40));
        assert!(world.clock.now().saturating_sub(began) >= Duration::from_secs(30));
        heals(&world, &site);
    }
}

#[test]
fn n05_date_in_retry_after_is_waited_for() {
    let world = World::with_workers(1);
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    world.write("f", "x");
    let date = |seconds| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let headers = vec![("Date".to_owned(), date(1_000_000)), ("Retry-After".to_owned(), date(1_000_040))];
    world.proxy.add(Rule::new(Fault::Answer(503, headers, Vec::new())).method("PUT").times(1));
    let began = world.clock.now();
    assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Published);
    let waited = world.clock.now().saturating_sub(began).as_secs();
    assert!((40..=45).contains(&waited), "{waited} s");
}

/// The store refuses while the body is still being sent, and closes: what it said is what the caller sees.
#[test]
fn n13_early_refusal_is_heard() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    world.write_random("f", 14 * MIB, 1);
    let body = b"<Error><Code>EntityTooLarge</Code><Message>too large for us</Message></Error>".to_vec();
    world.proxy.add(Rule::new(Fault::EarlyAnswer(400, body)).method("PUT"));
    let report = rescan(&world, &site);
    assert_eq!((report.failed_count, report.failed[0].kind()), (1, ErrorKind::TooLarge), "{report:?}");
    assert!(report.failed[0].to_string().contains("too large for us"), "{}", report.failed[0]);
    world.proxy.clear_rules();
    heals(&world, &site);
}

/// Over TLS an answer before the end of a body is heard, or lost to the reset; then the error says so.
#[test]
fn n13_early_refusal_over_tls_is_heard_or_said_to_be_lost() {
    let world = World::over_tls(2);
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
    acquainted(&world, &site);
    world.write_random("f", 14 * MIB, 1);
    let body = b"<Error><Code>EntityTooLarge</Code><Message>too large for us</Message></Error>".to_vec();
    world.proxy.add(Rule::new(Fault::EarlyAnswer(400, body)).method("PUT"));
    let report = rescan(&world, &site);
    let text = report.failed[0].to_string();
    let lost = text.contains("closed the connection before it had received the whole body");
    assert!(lost || text.contains("too large for us"), "{text}");
    world.proxy.clear_rules();
    heals(&world, &site);
}

/// Its answer is lost to the reset: one small request finds out whether the credentials are the cause.
#[test]
fn n13_reset_while_sending_asks_whether_the_credentials_are_the_cause() {
    both(|world| {
        let site = site_with(&world, world.s3_config());
        acquainted(&world, &site);
        world.write_random("f", 14 * MIB, 1);
        world.proxy.add(Rule::new(Fault::ResetInBody(100_000)).method("PUT"));
        world.proxy.add(Rule::new(answer(403, "ExpiredToken")).method("GET").skip(1));
        let report = rescan(&world, &site);
        assert_eq!((report.stop_reason, report.failed_count), (Some(StopReason::Credentials), 1));
        assert_eq!(report.failed[0].kind(), ErrorKind::Credentials, "{}", report.failed[0]);
        let puts = world.proxy.requests().iter().filter(|seen| seen.method == "PUT").count();
        assert_eq!(puts, 1, "before the retries are spent");
        world.proxy.clear_rules();
        world.proxy.add(Rule::new(Fault::ResetInBody(100_000)).method("PUT"));
        let report = rescan(&world, &site);
        let text = report.failed[0].to_string();
        assert!(text.contains("closed the connection before it had received the whole body"), "{text}");
        world.proxy.clear_rules();
        heals(&world, &site);
    });
}

/// A success before the body was read cannot be one.
#[test]
fn n13_early_success_is_not_believed() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    let bytes = world.write_random("f", 14 * MIB, 1);
    world.proxy.add(Rule::new(Fault::EarlyAnswer(200, Vec::new())).method("PUT").times(2));
    let report = rescan(&world, &site);
    assert_eq!(report.outcome, RescanOutcome::Published);
    assert_eq!(world.objects()["f"], bytes);
}

/// The body lies in the system's buffers when the reset comes, and it is one all the same.
#[test]
fn n13_reset_of_a_body_that_was_written_at_once_is_told_and_heeded() {
    both(|world| {
        let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(1)));
        acquainted(&world, &site);
        world.write_random("f", 300_000, 1);
        world.proxy.add(Rule::new(Fault::ResetInBody(1000)).method("PUT"));
        world.proxy.add(Rule::new(answer(403, "ExpiredToken")).method("GET").skip(1));
        let report = rescan(&world, &site);
        assert_eq!((report.stop_reason, report.failed_count), (Some(StopReason::Credentials), 1));
        assert_eq!(report.failed[0].kind(), ErrorKind::Credentials, "{}", report.failed[0]);
        world.proxy.clear_rules();
        world.proxy.add(Rule::new(Fault::ResetInBody(1000)).method("PUT"));
        let text = rescan(&world, &site).failed[0].to_string();
        assert!(text.contains("closed the connection before it had received the whole body"), "{text}");
        world.proxy.clear_rules();
        heals(&world, &site);
    });
}

/// One request in six fails in one way or another, over and over: each run gets further, and the end is right.
#[test]
fn faults_by_chance_converge() {
    both(|world| {
        for seed in 0..4 {
            let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(3)));
            for n in 0..25 {
                world.write(&format!("d{}/f{n:02}", n % 4), format!("{seed} {n}"));
            }
            world.write_random("large", 17 * MIB, seed);
            if seed > 0 {
                world.remove(&format!("gone{}", seed - 1));
            }
            world.write(&format!("gone{seed}"), "x");
            for (n, fault) in [
                Fault::ResetBefore,
                Fault::DropAnswer,
                answer(500, "InternalError"),
                answer(503, "SlowDown"),
                Fault::CloseIdle,
            ]
            .into_iter()
            .enumerate()
            {
                world.proxy.add(Rule::new(fault).one_of(30, seed * 10 + n as u64).when(|_| true));
            }
            world.lost_begins.store(true, Ordering::SeqCst);
            if let Ok(report) = site.rescan() {
                check(&world, &site, &report);
            }
            world.proxy.clear_rules();
            rescan(&world, &site);
            assert_eq!(world.keys().len(), 27);
        }
    });
}
