//! `uploads`: lists open multipart uploads, or aborts them.

use bucket_brigade::{CancelToken, StorageError};

use crate::args::{SpeedArgs, UploadsArgs};
use crate::destination::{Destination, require_cache};
use crate::{check_output, exit, json, print_json, text};

/// Lists the open multipart uploads, or aborts them.
pub(crate) fn uploads(args: &UploadsArgs) -> Result<u8, StorageError> {
    let destination = Destination::from_args(&args.destination)?;
    // A list only reads the cache, and runs beside a sync.
    let cache = if args.abort && destination.has_cache()? {
        Some(destination.open_cache(args.lock.lock_wait, &CancelToken::new())?)
    } else {
        destination.read_cache()?
    };
    let cache = require_cache(cache, &destination)?;
    let (engine, backend) = destination.connect(&SpeedArgs::default(), &[])?;
    if !args.abort {
        let open = cache.unfinished_uploads(&engine, &*backend)?;
        if args.destination.output.json {
            print_json(&json::queries::uploads_object(&open))?;
        } else {
            check_output(text::print_uploads(&open))?;
        }
        return Ok(exit::DONE);
    }
    let result = cache.abort_uploads(&engine, &*backend)?;
    text::print_failures(&result.failed, result.failed.len() as u64);
    if args.destination.output.json {
        print_json(&json::queries::aborted_object(&result))?;
    } else if !args.destination.output.quiet {
        check_output(text::print_aborted(&result))?;
    }
    Ok(exit::code_of_errors(&result.failed).unwrap_or(exit::DONE))
}
