//! The command `brigade`: publishes a directory tree to S3-compatible storage. A thin layer over the library.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod destination;
mod exit;
#[path = "../../json/mod.rs"]
mod json;
mod logging;
mod parse;
#[path = "../../text.rs"]
mod printable;
mod progress;
mod stop;
mod targets;
mod text;

use std::io::{self, Write};
use std::process::ExitCode;

use bucket_brigade::{ErrorKind, Operation, StorageError};
use serde::Serialize;

use crate::args::Command;
use crate::commands::{config, man, pull, rebuild, status, sync, uploads, url, verify};
use crate::destination::Destination;
use crate::progress::Display;

fn main() -> ExitCode {
    stop::handle_file_size_limit();
    let command = parse::parse().command;
    ExitCode::from(run_command(&command).unwrap_or_else(|error| {
        text::print_error(&error);
        exit::code_of_error(&error)
    }))
}

fn run_command(command: &Command) -> Result<u8, StorageError> {
    let display = Display::new(command.output().is_some_and(|output| output.quiet));
    if let Some(output) = command.output() {
        logging::start_logging(output, &display)?;
    }
    match command {
        Command::Sync(args) if !args.dry_run => sync::sync(args, &display),
        Command::Sync(args) | Command::Plan(args) => sync::plan(args, &display),
        Command::Status(args) => status::status(args),
        Command::Url(args) => url::url(args),
        Command::Verify(args) => verify::verify(args, &display),
        Command::Pull(args) => pull::pull(args, &display),
        Command::Rebuild(args) => rebuild::rebuild(args, &display),
        Command::Uploads(args) => uploads::uploads(args),
        Command::Config(args) => config::config(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut parse::command(), "brigade", &mut script);
            check_output(io::stdout().write_all(&script)).map(|()| exit::DONE)
        }
        Command::Man => man::man(),
    }
}

/// Returns the error of a write to standard output. A closed pipe is none: the reader has what it wanted.
fn check_output(result: io::Result<()>) -> Result<(), StorageError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let what = "cannot write to standard output";
            Err(StorageError::new(ErrorKind::Other, Operation::Configure, what).with_source(error))
        }
        _ => Ok(()),
    }
}

/// An object with the name of its destination in the configuration file, if it has one.
#[derive(Serialize)]
struct Named<'a, T: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    object: T,
}

/// Prints the object of a destination as one line of JSON.
fn print_json_of(destination: &Destination, object: &impl Serialize) -> Result<(), StorageError> {
    print_json_named(destination.config.name(), object)
}

/// Prints an object as one line of JSON, with the name of its destination.
fn print_json_named(name: Option<&str>, object: &impl Serialize) -> Result<(), StorageError> {
    print_json(&Named { name, object })
}

/// Prints an object as one line of JSON.
fn print_json(object: &impl Serialize) -> Result<(), StorageError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    check_output(json::write_json(&mut out, object).and_then(|()| writeln!(out)).and_then(|()| out.flush()))
}
