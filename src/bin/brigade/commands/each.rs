//! Runs a command for each of its destinations.

use bucket_brigade::{Config, ErrorKind, Operation, StorageError};

use crate::args::OutputArgs;
use crate::destination::{Destination, label_of};
use crate::stop::Stop;
use crate::{exit, text};

/// How a command goes through its destinations.
pub(crate) struct Each<'a> {
    /// The command: settings that others have are not read.
    pub(crate) command: &'static str,
    /// Print JSON, and nothing else on standard output.
    pub(crate) as_json: bool,
    pub(crate) quiet: bool,
    pub(crate) stop: Option<&'a Stop>,
}

impl<'a> Each<'a> {
    pub(crate) fn new(command: &'static str, output: &OutputArgs, stop: Option<&'a Stop>) -> Self {
        Self { command, as_json: output.json, quiet: output.quiet, stop }
    }

    /// Runs `run` for each destination, one after another, until a signal stops it. An error of one does not stop the
    /// others. Returns the exit code that comes first in the order of the help. With JSON, `print_failed` prints the object
    /// of a destination that ended with an error, with its name.
    pub(crate) fn run(
        &self,
        configs: Result<Vec<Config>, StorageError>,
        print_failed: impl Fn(Option<&str>, &StorageError) -> Result<(), StorageError>,
        mut run: impl FnMut(Destination) -> Result<u8, StorageError>,
    ) -> Result<u8, StorageError> {
        let print_failed = |name: Option<&str>, error: &StorageError| {
            if self.as_json { print_failed(name, error) } else { Ok(()) }
        };
        let configs = configs.or_else(|error| print_failed(None, &error).and(Err(error)))?;
        let (is_alone, mut codes) = (configs.len() == 1, Vec::new());
        for config in configs {
            let (name, label) = (config.name().map(str::to_owned), label_of(&config));
            if !is_alone && !self.as_json && !self.quiet {
                text::print_destination(&label);
            }
            let result = match self.stop.and_then(Stop::exit_code) {
                // The code is that of the signal.
                Some(_) => Err(stopped(&label)),
                None => Destination::new(config, self.command, self.quiet).and_then(&mut run),
            };
            if let Err(error) = &result {
                print_failed(name.as_deref(), error)?;
            }
            match result {
                Err(error) if !is_alone => {
                    if self.as_json || self.quiet {
                        text::print_destination(&label);
                    }
                    text::print_error(&error);
                    let signal = self.stop.and_then(Stop::exit_code);
                    codes.push(signal.unwrap_or_else(|| exit::code_of_error(&error)));
                }
                other => codes.push(other?),
            }
        }
        Ok(exit::gravest(&codes))
    }
}

/// The error of a destination that was not begun because of a signal.
fn stopped(label: &str) -> StorageError {
    let why = format!("{label}: stopped before it began");
    StorageError::new(ErrorKind::Cancelled, Operation::Configure, why)
}
