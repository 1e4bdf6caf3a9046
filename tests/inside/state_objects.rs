//! The small objects of the state, and what may come in their place.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::support::proxy::{Fault, Rule};
use super::{InMemory, STALE, Site, answer, digest_of, key_of, matches, on_both, scratch, sha256_of};
use crate::backend::{Condition, Fetched, FoundState, Modified, PutSmall};
use crate::error::{ErrorKind, StorageError};

const HEAD: &str = ".brigade/head";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn stored(put: Result<PutSmall, StorageError>) -> (String, bool) {
    match put.unwrap() {
        PutSmall::Stored { etag, unanswered } => (etag, unanswered),
        PutSmall::Refused { .. } => panic!("refused"),
    }
}

fn found(site: &Site) -> (String, String) {
    match site.get_small(HEAD, 1000, None).unwrap() {
        Fetched::Found { bytes, etag, modified } => {
            assert!(modified.abs_diff(now()) < 60, "{modified}");
            (String::from_utf8(bytes).unwrap(), etag)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn small_object_is_created_read_replaced_and_deleted() {
    on_both(|site| {
        assert_eq!(site.get_small(HEAD, 10, None).unwrap(), Fetched::Missing);
        assert_eq!(site.get_small(HEAD, 10, Some(STALE)).unwrap(), Fetched::Missing);
        let (first, unanswered) = stored(site.put_small(HEAD, "one", &Condition::Absent));
        assert!(!unanswered);
        assert_eq!(found(site), ("one".to_owned(), first.clone()));
        let refused = PutSmall::Refused { unanswered: false };
        assert_eq!(site.put_small(HEAD, "two", &Condition::Absent).unwrap(), refused);
        assert_eq!(site.put_small(HEAD, "two", &matches(STALE)).unwrap(), refused);
        assert_eq!(site.get_small(HEAD, 10, Some(&first)).unwrap(), Fetched::NotModified);
        let (second, _) = stored(site.put_small(HEAD, "two", &matches(&first)));
        assert_eq!(site.put_small(HEAD, "three", &matches(&first)).unwrap(), refused);
        assert!(matches!(site.get_small(HEAD, 10, Some(&first)).unwrap(), Fetched::Found { .. }));
        assert_eq!(found(site), ("two".to_owned(), second));
        for _ in 0..2 {
            site.state().delete_small(&site.context(), &key_of(HEAD)).unwrap();
        }
        assert_eq!(site.put_small(HEAD, "four", &matches(&first)).unwrap(), refused, "gone is refused, too");
        assert_eq!(site.keys(), Vec::<String>::new());
    });
}

#[test]
fn head_is_found_whatever_it_holds_and_a_marker_says_where_the_state_lies() {
    on_both(|site| {
        let find = || site.state().find_head(&site.context()).unwrap();
        assert_eq!(find(), None);
        for (text, place) in [
            ("{\"format\": 1}".to_owned(), FoundState::Here),
            ("x".repeat(200_000), FoundState::Here),
            (
                "{\"elsewhere\": {\"bucket\": \"b\", \"prefix\": \"p/\"}}".to_owned(),
                FoundState::Elsewhere("s3://b/p/".to_owned()),
            ),
        ] {
            site.others_put(HEAD, &text);
            assert_eq!(find(), Some(place), "{} bytes", text.len());
        }
    });
}

/// Proxies rewrite `Accept-Encoding`, so no signature covers it.
#[test]
fn read_of_a_small_object_asks_for_its_bytes_and_no_copy() {
    on_both(|site| {
        stored(site.put_small(HEAD, "one", &Condition::Absent));
        site.requests();
        found(site);
        let seen = site.requests().remove(0);
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert_eq!(seen.header("cache-control"), Some("no-cache"));
        let signed = seen.header("authorization").unwrap().to_owned();
        assert!(signed.contains("cache-control;") && !signed.contains("accept-encoding"), "{signed}");
    });
}

#[test]
fn refusal_and_what_is_no_answer_of_a_store_are_errors_and_not_missing() {
    let memory = InMemory::new();
    let site = &memory.site;
    let page = || {
        let html = vec![
            ("Content-Type".to_owned(), "text/html".to_owned()),
            ("ETag".to_owned(), "\"x\"".to_owned()),
        ];
        Fault::Answer(200, html, b"<html>log in</html>".to_vec())
    };
    for (fault, kind) in [
        (answer(403, "AccessDenied"), ErrorKind::AccessDenied),
        (Fault::Answer(403, Vec::new(), Vec::new()), ErrorKind::AccessDenied),
        (Fault::Answer(404, Vec::new(), b"not found".to_vec()), ErrorKind::Protocol),
        (answer(404, "NoSuchBucket"), ErrorKind::BucketMissing),
        (page(), ErrorKind::Protocol),
        (Fault::Answer(304, Vec::new(), Vec::new()), ErrorKind::Region),
        (answer(500, "InternalError"), ErrorKind::Server),
    ] {
        site.proxy.add(Rule::new(fault.clone()));
        let error = site.get_small(HEAD, 10, None).unwrap_err();
        assert_eq!((error.kind(), error.key()), (kind, Some(HEAD)), "{fault:?}: {error}");
        let error = site.state().get_to_file(&site.context(), &key_of(HEAD), 3, &mut scratch()).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        site.proxy.clear_rules();
    }
    site.proxy.add(Rule::new(answer(403, "AccessDenied")));
    let error = site.state().modified_of(&site.context(), &key_of(HEAD)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.to_string().contains("s3:ListBucket"), "{error}");
}

#[test]
fn unchanged_must_come_with_the_etag_that_was_asked_for() {
    let memory = InMemory::new();
    let site = &memory.site;
    let (etag, _) = stored(site.put_small(HEAD, "one", &Condition::Absent));
    for headers in [Vec::new(), vec![("ETag".to_owned(), format!("\"{STALE}\""))]] {
        site.proxy.add(Rule::new(Fault::Answer(304, headers, Vec::new())));
        let error = site.get_small(HEAD, 10, Some(&etag)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        site.proxy.clear_rules();
    }
}

#[test]
fn object_that_is_too_long_is_an_error_and_is_not_read_on() {
    on_both(|site| {
        stored(site.put_small(HEAD, "four", &Condition::Absent));
        assert!(matches!(site.get_small(HEAD, 4, None).unwrap(), Fetched::Found { .. }));
        site.requests();
        let error = site.get_small(HEAD, 3, None).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::TooLarge, false), "{error}");
        // A server that sends without end, and is no store: each try ends at the limit.
        site.proxy.add(Rule::new(Fault::Endless(200)));
        let error = site.get_small(HEAD, 1 << 20, None).unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Protocol, 6), "{error}");
    });
}

#[test]
fn weak_etag_or_none_is_an_error() {
    on_both(|site| {
        let (etag, _) = stored(site.put_small(HEAD, "one", &Condition::Absent));
        for fault in [
            Fault::WithHeader("etag", format!("W/\"{etag}\"")),
            Fault::WithoutHeader("etag"),
            Fault::WithoutHeader("last-modified"),
            Fault::WithHeader("content-encoding", "br".to_owned()),
        ] {
            site.proxy.add(Rule::new(fault.clone()));
            let error = site.get_small(HEAD, 10, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{fault:?}: {error}");
            if !format!("{fault:?}").contains("content-encoding") {
                let error = site.state().modified_of(&site.context(), &key_of(HEAD)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Protocol, "{fault:?}: {error}");
            }
            site.proxy.clear_rules();
        }
        site.proxy.add(Rule::new(Fault::WithHeader("etag", "W/\"x\"".to_owned())).method("PUT"));
        let error = site.put_small(HEAD, "two", &matches(&etag)).unwrap_err();
        assert!(error.kind() == ErrorKind::Protocol && error.may_have_taken_effect(), "{error}");
    });
}

#[test]
fn answer_that_is_cut_off_is_read_again() {
    let memory = InMemory::new();
    let site = &memory.site;
    let content = "x".repeat(2000);
    stored(site.put_small(HEAD, &content, &Condition::Absent));
    site.once("GET", Fault::TruncateAnswer(1500));
    let Fetched::Found { bytes, .. } = site.get_small(HEAD, 4000, None).unwrap() else { panic!() };
    assert_eq!(bytes, content.as_bytes());
    site.once("GET", Fault::TruncateAnswer(1500));
    let mut file = scratch();
    let sha256 = site.state().get_to_file(&site.context(), &key_of(HEAD), 2000, &mut file).unwrap();
    assert_eq!((sha256, read_back(file)), (sha256_of(&content), content));
}

fn read_back(mut file: std::fs::File) -> String {
    std::io::Seek::rewind(&mut file).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// The first try was stored: the second is refused because of the first, and the caller is told that this is possible.
#[test]
fn lost_answer_to_a_small_put_is_told() {
    on_both(|site| {
        site.once("PUT", Fault::DropAnswer);
        let put = site.put_small(HEAD, "one", &Condition::Absent).unwrap();
        assert_eq!(put, PutSmall::Refused { unanswered: true });
        let (content, etag) = found(site);
        assert_eq!(content, "one");
        site.once("PUT", Fault::DropAnswer);
        let put = site.put_small(HEAD, "two", &matches(&etag)).unwrap();
        assert_eq!((put, found(site).0), (PutSmall::Refused { unanswered: true }, "two".to_owned()));
        // Nothing arrived.
        site.once("PUT", Fault::ResetBefore);
        let (_, unanswered) = stored(site.put_small(HEAD, "three", &matches(&found(site).1)));
        assert!(unanswered);
        // An answer, though no success.
        site.once("PUT", answer(503, "SlowDown"));
        let (_, unanswered) = stored(site.put_small(HEAD, "four", &matches(&found(site).1)));
        assert!(!unanswered);
    });
}

#[test]
fn racing_small_puts_are_tried_again_and_count_as_answered() {
    let memory = InMemory::new();
    memory.store.conflicts(4);
    let (_, unanswered) = stored(memory.site.put_small(HEAD, "one", &Condition::Absent));
    assert!(!unanswered);
    memory.store.conflicts(1000);
    let error = memory.site.put_small(HEAD, "two", &matches(STALE)).unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Server, 6));
    assert_eq!(found(&memory.site).0, "one");
}

#[test]
fn time_of_an_object_is_the_store_s() {
    on_both(|site| {
        assert_eq!(site.state().modified_of(&site.context(), &key_of(HEAD)).unwrap(), None);
        let (etag, _) = stored(site.put_small(HEAD, "one", &Condition::None));
        let modified = site.state().modified_of(&site.context(), &key_of(HEAD)).unwrap().unwrap();
        assert_eq!(modified.etag, etag);
        let date = site.state().store_date().unwrap();
        assert!(modified.at.abs_diff(date) < 60 && date.abs_diff(now()) < 60, "{modified:?} {date}");
    });
    let memory = InMemory::new();
    assert_eq!(memory.site.state().store_date(), None);
    let at = |key: &str| {
        stored(memory.site.put_small(key, "x", &Condition::None));
        let found = memory.site.state().modified_of(&memory.site.context(), &key_of(key));
        let Modified { at, .. } = found.unwrap().unwrap();
        at
    };
    let first = at(".brigade/now-1");
    memory.store.advance_clock(Duration::from_secs(3600));
    assert!((3600..3660).contains(&(at(".brigade/now-2") - first)));
    memory.site.once("HEAD", Fault::WithHeader("date", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()));
    memory.site.state().modified_of(&memory.site.context(), &key_of(".brigade/now-1")).unwrap();
    assert_eq!(memory.site.state().store_date(), Some(784_111_777));
}

#[test]
fn file_goes_up_and_comes_down_whole_and_of_its_size() {
    on_both(|site| {
        let text = "0123456789".repeat(30_000);
        let (key, context, size) = (key_of(".brigade/snapshot/1"), site.context(), text.len() as u64);
        let missing = site.state().get_to_file(&context, &key, size, &mut scratch()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
        let etag = site.state().put_file(&context, &key, &site.source(&text), &digest_of(&text)).unwrap();
        assert_eq!(site.etag(key.as_str()), Some(etag));
        let mut file = scratch();
        std::io::Write::write_all(&mut file, &vec![b'z'; 400_000]).unwrap();
        let sha256 = site.state().get_to_file(&context, &key, size, &mut file).unwrap();
        assert_eq!((sha256, read_back(file)), (sha256_of(&text), text));
        for wrong in [size - 1, size + 1, 0] {
            let error = site.state().get_to_file(&context, &key, wrong, &mut scratch()).unwrap_err();
            assert_eq!((error.kind(), error.attempts()), (ErrorKind::Integrity, 1), "{error}");
        }
    });
}

/// A run's progress counts the files of the tree, and nothing else.
#[test]
fn state_is_no_progress() {
    let memory = InMemory::new();
    let site = &memory.site;
    stored(site.put_small(HEAD, "one", &Condition::None));
    found(site);
    let snapshot = site.engine.trace().progress.snapshot();
    assert_eq!((snapshot.bytes_sent, snapshot.bytes_done), (0, 0), "{snapshot:?}");
}

#[test]
fn keys_of_the_state_are_listed_by_pages_and_no_others() {
    on_both(|site| {
        let names = [".brigade/delta/1", ".brigade/delta/2", ".brigade/head"];
        for key in names.iter().chain(&[".brigade-no", ".brigad", "a"]) {
            site.others_put(key, "x");
        }
        let page = site.state().list_keys(&site.context(), ".brigade/", None).unwrap();
        assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(page.next, None);
        let page = site.state().list_keys(&site.context(), ".brigade/snapshot/", None).unwrap();
        assert!(page.objects.is_empty() && page.next.is_none());
    });
    let memory = InMemory::new();
    for n in 0..5 {
        memory.site.others_put(&format!(".brigade/delta/{n}"), "x");
    }
    memory.store.page_limit(2);
    let (mut keys, mut from) = (Vec::new(), None);
    loop {
        let page =
            memory.site.state().list_keys(&memory.site.context(), ".brigade/", from.as_deref()).unwrap();
        keys.extend(page.objects.into_iter().map(|object| object.key));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(keys, (0..5).map(|n| format!(".brigade/delta/{n}")).collect::<Vec<_>>());
}

/// A bucket may demand encryption of every object; a public ACL or an encoding is meant for files.
#[test]
fn state_has_the_headers_that_a_bucket_may_demand_and_no_others() {
    let memory = InMemory::with(|config| {
        let demanded = config
            .header("x-amz-server-side-encryption", "aws:kms")
            .header("x-amz-acl", "bucket-owner-full-control");
        demanded.header("content-encoding", "br").header("x-amz-storage-class", "GLACIER")
    });
    let site = &memory.site;
    stored(site.put_small(HEAD, "one", &Condition::Absent));
    let object = memory.store.get(&format!("site/{HEAD}")).unwrap();
    let header = |name: &str| object.headers.get(name).map(String::as_str);
    assert_eq!(header("x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(header("x-amz-acl"), Some("bucket-owner-full-control"));
    assert_eq!((header("content-type"), header("content-encoding")), (Some("application/json"), None));
    assert_eq!((header("x-amz-storage-class"), header("x-amz-meta-brigade")), (None, None));
}
