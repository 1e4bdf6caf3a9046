//! A value as it was given, where it came from, and what people may see of it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::settings::reference::Reference;
use crate::settings::setting::Setting;
use crate::text::Printable;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// [`Config::set`].
    Program,
    /// A place of a configuration file.
    File { path: PathBuf, line: usize },
    /// A flag, a variable or a profile.
    Named(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program => f.write_str("the program"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A value as it was given.
#[derive(Clone)]
pub(crate) enum Given {
    Plain(OsString),
    /// Wiped from memory when dropped.
    Secret(Zeroizing<String>),
    Elsewhere(Reference),
}

/// Returns the text of an error about a value, quoting it unless it is a secret.
pub(crate) fn shown_with(setting: &Setting, value: &OsStr, why: &str) -> String {
    let value = value.to_string_lossy();
    let is_quoted = why.starts_with('"') || why.contains(&*value);
    // A proxy may hold a password, wherever that stands in what was meant to be a URL.
    if setting.is_secret() || setting.name == "proxy" || is_quoted {
        return why.to_owned();
    }
    format!("{:?}: {why}", Printable(&value).to_string())
}

pub(crate) fn shown_value(setting: &Setting, value: &Given) -> String {
    match value {
        Given::Elsewhere(place) => place.to_string(),
        Given::Secret(_) => "(hidden)".to_owned(),
        Given::Plain(value) => shown_text(setting.name, &value.to_string_lossy()),
    }
}

/// Hides the user and the password of a proxy.
pub(crate) fn shown_text(name: &str, value: &str) -> String {
    match value.rsplit_once('@').filter(|_| name == "proxy") {
        Some((before, host)) => {
            let scheme =
                before.split_once("://").map(|(scheme, _)| format!("{scheme}://")).unwrap_or_default();
            format!("{scheme}(hidden)@{host}")
        }
        None => value.to_owned(),
    }
}
