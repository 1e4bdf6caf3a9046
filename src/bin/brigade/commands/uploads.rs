//! `uploads`: lists open multipart uploads, or aborts them.

use bucket_brigade::{CancelToken, StorageError};

use crate::args::UploadsArgs;
use crate::commands::each::Each;
use crate::destination::{Destination, require_cache};
use crate::{check_output, exit, json, print_json_named, print_json_of, targets, text};

/// Lists the open multipart uploads, or aborts them.
pub(crate) fn uploads(args: &UploadsArgs) -> Result<u8, StorageError> {
    let configs = targets::of_destinations(&args.destinations, &args.settings);
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_query(error));
    Each::new("uploads", &args.output, None)
        .run(configs, print_failed, |destination| uploads_of(args, &destination))
}

fn uploads_of(args: &UploadsArgs, destination: &Destination) -> Result<u8, StorageError> {
    // A list only reads the cache, and runs beside a sync.
    let cache = if args.abort && destination.has_cache()? {
        Some(destination.open_cache(&CancelToken::new())?)
    } else {
        destination.read_cache()?
    };
    let cache = require_cache(cache, destination)?;
    let (engine, backend) = destination.connect()?;
    if !args.abort {
        let open = cache.unfinished_uploads(&engine, &*backend)?;
        if args.output.json {
            print_json_of(destination, &json::queries::uploads_object(&open))?;
        } else {
            check_output(text::uploads::print_uploads(&open))?;
        }
        return Ok(exit::DONE);
    }
    let result = cache.abort_uploads(&engine, &*backend)?;
    text::print_failures(&result.failed, result.failed.len() as u64);
    if args.output.json {
        print_json_of(destination, &json::queries::aborted_object(&result))?;
    } else if !args.output.quiet {
        check_output(text::uploads::print_aborted(&result))?;
    }
    Ok(exit::code_of_errors(&result.failed).unwrap_or(exit::DONE))
}
