//! The sweep at the end of a run: what no run will resume is aborted.

use crate::backend::Journal;
use crate::error::{ErrorKind, StorageError};
use crate::rescan::context::Context;
use crate::rescan::multipart::unfinished::{all_recorded, named};
use crate::rescan::report::{RescanReport, StopReason};
use crate::state::cache::CacheManager;
use crate::state::recorder::Recorder;
use crate::state::records::PendingKind;

/// Aborts uploads that no run will resume: their files are published by now, or gone. Says why the run cannot
/// go on, if it found that.
pub(crate) fn abort_unwanted_uploads(
    context: &Context,
    cache: &CacheManager,
    recorder: &Recorder,
    report: &mut RescanReport,
) -> Result<Option<StopReason>, StorageError> {
    let Some(transfers) = context.session.backend.transfers() else {
        return Ok(None);
    };
    recorder.sync()?;
    let (left, mut stop) = (all_recorded(cache)?, None);
    for (key, name, open) in named(&left) {
        if is_wanted(cache, key)? {
            continue;
        }
        match transfers.abort(&context.request_context(), &name) {
            Ok(()) => recorder.closed(&name.key, &open.token),
            Err(error) if error.kind() == ErrorKind::AccessDenied => {
                context.session.trace.warn(
                    "uploads that were left open may not be aborted; they stay recorded, and their parts in the bucket",
                    &[("error", &error)],
                );
                break;
            }
            Err(error) if error.is_not_tried() => {
                stop = StopReason::of(&error);
                break;
            }
            Err(error) => {
                stop = (error.kind() == ErrorKind::Credentials).then_some(StopReason::Credentials);
                report.add_failed(error);
                if stop.is_some() {
                    break;
                }
            }
        }
    }
    recorder.sync()?;
    Ok(stop)
}

/// Returns whether the next run may resume it.
fn is_wanted(cache: &CacheManager, key: &str) -> Result<bool, StorageError> {
    let pending = cache.pending_record(key)?;
    let is_file = |kind| matches!(kind, PendingKind::Added | PendingKind::Modified | PendingKind::Headers);
    Ok(pending.is_some_and(|pending| is_file(pending.kind)))
}
