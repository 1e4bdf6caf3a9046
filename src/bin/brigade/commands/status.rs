//! `status`: what is known of a destination. No request is sent, no credentials are needed.

use bucket_brigade::StorageError;

use crate::args::DestinationArgs;
use crate::commands::record::Record;
use crate::destination::Destination;
use crate::{exit, json, print_json, printed, text};

/// What is published, and what is pending.
pub(crate) fn status(args: &DestinationArgs) -> Result<u8, StorageError> {
    let destination = Destination::find(args)?;
    let held = Record::find(&destination, None)?.contents()?;
    let held = held.as_ref().map(|(summary, pending)| (summary, pending.as_slice()));
    let (destination, path) =
        (destination.address.destination(), destination.cache_path.display().to_string());
    if args.output.json {
        print_json(&json::inquiry::status(&destination, &path, held))?;
    } else {
        printed(text::status(&destination, &path, held))?;
    }
    Ok(exit::DONE)
}
