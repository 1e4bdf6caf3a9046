//! The types of settings: how a value is written, checked and put into the parts.

use std::ffi::OsStr;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::error::StorageError;
use crate::settings::parts::Parts;

type Outcome = Result<(), StorageError>;

/// The type of a setting, with the function that puts a value into the parts.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// True or false.
    Switch(fn(&mut Parts, bool)),
    /// A whole number in a range.
    Number(u64, u64, fn(&mut Parts, u64)),
    /// A number of bytes in a range, such as `16MiB`.
    Size(u64, u64, fn(&mut Parts, u64)),
    /// A time in a range of seconds, such as `90s` or `5m`.
    Time(u64, u64, fn(&mut Parts, Duration)),
    /// One of a few words.
    Choice(&'static [&'static str], fn(&mut Parts, &str)),
    /// A text.
    Text(fn(&mut Parts, &str) -> Outcome),
    /// A text that is never shown, and that is read only when it is needed.
    Secret,
    /// A path, relative to the folder of the configuration file.
    Path(fn(&mut Parts, PathBuf)),
    /// Texts, in order.
    Texts(fn(&mut Parts, &str) -> Outcome),
    /// Files of patterns, which add to the list of this name when a configuration is resolved.
    PatternFiles(&'static str),
}

impl Kind {
    /// Returns the name of the type in the manual.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::Switch(_) => "true or false",
            Self::Number(..) => "number",
            Self::Size(..) => "size",
            Self::Time(..) => "time",
            Self::Choice(..) | Self::Text(_) => "text",
            Self::Secret => "secret",
            Self::Path(_) => "path",
            Self::Texts(_) => "list of texts",
            Self::PatternFiles(_) => "list of paths",
        }
    }

    /// Returns true if several values add up.
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Self::Texts(_) | Self::PatternFiles(_))
    }

    /// Returns true if the value is a path.
    pub(crate) fn is_path(self) -> bool {
        matches!(self, Self::Path(_) | Self::PatternFiles(_))
    }

    /// Returns the allowed values in words; empty if all are.
    pub(crate) fn range(self) -> String {
        match self {
            Self::Number(least, most, _) if most == u64::MAX => at_least(&least),
            Self::Size(least, most, _) if most == u64::MAX => at_least(&Bytes(least)),
            Self::Number(least, most, _) => from_to(&least, &most),
            Self::Size(least, most, _) => from_to(&Bytes(least), &Bytes(most)),
            Self::Time(least, most, _) if most == u64::MAX => at_least(&seconds(least)),
            Self::Time(least, most, _) => from_to(&seconds(least), &seconds(most)),
            Self::Choice(words, _) => one_of(words),
            _ => String::new(),
        }
    }

    /// Checks the form of a value. The error says what is allowed.
    pub(crate) fn check(self, value: &OsStr) -> Result<(), String> {
        if self.is_path() {
            return if value.is_empty() { Err("the path is empty".to_owned()) } else { Ok(()) };
        }
        match (self, value.to_str()) {
            (Self::Choice(words, _), Some(text)) if !words.contains(&text) => {
                Err(format!("use {}", one_of(words)))
            }
            (Self::Secret, Some("")) => Err("it is empty".to_owned()),
            _ => self.apply_to(&mut Parts::default(), value),
        }
    }

    /// Puts a value into the parts.
    pub(crate) fn apply(self, parts: &mut Parts, value: &OsStr) -> Result<(), StorageError> {
        let wrong = |why: String| StorageError::config("value", why);
        match self {
            Self::Path(set) => set(parts, PathBuf::from(value)),
            Self::Switch(set) => set(parts, text_of(value).and_then(parse_switch).map_err(wrong)?),
            Self::Number(least, most, set) => {
                let number = text_of(value).and_then(|text| parse_number(text, least..=most));
                set(parts, number.map_err(wrong)?);
            }
            Self::Size(least, most, set) => {
                let bytes = text_of(value).and_then(|text| parse_size(text, least..=most));
                set(parts, bytes.map_err(wrong)?);
            }
            Self::Time(least, most, set) => {
                let time = text_of(value).and_then(|text| parse_time(text, least..=most));
                set(parts, time.map_err(wrong)?);
            }
            Self::Choice(_, set) => set(parts, text_of(value).map_err(wrong)?),
            Self::Secret => drop(text_of(value).map_err(wrong)?),
            Self::PatternFiles(_) => {}
            Self::Text(set) | Self::Texts(set) => {
                return set(parts, text_of(value).map_err(wrong)?);
            }
        }
        Ok(())
    }

    /// As [`apply`](Self::apply), with the text of the error alone.
    fn apply_to(self, parts: &mut Parts, value: &OsStr) -> Result<(), String> {
        self.apply(parts, value).map_err(|error| {
            let message = error.message();
            // The caller names the setting.
            message.split_once(": ").map_or(message, |(_, why)| why).to_owned()
        })
    }
}

fn text_of(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| "it is not UTF-8".to_owned())
}

fn parse_switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "use true or false".to_owned())
}

fn parse_number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    number.ok_or_else(|| if *most == u64::MAX { use_at_least(least) } else { use_from_to(least, most) })
}

fn parse_size(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "use a number of bytes, such as 64KiB or 16MiB".to_owned())?;
    let (least, most) = (Bytes(*range.start()), Bytes(*range.end()));
    if range.contains(&size.as_u64()) {
        return Ok(size.as_u64());
    }
    Err(if most.0 == u64::MAX { use_at_least(&least) } else { use_from_to(&least, &most) })
}

fn parse_time(text: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|_| "use a number and a unit, such as 90s, 10m or 1h".to_owned())?;
    let (least, most) = (Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
    if (least..=most).contains(&time) {
        return Ok(time);
    }
    let (least, most) = (seconds(*range.start()), seconds(*range.end()));
    Err(if *range.end() == u64::MAX { use_at_least(&least) } else { use_from_to(&least, &most) })
}

fn at_least(least: &dyn fmt::Display) -> String {
    match least.to_string().as_str() {
        "0" | "0s" => String::new(),
        least => format!("{least} or more"),
    }
}

fn from_to(least: &dyn fmt::Display, most: &dyn fmt::Display) -> String {
    format!("{least} to {most}")
}

fn use_at_least(least: &dyn fmt::Display) -> String {
    match at_least(least).as_str() {
        "" => "use a whole number".to_owned(),
        range => format!("use {range}"),
    }
}

fn use_from_to(least: &dyn fmt::Display, most: &dyn fmt::Display) -> String {
    format!("use {}", from_to(least, most))
}

fn one_of(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.join(""),
    }
}

fn seconds(count: u64) -> String {
    humantime::format_duration(Duration::from_secs(count)).to_string()
}

/// Bytes in the largest binary unit without a fraction.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.into_iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        match unit {
            Some((size, name)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_units_and_a_wrong_one_is_told_what_is_allowed() {
        let says = |kind: Kind, text: &str| kind.check(OsStr::new(text)).unwrap_err();
        let number = Kind::Number(1, 256, |_, _| {});
        let size = Kind::Size(4096, 1 << 20, |_, _| {});
        let time = Kind::Time(5, 86_400, |_, _| {});
        let choice = Kind::Choice(&["adopt", "refuse"], |_, _| {});
        assert_eq!(says(number, "0"), "use 1 to 256");
        assert_eq!(says(number, "1.5"), "use 1 to 256");
        assert_eq!(says(size, "2MiB"), "use 4KiB to 1MiB");
        assert_eq!(says(size, "big"), "use a number of bytes, such as 64KiB or 16MiB");
        assert_eq!(says(time, "4s"), "use 5s to 1day");
        assert_eq!(says(time, "300"), "use a number and a unit, such as 90s, 10m or 1h");
        assert_eq!(says(choice, "Adopt"), "use adopt or refuse");
        assert_eq!(says(Kind::Number(8, u64::MAX, |_, _| {}), "7"), "use 8 or more");
        for (kind, text) in
            [(number, "256"), (size, "4096"), (size, "4KiB"), (time, "1h 30m"), (choice, "refuse")]
        {
            assert_eq!(kind.check(OsStr::new(text)), Ok(()), "{text}");
        }
    }
}
