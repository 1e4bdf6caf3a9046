//! Reads the tables of a configuration file, and notes every mistake with its place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::settings::config::Config;
use crate::settings::definitions::{all_settings, find_setting};
use crate::settings::given::{Given, Origin, shown_with};
use crate::settings::kind::Kind;
use crate::settings::nearest::did_you_mean;
use crate::settings::reference::Reference;
use crate::settings::setting::{Section, Setting};
use crate::text::Printable;

/// More mistakes than this are not shown.
const SHOWN_MISTAKES: usize = 20;

type Value<'i> = Spanned<DeValue<'i>>;

/// A table of the file.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a>(&'a DeTable<'a>);

impl<'a> Table<'a> {
    pub(crate) fn of_document(document: &'a DeTable<'a>) -> Self {
        Self(document)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Returns names, places and values in the order of the file.
    pub(crate) fn entries(self) -> impl Iterator<Item = (&'a str, usize, &'a Value<'a>)> {
        let entries = self.0.iter().map(|(name, value)| (name.get_ref().as_ref(), name.span().start, value));
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|(_, at, _)| *at);
        entries.into_iter()
    }
}

/// Reads values, and gathers what is wrong.
pub(crate) struct Reader<'t> {
    text: &'t str,
    path: &'t Path,
    mistakes: Vec<(usize, String)>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str, path: &'t Path) -> Self {
        Self { text, path, mistakes: Vec::new() }
    }

    /// Notes a mistake at a byte of the text.
    pub(crate) fn refuse(&mut self, at: usize, why: &str) {
        self.mistakes.push((at, why.to_owned()));
    }

    /// Returns true if there are mistakes.
    pub(crate) fn has_mistakes(&self) -> bool {
        !self.mistakes.is_empty()
    }

    /// Returns the error with all mistakes.
    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        self.mistakes.sort_by_key(|(at, _)| *at);
        let mut lines: Vec<_> =
            self.mistakes.iter().map(|(at, why)| self.line_of_mistake(*at, why)).collect();
        let more = lines.len().saturating_sub(SHOWN_MISTAKES);
        lines.truncate(SHOWN_MISTAKES);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        match lines.as_slice() {
            [] => Ok(()),
            lines => Err(StorageError::new(ErrorKind::Config, Operation::Configure, lines.join("\n  "))),
        }
    }

    fn line_of_mistake(&self, at: usize, why: &str) -> String {
        let (line, column) = self.place(at);
        format!("{}, line {line}, column {column}: {why}", self.path.display())
    }

    /// Returns line and column, from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.place(at).0 }
    }

    pub(crate) fn as_table<'a>(&mut self, name: &str, value: &'a Value<'a>) -> Option<Table<'a>> {
        let table = value.get_ref().as_table().map(Table);
        if table.is_none() {
            let example = match name.strip_prefix("destination.") {
                Some(_) => "name the destination, as in [destination.NAME]".to_owned(),
                None if name == "headers" => "write tables, as in [[headers]]".to_owned(),
                None => format!("a table is needed, as in [{name}]"),
            };
            self.refuse(value.span().start, &format!("{name}: {example}"));
        }
        table
    }

    /// Reads a table of settings for all destinations.
    pub(crate) fn read_section(&mut self, config: &mut Config, value: &Value<'_>, section: Section) {
        let table_name = section.table().unwrap_or_default();
        let Some(table) = self.as_table(table_name, value) else { return };
        for (name, at, value) in table.entries() {
            let Some(setting) = self.setting(name, at, Some(section)) else { continue };
            if setting.section == section {
                self.read_setting(config, setting, at, value);
            } else {
                let place = match setting.section.table() {
                    Some(other) => format!("[{other}]"),
                    None => "[destination.NAME]".to_owned(),
                };
                self.refuse(at, &format!("{name}: it belongs into {place}, not [{table_name}]"));
            }
        }
    }

    /// Reads a destination.
    pub(crate) fn read_destination(&mut self, config: &mut Config, destination: &str, value: &Value<'_>) {
        let Some(table) = self.as_table(&format!("destination.{destination}"), value) else { return };
        let names: Vec<_> = table.entries().map(|(name, ..)| name).collect();
        config.override_credentials(&names);
        for (name, at, value) in table.entries() {
            if name == "headers" {
                self.read_headers(config, value);
            } else if let Some(setting) = self.setting(name, at, None) {
                self.read_setting(config, setting, at, value);
            }
        }
        if names.contains(&"state") && config.get("state").as_deref() == Some("local") {
            config.drop_inherited_state(&names);
        }
        if !config.is_set("bucket") {
            self.refuse(value.span().start, &format!("destination.{destination}: bucket is missing"));
        }
    }

    /// Returns the setting of a name, unless it is unknown or for one run.
    fn setting(&mut self, name: &str, at: usize, section: Option<Section>) -> Option<&'static Setting> {
        let shown = Printable(name).to_string();
        let Some(setting) = find_setting(name) else {
            let fits = |setting: &&Setting| section.is_none_or(|section| setting.section == section);
            let known =
                all_settings().map(|(_, setting)| setting).filter(|setting| !setting.is_for_one_run());
            let known = known.filter(fits).map(|setting| setting.name);
            self.refuse(at, &format!("{shown}: there is no such setting{}", did_you_mean(name, known)));
            return None;
        };
        if setting.is_for_one_run() {
            self.refuse(at, &format!("{shown}: it is for one run only; use the flag {}", setting.flag()));
            return None;
        }
        Some(setting)
    }

    fn read_setting(&mut self, config: &mut Config, setting: &'static Setting, at: usize, value: &Value<'_>) {
        match value.get_ref() {
            DeValue::Array(items) if setting.is_list() => {
                for item in items {
                    self.read_item(config, setting, item.span().start, item);
                }
            }
            _ => self.read_item(config, setting, at, value),
        }
    }

    fn read_item(&mut self, config: &mut Config, setting: &'static Setting, at: usize, value: &Value<'_>) {
        match self.given(setting, value.get_ref()) {
            Ok(given) => config.put(setting, given, self.origin(at)),
            Err(why) => self.refuse(at, &format!("{}: {why}", setting.name)),
        }
    }

    /// Returns the checked value of a setting.
    fn given(&self, setting: &Setting, value: &DeValue<'_>) -> Result<Given, String> {
        let text = match (value, setting.kind) {
            (DeValue::Table(place), _) => return self.reference(setting, Table(place)).map(Given::Elsewhere),
            (DeValue::String(_), Kind::Secret) => {
                return Err("write no secret into the file: use { env = \"NAME\" }, { file = \"PATH\" } or \
                            { command = [\"program\"] }"
                    .to_owned());
            }
            (DeValue::Boolean(yes), Kind::Switch(_)) => yes.to_string(),
            (DeValue::Integer(number), Kind::Number(..) | Kind::Size(..) | Kind::Text(_))
                if number.radix() == 10 =>
            {
                number.as_str().replace('_', "")
            }
            (DeValue::String(_), Kind::Switch(_) | Kind::Number(..)) => return Err(expected(setting, value)),
            (DeValue::String(text), _) => text.clone().into_owned(),
            _ => return Err(expected(setting, value)),
        };
        let value = if setting.kind.is_path() && !text.is_empty() {
            self.path_from_here(&text).into_os_string()
        } else {
            OsString::from(text)
        };
        setting.check(&value).map_err(|why| shown_with(setting, &value, &why))?;
        Ok(Given::Plain(value))
    }

    /// Returns a path relative to the folder of the file.
    fn path_from_here(&self, text: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(text)
    }

    /// Reads `{ env = … }`, `{ file = … }` or `{ command = […] }`.
    fn reference(&self, setting: &Setting, place: Table<'_>) -> Result<Reference, String> {
        const FORMS: &str =
            "use { env = \"NAME\" }, { file = \"PATH\" } or, for a secret, { command = [\"program\"] }";
        let mut entries = place.entries();
        let (Some((name, _, value)), None) = (entries.next(), entries.next()) else {
            return Err(FORMS.to_owned());
        };
        let text =
            || value.get_ref().as_str().filter(|text| !text.is_empty()).ok_or_else(|| FORMS.to_owned());
        match name {
            _ if setting.kind.is_path() || setting.is_list() => Err("write the value itself".to_owned()),
            "env" => Ok(Reference::Variable(text()?.to_owned())),
            "file" => Ok(Reference::File(self.path_from_here(text()?))),
            "command" if setting.is_secret() => {
                let words = value.get_ref().as_array().ok_or(FORMS)?;
                let words = words.iter().map(|word| word.get_ref().as_str().map(str::to_owned));
                let words = words.collect::<Option<Vec<_>>>().filter(|words| !words.is_empty());
                let folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
                Ok(Reference::Command(words.ok_or(FORMS)?, folder))
            }
            _ => Err(FORMS.to_owned()),
        }
    }

    /// Reads `[headers]`, for every object, or `[[headers]]`, each with `match` and `set`.
    pub(crate) fn read_headers(&mut self, config: &mut Config, value: &Value<'_>) {
        match value.get_ref() {
            DeValue::Table(headers) => self.read_header_lines(config, None, Table(headers)),
            DeValue::Array(rules) => {
                for rule in rules {
                    self.read_header_rule(config, rule);
                }
            }
            _ => self.refuse(value.span().start, "headers: write [headers] or [[headers]]"),
        }
    }

    fn read_header_rule(&mut self, config: &mut Config, rule: &Value<'_>) {
        let Some(table) = self.as_table("headers", rule) else { return };
        let (mut glob, mut set) = (None, None);
        for (name, at, value) in table.entries() {
            match (name, value.get_ref()) {
                ("match", DeValue::String(text)) => glob = Some(text.as_ref()),
                ("set", DeValue::Table(headers)) => set = Some(Table(headers)),
                ("match", _) => self.refuse(at, "headers: match is a text, such as \"*.html\""),
                ("set", _) => {
                    self.refuse(at, "headers: set is a table, such as { \"Cache-Control\" = \"no-cache\" }");
                }
                _ => {
                    let hint = did_you_mean(name, ["match", "set"]);
                    self.refuse(
                        at,
                        &format!("headers: a rule has match and set, and no {}{hint}", Printable(name)),
                    );
                }
            }
        }
        match set {
            Some(set) => self.read_header_lines(config, glob, set),
            None => self.refuse(
                rule.span().start,
                "headers: set is missing, such as { \"Cache-Control\" = \"no-cache\" }",
            ),
        }
    }

    fn read_header_lines(&mut self, config: &mut Config, glob: Option<&str>, headers: Table<'_>) {
        let Some(setting) = find_setting("headers") else { return };
        for (name, at, value) in headers.entries() {
            let Some(value) = value.get_ref().as_str() else {
                self.refuse(at, &format!("headers: {}: the value is a text", Printable(name)));
                continue;
            };
            let glob = glob.map(|glob| format!("[{glob}] ")).unwrap_or_default();
            let line = OsString::from(format!("{glob}{name}: {value}"));
            match setting.check(&line) {
                Ok(()) => config.put(setting, Given::Plain(line), self.origin(at)),
                Err(why) => self.refuse(at, &format!("headers: {why}")),
            }
        }
    }
}

/// Returns the text of an error about a value of a wrong type.
fn expected(setting: &Setting, found: &DeValue<'_>) -> String {
    let example = match setting.kind {
        Kind::Switch(_) | Kind::Number(..) => setting.example.to_owned(),
        _ if setting.is_list() => format!("[\"{}\"]", setting.example),
        _ => format!("\"{}\"", setting.example),
    };
    format!(
        "expected {}, such as {example}, and found a value of type {}",
        setting.type_name(),
        found.type_str()
    )
}
