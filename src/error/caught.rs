//! Panics as errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{ErrorKind, Operation, StorageError};

/// Does what calls a backend or an observer on the host's thread: a panic there, or in our own code, must not reach the
/// host (I9).
pub(crate) fn caught<T>(
    operation: Operation,
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(operation, &*panic)))
}

/// The error for a caught panic, with the panic's message.
pub(crate) fn panicked(operation: Operation, panic: &(dyn Any + Send)) -> StorageError {
    // `panic!` with a literal carries a `&str`, with arguments a `String`.
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    StorageError::new(ErrorKind::Panicked, operation, format!("panicked: {text}"))
}
