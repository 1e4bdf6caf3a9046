//! All settings, a file a group. Adding one is one entry in its group, which names the function that uses it.

mod connection;
mod deletes;
mod destination;
mod network;
mod selection;
mod speed;
mod state;
mod uploads;

use crate::settings::setting::Setting;

/// The commands that publish, or show what they would do.
const SYNC: &[&str] = &["sync", "plan"];
/// The commands that read the tree.
const TREE: &[&str] = &["sync", "plan", "rebuild"];
/// All commands with a destination.
const ALL: &[&str] = &["sync", "plan", "status", "verify", "url", "pull", "uploads", "rebuild"];
/// The commands that send requests.
const REQUESTS: &[&str] = &["sync", "plan", "verify", "pull", "uploads", "rebuild"];

/// Settings that belong together: a heading of the command's help and a table of the manual.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    /// What the manual says before the table.
    pub(crate) about: &'static str,
    pub(crate) settings: &'static [Setting],
}

/// All groups, in the order of the manual.
pub(crate) const GROUPS: [&Group; 8] = [
    &destination::GROUP,
    &selection::GROUP,
    &uploads::GROUP,
    &deletes::GROUP,
    &state::GROUP,
    &speed::GROUP,
    &connection::GROUP,
    &network::GROUP,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::config::Config;
    use crate::settings::parts::Parts;

    /// Everything that settings can change, as text.
    fn fingerprint(parts: &Parts) -> String {
        let (rescan, run) = (&parts.rescan, &parts.run);
        format!(
            "{:?}",
            (
                (
                    &parts.bucket,
                    &parts.root,
                    &parts.cache,
                    &parts.fallback_url,
                    parts.lock_wait,
                    &parts.s3,
                    parts.retry
                ),
                (&parts.network, &parts.client_certificate, &parts.client_key),
                (&parts.place, &parts.remote, parts.source, run.deadline, run.force, run.verify),
                (rescan.batch_size, rescan.parts_in_flight, rescan.whole_file_digest, rescan.max_delete),
                (rescan.ignore_files, rescan.max_size, rescan.min_size),
                (rescan.delete, rescan.allow_empty, rescan.allow_new_root, rescan.follow_symlinks),
                (
                    &rescan.include,
                    &rescan.exclude,
                    rescan.first_run,
                    rescan.catalog,
                    parts.engine.worker_count()
                ),
            )
        )
    }

    fn applied(setting: &Setting, value: &str) -> Parts {
        let mut config = Config::new();
        let parts = config.set(setting.name, value).and_then(|()| config.parts());
        parts.unwrap_or_else(|error| panic!("{}: {error}", setting.name))
    }

    #[test]
    fn names_flags_and_texts_are_complete_and_unique() {
        let (mut names, mut flags) = (BTreeSet::new(), BTreeSet::new());
        for (_, setting) in all_settings() {
            assert!(names.insert(setting.name) && flags.insert(setting.flag()), "{}", setting.name);
            assert!(!setting.help.is_empty() && !setting.help.ends_with('.'), "{}", setting.name);
            assert!(setting.help.len() <= 130 && !setting.help.contains('\n'), "{}", setting.name);
            assert!(!setting.example.is_empty(), "{}", setting.name);
            let is_no = setting.flag().starts_with("--no-");
            assert_eq!(
                is_no && setting.is_switch(),
                setting.is_switch() && setting.default == "true",
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn what_is_stated_as_default_is_the_default() {
        let none = fingerprint(&Parts::default());
        for (_, setting) in all_settings().filter(|(_, setting)| !setting.default.is_empty()) {
            // The number of files in a batch is that of the engine's workers unless it is set.
            let parts = applied(setting, setting.default);
            let expected = if setting.name == "batch_size" {
                none.replacen("(None, None, false", "(Some(10), None, false", 1)
            } else {
                none.clone()
            };
            assert_eq!(fingerprint(&parts), expected, "{}", setting.name);
        }
    }

    #[test]
    fn every_example_is_allowed_and_changes_something() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("patterns");
        std::fs::write(&file, "*.map\n").unwrap();
        let none = fingerprint(&Parts::default());
        for (_, setting) in all_settings() {
            assert_eq!(setting.check(setting.example), Ok(()), "{}", setting.name);
            if setting.is_secret() || setting.name == "profile" {
                continue;
            }
            let is_read = setting.name.ends_with("_from");
            let example = if is_read { file.to_str().unwrap() } else { setting.example };
            assert_ne!(fingerprint(&applied(setting, example)), none, "{}", setting.name);
        }
    }

    #[test]
    fn the_ends_of_a_range_are_allowed_and_what_lies_beyond_is_not() {
        use crate::settings::kind::Kind::{Number, Size, Time};
        for (_, setting) in all_settings() {
            let (least, most, unit) = match setting.kind {
                Number(least, most, _) => (least, most, ""),
                Size(least, most, _) => (least, most, "B"),
                Time(least, most, _) => (least, most, "s"),
                _ => continue,
            };
            let check = |number: u64| setting.check(format!("{number}{unit}"));
            assert_eq!(check(least), Ok(()), "{}", setting.name);
            if least > 0 {
                assert!(check(least - 1).is_err(), "{}", setting.name);
            }
            if most < u64::MAX {
                assert_eq!(check(most), Ok(()), "{}", setting.name);
                assert!(check(most + 1).is_err(), "{}", setting.name);
            }
        }
    }
}
