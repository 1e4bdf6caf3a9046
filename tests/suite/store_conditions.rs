//! The conditions of the stores that the tests run on: the one in memory, in its modes, and `SeaweedFS`. What is asked here is
//! asked by a plain client, not by the library.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::support::BUCKET;
use crate::support::memory_store::{Conditional, ETags, MemoryStore};
use crate::support::seaweedfs;
use crate::support::server::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::signed::{Answer, Client};

const RACERS: usize = 16;
const CREATE: [(&str, &str); 1] = [("if-none-match", "*")];
pub(crate) const STALE: &str = "\"0123456789abcdef0123456789abcdef\"";
const MIB: usize = 1 << 20;
const ASK: [(&str, &str); 1] = [("x-amz-checksum-mode", "ENABLED")];

/// A request for one key with some headers.
type Read = fn(&Client, &str, &[(&str, &str)]) -> Answer;
const READS: [Read; 2] = [Client::get, Client::head];

/// The store in memory, served, and a client for it.
fn memory() -> (MemoryStore, S3Server, Client) {
    let store = MemoryStore::with_bucket(BUCKET);
    let server = S3Server::start(store.service());
    let client = Client::new(&server.endpoint(), ACCESS_KEY, SECRET_KEY, BUCKET);
    (store, server, client)
}

/// Runs a check on the store in memory, and on `SeaweedFS` where there is one.
fn on_both(check: fn(&Client)) {
    let (_store, _server, client) = memory();
    check(&client);
    if let Some(weed) = seaweedfs::shared() {
        println!("SeaweedFS");
        check(&weed.client(&weed.new_bucket()));
    }
}

fn refused(answer: &Answer) {
    assert_eq!(answer.outcome(), (412, "PreconditionFailed".to_owned()), "{answer:?}");
}

fn missing(answer: &Answer) {
    assert_eq!(answer.outcome(), (404, "NoSuchKey".to_owned()), "{answer:?}");
}

pub(crate) fn done(answer: &Answer) {
    assert!((200..300).contains(&answer.status), "{answer:?}");
}

pub(crate) fn holds(client: &Client, key: &str, content: &str) {
    let answer = client.get(key, &[]);
    assert_eq!((answer.status, answer.body.as_slice()), (200, content.as_bytes()), "{key}");
}

/// How many of as many creates of one key at once were told that they stored it.
fn winners(client: &Client, key: &str) -> usize {
    let start = Barrier::new(RACERS);
    let race = |racer: usize| {
        start.wait();
        client.put(key, format!("racer {racer}"), &CREATE)
    };
    thread::scope(|scope| {
        let race = &race;
        let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || race(racer))).collect();
        let answers: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        let told = |answer: &&Answer| matches!(answer.status, 200 | 409 | 412);
        assert_eq!(answers.iter().filter(told).count(), RACERS, "{answers:?}");
        answers.iter().filter(|answer| answer.status == 200).count()
    })
}

#[test]
fn one_of_racing_creates_wins() {
    on_both(|client| {
        for round in 0..3 {
            assert_eq!(winners(client, &format!("race/{round}")), 1);
        }
    });
}

#[test]
fn all_racing_creates_win_where_conditions_are_ignored() {
    let (store, _server, client) = memory();
    store.ignores_conditions(true);
    assert_eq!(winners(&client, "race"), RACERS);
    store.ignores_conditions(false);
    assert_eq!(winners(&client, "race"), 0);
}

#[test]
fn several_racing_creates_win_where_check_and_commit_are_two_steps() {
    let (store, _server, client) = memory();
    store.honours_without_atomicity(Some(Duration::from_secs(2)));
    for round in 0..3 {
        let won = winners(&client, &format!("race/{round}"));
        assert!((2..=RACERS).contains(&won), "{won}");
    }
    refused(&client.put("race/0", "late", &CREATE));
    store.honours_without_atomicity(None);
    assert_eq!(winners(&client, "race/atomic"), 1);
}

#[test]
fn put_keeps_its_conditions() {
    on_both(|client| {
        let first = client.put("d/k", "one", &CREATE);
        done(&first);
        refused(&client.put("d/k", "two", &CREATE));
        refused(&client.put("d/k", "two", &[("if-match", STALE)]));
        holds(client, "d/k", "one");
        let second = client.put("d/k", "two", &[("if-match", first.etag())]);
        done(&second);
        refused(&client.put("d/k", "three", &[("if-match", first.etag())]));
        holds(client, "d/k", "two");
        done(&client.put("d/k", "three", &[("if-match", second.etag())]));
    });
}

#[test]
fn complete_keeps_its_conditions() {
    on_both(|client| {
        let large = vec![b'x'; 5 * MIB];
        let parts: [&[u8]; 2] = [&large, b"end"];
        let early = client.upload_parts("k", &parts, &[]);
        let late = client.upload_parts("k", &parts, &[]);
        let third = client.upload_parts("k", &[b"third"], &[]);
        done(&client.complete("k", &early, &CREATE));
        let before = client.head("k", &[]);
        refused(&client.complete("k", &late, &CREATE));
        refused(&client.complete("k", &third, &[("if-match", STALE)]));
        assert_eq!(client.head("k", &[]).etag(), before.etag());
        done(&client.complete("k", &third, &[("if-match", before.etag())]));
        holds(client, "k", "third");
    });
}

#[test]
fn delete_keeps_its_condition() {
    on_both(|client| {
        let stored = client.put("k", "x", &[]);
        refused(&client.delete("k", &[("if-match", STALE)]));
        holds(client, "k", "x");
        assert_eq!(client.delete("k", &[("if-match", stored.etag())]).status, 204);
        assert_eq!(client.get("k", &[]).status, 404);
    });
}

#[test]
fn delete_of_many_keeps_the_condition_of_each_key() {
    on_both(|client| {
        let etags: Vec<_> = ["a", "b", "c"].map(|key| client.put(key, key, &[]).etag().to_owned()).into();
        let answer = client.delete_many(&[("a", Some(&etags[0])), ("b", Some(STALE)), ("c", None)]);
        assert_eq!(answer.outcome(), (200, "PreconditionFailed".to_owned()), "{answer:?}");
        assert_eq!((answer.elements("Code").len(), client.keys("")), (1, vec!["b".to_owned()]), "{answer:?}");
    });
}

#[test]
fn reads_keep_their_conditions() {
    on_both(|client| {
        let etag = client.put("k", "x", &[]).etag().to_owned();
        for read in READS {
            let same = read(client, "k", &[("if-none-match", &etag)]);
            assert_eq!((same.status, same.body.len()), (304, 0), "{same:?}");
            assert_eq!(read(client, "k", &[("if-none-match", STALE)]).status, 200);
            assert_eq!(read(client, "k", &[("if-match", &etag)]).status, 200);
            assert_eq!(read(client, "k", &[("if-match", STALE)]).status, 412);
        }
        holds(client, "k", "x");
    });
}

#[test]
fn listings_say_the_etags_that_writes_did() {
    on_both(|client| {
        let large = vec![b'x'; 5 * MIB];
        let single = client.put("a", "x", &[]).etag().to_owned();
        let upload = client.upload_parts("b", &[&large, b"end"], &[]);
        done(&client.complete("b", &upload, &[]));
        let double = client.head("b", &[]).etag().to_owned();
        assert_eq!(single, format!("\"{:x}\"", md5::compute("x")));
        let md5s = [md5::compute(&large).0, md5::compute("end").0].concat();
        assert_eq!(double, format!("\"{:x}-2\"", md5::compute(md5s)));
        assert_eq!(client.list("", &[]).elements("ETag"), [single, double]);
    });
}

/// Where there is no object, `If-Match` is answered as AWS does; `SeaweedFS` answers 412, see below.
#[test]
fn if_match_of_an_absent_key_is_404_in_memory() {
    let (_store, _server, client) = memory();
    missing(&client.put("k", "x", &[("if-match", STALE)]));
    missing(&client.delete("k", &[("if-match", STALE)]));
    let upload = client.upload_parts("k", &[b"x"], &[]);
    missing(&client.complete("k", &upload, &[("if-match", STALE)]));
    let answer = client.delete_many(&[("k", Some(STALE)), ("l", None)]);
    assert_eq!(answer.elements("Code"), ["NoSuchKey"], "{answer:?}");
    assert_eq!(client.get("k", &[("if-match", STALE)]).status, 404);
    assert_eq!(
        client.put("k", "x", &[("if-none-match", STALE)]).outcome(),
        (501, "NotImplemented".to_owned())
    );
}

#[test]
fn conflicts_are_answered_to_as_many_conditional_writes_and_store_nothing() {
    let (store, _server, client) = memory();
    store.conflicts(3);
    done(&client.put("unconditional", "x", &[]));
    let conflict = (409, "ConditionalRequestConflict".to_owned());
    assert_eq!(client.put("k", "x", &CREATE).outcome(), conflict);
    let upload = client.upload_parts("k", &[b"parts"], &[]);
    assert_eq!(client.complete("k", &upload, &CREATE).outcome(), conflict);
    assert_eq!(client.delete("unconditional", &[("if-match", "*")]).outcome(), conflict);
    assert_eq!(client.keys(""), ["unconditional"]);
    done(&client.complete("k", &upload, &CREATE));
    done(&client.delete("unconditional", &[("if-match", "*")]));
    assert_eq!(client.keys(""), ["k"]);
}

#[test]
fn conditions_of_single_operations_are_ignored() {
    let (store, _server, client) = memory();
    let etag = client.put("k", "x", &[]).etag().to_owned();
    store.ignores_conditions_of(&[Conditional::Delete]);
    refused(&client.put("k", "y", &CREATE));
    done(&client.delete("k", &[("if-match", STALE)]));
    client.put("k", "x", &[]);
    store.ignores_conditions_of(&[Conditional::Read, Conditional::DeleteMany]);
    assert_eq!(client.get("k", &[("if-none-match", &etag)]).status, 200);
    refused(&client.delete("k", &[("if-match", STALE)]));
    assert_eq!(client.delete_many(&[("k", Some(STALE))]).elements("Code"), Vec::<String>::new());
    assert_eq!(client.keys(""), Vec::<String>::new());
}

pub(crate) fn last_modified(answer: &Answer) -> SystemTime {
    httpdate::parse_http_date(answer.header("last-modified").unwrap()).unwrap()
}

#[test]
fn last_modified_is_the_store_s_clock() {
    let (store, _server, client) = memory();
    client.put("a", "x", &[]);
    store.advance_clock(Duration::from_secs(3600));
    client.put("b", "x", &[]);
    let apart =
        |one: &Answer, other: &Answer| last_modified(other).duration_since(last_modified(one)).unwrap();
    for read in READS {
        let seconds = apart(&read(&client, "a", &[]), &read(&client, "b", &[])).as_secs();
        assert!((3600..3700).contains(&seconds), "{seconds}");
    }
    let listed = client.list("", &[]).elements("LastModified");
    assert!(listed[0][..13] < listed[1][..13], "{listed:?}");
    assert!(store.get("b").unwrap().last_modified <= store.now());
}

#[test]
fn listings_in_no_order_name_each_key_once_across_their_pages() {
    let (store, _server, client) = memory();
    let keys: Vec<_> = (0..25).map(|n| format!("d/{n:02}")).collect();
    for key in keys.iter().chain([&"other".to_owned()]) {
        store.put_raw(key, "x");
    }
    store.page_limit(4);
    assert_eq!(client.keys("d/"), keys);
    store.lists_out_of_order(true);
    let mut unordered = client.keys("d/");
    assert_ne!(unordered, keys);
    unordered.sort();
    assert_eq!(unordered, keys);
    store.lists_out_of_order(false);
    store.lists_no_etags(true);
    let page = client.list("d/", &[]);
    assert_eq!((page.elements("Key").len(), page.elements("ETag").len()), (4, 0));
}

#[test]
fn etags_are_md5s_or_made_up_or_those_of_encrypted_objects() {
    let (store, _server, client) = memory();
    let parts: [&[u8]; 3] = [b"aaaa", b"bbbb", b"c"];
    let upload = client.upload_parts("k", &parts, &[]);
    done(&client.complete("k", &upload, &[]));
    let etag = store.put_raw_in_parts("l", "aaaabbbbc", 4, &[]);
    assert_eq!(client.head("k", &[]).etag(), format!("\"{etag}\""));
    assert!(etag.ends_with("-3"));
    assert_eq!(store.put_raw_with("m", "x", &[]), format!("{:x}", md5::compute("x")));

    store.etags(ETags::Encrypted);
    let (one, other) = (store.put_raw_with("n", "x", &[]), store.put_raw_with("n", "x", &[]));
    assert!(one.len() == 32 && one != other && one != format!("{:x}", md5::compute("x")), "{one} {other}");
    let multipart = store.put_raw_in_parts("n", "aaaabbbbc", 4, &[]);
    assert!(multipart.ends_with("-3") && multipart != etag, "{multipart}");
    let upload = client.upload_parts("k", &parts, &[]);
    done(&client.complete("k", &upload, &[]));

    store.etags(ETags::MadeUp);
    assert!(client.put("o", "x", &[]).etag().starts_with("\"etag-"));
}

#[test]
fn head_tells_metadata_and_the_checksum_when_asked_for_it() {
    let (store, _server, client) = memory();
    let sha256 = BASE64_STANDARD.encode(Sha256::digest("x"));
    let headers = [("x-amz-meta-origin", "theirs"), ("x-amz-checksum-sha256", sha256.as_str())];
    store.put_raw_with("raw", "x", &headers);
    done(&client.put("sent", "x", &headers));
    store.put_raw_with("bare", "x", &[("content-type", "text/x")]);
    for key in ["raw", "sent"] {
        let (silent, asked) = (client.head(key, &[]), client.head(key, &ASK));
        assert_eq!(silent.header("x-amz-meta-origin"), Some("theirs"), "{silent:?}");
        assert_eq!(silent.header("x-amz-checksum-sha256"), None);
        assert_eq!(asked.header("x-amz-checksum-sha256"), Some(sha256.as_str()));
        assert_eq!(asked.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    }
    let bare = client.head("bare", &ASK);
    assert_eq!((bare.header("x-amz-checksum-sha256"), bare.header("content-type")), (None, Some("text/x")));

    let algorithm = [("x-amz-checksum-algorithm", "SHA256")];
    let upload = client.upload_parts("parts", &[b"one", b"two"], &algorithm);
    done(&client.complete("parts", &upload, &[]));
    let each = [Sha256::digest("one"), Sha256::digest("two")].concat();
    let asked = client.head("parts", &ASK);
    let composite = format!("{}-2", BASE64_STANDARD.encode(Sha256::digest(each)));
    assert_eq!(asked.header("x-amz-checksum-sha256"), Some(composite.as_str()));
    assert_eq!(asked.header("x-amz-checksum-type"), Some("COMPOSITE"));
}
