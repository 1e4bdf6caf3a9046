//! HEADs of many keys, as many at a time as there are workers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::StoredObject;
use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::caught::panicked;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::context::Context;

/// After so many failures in a row nothing more is asked.
const FAILURES_IN_A_ROW: u32 = 3;

/// A key, what the caller knows of it, and what a HEAD tells.
pub(crate) type Answer<T> = (String, T, Option<StoredObject>);

/// The keys whose HEAD failed.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    pub(crate) count: u64,
    first: Option<StorageError>,
}

impl Unanswered {
    fn note(&mut self, error: StorageError) {
        self.count += 1;
        self.first.get_or_insert(error);
    }

    pub(crate) fn add(&mut self, others: Self) {
        self.count += others.count;
        self.first = self.first.take().or(others.first);
    }

    /// Returns the error for all of them, of the first one's kind.
    pub(crate) fn into_error(self) -> Option<StorageError> {
        let first = self.first?;
        let what =
            format!("objects in doubt that could not be asked for: {}; the first: {first}", self.count);
        Some(StorageError::new(first.kind(), Operation::Head, what).with_source(first))
    }
}

/// Sends a HEAD for each key that `next` gives, and hands the answers to `took`, some at a time. A key whose HEAD fails
/// is left out, and noted. A run that was stopped, or a store that cannot be used, is an error.
pub(crate) fn ask<T: Send + 'static>(
    engine: &Engine,
    context: &Arc<Context>,
    mut next: impl FnMut() -> Result<Option<(String, T)>, StorageError>,
    mut took: impl FnMut(Vec<Answer<T>>) -> Result<(), StorageError>,
) -> Result<Unanswered, StorageError> {
    let (results, mut in_flight) = (BatchQueue::new(), 0);
    let _end = results.wait_at_end();
    let (mut failures, mut unanswered, mut upcoming) = (0, Unanswered::default(), next());
    loop {
        while in_flight < engine.workers()
            && let Ok(Some((key, known))) = upcoming
        {
            let context = context.clone();
            results.submit(engine, move || {
                let found = ask_store(&context, &key);
                (key, known, found)
            });
            in_flight += 1;
            upcoming = next();
        }
        if in_flight == 0 {
            return upcoming.map(|_| unanswered);
        }
        let mut answers = Vec::new();
        for (key, known, found) in results.take(1, Duration::MAX) {
            in_flight -= 1;
            let error = match found {
                Ok(found) => {
                    failures = 0;
                    answers.push((key, known, found));
                    continue;
                }
                Err(error) => error,
            };
            // A key that always fails, or that may not be read, holds up nothing else.
            failures += 1;
            if error.is_not_tried() || (failures >= FAILURES_IN_A_ROW && is_about_the_store(&error)) {
                upcoming = Err(error);
                continue;
            }
            if failures >= FAILURES_IN_A_ROW {
                upcoming = upcoming.map(|_| None);
            }
            unanswered.note(error);
        }
        took(answers)?;
    }
}

/// Returns true if the store cannot be used, whatever the key. Some stores fail for single keys, too (500).
fn is_about_the_store(error: &StorageError) -> bool {
    error.kind().is_transient() && !matches!(error.kind(), ErrorKind::Server | ErrorKind::Protocol)
}

/// Sends a HEAD. Never panics.
fn ask_store(context: &Context, key: &str) -> Result<Option<StoredObject>, StorageError> {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let request_context = context.request_context();
        request_context.check(Operation::Head)?;
        let transfers = context.session.backend.transfers().ok_or_else(|| {
            StorageError::new(ErrorKind::Unsupported, Operation::Head, "this backend has no HEAD")
        })?;
        transfers.head(&request_context, &RemoteKey::new(key)?, false)
    }));
    attempt.unwrap_or_else(|panic| Err(panicked(Operation::Head, &*panic)))
}
