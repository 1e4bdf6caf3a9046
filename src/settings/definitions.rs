//! All settings, a file a group. Adding one is one entry in its group, which names the function that uses it.

mod connection;
mod deletes;
mod destination;
mod selection;
mod speed;
mod state;
mod uploads;

use crate::settings::setting::Setting;

/// The commands that publish, or show what they would do.
const SYNC: &[&str] = &["sync", "plan"];
/// All commands with a destination.
const ALL: &[&str] = &["sync", "plan", "status", "verify", "url", "pull", "uploads"];
/// The commands that send requests.
const REQUESTS: &[&str] = &["sync", "plan", "verify", "pull", "uploads"];

/// Settings that belong together: a heading of the command's help and a table of the manual.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    /// What the manual says before the table.
    pub(crate) about: &'static str,
    pub(crate) settings: &'static [Setting],
}

/// All groups, in the order of the manual.
pub(crate) const GROUPS: [&Group; 7] = [
    &destination::GROUP,
    &selection::GROUP,
    &uploads::GROUP,
    &deletes::GROUP,
    &state::GROUP,
    &speed::GROUP,
    &connection::GROUP,
];

/// Returns every setting with the title of its group, in the order of the manual.
///
/// ```
/// let part_size = bucket_brigade::find_setting("part_size").unwrap();
/// assert_eq!((part_size.default_value(), part_size.flag().as_str()), ("16MiB", "--part-size"));
/// assert!(bucket_brigade::all_settings().any(|(group, setting)| group == "Deletes" && setting.name() == "max_delete"));
/// ```
pub fn all_settings() -> impl Iterator<Item = (&'static str, &'static Setting)> {
    GROUPS.iter().flat_map(|group| group.settings.iter().map(|setting| (group.title, setting)))
}

/// Returns the setting of a name.
pub fn find_setting(name: &str) -> Option<&'static Setting> {
    all_settings().map(|(_, setting)| setting).find(|setting| setting.name == name)
}
