//! S7: a state in the bucket that somebody has made who may write there. Its segments are whole and have the SHA-256 that the head
//! says; what they say is not true.

use super::support::{BUCKET, PREFIX, World};
use super::{digest_of, sha256_of};
use crate::key::RemoteKey;
use crate::state::remote::head::codec::Expected;
use crate::state::remote::head::{Doubt, Head, Inline, Keys, Segment, SegmentRef, Target};
use crate::state::remote::name::{SegmentKind, SegmentName, StoreTime, Token};
use crate::state::remote::segment::{KeyIntent, KeyState, Planned, Row, Writer, Written};
use crate::state::store::Write;
use crate::{
    ErrorKind, RemoteState, RescanConfig, RescanOrchestrator, RescanOutcome, RescanReport, Run, StorageError,
};

const HEAD: &str = "site/.brigade/head";
const VICTIM: &str = "victim";

/// A world with a tree of two files, published with its state in the bucket, and an object of somebody else.
fn published() -> World {
    let world = World::new();
    world.write("a", "1");
    world.write("b", "1");
    let report = site(&world).rescan().unwrap();
    assert_eq!(report.outcome, RescanOutcome::Published);
    world.stranger(VICTIM, "theirs");
    world
}

fn site(world: &World) -> RescanOrchestrator {
    world.orchestrator_with(RescanConfig::new().state(RemoteState::new()))
}

fn read_head(world: &World) -> Head {
    let target = Target { bucket: BUCKET.to_owned(), prefix: PREFIX.to_owned() };
    let expected = Expected { target: &target, tree: None, publishes: true };
    Head::decode(&world.store.get(HEAD).unwrap().bytes, &expected).unwrap()
}

fn forge(world: &World, change: impl FnOnce(&mut Head)) {
    let mut head = read_head(world);
    // Later than what the cache knows.
    head.beat += 1;
    change(&mut head);
    world.store.put_raw(HEAD, head.encode().unwrap());
}

fn inline(bytes: Vec<u8>, written: &Written) -> Segment {
    Segment::Inline(Inline { rows: written.rows, unpacked: written.unpacked, bytes })
}

fn says_published(key: &str, content: &str, etag: Option<&str>) -> Row<KeyState> {
    let (size, digest, etag) = (content.len() as u64, Some(digest_of(content)), etag.map(str::to_owned));
    let content = KeyState::Published { size, digest, etag, recent: None, headers: None };
    Row { key: RemoteKey::new(key).unwrap(), content }
}

fn delta(row: &Row<KeyState>) -> Segment {
    let mut writer = Writer::delta(Vec::new());
    writer.write(row).unwrap();
    let (bytes, written) = writer.finish().unwrap();
    inline(bytes, &written)
}

/// A delta with these bytes in the place of its only row's key. Only keys of one length can be replaced.
fn with_key(key: &[u8]) -> Segment {
    let placeholder: String = ('a'..='z').cycle().step_by(7).take(key.len()).collect();
    let Segment::Inline(mut forged) = delta(&says_published(&placeholder, "theirs", Some("00"))) else {
        unreachable!("a delta stands in the head")
    };
    let at = forged.bytes.windows(key.len()).position(|window| window == placeholder.as_bytes()).unwrap();
    forged.bytes[at..at + key.len()].copy_from_slice(key);
    Segment::Inline(forged)
}

fn stored(name: &str, bytes: &[u8], rows: u64, unpacked: u64) -> SegmentRef {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let name = SegmentName::parse(name).unwrap();
    SegmentRef { name, size: bytes.len() as u64, sha256: sha256_of(&text), rows, unpacked }
}

/// Publishes some work, and looks that nothing of others is gone or changed, and that no request names a key that leads elsewhere.
fn rescan(world: &World, case: &str) -> Result<RescanReport, StorageError> {
    world.write("a", format!("for {case}"));
    let others: Vec<_> = world.strangers.lock().unwrap().clone().into_iter().collect();
    let result = site(world).rescan();
    let objects = world.objects();
    for (key, bytes) in others {
        assert_eq!(objects.get(&key), Some(&bytes), "{case}: {key} of somebody else, {result:?}");
    }
    for seen in world.proxy.requests() {
        let path = seen.target.split('?').next().unwrap_or_default().to_owned();
        let leads_elsewhere = path.split('/').any(|part| part == ".." || part == ".") || path.contains("//");
        assert!(!leads_elsewhere, "{case}: {path}");
    }
    result
}

/// Rows that name an object of somebody else: another ETag, or none, is no proof that it is ours. A row without an ETag, or with a
/// weak one, had the object deleted without any condition, whoever it belonged to. Now a HEAD has to show its proof of origin.
#[test]
fn s7_state_that_claims_the_object_of_another_has_it_not_deleted() {
    for etag in [Some("0123456789abcdef0123456789abcdef"), None, Some("W/\"00\"")] {
        let world = published();
        forge(&world, |head| head.deltas.push(delta(&says_published(VICTIM, "theirs", etag))));
        let report = rescan(&world, &format!("{etag:?}")).unwrap();
        assert!(report.deleted.is_empty(), "{report:?}");
        assert_eq!(report.failed[0].kind(), ErrorKind::Conflict, "{report:?}");
        // It is ours no more, and the next run is quiet.
        let report = rescan(&world, "again").unwrap();
        assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Published, 0), "{report:?}");
    }
}

/// An object that is ours by its own proof is deleted, although its record has no ETag.
#[test]
fn object_without_a_recorded_etag_is_deleted_by_its_own_proof() {
    let world = published();
    forge(&world, |head| head.deltas.push(delta(&says_published("b", "1", None))));
    world.remove("b");
    let report = rescan(&world, "without an ETag").unwrap();
    assert_eq!((report.deleted, report.failed_count), (vec!["b".to_owned()], 0));
}

/// Keys that lead elsewhere are damage; those of states are kept, whoever they belong to.
#[test]
fn s7_state_with_keys_that_lead_elsewhere_deletes_nothing() {
    for key in ["../victim", "a/../victim", "/victim", "a//victim", "./victim", "nul\0", "\u{1b}[2J\0"] {
        let world = published();
        world.store.put_raw("victim", "outside of the prefix");
        forge(&world, |head| head.deltas.push(with_key(key.as_bytes())));
        let reader = crate::CacheManager::open(world.cache_path().with_extension("reader")).unwrap();
        let backend: std::sync::Arc<dyn crate::StorageBackend> = world.backend();
        let error = reader.pull(&world.engine, &backend, &RemoteState::new(), &Run::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateDamaged, "{key:?} {error}");
        assert!(!error.to_string().contains('\u{1b}') && reader.published_count().unwrap() == 0, "{error}");
        // A publisher gets the error, or makes the state anew.
        match rescan(&world, key) {
            Ok(report) => assert!(report.deleted.is_empty(), "{key:?} {report:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StateDamaged, "{key:?} {error}"),
        }
        assert!(world.store.get("victim").is_some(), "{key:?}");
    }
    for key in [".brigade/head", "other/.brigade/head", ".brigade/snapshot/x"] {
        let world = published();
        if key != ".brigade/head" {
            world.stranger(key, "the state of another");
        }
        let etag = world.store.get(&format!("{PREFIX}{key}")).unwrap().etag;
        forge(&world, |head| head.deltas.push(delta(&says_published(key, "x", Some(&etag)))));
        let report = rescan(&world, key).unwrap();
        assert!(report.deleted.is_empty() && world.store.get(HEAD).is_some(), "{key} {report:?}");
    }
}

/// Doubts and claims that name an object of somebody else: it is looked at, and left alone.
#[test]
fn s7_state_that_doubts_the_object_of_another_leaves_it_alone() {
    for planned in [Planned::Put, Planned::Delete, Planned::Multipart] {
        let world = published();
        let mut writer = Writer::intent(Vec::new());
        let content = KeyIntent { planned, before: world.store.get("site/victim").map(|found| found.etag) };
        writer.write(&Row { key: RemoteKey::new(VICTIM).unwrap(), content }).unwrap();
        let (bytes, written) = writer.finish().unwrap();
        let keys = Keys::Of(vec![inline(bytes, &written)]);
        forge(&world, |head| {
            let (token, since) = (Token::new([7; 16]), Some(StoreTime::new(1_700_000_000)));
            head.doubt.push(Doubt { token, epoch: head.epoch, since, keys });
        });
        let report = rescan(&world, "a doubt").unwrap();
        assert!(report.deleted.is_empty() && report.failed_count == 0, "{report:?}");
    }
}

/// Segments that declare more than there is, that are more than they declare, or that inflate to more than they may.
#[test]
fn s7_state_with_segments_of_any_size_is_an_error_in_bounded_memory() {
    let name = SegmentName { kind: SegmentKind::Delta, epoch: 1, token: Token::new([9; 16]) }.to_string();
    let zeros = vec![b'0'; 3_000_000];
    let huge = 1 << 40;
    let cases = [
        ("declares 1 TiB", SegmentRef { size: huge, ..stored(&name, b"x", 1, 10) }),
        ("declares rows without end", stored(&name, b"x", 1 << 32, 1 << 40)),
        ("longer than declared", SegmentRef { size: 100, ..stored(&name, &zeros, 1, 10) }),
        ("no segment", stored(&name, &zeros, 1, 10)),
    ];
    for (case, segment) in cases {
        let world = published();
        let object = format!("{PREFIX}.brigade/{name}");
        world.store.put_raw(
            &object,
            if segment.size == 1 || segment.size == huge { b"x".to_vec() } else { zeros.clone() },
        );
        let mut head = read_head(&world);
        head.beat += 1;
        head.deltas.push(Segment::Stored(segment));
        // Not checked as what we write is.
        world.store.put_raw(HEAD, serde_json::to_vec(&head).unwrap());
        let reader = crate::CacheManager::open(world.cache_path().with_extension("reader")).unwrap();
        let backend: std::sync::Arc<dyn crate::StorageBackend> = world.backend();
        let error = reader.pull(&world.engine, &backend, &RemoteState::new(), &Run::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateDamaged, "{case} {error}");
        assert_eq!(reader.published_count().unwrap(), 0, "{case}");
        match rescan(&world, case) {
            Ok(report) => assert!(report.deleted.is_empty(), "{case} {report:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StateDamaged, "{case} {error}"),
        }
    }
}

/// A cache in whose records somebody has written keys that lead elsewhere: no request names them, and nothing there is deleted.
#[test]
fn s7_cache_with_keys_that_lead_elsewhere_deletes_nothing() {
    for key in
        ["../victim", "a/../victim", "/victim", "a//victim", "./victim", ".brigade/head", "x/.brigade/head"]
    {
        let world = World::new();
        world.write("a", "1");
        world.write("b", "1");
        let site = world.orchestrator();
        site.rescan().unwrap();
        world.store.put_raw("victim", "outside of the prefix");
        world.stranger(VICTIM, "theirs");
        if key.contains(".brigade") && key != ".brigade/head" {
            world.stranger(key, "theirs");
        }
        let record = site.cache().published_record("a").unwrap().unwrap();
        site.cache().apply(&[Write::Published(key.to_owned(), record)]).unwrap();
        drop(site);
        world.write("a", "2");
        let result = world.orchestrator().rescan();
        if let Ok(report) = &result {
            assert!(report.deleted.is_empty(), "{key} {report:?}");
        }
        assert!(world.store.deletes().is_empty(), "{key} {result:?}");
        assert!(world.store.get("victim").is_some() && world.objects().contains_key(VICTIM), "{key}");
        for seen in world.proxy.requests() {
            let path = seen.target.split('?').next().unwrap_or_default().to_owned();
            assert!(!path.split('/').any(|part| part == ".." || part == "."), "{key}: {path}");
        }
    }
}
