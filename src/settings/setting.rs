//! The definition of one setting.

use std::ffi::OsStr;
use std::fmt;

use crate::error::StorageError;
use crate::settings::kind::Kind;
use crate::settings::parts::Parts;

/// The tables of a configuration file that may hold a setting, beside `[destination.NAME]`, which may hold any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// None: it belongs to one destination.
    Destination,
    /// `[connection]`.
    Connection,
    /// `[rescan]`.
    Rescan,
    /// No file at all: it is for one run.
    OneRun,
}

impl Section {
    /// Returns the name of its table.
    pub(crate) fn table(self) -> Option<&'static str> {
        match self {
            Self::Connection => Some("connection"),
            Self::Rescan => Some("rescan"),
            Self::Destination | Self::OneRun => None,
        }
    }
}

/// One setting: its name, type, default and text. [`all_settings`](crate::all_settings) has them all.
#[derive(Clone, Copy)]
pub struct Setting {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) default: &'static str,
    pub(crate) example: &'static str,
    pub(crate) detail: &'static str,
    pub(crate) section: Section,
    pub(crate) commands: &'static [&'static str],
    pub(crate) accepted_by: &'static [&'static str],
    pub(crate) flag: &'static str,
    pub(crate) value: &'static str,
    pub(crate) variables: &'static [&'static str],
    pub(crate) profile_field: &'static str,
    pub(crate) field: &'static str,
    pub(crate) is_rare: bool,
}

impl Setting {
    /// A setting without a default, for `[rescan]`, with a flag of its own name.
    pub(crate) const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            help,
            default: "",
            example: "",
            detail: "",
            section: Section::Rescan,
            commands: &[],
            accepted_by: &[],
            flag: name,
            value: "",
            variables: &[],
            profile_field: "",
            field: name,
            is_rare: false,
        }
    }

    pub(crate) const fn default(mut self, value: &'static str) -> Self {
        self.default = value;
        self
    }

    /// A value that is allowed, for the manual and the tests.
    pub(crate) const fn example(mut self, value: &'static str) -> Self {
        self.example = value;
        self
    }

    /// What the manual says beyond the help.
    pub(crate) const fn detail(mut self, text: &'static str) -> Self {
        self.detail = text;
        self
    }

    pub(crate) const fn section(mut self, section: Section) -> Self {
        self.section = section;
        self
    }

    /// The commands with a flag for it.
    pub(crate) const fn on(mut self, commands: &'static [&'static str]) -> Self {
        self.commands = commands;
        self
    }

    /// The commands that accept the flag, too, although it has no effect there.
    pub(crate) const fn accepted_by(mut self, commands: &'static [&'static str]) -> Self {
        self.accepted_by = commands;
        self
    }

    /// The name of the flag, if it is another one.
    pub(crate) const fn flag_name(mut self, name: &'static str) -> Self {
        self.flag = name;
        self
    }

    /// The name of the value in the help.
    pub(crate) const fn value_name(mut self, name: &'static str) -> Self {
        self.value = name;
        self
    }

    /// The variables, and the field of a profile in `~/.aws`, that it is read from otherwise.
    pub(crate) const fn variables(mut self, names: &'static [&'static str], field: &'static str) -> Self {
        self.variables = names;
        self.profile_field = field;
        self
    }

    /// The name that errors of the library begin with, if it is another one.
    pub(crate) const fn field(mut self, name: &'static str) -> Self {
        self.field = name;
        self
    }

    /// Few need it: the short help leaves it out.
    pub(crate) const fn rare(mut self) -> Self {
        self.is_rare = true;
        self
    }

    /// The name in configuration files, and for [`Config::set`](crate::Config::set).
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The type: `number`, `size`, `time`, `text`, `true or false`, `path`, `secret`, `list of texts` or `list of paths`.
    pub fn type_name(&self) -> &'static str {
        self.kind.type_name()
    }

    /// The default, as it would be written; empty if there is none.
    pub fn default_value(&self) -> &'static str {
        self.default
    }

    /// A value that is allowed.
    pub fn example_value(&self) -> &'static str {
        self.example
    }

    /// The allowed values in words; empty if the type allows all.
    pub fn range(&self) -> String {
        self.kind.range()
    }

    /// One sentence about it.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// The variables that it is read from if it is not given, in their order.
    pub fn variables_read(&self) -> &'static [&'static str] {
        self.variables
    }

    /// The field of a profile in `~/.aws` that it is read from after them; empty if there is none.
    pub fn profile_field(&self) -> &'static str {
        self.profile_field
    }

    /// The name that errors of the library begin with.
    pub fn error_field(&self) -> &'static str {
        self.field
    }

    /// Returns true if several values add up.
    pub fn is_list(&self) -> bool {
        self.kind.is_list()
    }

    /// Returns true if the value is never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }

    /// Returns true for true or false.
    pub fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch(_))
    }

    /// Returns true if it holds for one run, so that no file may have it.
    pub fn is_for_one_run(&self) -> bool {
        self.section == Section::OneRun
    }

    /// The command's flag, such as `--part-size`. That of a switch which is on by default begins with `--no-`.
    pub fn flag(&self) -> String {
        format!("--{}", self.flag.replace('_', "-"))
    }

    /// The name of the flag's value in the help.
    pub fn value_name_in_help(&self) -> &'static str {
        match (self.value, self.kind) {
            ("", Kind::Number(..)) => "N",
            ("", Kind::Size(..)) => "SIZE",
            ("", Kind::Time(..)) => "TIME",
            ("", Kind::Choice(..)) => "HOW",
            ("", Kind::Path(_) | Kind::PatternFiles(_)) => "FILE",
            ("", _) => "NAME",
            (name, _) => name,
        }
    }

    /// Returns true if few need it, so that a short help leaves it out.
    pub fn is_rare(&self) -> bool {
        self.is_rare
    }

    /// Returns true if a command has a flag for it that has an effect.
    pub fn applies_to(&self, command: &str) -> bool {
        self.commands.contains(&command)
    }

    /// Returns true if a command accepts the flag.
    pub fn is_accepted_by(&self, command: &str) -> bool {
        self.applies_to(command) || self.accepted_by.contains(&command)
    }

    /// Checks the form of a value. The error says what is allowed, and does not name the setting.
    ///
    /// # Errors
    /// A text such as `use 1 to 256`.
    pub fn check(&self, value: impl AsRef<OsStr>) -> Result<(), String> {
        self.kind.check(value.as_ref())
    }

    pub(crate) fn apply(&self, parts: &mut Parts, value: &OsStr) -> Result<(), StorageError> {
        self.kind.apply(parts, value)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .field("type", &self.type_name())
            .finish_non_exhaustive()
    }
}
