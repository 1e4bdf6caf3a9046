//! The log on standard error.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use bucket_brigade::StorageError;
use env_logger::{Builder, Target, WriteStyle};
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};

use crate::args::OutputArgs;
use crate::progress::Display;

/// Beginnings of records that repeat what the summary or an error says.
const REPORTED_ELSEWHERE: [&str; 5] = [
    "rescan ended with something left to do",
    "Cloud sync failed",
    "rescan failed",
    "too many files are gone",
    "the store cannot be reached",
];

/// Warnings that `--quiet` hides.
const HIDDEN_WHEN_QUIET: [&str; 2] = ["http endpoint: ", "the cache can be forged: "];

/// Starts the logger. It prints warnings as plain lines; with `-v` or `RUST_LOG`, the records that these select, with
/// their times.
pub(crate) fn start_logging(output: &OutputArgs, display: &Display) -> Result<(), StorageError> {
    let mut builder = Builder::new();
    match output.verbose {
        0 if output.quiet => builder.filter_level(LevelFilter::Warn),
        0 => builder.filter_level(LevelFilter::Warn).parse_env("RUST_LOG"),
        1 => builder.filter_level(LevelFilter::Warn).filter_module("bucket_brigade", LevelFilter::Info),
        2 => builder.filter_level(LevelFilter::Warn).filter_module("bucket_brigade", LevelFilter::Debug),
        _ => builder.filter_level(LevelFilter::Trace),
    };
    match &output.log_file {
        Some(path) => {
            builder.target(Target::Pipe(Box::new(open_log(path)?))).write_style(WriteStyle::Never);
            // A file is read later: without -v it has what was done, with times.
            if output.verbose == 0 && std::env::var_os("RUST_LOG").is_none() {
                builder.filter_module("bucket_brigade", LevelFilter::Info);
            }
        }
        None => {
            builder.target(Target::Pipe(Box::new(Lines(display.clone())))).write_style(WriteStyle::Always);
        }
    }
    let quiet = output.quiet;
    let is_plain = output.log_file.is_none();
    if is_plain && (quiet || output.verbose == 0 && std::env::var_os("RUST_LOG").is_none()) {
        builder.format(move |to, record| write_plain(to, record, quiet));
    }
    builder.try_init().map_err(|error| {
        StorageError::new(
            bucket_brigade::ErrorKind::Config,
            bucket_brigade::Operation::Configure,
            "cannot set up the log",
        )
        .with_source(error)
    })
}

fn write_plain(to: &mut env_logger::fmt::Formatter, record: &Record<'_>, quiet: bool) -> std::io::Result<()> {
    let text = record.args().to_string();
    let is_hidden = quiet && HIDDEN_WHEN_QUIET.iter().any(|part| text.contains(part));
    if is_hidden || REPORTED_ELSEWHERE.iter().any(|start| text.starts_with(start)) {
        return Ok(());
    }
    let (style, name) = if record.level() == Level::Error {
        (anstyle::AnsiColor::Red, "error")
    } else {
        (anstyle::AnsiColor::Yellow, "warning")
    };
    let style = style.on_default().bold();
    write!(to, "{style}{name}:{style:#} {text}")?;
    let _ = record.key_values().visit(&mut Pairs(to));
    writeln!(to)
}

/// Opens the file of `--log-file` to append to it.
fn open_log(path: &Path) -> Result<File, StorageError> {
    File::options().append(true).create(true).open(path).map_err(|error| {
        StorageError::config("--log-file", format!("{}: {error}", path.display())).with_source(error)
    })
}

/// Writes the key-values of a record after its message.
struct Pairs<'a>(&'a mut env_logger::fmt::Formatter);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let pair = match key.as_str() {
            // The form in which it can be pasted into a command.
            "exclude" => {
                let quoted = |pattern: &str| format!(" --exclude '{pattern}'");
                value.to_string().split(' ').map(quoted).collect::<String>()
            }
            name => format!(" {name}={value}"),
        };
        self.0.write_all(pair.as_bytes()).map_err(|_| Error::msg("cannot be written"))
    }
}

/// Writes to standard error, above the lines of progress.
struct Lines(Display);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.above(|| anstream::stderr().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
