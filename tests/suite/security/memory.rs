//! Memory that held a secret key: what is freed, and what is left after the credentials were dropped. This binary is its own
//! child for that.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bucket_brigade::{
    CacheManager, Credentials, Engine, RescanOrchestrator, RescanOutcome, S3Backend, S3Config,
};
use memchr::memmem;
use zeroize::Zeroizing;

use crate::support::memory_store::MemoryStore;
use crate::support::server::{ACCESS_KEY, S3Server, guarded_by};
use crate::support::{BUCKET, PREFIX};

const ENDPOINT: &str = "BRIGADE_TEST_SECRET_ENDPOINT";
const FOLDER: &str = "BRIGADE_TEST_SECRET_FOLDER";
const SECRET_BYTES: usize = 40;

/// The part of a secret that freed memory is searched for, in the child alone.
static WATCHED: OnceLock<Vec<u8>> = OnceLock::new();
/// The number of blocks that held it when they were freed.
static FREED_WITH_IT: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, which counts what is freed with a secret in it.
struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// SAFETY: all of it is the system's, with the same arguments. A block is read before it is given back.
#[allow(unsafe_code, reason = "there is no other way to see what is freed")]
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(secret) = WATCHED.get() {
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            FREED_WITH_IT.fetch_add(u64::from(memmem::find(bytes, secret).is_some()), Ordering::Relaxed);
        }
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if WATCHED.get().is_none() {
            return unsafe { System.realloc(block, layout, size) };
        }
        // The old place is freed, too.
        unsafe {
            let moved = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Publishes a tree with the secret key that comes on standard input, where this process was started for that. Says when
/// it holds the key, and when it has dropped it, and goes on when a byte comes.
fn acted_as_child() -> bool {
    let (Ok(endpoint), Ok(folder)) = (std::env::var(ENDPOINT), std::env::var(FOLDER)) else {
        return false;
    };
    let mut input = File::open("/dev/stdin").unwrap();
    let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
    input.read_exact(&mut secret).unwrap();
    // A part of it is worth finding, too.
    WATCHED.set(secret[8..24].to_vec()).unwrap();
    let wait = |what: &str| {
        println!("\n{what} {}", FREED_WITH_IT.swap(0, Ordering::Relaxed));
        (&input).read_exact(&mut [0]).unwrap();
    };
    drop(secret.to_vec());
    wait("freed");
    let engine = Engine::new().unwrap();
    let credentials = Credentials::new(ACCESS_KEY, std::str::from_utf8(&secret).unwrap());
    drop(secret);
    let config = S3Config::new(BUCKET).endpoint(endpoint).credentials(credentials).bucket_prefix(PREFIX);
    let backend = Arc::new(S3Backend::new(&engine, config).unwrap());
    let folder = Path::new(&folder);
    let cache = CacheManager::open(folder.join("state/cache")).unwrap();
    let site = RescanOrchestrator::new(&engine, folder.join("tree"), backend, cache).unwrap();
    assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Published);
    wait("holding");
    drop(site);
    assert!(engine.join());
    #[cfg(feature = "config")]
    publish_as_configured(folder);
    wait("dropped");
    true
}

/// Does the same with the secret from a file, then from a program, as a configuration file says.
#[cfg(feature = "config")]
fn publish_as_configured(folder: &Path) {
    let path = folder.join("brigade.toml");
    for name in bucket_brigade::ConfigFile::load(&path).unwrap().destinations() {
        let site = bucket_brigade::open(name).unwrap();
        assert_eq!(site.rescan().unwrap().failed_count, 0);
    }
}

fn write_config(endpoint: &str, folder: &Path, secret: &str) {
    let destination = |name: &str, place: &str| {
        format!(
            "[destination.{name}]\nbucket = \"{BUCKET}\"\nprefix = \"{name}\"\nroot = \"tree\"\ncache = \"{name}/cache\"\n\
             endpoint_url = \"{endpoint}\"\naccess_key_id = {{ command = [\"echo\", \"{ACCESS_KEY}\"] }}\n\
             secret_access_key = {place}\n"
        )
    };
    let text =
        destination("a", "{ file = \"secret\" }") + &destination("b", "{ command = [\"cat\", \"secret\"] }");
    fs::write(folder.join("brigade.toml"), text).unwrap();
    fs::write(folder.join("secret"), format!("{secret}\n")).unwrap();
}

/// The number of places of a text in the memory of a process that may be written.
fn places_in_memory(pid: u32, text: &str) -> usize {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let mut words = line.split_whitespace();
        let (range, permissions) = (words.next().unwrap(), words.next().unwrap());
        if !permissions.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            found += memmem::find_iter(&bytes, text).count();
        }
    }
    found
}

/// Waits until the child says this, and returns the number behind it.
fn heard(what: &str, lines: &mut BufReader<ChildStdout>) -> u64 {
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some(number) = line.trim().strip_prefix(what) {
            return number.trim().parse().unwrap();
        }
        line.clear();
    }
    panic!("the child never said {what}");
}

fn start(endpoint: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "security::memory::s1_secret_key_is_wiped_before_its_memory_is_freed",
            "--nocapture",
        ])
        .env(ENDPOINT, endpoint)
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// rust-s3 derives the key of a day from a text `AWS4…`, and freed it with the secret key in it: to be found in a core dump, or
/// by whoever reads what the host has freed. The key is derived in this crate now.
#[test]
fn s1_secret_key_is_wiped_before_its_memory_is_freed() {
    if acted_as_child() {
        return;
    }
    let secret: String = (0..SECRET_BYTES).map(|_| fastrand::alphanumeric()).collect();
    let server = S3Server::start(guarded_by(MemoryStore::with_bucket(BUCKET), &secret));
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tree")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(folder.path().join("tree").join(name), name).unwrap();
    }
    write_config(&server.endpoint(), folder.path(), &secret);
    let mut child = start(&server.endpoint(), folder.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut input = child.stdin.take().unwrap();
    input.write_all(secret.as_bytes()).unwrap();
    assert_eq!(heard("freed", &mut lines), 1, "a copy that is freed is seen");
    input.write_all(b"\n").unwrap();
    assert_eq!(heard("holding", &mut lines), 0, "freed with the secret key in it");
    let held = places_in_memory(child.id(), &secret);
    input.write_all(b"\n").unwrap();
    assert_eq!(heard("dropped", &mut lines), 0, "freed with the secret key in it");
    let left = places_in_memory(child.id(), &secret);
    input.write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(held > 0 && left == 0, "{held} places, and {left} when it was dropped");
}
