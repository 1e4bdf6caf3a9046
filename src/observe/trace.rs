//! Builds log records and passes records, events and counts on. No other file writes records about requests.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use log::kv::Value;
use log::{Level, Record};

use crate::observe::event::{Event, Observer, Progress};
use crate::observe::metrics::Metrics;
use crate::text::Printable;

/// The log target of every record of this library.
pub(crate) const TARGET: &str = "bucket_brigade";

/// The key-values of one record.
pub(crate) type Fields<'a> = &'a [(&'static str, &'a dyn Display)];

/// The receivers of a run's (or an engine's) records, events and counts.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    observers: Vec<Arc<dyn Observer>>,
    pub(crate) metrics: Metrics,
    pub(crate) progress: Progress,
}

/// The facts about a request that ended, for its log record.
pub(crate) struct RequestEnd<'a> {
    pub(crate) operation: &'a str,
    pub(crate) key: &'a str,
    pub(crate) bucket: &'a str,
    pub(crate) bytes: u64,
    pub(crate) attempts: u32,
    pub(crate) elapsed: Duration,
    pub(crate) outcome: &'a str,
    pub(crate) request_id: &'a str,
}

impl Trace {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>, metrics: Metrics) -> Self {
        Self { observers, metrics, progress: Progress::default() }
    }

    /// The trace of one run: its own observer and counters in addition to those of the engine.
    pub(crate) fn for_run(&self, observer: Option<Arc<dyn Observer>>, progress: Option<Progress>) -> Self {
        Self {
            observers: self.observers.iter().cloned().chain(observer).collect(),
            metrics: self.metrics.child(),
            progress: progress.unwrap_or_default(),
        }
    }

    /// Sends an event to all observers. It is built only if there is one.
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if self.observers.is_empty() {
            return;
        }
        let event = event();
        for observer in &self.observers {
            // A panic of an observer must not reach the run (I9). The log is all that is left to tell it to.
            if catch_unwind(AssertUnwindSafe(|| observer.event(&event))).is_err() {
                log::error!(target: TARGET, "an observer panicked");
            }
        }
    }

    /// Writes a record to the `log` facade, and to the observers as [`Event::Log`].
    pub(crate) fn log(&self, level: Level, message: &str, fields: Fields<'_>) {
        let wanted = level <= log::max_level();
        // Formatting costs more than this test, and most programs have debug records off.
        if !wanted && self.observers.is_empty() {
            return;
        }
        // Escaped once, here, for the facade and the observers alike.
        let texts: Vec<(&'static str, String)> =
            fields.iter().map(|(name, value)| (*name, Printable(&value.to_string()).to_string())).collect();
        let message = Printable(message).to_string();
        if wanted {
            write_to_facade(level, &message, &texts);
        }
        self.emit(|| Event::Log { level, message, fields: texts });
    }

    /// Counts bytes of a file that were read for hashing.
    pub(crate) fn bytes_hashed(&self, count: u64) {
        self.metrics.bytes_hashed(count);
        self.progress.bytes_hashed(count);
    }

    pub(crate) fn warn(&self, message: &str, fields: Fields<'_>) {
        self.log(Level::Warn, message, fields);
    }

    /// Logs the start of an upload, a delete or an abort.
    pub(crate) fn started(&self, operation: &str, key: &str, bucket: &str, bytes: u64) {
        let fields: Fields<'_> =
            &[("operation", &operation), ("key", &key), ("bucket", &bucket), ("bytes", &bytes)];
        self.log(Level::Info, &format!("{operation} started"), fields);
    }

    /// Logs the end of a request, successful or not.
    pub(crate) fn ended(&self, level: Level, end: &RequestEnd<'_>) {
        let elapsed = format!("{:.3}", end.elapsed.as_secs_f64());
        let fields: Fields<'_> = &[
            ("operation", &end.operation),
            ("key", &end.key),
            ("bucket", &end.bucket),
            ("bytes", &end.bytes),
            ("attempts", &end.attempts),
            ("elapsed", &elapsed),
            ("outcome", &end.outcome),
            ("request_id", &end.request_id),
        ];
        self.log(level, &format!("{} ended", end.operation), fields);
    }
}

fn write_to_facade(level: Level, message: &str, texts: &[(&'static str, String)]) {
    let pairs: Vec<(&str, Value<'_>)> =
        texts.iter().map(|(name, text)| (*name, Value::from(text.as_str()))).collect();
    let pairs = pairs.as_slice();
    let mut record = Record::builder();
    record.level(level).target(TARGET).module_path_static(Some(module_path!())).key_values(&pairs);
    log::logger().log(&record.args(format_args!("{message}")).build());
}

/// Removes secrets from a text that a server wrote: some servers repeat what they were sent.
pub(crate) fn redact(text: &str, secrets: &[&str]) -> String {
    let mut secrets: Vec<_> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
    // The longest first: one secret may begin with another, and its rest would stay in the text.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(*secret, "[secret]"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn records_reach_observers_with_their_fields_escaped() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let observer: Arc<dyn Observer> = Arc::new(move |event: &Event| {
            if let Event::Log { message, fields, .. } = event {
                sink.lock().unwrap().push((message.clone(), fields.clone()));
            }
        });
        Trace::new(vec![observer], Metrics::default()).started("upload", "a\nb", "bucket", 3);
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].0, "upload started");
        assert!(seen[0].1.contains(&("key", "a\\nb".to_owned())));
    }

    #[test]
    fn p7_a_panic_of_an_observer_stays_with_it() {
        let loud: Arc<dyn Observer> = Arc::new(|_: &Event| panic!("observer"));
        Trace::new(vec![loud], Metrics::default()).warn("x", &[]);
    }

    #[test]
    fn secrets_are_cut_out_of_texts() {
        assert_eq!(redact("key AKIA1 is unknown", &["AKIA1", ""]), "key [secret] is unknown");
        assert_eq!(redact("minio123 minio", &["minio", "minio123"]), "[secret] [secret]");
    }
}
