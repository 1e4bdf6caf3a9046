//! The reference chapter of the manual, made from the definitions.

use std::fmt::Write;

use crate::settings::definitions::{GROUPS, Group};
use crate::settings::setting::{Section, Setting};

const INTRODUCTION: &str = include_str!("introduction.md");

/// Returns the chapter [`guide::settings`](crate::guide::settings) as Markdown. A test compares it with the one in the
/// manual.
pub fn settings_chapter() -> String {
    let mut text = INTRODUCTION.to_owned();
    for group in GROUPS {
        add_group(&mut text, group);
    }
    text
}

fn add_group(text: &mut String, group: &Group) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\n## {}\n\n", group.title);
    if !group.about.is_empty() {
        let _ = write!(text, "{}\n\n", group.about);
    }
    for setting in group.settings {
        add_setting(text, setting);
    }
}

fn add_setting(text: &mut String, setting: &Setting) {
    let flag = if setting.commands.is_empty() { String::new() } else { format!(", `{}`", setting.flag()) };
    let _ = write!(text, "### `{}`{flag}\n\n", setting.name);
    let help = setting.help.split(" [default: ").next().unwrap_or_default().replace('\n', " ");
    let _ = write!(text, "{}.", help.replace(" (repeatable)", ""));
    if !setting.detail.is_empty() {
        let _ = write!(text, " {}", setting.detail);
    }
    text.push_str("\n\n");
    let mut facts = vec![format!("Type: {}", type_text(setting))];
    if let Some(default) = default_text(setting) {
        facts.push(format!("default: {default}"));
    }
    facts.push(format!("example: `{}`", setting.example));
    if !setting.variables.is_empty() {
        let names: Vec<_> = setting.variables.iter().map(|name| format!("`{name}`")).collect();
        facts.push(format!(
            "otherwise: {}, then `{}` of the profile",
            names.join(", "),
            setting.profile_field
        ));
    }
    facts.push(place_text(setting));
    let _ = write!(text, "{}.\n\n", facts.join("; "));
}

fn type_text(setting: &Setting) -> String {
    match setting.range().as_str() {
        "" => setting.type_name().to_owned(),
        range => format!("{}, {range}", setting.type_name()),
    }
}

fn default_text(setting: &Setting) -> Option<String> {
    if !setting.default.is_empty() {
        return Some(format!("`{}`", setting.default));
    }
    let stated = setting.help.split_once(" [default: ")?.1;
    Some(stated.trim_end_matches(']').replace('\n', " "))
}

fn place_text(setting: &Setting) -> String {
    match setting.section {
        Section::Destination => "in `[destination.NAME]`".to_owned(),
        Section::OneRun => "for one run: in no file".to_owned(),
        Section::Connection => "in `[connection]` or `[destination.NAME]`".to_owned(),
        Section::Rescan if setting.name == "headers" => "in tables of its own, see above".to_owned(),
        Section::Rescan => "in `[rescan]` or `[destination.NAME]`".to_owned(),
    }
}
