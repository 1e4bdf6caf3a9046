//! `config`: checks a configuration file, or shows the settings that it leads to.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use bucket_brigade::{Config, ErrorKind, Operation, StorageError};

use crate::args::{ConfigAction, ConfigArgs, FileArgs};
use crate::printable::Printable;
use crate::{check_output, exit, targets};

/// Checks or shows.
pub(crate) fn config(args: &ConfigArgs) -> Result<u8, StorageError> {
    match &args.action {
        ConfigAction::Check { file } => check(&needed_file(file)?),
        ConfigAction::Show { names, all, file } => show(&needed_file(file)?, names, *all),
    }
}

fn needed_file(args: &FileArgs) -> Result<PathBuf, StorageError> {
    targets::find_file(args).ok_or_else(|| {
        StorageError::config(
            "--config",
            "there is no brigade.toml in this folder: name a file with --config FILE",
        )
    })
}

/// Reads every line, and makes all parts that need no secret.
fn check(path: &std::path::Path) -> Result<u8, StorageError> {
    let mut configs = targets::of_names(path, &[])?;
    let mut mistakes = Vec::new();
    for config in &mut configs {
        let checked = targets::add_environment(config).and_then(|()| config.check());
        let name = config.name().unwrap_or_default();
        mistakes.extend(checked.err().map(|error| format!("[destination.{name}]: {}", error.message())));
    }
    if !mistakes.is_empty() {
        let why = mistakes.join("\n  ");
        return Err(StorageError::new(ErrorKind::Config, Operation::Configure, why));
    }
    let count = configs.len();
    let noun = if count == 1 { "destination" } else { "destinations" };
    check_output(writeln!(io::stdout(), "{}: {count} {noun}, no mistakes", path.display()))?;
    Ok(exit::DONE)
}

/// Prints the settings of destinations: a line each, with value and origin.
fn show(path: &std::path::Path, names: &[OsString], all: bool) -> Result<u8, StorageError> {
    let mut out = io::stdout().lock();
    for (number, mut config) in targets::of_names(path, names)?.into_iter().enumerate() {
        targets::add_environment(&mut config)?;
        let gap = if number == 0 { "" } else { "\n" };
        let name = Printable(config.name().unwrap_or_default()).to_string();
        check_output(writeln!(out, "{gap}[destination.{name}]"))?;
        check_output(print_entries(&mut out, &config, all))?;
    }
    Ok(exit::DONE)
}

fn print_entries(out: &mut dyn Write, config: &Config, all: bool) -> io::Result<()> {
    for entry in config.entries() {
        if entry.origin == "default" && !all {
            continue;
        }
        let value = entry.value.map_or_else(|| "(none)".to_owned(), |value| Printable(&value).to_string());
        writeln!(out, "{} = {value}  # {}", entry.setting.name(), Printable(&entry.origin))?;
    }
    Ok(())
}
