//! `status`: prints what is published and pending. Sends no request and needs no credentials.

use bucket_brigade::StorageError;

use crate::args::DestinationArgs;
use crate::commands::record::Record;
use crate::destination::Destination;
use crate::{check_output, exit, json, print_json, text};

/// Prints what is published, and what is pending.
pub(crate) fn status(args: &DestinationArgs) -> Result<u8, StorageError> {
    let destination = Destination::from_args(args)?;
    let record = Record::open(&destination, None)?;
    let (held, state) = (record.contents()?, record.state()?);
    let held = held.as_ref().map(|(summary, pending)| (summary, pending.as_slice()));
    let (destination, path) =
        (destination.address.destination(), destination.cache_path.display().to_string());
    if args.output.json {
        print_json(&json::queries::status_object(&destination, &path, held, state.as_ref()))?;
    } else {
        check_output(text::print_status(&destination, &path, held, state.as_ref()))?;
    }
    Ok(exit::DONE)
}
