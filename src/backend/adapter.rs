//! The adapter: drives any backend through the same steps. One with [`Transfers`] takes them itself;
//! for one with four methods this repeats what may be repeated and deletes one by one.
//!
//! [`Transfers`]: crate::backend::Transfers

use log::Level;

use crate::backend::{Deleted, Receipt, StorageBackend, Upload};
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::trace::RequestEnd;
use crate::request_context::RequestContext;
use crate::retry;
use crate::retry::RetryPolicy;

/// Stores a file. What [`Transfers`] acknowledges is what was hashed, whatever became of the file since; a
/// backend that opens the file by its name has read an unchanged one.
pub(crate) fn put(
    backend: &dyn StorageBackend,
    exchange: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    match backend.transfers() {
        Some(transfers) => transfers.put(exchange, file),
        None => put_simply(backend, exchange, file),
    }
}

fn put_simply(
    backend: &dyn StorageBackend,
    exchange: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    let (key, bytes) = (file.key.as_str(), file.source.stat().size);
    let receipt = watched(backend, exchange, Operation::Upload, key, bytes, || {
        // Only an unchanged file is handed to a backend that opens it by its name.
        file.source.check_unchanged()?;
        let url = backend.upload_file(file.source.path(), key)?;
        exchange.trace.progress.bytes_sent(bytes);
        Ok(Receipt { url, etag: None })
    })?;
    // It was stored, but nobody knows which version of it.
    file.source.check_unchanged().map_err(|error| error.unsettled(true).with_key(key))?;
    Ok(receipt)
}

/// Deletes keys. The outer error: none was tried.
pub(crate) fn delete_many(
    backend: &dyn StorageBackend,
    exchange: &RequestContext<'_>,
    keys: &[RemoteKey],
) -> Result<Deleted, StorageError> {
    if let Some(transfers) = backend.transfers() {
        return transfers.delete_many(exchange, keys);
    }
    let delete = |key: &RemoteKey| {
        let step = || backend.delete_file(key.as_str());
        watched(backend, exchange, Operation::Delete, key.as_str(), 0, step)
    };
    Ok(keys.iter().map(|key| (key.clone(), delete(key))).collect())
}

/// One operation with its records, its retries and its way through the gate.
fn watched<T>(
    backend: &dyn StorageBackend,
    exchange: &RequestContext<'_>,
    operation: Operation,
    key: &str,
    bytes: u64,
    mut step: impl FnMut() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let (name, destination) = (operation.to_string(), backend.destination());
    let (began, mut attempts) = (exchange.clock.now(), 0);
    exchange.trace.started(&name, key, &destination, bytes);
    let result = retry::run(&RetryPolicy::default(), exchange, operation, |attempt| {
        attempts = attempt;
        exchange.gate.pass(
            operation,
            || exchange.check(operation),
            || {
                if backend.is_remote() {
                    exchange.trace.metrics.requests(1);
                }
                step().map_err(|error| error.with_key(key))
            },
        )
    });
    let outcome = result.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
    let elapsed = exchange.clock.now().saturating_sub(began);
    let (operation, bucket) = (name.as_str(), destination.as_str());
    exchange.trace.ended(
        Level::Info,
        &RequestEnd { operation, key, bucket, bytes, attempts, elapsed, outcome: &outcome, request_id: "" },
    );
    result
}
