//! Drives any backend for a rescan. A backend with [`Transfers`] runs its operations itself. For one with four methods
//! this adds retries, log records and the gate, and deletes one by one.
//!
//! [`Transfers`]: crate::backend::Transfers

use log::Level;

use crate::backend::{Condition, Deleted, Receipt, StorageBackend, Upload};
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::trace::RequestEnd;
use crate::request_context::RequestContext;
use crate::retry;
use crate::retry::RetryPolicy;

/// Uploads a file. [`Transfers`] acknowledges the bytes that were hashed, even if the file changed since. A backend of
/// four methods opens the file by its path, so the file must not change.
pub(crate) fn put(
    backend: &dyn StorageBackend,
    context: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    match backend.transfers() {
        Some(transfers) => transfers.put(context, file),
        None => put_by_path(backend, context, file),
    }
}

fn put_by_path(
    backend: &dyn StorageBackend,
    context: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    let (key, bytes) = (file.key.as_str(), file.source.stat().size);
    let receipt = with_retries(backend, context, Operation::Upload, key, bytes, || {
        // The backend opens the path itself: it must still be the file that was hashed.
        file.source.check_unchanged()?;
        let url = backend.upload_file(file.source.path(), key)?;
        context.trace.progress.bytes_sent(bytes);
        Ok(Receipt { url, etag: None })
    })?;
    // The object may hold another version of the file.
    file.source.check_unchanged().map_err(|error| error.unsettled(true).with_key(key))?;
    Ok(receipt)
}

/// Deletes keys, on their conditions if the backend has [`Transfers`]. The outer error means that none was tried.
pub(crate) fn delete_many(
    backend: &dyn StorageBackend,
    context: &RequestContext<'_>,
    keys: &[(RemoteKey, Condition)],
) -> Result<Deleted, StorageError> {
    if let Some(transfers) = backend.transfers() {
        return transfers.delete_many(context, keys);
    }
    // Each key is an operation of its own: one failure leaves the others alone.
    let delete = |key: &RemoteKey| {
        let step = || backend.delete_file(key.as_str());
        with_retries(backend, context, Operation::Delete, key.as_str(), 0, step)
    };
    Ok(keys.iter().map(|(key, _)| (key.clone(), delete(key))).collect())
}

/// Runs one operation of a backend with its log records and retries, through the gate.
fn with_retries<T>(
    backend: &dyn StorageBackend,
    context: &RequestContext<'_>,
    operation: Operation,
    key: &str,
    bytes: u64,
    mut step: impl FnMut() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let (name, destination) = (operation.to_string(), backend.destination());
    let (began, mut attempts) = (context.clock.now(), 0);
    context.trace.started(&name, key, &destination, bytes);
    let result = retry::run(&RetryPolicy::default(), context, operation, |attempt| {
        attempts = attempt;
        context.gate.pass(
            operation,
            || context.check(operation),
            || {
                // A local backend sends no request.
                if backend.is_remote() {
                    context.trace.metrics.requests(1);
                }
                step().map_err(|error| error.with_key(key))
            },
        )
    });
    let outcome = result.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
    let elapsed = context.clock.now().saturating_sub(began);
    let (operation, bucket) = (name.as_str(), destination.as_str());
    context.trace.ended(
        Level::Info,
        &RequestEnd { operation, key, bucket, bytes, attempts, elapsed, outcome: &outcome, request_id: "" },
    );
    result
}
