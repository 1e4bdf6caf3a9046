//! Publishers one after another on the store in memory and on `SeaweedFS`, on real clocks: all that needs no store whose
//! clock can be put forward.

use std::time::{Duration, Instant};

use bucket_brigade::{ErrorKind, OnConflict, RemoteState, RescanOutcome, StopReason};

use crate::publishers::together::{Stage, on_both};
use crate::publishers::{LARGE, PUBLISHED, Publisher, UNCHANGED, outcome};
use crate::store_conditions::{done, holds};
use crate::support::proxy::{Fault, HeldRequest, Rule};
use crate::support::{PREFIX, random_bytes};

const HEAD: &str = "site/.brigade/head";

/// The requests since the last call: `GET site/.brigade/head`.
fn requests(stage: &Stage) -> Vec<String> {
    let bucket = format!("/{}/", stage.place.bucket);
    let seen = stage.proxy.requests();
    stage.proxy.clear_counts();
    let line = |target: &str| target.split('?').next().unwrap().replacen(&bucket, "", 1);
    seen.iter().map(|seen| format!("{} {}", seen.method, line(&seen.target))).collect()
}

fn state() -> RemoteState {
    RemoteState::new()
}

/// A machine that has published.
fn published(stage: &Stage, files: &[(&str, &str)]) -> Publisher {
    let one = Publisher::new(&stage.place, files);
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    one
}

fn one_goes_on_where_another_ended(stage: &Stage) {
    let one = Publisher::new(&stage.place, &[("a", "1"), ("b", "1")]);
    one.write("large", random_bytes(LARGE, 1));
    let report = one.publish();
    assert_eq!((outcome(&report), report.uploaded_count), (PUBLISHED, 3), "{report:?}");
    assert_eq!(stage.objects(), one.tree());
    // The same tree on another machine costs the head.
    let two = Publisher::new(&stage.place, &[("a", "1"), ("b", "1")]);
    two.write("large", random_bytes(LARGE, 1));
    requests(stage);
    assert_eq!(outcome(&two.publish()), UNCHANGED);
    assert_eq!(requests(stage), ["GET site/.brigade/head"]);
    // A new file, two changed ones, one that is gone.
    two.write("large", random_bytes(LARGE, 2));
    two.write("a", "2");
    two.write("new", "2");
    two.remove("b");
    let report = two.publish();
    assert_eq!((outcome(&report), report.uploaded_count, report.deleted_count), (PUBLISHED, 3, 1));
    assert_eq!(stage.objects(), two.tree());
    let report = one.publish();
    assert_eq!((outcome(&report), report.state.unwrap().generation), (PUBLISHED, 3));
    assert_eq!(stage.objects(), one.tree());
    let uploads = stage.client.send("GET", "", &[("uploads", "")], &[], b"");
    assert_eq!(uploads.elements("UploadId"), Vec::<String>::new());
}

fn foreign_changes_are_conflicts(stage: &Stage) {
    let one = published(stage, &[("a", "1"), ("b", "1"), ("c", "1"), ("large", "1")]);
    for key in ["b", "c", "new", "large"] {
        done(&stage.client.put(&format!("{PREFIX}{key}"), "theirs", &[]));
    }
    for key in ["a", "b", "new"] {
        one.write(key, "2");
    }
    one.write("large", random_bytes(LARGE, 1));
    one.remove("c");
    let report = one.publish();
    assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Partial, 3), "{report:?}");
    assert!(report.failed.iter().all(|error| error.kind() == ErrorKind::Conflict), "{:?}", report.failed);
    holds(&stage.client, "site/a", "2");
    for key in ["b", "c", "new", "large"] {
        holds(&stage.client, &format!("{PREFIX}{key}"), "theirs");
    }
    let report = one.publish_with(state().on_conflict(OnConflict::Overwrite));
    // What is to be deleted is theirs even so.
    assert_eq!((report.uploaded_count, report.failed_count), (3, 1), "{:?}", report.failed);
    holds(&stage.client, "site/c", "theirs");
    done(&stage.client.delete("site/c", &[]));
    let report = one.publish();
    assert!([PUBLISHED, UNCHANGED].contains(&outcome(&report)), "{report:?}");
    assert_eq!(stage.objects(), one.tree());
    requests(stage);
    assert_eq!(outcome(&one.publish()), UNCHANGED);
    assert_eq!(requests(stage), ["GET site/.brigade/head"]);
}

fn claim_is_taken_over_on_purpose(stage: &Stage) {
    let one = published(stage, &[("a", "1"), ("b", "1")]);
    let two = Publisher::new(&stage.place, &[("a", "3"), ("b", "1"), ("c", "3")]);
    one.write("a", "2");
    let held = HeldRequest::default();
    stage
        .proxy
        .add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/a").times(1));
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish_with(state().publisher("runner 1")));
        assert!(held.go.wait_for_arrivals(1));
        let report = two.publish();
        assert_eq!(report.stop_reason, Some(StopReason::Claimed), "{report:?}");
        assert_eq!(report.state.unwrap().claimed_by.unwrap().who, "runner 1");
        let report = two.publish_with(state().take_over(true));
        assert_eq!((outcome(&report), report.state.unwrap().in_doubt), (PUBLISHED, 1));
        held.go.release();
        let report = first.join().unwrap();
        assert_eq!(report.stop_reason, Some(StopReason::Superseded), "{report:?}");
    });
    assert_eq!(stage.objects(), two.tree());
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    assert_eq!(stage.objects(), one.tree());
}

fn older_build_is_refused(stage: &Stage) {
    let one = Publisher::new(&stage.place, &[("a", "1")]);
    assert_eq!(outcome(&one.publish_with(state().order(7))), PUBLISHED);
    let two = Publisher::new(&stage.place, &[("a", "2")]);
    requests(stage);
    let report = two.publish_with(state().order(6));
    let refused = (RescanOutcome::Partial, Some(StopReason::Claimed), 0);
    assert_eq!((outcome(&report), report.state.unwrap().newer_order), (refused, Some(7)));
    let sent = requests(stage);
    assert!(sent.iter().all(|line| !line.starts_with("PUT") && !line.starts_with("DELETE")), "{sent:?}");
    assert_eq!(stage.objects(), one.tree());
    assert_eq!(outcome(&two.publish_with(state().order(8))), PUBLISHED);
    assert_eq!(outcome(&one.publish_with(state().order(2).reset_order(true))), PUBLISHED);
    assert_eq!(stage.objects(), one.tree());
}

/// Nothing is sent before one lease is over: another run may be publishing. A lease of a second or two could end with the
/// next `Date`, which has whole seconds.
fn lost_state_is_made_anew(stage: &Stage, damage: &str) {
    const LEASE: Duration = Duration::from_secs(6);
    let one = published(stage, &[("a", "1"), ("b", "1"), ("theirs", "1")]);
    let two = Publisher::new(&stage.place, &[("a", "1"), ("b", "2"), ("c", "2")]);
    if damage == "gone" {
        done(&stage.client.delete(HEAD, &[]));
    } else {
        done(&stage.client.put(HEAD, damage, &[]));
    }
    let began = Instant::now();
    let report = two.publish_with(state().lease(LEASE));
    assert_eq!((outcome(&report), report.deleted_count), (PUBLISHED, 0), "{damage} {report:?}");
    assert!(began.elapsed() >= LEASE, "{damage} {report:?}");
    // Without a cache nobody knows that there was a head.
    assert_eq!(report.state.unwrap().was_lost, damage != "gone", "{damage}");
    assert_eq!((report.uploaded_count, report.adopted_count), (2, 1), "{damage}");
    let mut expected = two.tree();
    expected.insert("theirs".to_owned(), b"1".to_vec());
    assert_eq!(stage.objects(), expected, "{damage}");
    requests(stage);
    assert_eq!(outcome(&two.publish()), UNCHANGED, "{damage}");
    assert_eq!(requests(stage), ["GET site/.brigade/head"], "{damage}");
    // Its cache is of another line of heads.
    assert_eq!(outcome(&one.publish_with(state().lease(LEASE))), PUBLISHED, "{damage}");
    assert_eq!(stage.objects(), one.tree(), "{damage}");
}

#[test]
fn one_machine_goes_on_where_another_ended_on_both_stores() {
    on_both(one_goes_on_where_another_ended);
}

#[test]
fn d07_foreign_changes_are_conflicts_on_both_stores() {
    on_both(foreign_changes_are_conflicts);
}

#[test]
fn d03_claim_is_taken_over_on_purpose_on_both_stores() {
    on_both(claim_is_taken_over_on_purpose);
}

#[test]
fn d06_older_build_is_refused_on_both_stores() {
    on_both(older_build_is_refused);
}

#[test]
fn d05_state_without_a_head_is_made_anew_on_both_stores() {
    on_both(|stage| lost_state_is_made_anew(stage, "gone"));
}

#[test]
fn d05_damaged_state_is_made_anew_on_both_stores() {
    on_both(|stage| lost_state_is_made_anew(stage, "not a head"));
}
