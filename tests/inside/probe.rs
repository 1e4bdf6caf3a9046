//! The probe: stores that keep conditions pass, and those that only say so do not.

use std::time::Duration;

use super::support::memory_store::Conditional;
use super::support::proxy::{Fault, Rule};
use super::{InMemory, Site, answer, on_both};
use crate::backend::ProbeResult;
use crate::error::ErrorKind;

fn probe(site: &Site) -> ProbeResult {
    let result = site.state().probe(&site.context()).unwrap();
    assert_eq!(site.keys(), Vec::<String>::new(), "the probe removes its objects");
    result
}

fn cheaply(site: &Site) -> Option<String> {
    let result = site.state().probe_cheaply(&site.context()).unwrap();
    assert_eq!(site.keys(), Vec::<String>::new(), "the probe removes its objects");
    result
}

fn kept(result: &ProbeResult) -> [bool; 3] {
    assert_eq!(result.why.is_none(), result.create && result.replace && result.delete, "{result:?}");
    [result.create, result.replace, result.delete]
}

#[test]
fn honest_store_passes() {
    on_both(|site| {
        let result = probe(site);
        assert_eq!(kept(&result), [true; 3], "{result:?}");
        let requests = site.requests();
        println!("{} requests", requests.len());
        assert!(requests.len() <= 60, "{}", requests.len());
        let below = |target: &str| target.contains("/site/.brigade/probe-") || target.ends_with("?delete=");
        assert!(requests.iter().all(|seen| below(&seen.target)), "{requests:?}");
        assert_eq!(cheaply(site), None);
        assert_eq!(site.methods(), ["PUT", "PUT", "PUT", "DELETE"]);
    });
}

#[test]
fn store_that_ignores_conditions_fails() {
    let memory = InMemory::new();
    memory.store.ignores_conditions(true);
    let result = probe(&memory.site);
    assert_eq!(kept(&result), [false; 3]);
    let why = result.why.unwrap();
    assert!(why.contains("8 of 8 PUTs with If-None-Match: *"), "{why}");
    let why = cheaply(&memory.site).unwrap();
    assert!(why.contains("of a key that exists was stored"), "{why}");
}

#[test]
fn store_that_checks_and_stores_in_two_steps_fails() {
    let memory = InMemory::new();
    memory.store.honours_without_atomicity(Some(Duration::from_secs(2)));
    let result = probe(&memory.site);
    assert!(!kept(&result)[0] && result.why.unwrap().contains("at the same time"));
    // The cheap half cannot find that out.
    assert_eq!(cheaply(&memory.site), None);
}

#[test]
fn each_operation_that_ignores_conditions_is_found() {
    for (operation, expected, says) in [
        (Conditional::Put, [false, false, true], "of 8 PUTs"),
        (Conditional::Delete, [true, true, false], "DELETE with If-Match deleted"),
        (Conditional::DeleteMany, [true, true, false], "DeleteObjects with an ETag deleted"),
    ] {
        let memory = InMemory::new();
        memory.store.ignores_conditions_of(&[operation]);
        let result = probe(&memory.site);
        assert_eq!(kept(&result), expected, "{operation:?} {result:?}");
        assert!(result.why.as_ref().unwrap().contains(says), "{result:?}");
    }
}

#[test]
fn store_that_does_not_know_conditions_fails_with_its_answer() {
    let memory = InMemory::new();
    let conditional = |name: &'static str| {
        Rule::new(answer(501, "NotImplemented"))
            .when(move |headers| headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name)))
    };
    memory.site.proxy.add(conditional("if-none-match"));
    let result = probe(&memory.site);
    assert_eq!(kept(&result), [false, true, true], "{result:?}");
    assert!(result.why.unwrap().contains("NotImplemented"));
    assert!(cheaply(&memory.site).unwrap().contains("NotImplemented"));
    memory.site.proxy.add(conditional("if-match"));
    assert_eq!(kept(&probe(&memory.site)), [false; 3]);
}

#[test]
fn conflicts_and_lost_answers_do_not_fail_an_honest_store() {
    let memory = InMemory::new();
    memory.store.conflicts(20);
    assert_eq!(kept(&probe(&memory.site)), [true; 3]);
    for seed in 0..3 {
        memory.site.proxy.add(Rule::new(Fault::DropAnswer).method("PUT").one_of(8, seed).times(3));
        let result = probe(&memory.site);
        assert!(result.create, "{result:?}");
        memory.site.proxy.clear_rules();
    }
}

#[test]
fn probe_that_cannot_reach_the_store_is_an_error_and_no_result() {
    let memory = InMemory::new();
    memory.site.proxy.add(Rule::new(answer(403, "AccessDenied")).method("PUT"));
    let error = memory.site.state().probe(&memory.site.context()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    let error = memory.site.state().probe_cheaply(&memory.site.context()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
}
