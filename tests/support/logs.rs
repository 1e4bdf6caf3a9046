//! A logger at level TRACE that searches every record of every crate for secrets (I7), for all tests of the binary.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once};

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

use super::server::SECRET_KEY;
use super::{NEXT_TOKEN, SESSION_TOKEN};

static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static INSTALL: Once = Once::new();
static SEARCHED: AtomicU64 = AtomicU64::new(0);

struct Watcher;

impl Log for Watcher {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut text = record.args().to_string();
        let _ = record.key_values().visit(&mut Pairs(&mut text));
        if record.target().starts_with("ureq_proto") {
            text = with_rows_before(&text);
        }
        SEARCHED.fetch_add(1, Relaxed);
        if let Some(leak) = leak_in(&text) {
            LEAKS.lock().unwrap().push(format!("{} in {} {text}", leak, record.target()));
        }
    }

    fn flush(&self) {}
}

struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let _ = write!(self.0, " {key}={value}");
        Ok(())
    }
}

thread_local! {
    static ROWS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The number of bytes that are remembered: more than any secret and one row.
const ROOM: usize = 96;

/// Joins a row with those before it on this thread. ureq-proto logs the bytes that it sends as a hex dump, one record
/// for each row of 16 bytes with the characters at its end, so a secret may be spread over several rows.
fn with_rows_before(row: &str) -> String {
    ROWS.with_borrow_mut(|rows| {
        rows.push_str(row.rsplit(' ').next().unwrap_or_default());
        let keep = rows.len().saturating_sub(ROOM);
        rows.drain(..keep);
        rows.clone()
    })
}

/// The joined rows that ureq-proto would log for these bytes.
pub fn rows_of(sent: &[u8]) -> String {
    let row = |bytes: &[u8]| {
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        format!("0000 {}", bytes.iter().map(shown).collect::<String>())
    };
    let rows = sent.chunks(16).fold(String::new(), |_, bytes| with_rows_before(&row(bytes)));
    ROWS.set(String::new());
    rows
}

/// The start of what an HTTP proxy gets as user and password: Base64 of `user.proxy:s`.
pub const PROXY_LOGIN: &str = "dXNlci5wcm94eTpz";

/// The secret that a text contains, if any.
pub fn leak_in(text: &str) -> Option<&'static str> {
    ["Signature=", "AWS4-HMAC-SHA256", SECRET_KEY, SESSION_TOKEN, NEXT_TOKEN, PROXY_LOGIN]
        .into_iter()
        .find(|secret| text.contains(secret))
}

/// Installs the logger, once for each process.
pub fn watch() {
    INSTALL.call_once(|| {
        log::set_logger(&Watcher).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

/// The files below a folder that hold a secret.
pub fn files_with_secrets(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        // A link may lead anywhere, and a fifo waits.
        let kind = fs::symlink_metadata(&path).map(|metadata| metadata.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => found.extend(files_with_secrets(&path)),
            Ok(kind) if kind.is_file() && holds_secret(&fs::read(&path).unwrap_or_default()) => {
                found.push(path.display().to_string());
            }
            _ => {}
        }
    }
    found
}

/// Whether bytes hold one of the secrets of worlds.
pub fn holds_secret(bytes: &[u8]) -> bool {
    let secrets = [SECRET_KEY, SESSION_TOKEN, NEXT_TOKEN];
    secrets.iter().any(|secret| memchr::memmem::find(bytes, secret.as_bytes()).is_some())
}

/// The number of records searched so far.
pub fn searched() -> u64 {
    SEARCHED.load(Relaxed)
}

/// The leaks found so far.
pub fn leaks() -> Vec<String> {
    LEAKS.lock().unwrap().clone()
}
