//! Keys: whatever a file may be called, its object is called the same (FAULTS K1 to K5).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bucket_brigade::{
    ErrorKind, KeptReason, LocalBackend, MaxDelete, RescanConfig, RescanOrchestrator, RescanOutcome,
    RescanReport, Run, StorageBackend, Verify,
};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use crate::support::oracle::{check, check_idle};
use crate::support::server::http_get;
use crate::support::{BUCKET, PREFIX, World, files_below};

/// Names that something on the way may take for something else: a URL, a query, XML, a shell, a form.
#[rustfmt::skip]
const ODD: &[&str] = &[
    "a b", " leading", "trailing ", "two  spaces", " ", "a+b", "+", "100%", "%", "%2F", "%20", "a%2Fb", "%zz",
    "why?", "?", "a#b", "#", "a&b", "&amp;", "&#10;", "a=b&c", "\"quoted\"", "it's", "'", "back\\slash", "\\",
    "line\nbreak", "\nfirst", "last\n", "tab\there", "\t", "cr\rhere", "crlf\r\n", "\u{1}", "a\u{1f}b", "bell\u{7}",
    "esc\u{1b}[31m", "del\u{7f}", "nel\u{85}", "😀", "👩\u{200d}👩\u{200d}👧", "caf\u{e9}", ".hidden", "dot.", "...", "..a",
    "a..", ". ", "~", "*", "(", ")", "!", ";", "=", "@", ",", ":", "C:", "|", "<", ">", "<Key>x</Key>", "]]>",
    "<![CDATA[x]]>", "^", "`", "{", "}", "[", "]", "$HOME", "日本語", "العربية", "שלום", "\u{202e}rtl", "\u{fffd}",
    "zero\u{200b}width", "\u{feff}bom", "\u{2028}", "\u{a0}", "\u{3000}", "\u{ffff}", "\u{10ffff}", "-", "_", "İıſß",
    "delete", "x-amz-date", "list-type=2", "a;b,c:d@e", "a-b", "a.b",
];

/// The other form of `caf\u{e9}`. A macOS file system takes both for one name.
#[cfg(target_os = "linux")]
const DECOMPOSED: &[&str] = &["cafe\u{301}"];
#[cfg(not(target_os = "linux"))]
const DECOMPOSED: &[&str] = &[];

fn odd_names() -> Vec<String> {
    let longest = ["n".repeat(255), "日".repeat(85)];
    ODD.iter().chain(DECOMPOSED).map(|name| (*name).to_owned()).chain(longest).collect()
}

/// Every odd name as a file's and as a folder's.
fn odd_keys() -> BTreeSet<String> {
    odd_names().into_iter().flat_map(|name| [format!("in/{name}/file"), name]).collect()
}

/// May delete all but what is left on disk.
fn any_delete() -> RescanConfig {
    RescanConfig::new().max_delete(MaxDelete::Share(1.0)).allow_empty(true)
}

fn rescan(world: &World, site: &RescanOrchestrator) -> RescanReport {
    let report = site.rescan().unwrap();
    check(world, site, &report);
    report
}

/// The key that a public URL names.
fn key_of_url(world: &World, url: &str) -> String {
    let base = format!("{}/{BUCKET}/{PREFIX}", world.proxy.endpoint());
    let encoded = url.strip_prefix(&base).unwrap_or_else(|| panic!("{url} is not below {base}"));
    percent_decode_str(encoded).decode_utf8().unwrap().into_owned()
}

fn world_of_odd_names() -> (World, RescanOrchestrator) {
    let world = World::new();
    for key in odd_keys() {
        world.write(&key, format!("content of {key:?}"));
    }
    let site = world.orchestrator_with(any_delete());
    (world, site)
}

#[test]
fn k1_odd_names_are_published_under_exactly_these_keys() {
    let (world, site) = world_of_odd_names();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.skipped_count), (RescanOutcome::Published, 0));
    let expected: BTreeMap<_, _> =
        odd_keys().into_iter().map(|key| (format!("{PREFIX}{key}"), format!("content of {key:?}"))).collect();
    let stored: BTreeMap<_, _> = world
        .store
        .objects()
        .into_iter()
        .map(|(key, bytes)| (key, String::from_utf8(bytes).unwrap()))
        .collect();
    assert_eq!(stored, expected);
    // Each was taken at once: no signature was refused, nothing was tried again.
    let puts = world.proxy.requests().iter().filter(|seen| seen.method == "PUT").count();
    assert_eq!((puts, report.metrics.retries), (expected.len(), 0));
    check_idle(&world, &site);
}

#[test]
fn k1_public_urls_of_odd_names_decode_to_their_keys_and_give_their_bytes() {
    let (world, site) = world_of_odd_names();
    let report = rescan(&world, &site);
    assert_eq!(report.uploaded.len(), odd_keys().len());
    for file in &report.uploaded {
        assert_eq!(key_of_url(&world, &file.url), file.key);
        let plain = file.url.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%/:".contains(&byte));
        assert!(plain, "{}", file.url);
        assert_eq!(
            http_get(&file.url),
            (200, format!("content of {:?}", file.key).into_bytes()),
            "{}",
            file.url
        );
        assert_eq!(site.cache().resolve(&file.key).unwrap().unwrap().url, file.url);
    }
}

#[test]
fn k1_odd_names_are_listed_back_equal_however_spaces_are_written() {
    let (world, site) = world_of_odd_names();
    rescan(&world, &site);
    world.store.page_limit(7);
    for plus in [false, true] {
        world.store.spaces_as_plus(plus);
        let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
        check(&world, &site, &report);
        let found = report.verified.unwrap();
        assert_eq!((found.missing, found.different), (Vec::new(), Vec::new()), "plus: {plus}");
        assert_eq!((found.matching, found.unknown_count), (odd_keys().len() as u64, 0), "plus: {plus}");
        assert_eq!(report.outcome, RescanOutcome::Unchanged);
    }
}

#[test]
fn k1_objects_of_odd_names_are_deleted_together_or_one_by_one() {
    for lacks_bulk_delete in [false, true] {
        let (world, site) = world_of_odd_names();
        world.store.lacks_bulk_delete(lacks_bulk_delete);
        world.write("ordinary", "stays");
        rescan(&world, &site);
        for key in odd_keys() {
            world.remove(&key);
        }
        let report = rescan(&world, &site);
        assert_eq!(report.outcome, RescanOutcome::Published, "{:?}", report.failed);
        assert_eq!(report.deleted.iter().cloned().collect::<BTreeSet<_>>(), odd_keys());
        assert_eq!(world.store.objects().into_keys().collect::<Vec<_>>(), ["site/ordinary"]);
        let alone = odd_keys().iter().filter(|key| lacks_bulk_delete || is_no_text_of_xml(key)).count();
        let deletes = world.proxy.requests().iter().filter(|seen| seen.method == "DELETE").count();
        assert_eq!(deletes, alone);
        check_idle(&world, &site);
    }
}

/// Whether XML 1.0 has no form for the key, or parsers may give it back changed. The store of these
/// tests would not, so only the requests show that such keys are deleted one by one.
fn is_no_text_of_xml(key: &str) -> bool {
    let at_the_ends = [key.chars().next(), key.chars().next_back()];
    at_the_ends.into_iter().flatten().any(char::is_whitespace)
        || key.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

#[test]
fn k1_odd_names_are_replaced_in_place() {
    let (world, site) = world_of_odd_names();
    rescan(&world, &site);
    for key in odd_keys() {
        world.write(&key, format!("newer content of {key:?}"));
    }
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.deleted_count), (odd_keys().len() as u64, 0));
    assert_eq!(world.objects(), files_below(&world.root()));
}

/// The lossy form of a name that is not UTF-8 is a name of its own, and may exist.
#[cfg(target_os = "linux")]
#[test]
fn k2_names_that_are_not_utf8_are_reported_escaped_and_the_others_go_on() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let world = World::new();
    world.write("bad\u{fffd}", "of the lossy name");
    world.write("ok", "x");
    let foreign: [&[u8]; 4] = [b"bad\xfe", b"bad\xff", b"\xc3(/inside", b"z\xed\xa0\x80"];
    for name in foreign {
        let path = world.root().join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "never published").unwrap();
    }
    let site = world.orchestrator();
    let root = fs::canonicalize(world.root()).unwrap();
    for uploaded in [2, 0] {
        let report = rescan(&world, &site);
        assert_eq!(
            (report.outcome, report.uploaded_count),
            (RescanOutcome::Partial, uploaded),
            "not all is published"
        );
        assert!(report.failed.iter().all(|error| error.kind() == ErrorKind::InvalidKey));
        let named = report.failed.iter().map(|error| error.path().unwrap().strip_prefix(&root).unwrap());
        let named: BTreeSet<_> = named.map(|path| path.as_os_str().as_bytes()).collect();
        assert_eq!((named, report.failed_count), (BTreeSet::from(foreign), 4));
        let shown: Vec<_> = report.failed.iter().map(ToString::to_string).collect();
        assert!(shown[0].contains("bad\\xfe") && shown[1].contains("bad\\xff"), "{shown:?}");
        assert_eq!(world.keys(), ["bad\u{fffd}", "ok"]);
        assert_eq!(world.objects()["bad\u{fffd}"], b"of the lossy name");
    }
    check_idle(&world, &site);
}

#[test]
fn k3_keys_that_lead_elsewhere_are_refused_before_anything_is_read_or_sent() {
    let world = World::new();
    let local = LocalBackend::new("http://h", world.root());
    let backends: [&dyn StorageBackend; 2] = [&*world.backend(), &local];
    for key in [
        "",
        "/",
        "//",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "./a",
        "a/.",
        "a/./b",
        "../a",
        "a/..",
        "a/../b",
        "\0",
        "a\0",
        "a/\0/b",
        "../../etc/passwd",
        "/etc/passwd",
    ] {
        for backend in backends {
            let upload = backend.upload_file(Path::new("/nonexistent"), key).unwrap_err();
            let delete = backend.delete_file(key).unwrap_err();
            assert_eq!(
                (upload.kind(), delete.kind()),
                (ErrorKind::InvalidKey, ErrorKind::InvalidKey),
                "{key:?}"
            );
            assert!(!upload.to_string().contains('\0'), "{upload:?}");
        }
    }
    assert_eq!((world.proxy.requests(), world.proxy.connections()), (Vec::new(), 0));
}

/// Folders of up to 199 bytes below each other, this many bytes together.
fn key_of(letter: char, bytes: usize) -> String {
    (0..bytes).map(|n| if n % 200 == 199 { '/' } else { letter }).collect()
}

#[test]
fn k4_keys_of_up_to_1024_bytes_with_their_prefix_are_published_and_a_longer_one_fails() {
    let world = World::new();
    let [shorter, longest, too_long] = [('a', 1023), ('b', 1024), ('c', 1025)].map(|(letter, bytes)| {
        let key = key_of(letter, bytes - PREFIX.len());
        world.write(&key, key.as_bytes());
        key
    });
    world.write("short", "x");
    let site = world.orchestrator_with(any_delete());
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Partial, 3));
    assert_eq!((report.failed_count, report.failed[0].kind()), (1, ErrorKind::InvalidKey));
    assert!(report.failed[0].path().unwrap().ends_with(&too_long));
    assert_eq!(world.keys(), [shorter.as_str(), longest.as_str(), "short"]);
    // For the oracle every file has to be published.
    world.remove(&too_long);
    check(&world, &site, &report);
    for file in &report.uploaded {
        assert_eq!((key_of_url(&world, &file.url), http_get(&file.url).0), (file.key.clone(), 200));
    }
    world.remove(&shorter);
    world.remove(&longest);
    let report = rescan(&world, &site);
    assert_eq!((report.deleted_count, world.keys()), (2, vec!["short".to_owned()]));
    check_idle(&world, &site);
}

#[test]
fn k4_the_prefix_counts_for_a_callers_key_too() {
    let world = World::new();
    world.write("f", "x");
    let backend = world.backend();
    for (bytes, good) in [(1023, true), (1024, true), (1025, false)] {
        let key = "k".repeat(bytes - PREFIX.len());
        world.proxy.clear_counts();
        let (upload, delete) = (backend.upload_file(&world.path("f"), &key), backend.delete_file(&key));
        assert_eq!((upload.is_ok(), delete.is_ok()), (good, good), "{bytes}");
        assert_eq!(world.proxy.requests().len(), if good { 2 } else { 0 });
        let kinds = [upload.map(drop), delete].map(|done| done.err().map(|error| error.kind()));
        assert_eq!(kinds, [(!good).then_some(ErrorKind::InvalidKey); 2], "{bytes}");
    }
}

#[test]
fn k5_file_becomes_a_folder_and_back_in_one_rescan_each() {
    let world = World::new();
    world.write("d", "a file");
    world.write("d-", "before");
    world.write("d0", "behind");
    let site = world.orchestrator();
    rescan(&world, &site);
    for round in 0..2 {
        world.remove("d");
        world.write("d/x", format!("in the folder, round {round}"));
        world.write("d/y/z", format!("deeper, round {round}"));
        let report = rescan(&world, &site);
        assert_eq!(report.outcome, RescanOutcome::Published, "{report:?}");
        assert_eq!((report.uploaded_count, &report.deleted), (2, &vec!["d".to_owned()]));
        assert_eq!(world.keys(), ["d-", "d/x", "d/y/z", "d0"]);

        fs::remove_dir_all(world.path("d")).unwrap();
        world.write("d", format!("a file again, round {round}"));
        let report = rescan(&world, &site);
        assert_eq!(report.outcome, RescanOutcome::Published, "{report:?}");
        assert_eq!((report.uploaded_count, report.deleted_count), (1, 2));
        assert_eq!(world.keys(), ["d", "d-", "d0"]);
    }
    assert_eq!(world.objects(), files_below(&world.root()));
    check_idle(&world, &site);
}

/// In the order of bytes `a-b` and `a.b` lie between `a` and `a/b`, and a walk by names visits the
/// folder `a` before both.
#[test]
fn keys_around_a_folders_name_keep_their_order_and_a_second_rescan_is_unchanged() {
    let world = World::new();
    for key in ["a/b", "a-b", "a.b", "a b", "a0", "aa", "a!/x", "a/-", "a+/b"] {
        world.write(key, key);
    }
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.deleted_count), (9, 0));
    world.let_files_settle();
    for _ in 0..2 {
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.unchanged), (RescanOutcome::Unchanged, 9));
    }
    check_idle(&world, &site);
}

/// No file system has both `a` and `a/b`; a store that keeps what is gone has.
#[test]
fn an_object_and_a_folder_of_its_name_coexist_and_a_second_rescan_is_unchanged() {
    let world = World::new();
    for key in ["a", "a-b", "a.b"] {
        world.write(key, key);
    }
    let site = world.orchestrator_with(RescanConfig::new().delete(false));
    rescan(&world, &site);
    world.remove("a");
    world.write("a/b", "a/b");
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.kept[0].reason), (RescanOutcome::Published, KeptReason::DeletesOff));
    assert_eq!(world.keys(), ["a", "a-b", "a.b", "a/b"]);
    assert_eq!((&world.objects()["a"][..], &world.objects()["a/b"][..]), (&b"a"[..], &b"a/b"[..]));
    world.let_files_settle();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.kept_count), (RescanOutcome::Unchanged, 1));
    check_idle(&world, &site);
}

/// Paths of one to three printable segments, with their contents.
fn tree() -> impl Strategy<Value = Vec<(Vec<String>, Vec<u8>)>> {
    let segment = "\\PC{1,10}"
        .prop_map(|name| name.replace('/', "\u{2215}"))
        .prop_filter("no name of a file", |name| name != "." && name != "..");
    let path = prop::collection::vec(segment, 1..=3);
    prop::collection::vec((path, prop::collection::vec(any::<u8>(), 0..40)), 0..8)
}

/// Makes this the tree, leaving out what would be a file and a folder at once.
fn replace_tree(world: &World, files: &[(Vec<String>, Vec<u8>)]) {
    fs::remove_dir_all(world.root()).unwrap();
    fs::create_dir(world.root()).unwrap();
    for (path, bytes) in files {
        let key = path.join("/");
        let target = world.path(&key);
        let blocked = (1..path.len()).any(|depth| world.path(&path[..depth].join("/")).is_file());
        if !blocked && !target.is_dir() {
            world.write(&key, bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_and_what_replaces_them_come_out_equal(first in tree(), second in tree()) {
        let world = World::with_workers(4);
        let site = world.orchestrator_with(any_delete());
        for files in [&first, &second] {
            replace_tree(&world, files);
            rescan(&world, &site);
            prop_assert_eq!(world.objects(), files_below(&world.root()));
        }
        let report = rescan(&world, &site);
        prop_assert_eq!(report.outcome, RescanOutcome::Unchanged);
    }
}
