//! A configuration as people may see it: without secrets.

use std::fmt;

use crate::settings::config::Config;
use crate::settings::definitions::{all_settings, find_setting};
use crate::settings::given::{Given, Origin, shown_value};
use crate::settings::setting::Setting;

/// A setting of a [`Config`], as [`Config::entries`] shows it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// The setting.
    pub setting: &'static Setting,
    /// The value, with secrets hidden; the default if none is given, and `None` if there is no default.
    pub value: Option<String>,
    /// Where it came from: a file and line, a flag, a variable, `default`.
    pub origin: String,
}

impl Config {
    /// Returns every setting with its value, the default included.
    pub fn entries(&self) -> Vec<ConfigEntry> {
        all_settings().flat_map(|(_, setting)| self.entries_of(setting)).collect()
    }

    fn entries_of(&self, setting: &'static Setting) -> Vec<ConfigEntry> {
        let Some(values) = self.given.get(setting.name) else {
            let value = Some(setting.default.to_owned()).filter(|value| !value.is_empty());
            return vec![ConfigEntry { setting, value, origin: "default".to_owned() }];
        };
        let entry = |(value, origin): &(Given, Origin)| {
            let value = Some(shown_value(setting, value));
            ConfigEntry { setting, value, origin: origin.to_string() }
        };
        values.iter().map(entry).collect()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.given.keys().filter_map(|name| find_setting(name));
        let entries = given.flat_map(|setting| self.entries_of(setting));
        f.debug_map().entries(entries.map(|entry| (entry.setting.name, entry.value))).finish()
    }
}
