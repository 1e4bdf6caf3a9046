//! Runs a command for each of its destinations.

use bucket_brigade::{Config, StorageError};

use crate::args::OutputArgs;
use crate::destination::Destination;
use crate::stop::Stop;
use crate::{exit, text};

/// Runs `run` for each destination, one after another, until a signal stops it. An error of one does not stop the
/// others. Returns the exit code that comes first in the order of the help. With `--json`, `print_failed`
/// prints the object of a destination that ended with an error.
pub(crate) fn run_each(
    configs: Result<Vec<Config>, StorageError>,
    output: &OutputArgs,
    stop: Option<&Stop>,
    print_failed: impl Fn(&StorageError) -> Result<(), StorageError>,
    mut run: impl FnMut(Destination) -> Result<u8, StorageError>,
) -> Result<u8, StorageError> {
    let print_failed = |error: &StorageError| if output.json { print_failed(error) } else { Ok(()) };
    let configs = configs.or_else(|error| print_failed(&error).and(Err(error)))?;
    let (is_alone, mut codes) = (configs.len() == 1, Vec::new());
    for config in configs {
        if stop.is_some_and(|stop| stop.exit_code().is_some()) {
            break;
        }
        if !is_alone && !output.json && !output.quiet {
            text::print_destination(config.name().unwrap_or_default());
        }
        let result = Destination::new(config, output.quiet).and_then(&mut run);
        if let Err(error) = &result {
            print_failed(error)?;
        }
        match result {
            Err(error) if !is_alone => {
                text::print_error(&error);
                codes.push(exit::code_of_error(&error));
            }
            other => codes.push(other?),
        }
    }
    Ok(exit::gravest(&codes))
}
