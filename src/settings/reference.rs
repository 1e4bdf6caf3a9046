//! Values that stand elsewhere: in a variable, a file, or the output of a command.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::backend::s3::auth::chain::process;
use crate::text::Printable;

/// The most bytes of a value.
const MAX_BYTES: usize = 64 * 1024;

/// The longest time that a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The place of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A variable of the environment.
    Variable(String),
    /// The content of a file, without its last line end.
    File(PathBuf),
    /// What a program prints, without its last line end: the program, then its arguments, and the folder that it runs in.
    Command(Vec<String>, PathBuf),
}

impl Reference {
    /// Reads the value now. The error never quotes it.
    pub(crate) fn resolve(&self) -> Result<Zeroizing<String>, String> {
        let text = match self {
            Self::Variable(name) => {
                let value = std::env::var_os(name).ok_or_else(|| format!("{name} is not set"))?;
                Zeroizing::new(value.into_string().map_err(|_| format!("{name} is not UTF-8"))?)
            }
            Self::File(path) => {
                let wrong = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
                read_text(&mut File::open(path).map_err(|error| wrong(&error))?).map_err(|why| wrong(&why))?
            }
            Self::Command(words, folder) => run_command(words, folder)?,
        };
        let value = text.strip_suffix('\n').unwrap_or(&text);
        let value = value.strip_suffix('\r').unwrap_or(value);
        if value.is_empty() {
            return Err(format!("{self} is empty"));
        }
        Ok(Zeroizing::new(value.to_owned()))
    }
}

impl fmt::Display for Reference {
    /// The place, as it stands in a configuration file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "{{ env = \"{}\" }}", Printable(name)),
            Self::File(path) => write!(f, "{{ file = \"{}\" }}", Printable(&path.to_string_lossy())),
            // Arguments may be secrets, too.
            Self::Command(words, _) => {
                let program = words.first().map_or("", String::as_str);
                write!(f, "{{ command = [\"{}\", …] }}", Printable(program))
            }
        }
    }
}

fn read_text(from: &mut dyn Read) -> Result<Zeroizing<String>, String> {
    // All the room that it may take: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES + 1));
    from.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() > MAX_BYTES { Err("it has more than 64 KiB".to_owned()) } else { Ok(text) }
}

fn run_command(words: &[String], folder: &Path) -> Result<Zeroizing<String>, String> {
    let folder = Some(folder).filter(|folder| !folder.as_os_str().is_empty());
    let printed = process::run(words, folder, COMMAND_LIMIT)?;
    let text = std::str::from_utf8(&printed).map_err(|_| format!("what {} prints is not UTF-8", words[0]))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_from_its_place_without_the_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "two words\n").unwrap();
        assert_eq!(Reference::File(path.clone()).resolve().unwrap().as_str(), "two words");
        std::fs::write(&path, "\n").unwrap();
        assert!(Reference::File(path.clone()).resolve().unwrap_err().contains("is empty"));
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(Reference::File(path).resolve().unwrap_err().contains("more than 64 KiB"));
        assert_eq!(
            Reference::Variable("PATH".into()).resolve().unwrap().as_str(),
            std::env::var("PATH").unwrap()
        );
        let missing = Reference::Variable("BRIGADE_NOBODY_SETS_THIS".into()).resolve().unwrap_err();
        assert_eq!(missing, "BRIGADE_NOBODY_SETS_THIS is not set");
        assert!(Reference::File("/nowhere/key".into()).resolve().unwrap_err().starts_with("/nowhere/key: "));
    }

    #[test]
    fn a_command_is_run_without_a_shell_and_its_failure_quotes_nothing() {
        let run = |words: &[&str]| {
            Reference::Command(words.iter().map(|word| (*word).to_owned()).collect(), "/tmp".into()).resolve()
        };
        assert_eq!(run(&["printf", "%s\n", "$HOME; canary"]).unwrap().as_str(), "$HOME; canary");
        let failed = run(&["sh", "-c", "echo CANARY; echo CANARY >&2; exit 3"]).unwrap_err();
        assert!(failed.contains("sh") && failed.contains('3') && !failed.contains("CANARY"), "{failed}");
        assert!(run(&["/nowhere/program"]).unwrap_err().contains("/nowhere/program"));
    }
}
