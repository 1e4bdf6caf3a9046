//! The counters of an engine and of each run, and their snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        struct Counters { $($name: AtomicU64),* }

        /// All counters at one moment. They start at zero with their engine (in a report: with its run) and only
        /// grow, except `pending_files` and `last_rescan_time`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct MetricsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Total time spent in rescans.
            pub rescan_time: Duration,
            /// Duration of the last rescan.
            pub last_rescan_time: Duration,
        }

        impl Metrics {
            $(#[allow(dead_code, reason = "`rescan_ended` sets some of them")]
            pub(crate) fn $name(&self, by: u64) { self.add(|counters| &counters.$name, by); })*

            /// The counters as they are now.
            pub(crate) fn snapshot(&self) -> MetricsSnapshot {
                let (own, times) = (&self.0.counters, &self.0.times);
                MetricsSnapshot {
                    $($name: own.$name.load(Relaxed),)*
                    rescan_time: Duration::from_nanos(times.total.load(Relaxed)),
                    last_rescan_time: Duration::from_nanos(times.last.load(Relaxed)),
                }
            }
        }
    };
}

counters! {
    /// Files uploaded and acknowledged.
    uploads,
    /// Files whose upload failed after all retries.
    uploads_failed,
    /// Bytes of the files uploaded and acknowledged.
    upload_bytes,
    /// Objects that got other headers by a copy in place.
    headers_updated,
    /// Objects deleted and acknowledged; one that was already gone counts too.
    deletes,
    /// Objects whose delete failed after all retries.
    deletes_failed,
    /// Retries of requests.
    retries,
    /// Requests started, retries included.
    requests,
    /// Connections opened.
    connections,
    /// DNS look-ups.
    lookups,
    /// Bytes written to sockets, headers and TLS included.
    bytes_sent,
    /// Writes to sockets.
    sends,
    /// Bytes read from sockets, headers and TLS included.
    bytes_received,
    /// Transactions committed to the cache.
    commits,
    /// Bytes of files read for hashing.
    bytes_hashed,
    /// Rescans that ended, in whatever way.
    rescans,
    /// Files pending after the last rescan (a gauge).
    pending_files,
}

#[derive(Debug, Default)]
struct Times {
    total: AtomicU64,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    counters: Counters,
    times: Times,
    parent: Option<Metrics>,
}

/// A set of counters, cheap to clone. Each count of a run is added to its engine's counters too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Arc<Inner>);

impl Metrics {
    /// Counters for one run, whose counts are added to these as well.
    pub(crate) fn child(&self) -> Self {
        Self(Arc::new(Inner { parent: Some(self.clone()), ..Inner::default() }))
    }

    fn add(&self, pick: impl Fn(&Counters) -> &AtomicU64, by: u64) {
        pick(&self.0.counters).fetch_add(by, Relaxed);
        // A run's counters have their engine's as parent; an engine's have none.
        if let Some(parent) = &self.0.parent {
            parent.add(pick, by);
        }
    }

    /// Counts a rescan.
    pub(crate) fn rescan_ended(&self, took: Duration, pending: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.counters.rescans.fetch_add(1, Relaxed);
        // The gauge is set, not added: it is a state, not a count.
        self.0.counters.pending_files.store(pending, Relaxed);
        self.0.times.total.fetch_add(nanos, Relaxed);
        self.0.times.last.store(nanos, Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.rescan_ended(took, pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_counts_its_engine_counts_too() {
        let engine = Metrics::default();
        let run = engine.child();
        run.uploads(2);
        engine.child().uploads(3);
        run.rescan_ended(Duration::from_secs(1), 7);
        assert_eq!((run.snapshot().uploads, engine.snapshot().uploads), (2, 5));
        assert_eq!((engine.snapshot().pending_files, engine.snapshot().rescans), (7, 1));
        assert_eq!(engine.snapshot().last_rescan_time, Duration::from_secs(1));
    }
}
