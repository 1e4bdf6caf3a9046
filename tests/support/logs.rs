//! A logger at TRACE that looks at every record of every crate for secrets (I7), for all tests of
//! the binary at once.

use std::fmt::Write as _;
use std::sync::{Mutex, Once};

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

use super::SESSION_TOKEN;
use super::server::SECRET_KEY;

static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static INSTALL: Once = Once::new();

struct Watcher;

impl Log for Watcher {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut text = record.args().to_string();
        let _ = record.key_values().visit(&mut Pairs(&mut text));
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

/// Which secret a text holds, if it does.
pub fn leak_in(text: &str) -> Option<&'static str> {
    ["Signature=", "AWS4-HMAC-SHA256 Credential", SECRET_KEY, SESSION_TOKEN]
        .into_iter()
        .find(|secret| text.contains(secret))
}

/// Installs the logger, once in the process.
pub fn watch() {
    INSTALL.call_once(|| {
        log::set_logger(&Watcher).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

/// What was seen so far.
pub fn leaks() -> Vec<String> {
    LEAKS.lock().unwrap().clone()
}
