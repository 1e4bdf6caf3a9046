//! Configuration files, and the values of single settings.

use super::{END_OF_PART, check_error, parts};
use crate::{Config, ConfigFile, ErrorKind, all_settings};

const PATH: &str = "/etc/brigade.toml";
/// The mistakes that are shown, with what is said about each.
const SHOWN: usize = 21;

/// A configuration file; or, behind the end of an empty part, lines of a setting and its value.
pub(crate) fn target(data: &[u8]) {
    if data.first() == Some(&END_OF_PART) {
        return parts(data).for_each(check_value);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ConfigFile::parse(text, PATH) {
        Ok(file) => check_file(&file),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            let lines: Vec<_> = error.message().split("\n  ").filter(|line| line.starts_with(PATH)).collect();
            assert!((1..SHOWN).contains(&lines.len()), "{}", error.message());
            check_error(&error, SHOWN * text.len());
        }
    }
    // A mark at the beginning, as editors on Windows write it, changes nothing.
    let marked = ConfigFile::parse(&format!("\u{feff}{text}"), PATH);
    assert_eq!(marked.is_ok(), ConfigFile::parse(text, PATH).is_ok() && !text.starts_with('\u{feff}'));
}

fn check_file(file: &ConfigFile) {
    assert!(!file.destinations().is_empty());
    for config in file.destinations() {
        let name = config.name().unwrap();
        assert_eq!(file.destination(name).unwrap().name(), Some(name));
        assert!(config.is_set("bucket"));
        check_entries(config);
    }
}

fn check_entries(config: &Config) {
    for entry in config.entries() {
        // A secret is shown as one, whatever it is.
        let is_secret =
            matches!(entry.setting.name(), "secret_access_key" | "session_token" | "access_key_id");
        assert!(!is_secret || config.get(entry.setting.name()).is_none());
    }
}

fn check_value(line: &[u8]) {
    let Ok(line) = std::str::from_utf8(line) else { return };
    let Some((name, value)) = line.split_once('=') else { return };
    let known = all_settings().any(|(_, setting)| setting.name() == name);
    let mut config = Config::new();
    match config.set(name, value) {
        Ok(()) => {
            assert!(known && config.is_set(name));
            check_entries(&config);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().starts_with(name) || !known, "{error}");
            check_error(&error, 2 * line.len());
        }
    }
}
