//! `status`: prints what is published and pending. Sends no request and needs no credentials.

use bucket_brigade::StorageError;

use crate::args::{OutputArgs, StatusArgs};
use crate::commands::each::Each;
use crate::commands::record::Record;
use crate::destination::Destination;
use crate::{check_output, exit, json, print_json_named, print_json_of, targets, text};

/// Prints what is published, and what is pending.
pub(crate) fn status(args: &StatusArgs) -> Result<u8, StorageError> {
    let configs = targets::of_destinations(&args.destinations, &args.settings);
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_query(error));
    Each::new("status", &args.output, None)
        .run(configs, print_failed, |destination| status_of(&destination, &args.output))
}

fn status_of(destination: &Destination, output: &OutputArgs) -> Result<u8, StorageError> {
    let record = Record::open(destination, None)?;
    let (held, state) = (record.contents()?, record.state()?);
    let held = held.as_ref().map(|(summary, pending)| (summary, pending.as_slice()));
    let (name, path) = (destination.address.destination(), destination.cache_path.display().to_string());
    if output.json {
        print_json_of(destination, &json::queries::status_object(&name, &path, held, state.as_ref()))?;
    } else {
        check_output(text::print_status(&name, &path, held, state.as_ref()))?;
    }
    Ok(exit::DONE)
}
