//! One suite for every backend: the crate's own, on three servers, and one with just the four methods.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bucket_brigade::{
    Credentials, ErrorKind, LocalBackend, Operation, PendingKind, RescanConfig, RescanOrchestrator,
    RescanOutcome, RescanReport, Run, S3Backend, S3Config, StorageBackend, StorageError,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::memory_store::StoredObject;
use crate::support::oracle::{check, check_idle};
use crate::support::seaweedfs;
use crate::support::server::{ACCESS_KEY, S3Server, fs as folder_store, http_get};
use crate::support::signed::Client;
use crate::support::{BUCKET, PREFIX, World, files_below, logs};

/// Where the backends publish that have no server's address.
const BASE: &str = "http://files.example.com/pub";
/// Larger than every buffer on the way, and no multiple of one.
const LARGE: usize = (1 << 20) + 12_345;

/// All bytes but those that URLs have as they are.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A backend of one's own: four methods and a map.
struct Shelf {
    base_url: String,
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl StorageBackend for Shelf {
    fn upload_file(&self, local_path: &Path, remote_key: &str) -> Result<String, StorageError> {
        let bytes = fs::read(local_path).map_err(|error| {
            StorageError::new(ErrorKind::SourceUnreadable, Operation::Upload, "unreadable").with_source(error)
        })?;
        self.objects.lock().unwrap().insert(remote_key.to_owned(), bytes);
        Ok(self.get_url(remote_key))
    }

    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError> {
        self.objects.lock().unwrap().remove(remote_key);
        Ok(())
    }

    fn get_url(&self, remote_key: &str) -> String {
        let base = self.base_url.strip_suffix('/').unwrap_or(&self.base_url);
        format!("{base}/{}", utf8_percent_encode(remote_key, ENCODED))
    }

    fn is_remote(&self) -> bool {
        true
    }
}

/// Where a backend of the suite keeps its objects.
enum Place {
    /// In the tree itself: there is nothing to read back.
    Tree,
    /// In the world's own store in memory.
    Memory,
    /// In a folder, behind s3s-fs.
    Folder(TempDir, #[allow(dead_code, reason = "serves until it is dropped")] S3Server),
    /// In a bucket of `SeaweedFS`.
    SeaweedFs(Client),
    /// In a map.
    Shelf(Arc<Mutex<BTreeMap<String, Vec<u8>>>>),
}

/// A backend and what the suite must know of it.
struct Rig {
    name: &'static str,
    world: World,
    /// The configuration of the backend, if it is the crate's own for S3.
    config: S3Config,
    bucket: String,
    backend: Arc<dyn StorageBackend>,
    place: Place,
}

impl Rig {
    fn local() -> Self {
        let world = World::new();
        let backend = Arc::new(LocalBackend::new(BASE, world.root()));
        Self::new("local", world, backend, Place::Tree)
    }

    fn new(name: &'static str, world: World, backend: Arc<dyn StorageBackend>, place: Place) -> Self {
        Self { name, config: world.s3_config(), bucket: BUCKET.to_owned(), world, backend, place }
    }

    fn s3_in_memory() -> Self {
        let world = World::new();
        let backend = world.backend();
        Self::new("S3 in memory", world, backend, Place::Memory)
    }

    fn s3_on_a_folder() -> Self {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let server = S3Server::start(folder_store(folder.path(), BUCKET));
        world.proxy.set_upstream(server.addr());
        let backend = world.backend();
        Self::new("S3 on s3s-fs", world, backend, Place::Folder(folder, server))
    }

    fn s3_on_seaweedfs() -> Option<Self> {
        let weed = seaweedfs::shared()?;
        let world = World::new();
        world.proxy.set_upstream(weed.addr());
        let bucket = weed.new_bucket();
        let config = weed.s3_config(&bucket).endpoint(world.proxy.endpoint()).bucket_prefix(PREFIX);
        let (backend, place) = (s3(&world, config.clone()), Place::SeaweedFs(weed.client(&bucket)));
        Some(Self { config, bucket, ..Self::new("S3 on SeaweedFS", world, backend, place) })
    }

    fn custom() -> Self {
        let objects = Arc::new(Mutex::default());
        let backend = Arc::new(Shelf { base_url: BASE.to_owned(), objects: Arc::clone(&objects) });
        Self::new("custom", World::new(), backend, Place::Shelf(objects))
    }

    fn is_s3(&self) -> bool {
        matches!(self.place, Place::Memory | Place::Folder(..) | Place::SeaweedFs(..))
    }

    fn can_read(&self) -> bool {
        !matches!(self.place, Place::Tree)
    }

    /// The object of a key before the prefix.
    fn read(&self, key: &str) -> Option<Vec<u8>> {
        match &self.place {
            Place::Tree => None,
            Place::Memory => self.world.objects().remove(key),
            Place::Folder(folder, _) => fs::read(folder.path().join(BUCKET).join(PREFIX).join(key)).ok(),
            Place::SeaweedFs(client) => {
                let answer = client.get(&format!("{PREFIX}{key}"), &[]);
                assert!(matches!(answer.status, 200 | 404), "{answer:?}");
                (answer.status == 200).then_some(answer.body)
            }
            Place::Shelf(objects) => objects.lock().unwrap().get(key).cloned(),
        }
    }

    /// All objects, by their keys before the prefix.
    fn all(&self) -> BTreeMap<String, Vec<u8>> {
        match &self.place {
            Place::Tree => BTreeMap::new(),
            Place::Memory => self.world.objects(),
            Place::Folder(folder, _) => files_below(&folder.path().join(BUCKET).join(PREFIX)),
            Place::SeaweedFs(client) => {
                let keys = client.keys(PREFIX).into_iter().map(|key| key[PREFIX.len()..].to_owned());
                keys.map(|key| (key.clone(), self.read(&key).unwrap())).collect()
            }
            Place::Shelf(objects) => objects.lock().unwrap().clone(),
        }
    }

    /// A backend of the same kind with another base of its URLs, and without a prefix.
    fn with_base(&self, base: &str) -> Arc<dyn StorageBackend> {
        match &self.place {
            Place::Tree => Arc::new(LocalBackend::new(base, self.world.root())),
            Place::Shelf(objects) => {
                Arc::new(Shelf { base_url: base.to_owned(), objects: Arc::clone(objects) })
            }
            Place::Memory | Place::Folder(..) | Place::SeaweedFs(..) => {
                s3(&self.world, self.config.clone().public_url(base).bucket_prefix(""))
            }
        }
    }

    fn file(&self, bytes: impl AsRef<[u8]>) -> PathBuf {
        self.world.write("file.tmp", bytes);
        self.world.path("file.tmp")
    }

    fn upload(&self, key: &str, bytes: impl AsRef<[u8]>) -> String {
        let uploaded = self.backend.upload_file(&self.file(bytes), key);
        uploaded.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn holds(&self, key: &str, expected: Option<&[u8]>) {
        if self.can_read() {
            let name = self.name;
            assert!(self.read(key).as_deref() == expected, "{name}: {key} is not as expected");
        }
    }

    fn rescan(&self, site: &RescanOrchestrator) -> RescanReport {
        let report = site.rescan().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        if matches!(self.place, Place::Memory) {
            check(&self.world, site, &report);
        }
        report
    }
}

fn s3(world: &World, config: S3Config) -> Arc<S3Backend> {
    Arc::new(S3Backend::new(&world.engine, config).unwrap())
}

/// The crate's own backend, on every server.
fn on_every_server() -> Vec<Rig> {
    [Rig::s3_in_memory(), Rig::s3_on_a_folder()].into_iter().chain(Rig::s3_on_seaweedfs()).collect()
}

/// Runs a check on every backend; the output of a failed one ends in the backend's name.
fn on_every_backend(check: fn(&Rig)) {
    for rig in [Rig::local(), Rig::custom()].into_iter().chain(on_every_server()) {
        println!("backend: {}", rig.name);
        check(&rig);
    }
}

#[test]
fn upload_returns_the_url_of_its_key_and_stores_the_bytes() {
    on_every_backend(|rig| {
        for key in ["plain.txt", "deep/er/a b+c.txt", "ü/😀"] {
            let url = rig.upload(key, format!("content of {key}"));
            assert_eq!(url, rig.backend.get_url(key), "{}", rig.name);
            rig.holds(key, Some(format!("content of {key}").as_bytes()));
        }
    });
}

#[test]
fn upload_over_an_object_replaces_it() {
    on_every_backend(|rig| {
        for content in ["first", "second, and longer", "3"] {
            rig.upload("d/k", content);
            rig.holds("d/k", Some(content.as_bytes()));
        }
    });
}

#[test]
fn empty_and_large_files_arrive_whole() {
    on_every_backend(|rig| {
        let large: Vec<u8> = (0..=250).cycle().take(LARGE).collect();
        rig.upload("empty", "");
        rig.upload("large", &large);
        // More than one request stores, where files go up in parts.
        let larger = crate::support::random_bytes((16 << 20) + 5, 1);
        rig.upload("larger", &larger);
        rig.holds("empty", Some(b""));
        rig.holds("large", Some(&large));
        rig.holds("larger", Some(&larger));
    });
}

#[test]
fn upload_of_a_missing_file_is_an_error_and_stores_nothing() {
    on_every_backend(|rig| {
        if !rig.can_read() {
            return;
        }
        let error = rig.backend.upload_file(&rig.world.path("missing"), "k").unwrap_err();
        assert!(!error.is_retryable(), "{}: {error}", rig.name);
        rig.holds("k", None);
    });
}

#[test]
fn delete_removes_one_object_and_a_missing_one_is_success() {
    on_every_backend(|rig| {
        rig.upload("d/gone", "x");
        rig.upload("d/stays", "y");
        for key in ["d/gone", "d/gone", "d/never", "nowhere/never"] {
            let deleted = rig.backend.delete_file(key);
            assert!(deleted.is_ok(), "{}: {key}: {deleted:?}", rig.name);
        }
        rig.holds("d/gone", None);
        rig.holds("d/stays", Some(b"y"));
    });
}

#[test]
fn keys_that_are_not_allowed_are_refused_before_any_request() {
    on_every_backend(|rig| {
        if matches!(rig.place, Place::Shelf(_)) {
            return;
        }
        let too_long = "k".repeat(1025);
        for key in ["", "/a", "a/", "a//b", "a/../b", "..", ".", "a\0b", &too_long] {
            // A path that does not exist: not even the file is looked at.
            let upload = rig.backend.upload_file(Path::new("/nonexistent"), key).unwrap_err();
            let delete = rig.backend.delete_file(key).unwrap_err();
            for error in [&upload, &delete] {
                assert_eq!(error.kind(), ErrorKind::InvalidKey, "{}: {key:?}: {error}", rig.name);
                assert_eq!(error.key(), Some(key), "{}", rig.name);
                assert!(!error.is_retryable(), "{}: {error}", rig.name);
            }
        }
        assert_eq!(rig.world.proxy.requests(), [], "{}", rig.name);
    });
}

#[test]
fn the_error_of_a_refused_key_names_what_was_asked_for() {
    on_every_backend(|rig| {
        if matches!(rig.place, Place::Shelf(_)) {
            return;
        }
        let upload = rig.backend.upload_file(Path::new("/nonexistent"), "a//b").unwrap_err();
        let delete = rig.backend.delete_file("a//b").unwrap_err();
        assert_eq!(upload.operation(), Operation::Upload, "{}: {upload}", rig.name);
        assert_eq!(delete.operation(), Operation::Delete, "{}: {delete}", rig.name);
    });
}

#[test]
fn a_key_too_long_with_its_prefix_is_refused_before_any_request() {
    for rig in on_every_server() {
        let key = "k".repeat(1024 - PREFIX.len() + 1);
        let upload = rig.backend.upload_file(&rig.file("x"), &key).unwrap_err();
        let delete = rig.backend.delete_file(&key).unwrap_err();
        assert_eq!((upload.kind(), delete.kind()), (ErrorKind::InvalidKey, ErrorKind::InvalidKey));
        assert_eq!((upload.operation(), delete.operation()), (Operation::Upload, Operation::Delete));
        assert_eq!(rig.world.proxy.requests(), [], "{}", rig.name);
    }
}

#[test]
fn urls_are_base_and_encoded_key_with_exactly_one_slash_trimmed() {
    on_every_backend(|rig| {
        for (base, trimmed) in [
            ("http://h.example", "http://h.example"),
            ("http://h.example/", "http://h.example"),
            ("http://h.example/x/", "http://h.example/x"),
            ("http://h.example/x//", "http://h.example/x/"),
        ] {
            let backend = rig.with_base(base);
            assert_eq!(backend.get_url("k"), format!("{trimmed}/k"), "{}: {base}", rig.name);
            let key = "a b/ü%+?#&.txt";
            let url = backend.get_url(key);
            assert_eq!(url, format!("{trimmed}/a%20b/%C3%BC%25%2B%3F%23%26.txt"), "{}", rig.name);
            let encoded = url.strip_prefix(trimmed).unwrap();
            let decoded = percent_decode_str(encoded).decode_utf8().unwrap();
            assert_eq!(decoded, format!("/{key}"), "{}", rig.name);
        }
    });
}

#[test]
fn only_the_local_backend_is_not_remote() {
    on_every_backend(|rig| {
        let local = matches!(rig.place, Place::Tree);
        assert_eq!(rig.backend.is_remote(), !local, "{}", rig.name);
    });
}

#[test]
fn destination_is_one_text_for_one_place() {
    on_every_backend(|rig| {
        let one = rig.backend.destination();
        rig.upload("k", "x");
        assert_eq!(rig.backend.destination(), one, "{}", rig.name);
        let again = |base: &str| rig.with_base(base).destination();
        assert_eq!(again("http://h.example/a"), again("http://h.example/a/"), "{}", rig.name);
        if !rig.is_s3() {
            assert_ne!(again("http://h.example/a"), again("http://h.example/b"), "{}", rig.name);
            return;
        }
        // A new address for readers is no new place.
        assert_eq!(again("http://h.example/a"), again("http://cdn.example"), "{}", rig.name);
        let other = |change: fn(S3Config) -> S3Config| s3(&rig.world, change(rig.config.clone()));
        let same = other(|config| config.bucket_prefix("/site"));
        assert_eq!(same.destination(), one, "{}", rig.name);
        for different in [
            other(|config| config.bucket_prefix("site2")),
            other(|config| config.bucket_prefix("")),
            other(|config| config.endpoint("http://127.0.0.1:9")),
            s3(&rig.world, credentials(S3Config::new("other")).endpoint(rig.world.proxy.endpoint())),
        ] {
            assert_ne!(different.destination(), one, "{}", rig.name);
        }
    });
}

fn credentials(config: S3Config) -> S3Config {
    config.credentials(Credentials::new(ACCESS_KEY, crate::support::server::SECRET_KEY)).bucket_prefix(PREFIX)
}

#[test]
fn many_threads_use_one_backend_at_once() {
    on_every_backend(|rig| {
        let content = |worker: usize, n: usize| format!("{worker} wrote {n}");
        let upload_and_delete = |worker: usize| {
            let backend: Arc<dyn StorageBackend> = Arc::clone(&rig.backend);
            for n in 0..20 {
                let (name, key) = (format!("w{worker}/{n}"), format!("t{worker}/f{n}"));
                rig.world.write(&name, content(worker, n));
                let url = backend.upload_file(&rig.world.path(&name), &key).unwrap();
                assert_eq!(url, backend.get_url(&key), "{}", rig.name);
            }
            backend.delete_file(&format!("t{worker}/f0")).unwrap();
        };
        thread::scope(|scope| {
            for worker in 0..8 {
                scope.spawn(move || upload_and_delete(worker));
            }
        });
        for (worker, n) in (0..8).flat_map(|worker| (0..20).map(move |n| (worker, n))) {
            let expected = (n > 0).then(|| content(worker, n).into_bytes());
            rig.holds(&format!("t{worker}/f{n}"), expected.as_deref());
        }
    });
}

#[test]
fn orchestrator_keeps_the_store_equal_to_the_tree() {
    on_every_backend(|rig| {
        let world = &rig.world;
        for n in 0..30 {
            world.write(&format!("d{}/e{}/f{n:02}", n % 3, n % 2), format!("content {n}"));
        }
        let site = world.orchestrator_on(Arc::clone(&rig.backend), RescanConfig::new());
        let report = rig.rescan(&site);
        counts(rig, &report, RescanOutcome::Published, (30, 0));
        equals_the_tree(rig, &site);

        for n in [1, 2, 3] {
            world.write(&format!("d{}/e{}/f{n:02}", n % 3, n % 2), format!("changed content {n}"));
        }
        world.remove("d0/e0/f00");
        world.remove("d2/e1/f29");
        world.write("d0/new", "new");
        world.write("new folder/new", "also new");
        let report = rig.rescan(&site);
        counts(rig, &report, RescanOutcome::Published, (5, 2));
        let deleted: BTreeSet<_> = report.deleted.iter().map(String::as_str).collect();
        assert_eq!(deleted, BTreeSet::from(["d0/e0/f00", "d2/e1/f29"]), "{}", rig.name);
        equals_the_tree(rig, &site);
        idle(rig, &site);
    });
}

fn counts(rig: &Rig, report: &RescanReport, outcome: RescanOutcome, expected: (u64, u64)) {
    assert_eq!(report.outcome, outcome, "{}: {report:?}", rig.name);
    assert_eq!((report.uploaded_count, report.deleted_count), expected, "{}", rig.name);
    for file in &report.uploaded {
        assert_eq!(file.url, rig.backend.get_url(&file.key), "{}", rig.name);
    }
}

fn equals_the_tree(rig: &Rig, site: &RescanOrchestrator) {
    let tree = files_below(&rig.world.root());
    if rig.can_read() {
        assert!(rig.all() == tree, "{}: {:?}", rig.name, rig.all().keys());
    }
    let published = site.cache().published().unwrap();
    let published: BTreeMap<_, _> = published
        .entries()
        .map(|entry| (entry.key.as_str().to_owned(), entry.digest.unwrap().as_bytes().to_vec()))
        .collect();
    let expected = tree.into_iter().map(|(key, bytes)| (key, Sha256::digest(bytes).to_vec())).collect();
    assert!(published == expected, "{}: {:?}", rig.name, published.keys());
}

/// The first rescan after files settled may look into those of the last two seconds; the second is idle.
fn idle(rig: &Rig, site: &RescanOrchestrator) {
    rig.world.let_files_settle();
    let report = rig.rescan(site);
    counts(rig, &report, RescanOutcome::Unchanged, (0, 0));
    let report = rig.rescan(site);
    counts(rig, &report, RescanOutcome::Unchanged, (0, 0));
    let work = (report.metrics.requests, report.metrics.bytes_hashed, report.metrics.commits);
    assert_eq!(work, (0, 0, 0), "{}: I5", rig.name);
    if matches!(rig.place, Place::Memory) {
        check_idle(&rig.world, site);
    }
}

#[test]
fn s3_published_url_is_where_the_key_lies_under_every_prefix() {
    for rig in on_every_server() {
        for (prefix, full) in [("", ""), ("a", "a/"), ("a/", "a/"), ("/a/b/", "a/b/")] {
            let backend = s3(&rig.world, rig.config.clone().bucket_prefix(prefix));
            let (key, content) = ("d/a b+c%2F.txt", format!("under {prefix:?}"));
            assert_eq!(backend.build_key(key), format!("{full}{key}"));
            let url = backend.upload_file(&rig.file(&content), key).unwrap();
            assert_eq!(http_get(&url), (200, content.into_bytes()), "{}: {url}", rig.name);
            let decoded = percent_decode_str(&url).decode_utf8().unwrap();
            let address = format!("{}/{}/{full}{key}", rig.world.proxy.endpoint(), rig.bucket);
            assert_eq!(decoded, address, "{}", rig.name);
            backend.delete_file(key).unwrap();
            assert_eq!(http_get(&url).0, 404, "{}: {url}", rig.name);
        }
    }
}

#[test]
fn s3_without_path_style_puts_the_bucket_into_the_host() {
    let world = World::new();
    let config = || world.s3_config().endpoint("http://store.example:9000");
    let by_host = s3(&world, config().path_style(false));
    assert_eq!(by_host.get_url("k"), "http://bucket.store.example:9000/site/k");
    let by_path = s3(&world, config().path_style(true));
    assert_eq!(by_path.get_url("k"), "http://store.example:9000/bucket/site/k");
    let default = s3(&world, config());
    assert_eq!(default.get_url("k"), by_path.get_url("k"));
    let cdn = s3(&world, config().path_style(false).public_url("https://cdn.example/x/"));
    assert_eq!(cdn.get_url("k"), "https://cdn.example/x/site/k");
}

/// What the store in memory got with one upload.
fn stored(config: impl FnOnce(S3Config) -> S3Config, key: &str, bytes: &str) -> StoredObject {
    let rig = Rig::s3_in_memory();
    let backend = s3(&rig.world, config(rig.world.s3_config()));
    backend.upload_file(&rig.file(bytes), key).unwrap();
    rig.world.store.get(&format!("{PREFIX}{key}")).unwrap()
}

#[test]
fn s3_content_type_is_by_name() {
    for (key, expected) in [
        ("index.html", "text/html; charset=utf-8"),
        ("deep/INDEX.HTML", "text/html; charset=utf-8"),
        ("image.png", "image/png"),
        ("app.wasm", "application/wasm"),
        ("data.no-such-type", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("d.html/README", "application/octet-stream"),
    ] {
        assert_eq!(stored(|config| config, key, "x").content_type.as_deref(), Some(expected), "{key}");
    }
}

#[test]
fn s3_fixed_headers_arrive_with_every_object() {
    let fixed = |config: S3Config| {
        let config = config.header("Cache-Control", "public,  max-age=60");
        config.header("x-amz-storage-class", "STANDARD_IA").header("X-Amz-Meta-Release", "1.2 (beta)")
    };
    for bytes in ["", "x"] {
        let object = stored(fixed, "index.html", bytes);
        assert_eq!(object.cache_control.as_deref(), Some("public, max-age=60"));
        assert_eq!(object.storage_class.as_deref(), Some("STANDARD_IA"));
        assert_eq!(object.metadata["release"], "1.2 (beta)");
        assert_eq!(object.content_type.as_deref(), Some("text/html; charset=utf-8"));
    }
}

#[test]
fn s3_checksum_is_stored_only_when_asked_for_at_an_endpoint_of_its_own() {
    assert_eq!(stored(|config| config, "k", "x").checksum_sha256, None);
    assert_eq!(stored(|config| config.checksum_header(false), "k", "x").checksum_sha256, None);
    for bytes in ["", "some content"] {
        let object = stored(|config| config.checksum_header(true), "k", bytes);
        assert_eq!(object.checksum_sha256, Some(BASE64_STANDARD.encode(Sha256::digest(bytes))));
        assert!(object.headers.contains_key("x-amz-checksum-sha256"));
    }
}

/// Sixty published files, of which twenty-five are gone.
fn with_25_of_60_gone() -> (World, RescanOrchestrator) {
    let world = World::new();
    for n in 0..60 {
        world.write(&format!("d{}/f{n:02}", n % 4), format!("{n}"));
    }
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    for n in 0..25 {
        world.remove(&format!("d{}/f{n:02}", n % 4));
    }
    world.proxy.clear_counts();
    (world, site)
}

fn requests_with(world: &World, method: &str) -> usize {
    world.proxy.requests().iter().filter(|seen| seen.method == method).count()
}

#[test]
fn s3_deletes_many_objects_with_one_request() {
    let (world, site) = with_25_of_60_gone();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 25));
    let requests: Vec<_> = world.proxy.requests().into_iter().filter(|seen| seen.method != "GET").collect();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!((requests[0].method.as_str(), requests[0].target.as_str()), ("POST", "/bucket/?delete="));
    let md5 = requests[0].header("Content-MD5").unwrap();
    assert_eq!(BASE64_STANDARD.decode(md5).unwrap().len(), 16);
    assert_eq!((world.store.deletes().len(), world.keys().len()), (25, 35));
}

#[test]
fn s3_deletes_one_by_one_where_the_store_cannot_many() {
    let (world, site) = with_25_of_60_gone();
    world.store.lacks_bulk_delete(true);
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 25));
    assert_eq!((requests_with(&world, "POST"), requests_with(&world, "DELETE")), (1, 25));
    assert_eq!(world.keys().len(), 35);
    // It is asked once, not at every rescan.
    for n in 25..30 {
        world.remove(&format!("d{}/f{n:02}", n % 4));
    }
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((requests_with(&world, "POST"), requests_with(&world, "DELETE")), (1, 30));
}

#[test]
fn s3_delete_that_is_denied_stays_pending_and_the_others_are_done() {
    for lacks_bulk_delete in [false, true] {
        let (world, site) = with_25_of_60_gone();
        world.store.deny_delete("site/d3/f07");
        world.store.lacks_bulk_delete(lacks_bulk_delete);
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Partial, 24));
        assert_eq!((report.failed_count, report.pending), (1, 1));
        let error = &report.failed[0];
        assert_eq!((error.kind(), error.key()), (ErrorKind::AccessDenied, Some("d3/f07")), "{error}");
        assert_eq!(error.operation(), Operation::Delete);
        let pending = site.cache().pending().unwrap();
        assert_eq!((pending[0].key.as_str(), pending[0].kind), ("d3/f07", PendingKind::Removed));
        assert_eq!((world.keys().len(), world.objects().contains_key("d3/f07")), (36, true));
        world.store.clear_faults();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.deleted), (RescanOutcome::Published, vec!["d3/f07".to_owned()]));
        check_idle(&world, &site);
    }
}

/// A tree of twenty-five files.
fn with_25_files() -> World {
    let world = World::new();
    for n in 0..25 {
        world.write(&format!("f{n}"), "x");
    }
    world
}

/// The errors of a rescan, of another, and of a single upload, each of which sent just one request.
fn one_request_each(
    world: &World,
    site: &RescanOrchestrator,
    backend: &dyn StorageBackend,
) -> [StorageError; 3] {
    let rescan = || site.rescan().unwrap_err();
    let upload = || backend.upload_file(&world.path("f1"), "f1").unwrap_err();
    let tries: [&dyn Fn() -> StorageError; 3] = [&rescan, &rescan, &upload];
    tries.map(|attempt| {
        world.proxy.clear_counts();
        let error = attempt();
        assert_eq!(world.proxy.requests().len(), 1, "{error}");
        error
    })
}

#[test]
fn s3_missing_bucket_is_one_request_and_an_error_that_names_it() {
    let world = with_25_files();
    let config = credentials(S3Config::new("nowhere")).endpoint(world.proxy.endpoint());
    let backend = s3(&world, config);
    let site = world.orchestrator_on(backend.clone(), RescanConfig::new());
    for error in one_request_each(&world, &site, &*backend) {
        assert_eq!(error.kind(), ErrorKind::BucketMissing, "{error}");
        let text = error.to_string();
        assert!(text.contains("\"nowhere\"") && text.contains("buckets are never created"), "{text}");
    }
    assert_eq!(site.cache().published_count().unwrap(), 0);
    assert!(!site.cache().is_synced().unwrap());
}

#[test]
fn s3_wrong_secret_is_one_request_and_an_error_that_says_what_to_check() {
    const WRONG: &str = "not-the-secret-key-CANARY";
    let world = with_25_files();
    let config = world.s3_config().credentials(Credentials::new(ACCESS_KEY, WRONG));
    let backend = s3(&world, config);
    let site = world.orchestrator_on(backend.clone(), RescanConfig::new());
    for error in one_request_each(&world, &site, &*backend) {
        assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
        assert!(error.to_string().contains("check access key, secret key"), "{error}");
        let seen = format!("{error} {error:?} {:?}", world.events.lock().unwrap());
        assert!(!seen.contains(WRONG), "{error}");
        assert_eq!(logs::leak_in(&seen), None);
    }
    assert_eq!((world.keys(), logs::leaks()), (Vec::new(), Vec::new()));
    assert_eq!(site.cache().published_count().unwrap(), 0);
}

#[test]
fn s3_error_of_the_first_request_is_about_no_key() {
    let world = with_25_files();
    let config = credentials(S3Config::new("nowhere")).endpoint(world.proxy.endpoint());
    let backend: Arc<dyn StorageBackend> = s3(&world, config);
    let site = world.orchestrator_on(backend.clone(), RescanConfig::new());
    let error = site.rescan().unwrap_err();
    assert_eq!((error.operation(), error.key()), (Operation::State, None), "{error}");
    assert!(error.to_string().starts_with("state: "), "{error}");
    // Nor is that of a listing.
    let error = site.cache().verify(&world.engine, &backend, &Run::new()).unwrap_err();
    assert_eq!((error.operation(), error.key()), (Operation::List, None), "{error}");
    assert!(error.to_string().starts_with("list: "), "{error}");
}
