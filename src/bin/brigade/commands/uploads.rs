//! `uploads`: the multipart uploads that were left open.

use bucket_brigade::{CancelToken, StorageError};

use crate::args::{SpeedArgs, UploadsArgs};
use crate::destination::{Destination, must_be_there};
use crate::{exit, json, print_json, printed, text};

/// Lists the uploads that were left open, or aborts them.
pub(crate) fn uploads(args: &UploadsArgs) -> Result<u8, StorageError> {
    let destination = Destination::find(&args.destination)?;
    let cache = if args.abort && destination.has_cache()? {
        Some(destination.open_cache(args.lock.lock_wait, &CancelToken::new())?)
    } else {
        destination.read_cache()?
    };
    let cache = must_be_there(cache, &destination)?;
    let (engine, backend) = destination.connect(&SpeedArgs::default(), &[])?;
    if !args.abort {
        let open = cache.unfinished_uploads(&engine, &*backend)?;
        if args.destination.output.json {
            print_json(&json::inquiry::uploads(&open))?;
        } else {
            printed(text::uploads(&open))?;
        }
        return Ok(exit::DONE);
    }
    let result = cache.abort_uploads(&engine, &*backend)?;
    text::failures(&result.failed, result.failed.len() as u64);
    if args.destination.output.json {
        print_json(&json::inquiry::aborted(&result))?;
    } else if !args.destination.output.quiet {
        printed(text::aborted(&result))?;
    }
    Ok(exit::of_errors(&result.failed).unwrap_or(exit::DONE))
}
