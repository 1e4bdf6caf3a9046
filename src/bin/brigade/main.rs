//! `brigade`: publishes a directory tree to S3-compatible storage from a shell. A thin face over the library.

mod args;
mod commands;
mod destination;
mod exit;
mod json;
mod logging;
mod parse;
#[path = "../../text.rs"]
mod printable;
mod progress;
mod stop;
mod text;

use std::io::{self, Write};
use std::process::ExitCode;

use bucket_brigade::{ErrorKind, Operation, StorageError};
use serde::Serialize;

use crate::args::Command;
use crate::commands::{status, sync, uploads, url, verify};
use crate::progress::Display;

fn main() -> ExitCode {
    stop::survive_limits();
    let command = parse::parse().command;
    ExitCode::from(run(&command).unwrap_or_else(|error| {
        text::error(&error);
        exit::of_error(&error)
    }))
}

fn run(command: &Command) -> Result<u8, StorageError> {
    let output = match command {
        Command::Sync(args) | Command::Plan(args) => &args.destination.output,
        Command::Status(args) => &args.output,
        Command::Verify(args) => &args.destination.output,
        Command::Url(args) => &args.destination.output,
        Command::Uploads(args) => &args.destination.output,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut parse::command(), "brigade", &mut script);
            return printed(io::stdout().write_all(&script)).map(|()| exit::DONE);
        }
    };
    let display = Display::new(output.quiet);
    logging::start(output, &display)?;
    let result = match command {
        Command::Sync(args) if !args.dry_run => sync::sync(args, &display),
        Command::Sync(args) | Command::Plan(args) => sync::plan(args, &display),
        Command::Status(args) => status::status(args),
        Command::Url(args) => url::url(args),
        Command::Verify(args) => verify::verify(args, &display),
        Command::Uploads(args) => uploads::uploads(args),
        Command::Completions { .. } => Ok(exit::DONE),
    };
    // A sync has done something by then, and tells it itself.
    let is_told = matches!(command, Command::Sync(args) if !args.dry_run);
    if let (Err(error), false) = (&result, is_told)
        && output.json
    {
        match command {
            Command::Sync(_) | Command::Plan(_) => {
                print_json(&json::refused_plan(error, &json::Done::default()))?;
            }
            _ => print_json(&json::refused(error))?,
        }
    }
    result
}

/// A reader that has seen enough is no failure; a disk that is full is one.
fn printed(result: io::Result<()>) -> Result<(), StorageError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let what = "cannot write to standard output";
            Err(StorageError::new(ErrorKind::Other, Operation::Configure, what).with_source(error))
        }
        _ => Ok(()),
    }
}

/// One object on a line of its own.
fn print_json(object: &impl Serialize) -> Result<(), StorageError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    printed(json::write(&mut out, object).and_then(|()| writeln!(out)).and_then(|()| out.flush()))
}
