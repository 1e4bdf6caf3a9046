//! D3: a publisher stalls (SIGSTOP) at each of its writes, beyond its lease. Another one takes over; then the first wakes.

use std::time::{Duration, Instant};

use bucket_brigade::StopReason;
use rustix::process::Signal;
use time::OffsetDateTime;

use crate::publishers::killed::{Lands, another, changed_tree, has_intents, settles};
use crate::publishers::{PUBLISHED, UNCHANGED, outcome, published, said, wait_for};
use crate::support::World;
use crate::support::proxy::{Fault, HeldRequest, Rule, Seen};

/// The lease of the publisher that stalls, in seconds. Long enough for one that is slow.
const LEASE: u64 = 10;
/// More writes than a run has.
const MOST: u64 = 12;

/// Whether a request writes or deletes an object, or a part of one. To abort one's own upload is no such thing.
fn writes_data(seen: &Seen) -> bool {
    let aborts = seen.method == "DELETE" && seen.target.contains("?uploadId=");
    !matches!(seen.method.as_str(), "GET" | "HEAD") && !seen.target.contains("/.brigade/") && !aborts
}

/// Whether a request was signed after this time. What was signed before is under way, even if it arrives later.
fn is_signed_after(seen: &Seen, time: OffsetDateTime) -> bool {
    let day = format!("{:04}{:02}{:02}", time.year(), u8::from(time.month()), time.day());
    let limit = format!("{day}T{:02}{:02}{:02}Z", time.hour(), time.minute(), time.second());
    seen.header("x-amz-date").unwrap() > limit.as_str()
}

/// Whether the run was stopped before its end.
fn stopped_at(k: u64, lands: Lands) -> bool {
    let case = format!("stopped at {k}, {lands:?}");
    let world = World::new();
    let one = changed_tree(&world);
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).writes().skip(k - 1).times(1));
    let mut process = one.spawn(LEASE, 0);
    if !process.is_held(&held) {
        assert_eq!(said(&process.end().unwrap()), ("published", "none"), "{case}");
        return false;
    }
    process.send(Signal::STOP);
    let (began, at) = (Instant::now(), OffsetDateTime::now_utc());
    if lands == Lands::BeforeTakeover {
        held.go.release();
        assert!(held.landed.wait());
    }
    let was_claimed = has_intents(&world);
    // The dates of answers do not tell the first one: its own clocks do.
    world.store.advance_clock(Duration::from_secs(LEASE + 40));
    let two = another(&world, k.is_multiple_of(2));
    let mut report = two.publish();
    if report.stop_reason == Some(StopReason::Claimed) {
        // A renewal that was under way has arrived since.
        world.store.advance_clock(Duration::from_secs(LEASE + 40));
        report = two.publish();
    }
    assert_eq!(outcome(&report), PUBLISHED, "{case} {:?}", report.failed);
    assert_eq!(report.state.unwrap().in_doubt, u64::from(was_claimed), "{case}");
    let half = Duration::from_millis(LEASE * 500 + 100);
    wait_for("half of the lease to end", || began.elapsed() > half);
    world.proxy.clear_counts();
    process.send(Signal::CONT);
    held.go.release();
    let ended = process.end().expect(&case);
    assert!(held.landed.wait(), "{case}");
    let mut later_writes = world.proxy.requests();
    later_writes.retain(|seen| writes_data(seen) && is_signed_after(seen, at + Duration::from_secs(2)));
    let claims_later = !was_claimed && lands == Lands::AfterTakeover;
    if was_claimed {
        assert_eq!(said(&ended), ("partial", "superseded"), "{case} {ended}");
        assert!(later_writes.is_empty(), "{case} {later_writes:?}");
    } else {
        // It was its claim that was held, so that it had to claim again; or its last request.
        assert_eq!(said(&ended), ("published", "none"), "{case} {ended}");
        assert_eq!(claims_later, !later_writes.is_empty(), "{case} {later_writes:?}");
    }
    wait_for("the connections to end", || world.proxy.open_connections() == 0);
    settles(&world, if claims_later { &one } else { &two }, &case);
    let report = one.publish();
    assert!([PUBLISHED, UNCHANGED].contains(&outcome(&report)), "{case} {:?}", report.failed);
    assert!(published(&world) == one.tree(), "{case} {:?}", published(&world).keys());
    true
}

/// At all writes side by side: most of the time is spent waiting for leases to end.
fn at_each_write(lands: Lands) {
    let stopped = std::thread::scope(|threads| {
        let runs: Vec<_> = (1..=MOST).map(|k| threads.spawn(move || stopped_at(k, lands))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).filter(|stopped| *stopped).count()
    });
    assert!((8..MOST as usize).contains(&stopped), "{stopped}");
    println!("stopped {stopped} times, {lands:?}");
}

#[test]
fn d03_publisher_that_wakes_after_a_takeover_begins_nothing() {
    at_each_write(Lands::BeforeTakeover);
}

#[test]
fn d03_what_a_stalled_publisher_had_sent_lands_after_the_takeover() {
    at_each_write(Lands::AfterTakeover);
}
