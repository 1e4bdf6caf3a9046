//! Uploads and deletes on conditions: who else changed the object, and what is our own earlier try.

use super::support::proxy::{Fault, Rule};
use super::{InMemory, STALE, Site, answer, matches, on_both};
use crate::backend::Condition;
use crate::error::{ErrorKind, StorageError};

/// Checks that an error is the conflict of an object that has another `ETag` now.
fn is_conflict(error: &StorageError, was: &str, now: &str) {
    assert_eq!((error.kind(), error.kind().code()), (ErrorKind::Conflict, 30), "{error}");
    assert!(!error.is_retryable() && !error.kind().is_transient() && !error.kind().is_outage(), "{error}");
    let text = error.to_string();
    assert!(text.contains("somebody else changed the object since it was published"), "{text}");
    assert!(text.contains(&format!("its ETag was {was}, and is {now} now")), "{text}");
}

/// An upload in one request, or in parts. Returns the `ETag`.
type Send = fn(&Site, &str, &str, &Condition) -> Result<String, StorageError>;
const SENDS: [Send; 2] = [
    |site, key, content, condition| Ok(site.upload(key, content, condition)?.etag.unwrap()),
    |site, key, content, condition| Ok(site.upload_parts(key, content, condition)?.receipt.etag.unwrap()),
];

#[test]
fn upload_creates_and_replaces_on_its_condition() {
    on_both(|site| {
        for (key, send) in ["d/put", "d/parts"].into_iter().zip(SENDS) {
            let first = send(site, key, "one", &Condition::Absent).unwrap();
            assert_eq!(site.etag(key).as_ref(), Some(&first));
            let second = send(site, key, "two", &matches(&first)).unwrap();
            let error = send(site, key, "three", &matches(&first)).unwrap_err();
            is_conflict(&error, &first, &second);
            assert!(!error.may_have_taken_effect() && error.key() == Some(key), "{error}");
            is_conflict(&send(site, key, "three", &Condition::Absent).unwrap_err(), "none", &second);
            assert_eq!(site.content(key).unwrap(), "two");
        }
    });
}

#[test]
fn upload_without_condition_replaces_anything_and_says_no_condition() {
    on_both(|site| {
        site.others_put("k", "theirs");
        for send in SENDS {
            send(site, "k", "ours", &Condition::None).unwrap();
        }
        let conditional = |name: &str| name.starts_with("if-");
        for seen in site.requests() {
            assert!(!seen.headers.iter().any(|(name, _)| conditional(&name.to_lowercase())), "{seen:?}");
        }
    });
}

/// The object was deleted: there is nobody to conflict with. `SeaweedFS` answers 412, the store in memory 404, as AWS.
#[test]
fn upload_that_replaces_what_is_gone_creates_it() {
    on_both(|site| {
        for (key, send) in ["d/put", "d/parts"].into_iter().zip(SENDS) {
            let etag = send(site, key, "one", &matches(STALE)).unwrap();
            assert_eq!((site.etag(key), site.content(key)), (Some(etag), Some("one".to_owned())));
        }
    });
}

#[test]
fn lost_answer_to_our_own_upload_is_no_conflict() {
    on_both(|site| {
        for (key, send, method) in [("d/put", SENDS[0], "PUT"), ("d/parts", SENDS[1], "POST")] {
            let mut condition = Condition::Absent;
            for content in ["one", "two", "three"] {
                // A multipart upload is begun by a POST, too.
                site.proxy.add(
                    Rule::new(Fault::DropAnswer).method(method).skip(u64::from(method == "POST")).times(1),
                );
                let etag = send(site, key, content, &condition).unwrap();
                assert_eq!(
                    (site.etag(key).as_ref(), site.content(key).as_deref()),
                    (Some(&etag), Some(content))
                );
                site.proxy.clear_rules();
                condition = matches(&etag);
            }
        }
    });
}

#[test]
fn what_another_run_of_ours_sent_is_wanted_and_what_others_sent_is_not() {
    on_both(|site| {
        let first = site.upload("ours", "same", &Condition::Absent).unwrap().etag;
        let again = site.upload("ours", "same", &Condition::Absent).unwrap();
        assert_eq!(again.etag, first);
        assert_eq!(site.methods(), ["PUT", "PUT", "HEAD"]);
        let theirs = site.others_put("theirs", "same");
        is_conflict(&site.upload("theirs", "same", &Condition::Absent).unwrap_err(), "none", &theirs);
        // A copy has the proof of the key that it was copied from.
        let proof = site.client.head("site/ours", &[]).header("x-amz-meta-brigade").unwrap().to_owned();
        let copy = site.client.put("site/copy", "same", &[("x-amz-meta-brigade", &proof)]);
        let error = site.upload("copy", "same", &Condition::Absent).unwrap_err();
        is_conflict(&error, "none", copy.etag().trim_matches('"'));
    });
}

/// The answer was lost, somebody else replaced the object, and only then it was sent again.
#[test]
fn upload_that_was_replaced_before_its_second_try_is_a_conflict() {
    let memory = InMemory::new();
    let site = &memory.site;
    let store = memory.store.clone();
    let puts = std::sync::atomic::AtomicU32::new(0);
    site.proxy.on_request(move |seen| {
        if seen.method == "PUT" && puts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            store.put_raw("site/k", "theirs");
        }
    });
    site.once("PUT", Fault::DropAnswer);
    let error = site.upload("k", "ours", &Condition::Absent).unwrap_err();
    is_conflict(&error, "none", &site.etag("k").unwrap());
    assert!(error.may_have_taken_effect(), "the first try may have");
    assert_eq!(site.content("k").unwrap(), "theirs");
}

#[test]
fn deletes_keep_the_condition_of_each_key() {
    on_both(|site| {
        let etags = ["a", "b", "c"].map(|key| site.others_put(key, key));
        let alone = site.delete(&[("a", matches(STALE))]);
        is_conflict(alone[0].as_ref().unwrap_err(), STALE, &etags[0]);
        let keys =
            [("a", matches(&etags[0])), ("b", matches(STALE)), ("c", Condition::None), ("d", matches(STALE))];
        let results = site.delete(&keys);
        assert_eq!(site.keys(), ["b"]);
        is_conflict(results[1].as_ref().unwrap_err(), STALE, &etags[1]);
        // What is gone needs no delete.
        assert!(results[0].is_ok() && results[2].is_ok() && results[3].is_ok(), "{results:?}");
        for condition in [matches(&etags[1]), matches(&etags[1]), Condition::None] {
            site.delete(&[("b", condition)]).remove(0).unwrap();
        }
        assert_eq!(site.keys(), Vec::<String>::new());
    });
}

#[test]
fn delete_of_what_should_be_absent_looks_and_sends_nothing() {
    on_both(|site| {
        let etag = site.others_put("theirs", "x");
        let results = site.delete(&[("theirs", Condition::Absent), ("none", Condition::Absent)]);
        is_conflict(results[0].as_ref().unwrap_err(), "none", &etag);
        assert!(results[1].is_ok());
        assert_eq!(site.methods(), ["HEAD", "HEAD"]);
    });
}

#[test]
fn lost_answer_to_our_own_delete_is_no_conflict() {
    on_both(|site| {
        let etags = ["a", "b", "c"].map(|key| site.others_put(key, key));
        site.once("DELETE", Fault::DropAnswer);
        site.delete(&[("a", matches(&etags[0]))]).remove(0).unwrap();
        site.once("POST", Fault::DropAnswer);
        for result in site.delete(&[("b", matches(&etags[1])), ("c", matches(&etags[2]))]) {
            result.unwrap();
        }
        assert_eq!(site.keys(), Vec::<String>::new());
    });
}

#[test]
fn store_without_bulk_delete_gets_the_conditions_one_by_one() {
    let memory = InMemory::new();
    memory.store.lacks_bulk_delete(true);
    let (a, b) = (memory.site.others_put("a", "a"), memory.site.others_put("b", "b"));
    let results = memory.site.delete(&[("a", matches(&a)), ("b", matches(STALE))]);
    results[0].as_ref().unwrap();
    is_conflict(results[1].as_ref().unwrap_err(), STALE, &b);
    assert_eq!(memory.site.keys(), ["b"]);
}

/// AWS answers 409 to writes that race. They are tried again, as often as after a server error.
#[test]
fn racing_writes_are_tried_again_and_not_for_ever() {
    let memory = InMemory::new();
    let site = &memory.site;
    for send in SENDS {
        memory.store.conflicts(3);
        let etag = send(site, "k", "one", &Condition::Absent).unwrap();
        memory.store.conflicts(3);
        site.delete(&[("k", matches(&etag))]).remove(0).unwrap();
        memory.store.conflicts(1000);
        let error = send(site, "k", "one", &Condition::Absent).unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Server, 6), "{error}");
        assert_eq!(error.code(), Some("ConditionalRequestConflict"));
        assert_eq!(site.keys(), Vec::<String>::new());
        memory.store.conflicts(0);
    }
    let (a, b) = (site.others_put("a", "a"), site.others_put("b", "b"));
    memory.store.conflicts(3);
    for result in site.delete(&[("a", matches(&a)), ("b", matches(&b))]) {
        result.unwrap();
    }
    let a = site.others_put("a", "a");
    memory.store.conflicts(1000);
    for keys in [&[("a", matches(&a)), ("b", matches(&a))][..], &[("a", matches(&a))]] {
        let error = site.delete(keys).remove(0).unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Server, 6), "{error}");
    }
    assert_eq!(site.keys(), ["a"]);
}

/// Without the permission to look, nobody can say whose the object is.
#[test]
fn conflict_that_cannot_be_looked_at_names_the_permission() {
    on_both(|site| {
        let etag = site.others_put("k", "theirs");
        site.proxy.add(Rule::new(answer(403, "AccessDenied")).method("HEAD"));
        let sent = SENDS.map(|send| send(site, "k", "ours", &Condition::Absent).map(drop));
        let deleted = site.delete(&[("k", matches(STALE))]).remove(0);
        for error in sent.into_iter().chain([deleted]).map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert!(error.to_string().contains("s3:GetObject and s3:ListBucket are needed"), "{error}");
            assert!(!error.may_have_taken_effect());
        }
        site.once("PUT", Fault::DropAnswer);
        let error = site.upload("k", "ours", &matches(&etag)).unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.may_have_taken_effect(), "{error}");
    });
}
