//! Flags made from the library's settings.

use std::ffi::OsString;

use bucket_brigade::{Config, Setting, StorageError, all_settings};
use clap::builder::OsStringValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// The commands with settings.
pub(crate) const COMMANDS: [&str; 8] =
    ["sync", "plan", "status", "verify", "url", "pull", "uploads", "rebuild"];
pub(crate) const SYNC: usize = 0;
pub(crate) const STATUS: usize = 2;
pub(crate) const VERIFY: usize = 3;
pub(crate) const URL: usize = 4;
pub(crate) const PULL: usize = 5;
pub(crate) const UPLOADS: usize = 6;
pub(crate) const REBUILD: usize = 7;

/// The settings that were given as flags of a command, by its place in [`COMMANDS`].
#[derive(Debug, Default)]
pub(crate) struct SettingArgs<const COMMAND: usize>(Vec<(&'static Setting, OsString)>);

impl<const COMMAND: usize> SettingArgs<COMMAND> {
    /// Sets them in a configuration. Flags come before everything else; lists add up.
    pub(crate) fn apply_to(&self, config: &mut Config) -> Result<(), StorageError> {
        self.0.iter().try_for_each(|(setting, value)| config.set_from(setting.name(), value, setting.flag()))
    }

    /// Returns the settings that a command has flags for, with the headings of its help.
    fn settings() -> impl Iterator<Item = (&'static str, &'static Setting)> {
        all_settings().filter(|(_, setting)| setting.is_accepted_by(COMMANDS[COMMAND]))
    }
}

impl<const COMMAND: usize> Args for SettingArgs<COMMAND> {
    fn augment_args(command: Command) -> Command {
        Self::settings().fold(command, |command, (group, setting)| command.arg(arg_of(group, setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const COMMAND: usize> FromArgMatches for SettingArgs<COMMAND> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given =
            |name: &str| matches.value_source(name).is_some_and(|from| from == ValueSource::CommandLine);
        let mut given = Vec::new();
        for (_, setting) in Self::settings().filter(|(_, setting)| is_given(setting.name())) {
            if setting.is_switch() {
                // A flag is the opposite of the default.
                let value = if setting.default_value() == "true" { "false" } else { "true" };
                given.push((setting, OsString::from(value)));
                continue;
            }
            let values = matches.get_many::<OsString>(setting.name()).into_iter().flatten();
            given.extend(values.map(|value| (setting, value.clone())));
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns the flag of a setting.
fn arg_of(group: &'static str, setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.name())
        .long(setting.flag().trim_start_matches('-').to_owned())
        .help(help_of(setting))
        .help_heading(group)
        .hide_short_help(setting.is_rare())
        .value_name(setting.value_name_in_help());
    if setting.is_switch() {
        return arg.action(ArgAction::SetTrue);
    }
    // The only flag whose value may be left out.
    let arg = match setting.name() {
        "follow_symlinks" => arg.num_args(0..=1).require_equals(true).default_missing_value("inside"),
        _ => arg,
    };
    let action = if setting.is_list() { ArgAction::Append } else { ArgAction::Set };
    // The value is checked with all others, so that --json reports it, too.
    arg.action(action).value_parser(OsStringValueParser::new())
}

/// Returns the help, with the default if the text does not state one.
fn help_of(setting: &Setting) -> String {
    let (help, default) = (setting.help(), setting.default_value());
    let is_stated = help.contains("default")
        || default.is_empty()
        || setting.is_switch()
        || setting.name() == "follow_symlinks";
    if is_stated { help.to_owned() } else { format!("{help} [default: {default}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses one flag of a command, and returns what the configuration then holds.
    fn parsed(command: &str, flags: &[String]) -> Result<Config, String> {
        let args = ["brigade", command, "s3://bucket", "key"].map(str::to_owned).into_iter().take(3);
        let args = args.chain((command == "url").then(|| "key".to_owned())).chain(flags.iter().cloned());
        let matches =
            crate::parse::command().try_get_matches_from(args).map_err(|error| error.to_string())?;
        let (_, matches) = matches.subcommand().ok_or("no subcommand")?;
        let mut config = Config::new();
        let given = match command {
            "sync" | "plan" => {
                SettingArgs::<SYNC>::from_arg_matches(matches).map(|args| args.apply_to(&mut config))
            }
            "status" => {
                SettingArgs::<STATUS>::from_arg_matches(matches).map(|args| args.apply_to(&mut config))
            }
            "verify" => {
                SettingArgs::<VERIFY>::from_arg_matches(matches).map(|args| args.apply_to(&mut config))
            }
            "url" => SettingArgs::<URL>::from_arg_matches(matches).map(|args| args.apply_to(&mut config)),
            "pull" => SettingArgs::<PULL>::from_arg_matches(matches).map(|args| args.apply_to(&mut config)),
            "rebuild" => {
                SettingArgs::<REBUILD>::from_arg_matches(matches).map(|args| args.apply_to(&mut config))
            }
            _ => SettingArgs::<UPLOADS>::from_arg_matches(matches).map(|args| args.apply_to(&mut config)),
        };
        given.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn every_setting_is_a_flag_of_its_commands_and_of_no_other() {
        for (_, setting) in all_settings() {
            let example = setting.example_value();
            for command in COMMANDS {
                let flag = match example {
                    _ if setting.is_switch() => setting.flag(),
                    _ => format!("{}={example}", setting.flag()),
                };
                let result = parsed(command, std::slice::from_ref(&flag));
                // A flag of its own, with another meaning.
                if command == "rebuild" && setting.name() == "force" {
                    continue;
                }
                if !setting.is_accepted_by(command) {
                    assert!(result.is_err(), "{command} {flag}");
                    continue;
                }
                let config = result.unwrap_or_else(|error| panic!("{command} {flag}: {error}"));
                assert_eq!(config.get(setting.name()).as_deref(), Some(example), "{command} {flag}");
                let entries = config.entries();
                let entry = entries.iter().find(|entry| entry.setting.name() == setting.name()).unwrap();
                assert_eq!(entry.origin, setting.flag());
            }
        }
    }
}
