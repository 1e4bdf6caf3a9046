//! `url`: prints the URLs of keys. Sends no request and needs no credentials.

use std::io::{self, Write};

use bucket_brigade::{ErrorKind, KeyState, RemoteKey, Resolved, StorageError};
use serde_json::{Value, json};

use crate::args::UrlArgs;
use crate::commands::each::Each;
use crate::commands::record::Record;
use crate::destination::Destination;
use crate::printable::Printable;
use crate::{check_output, exit, json, print_json, print_json_named, targets, text};

/// Prints the URL of each key, a line each: of the object if the record says that it is published, else of the file.
pub(crate) fn url(args: &UrlArgs) -> Result<u8, StorageError> {
    let configs = targets::of_one(&args.dest, &args.file, &args.settings).map(|config| vec![config]);
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_query(error));
    Each::new("url", &args.output, None).run(configs, print_failed, |destination| urls_of(args, &destination))
}

fn urls_of(args: &UrlArgs, destination: &Destination) -> Result<u8, StorageError> {
    for key in &args.keys {
        RemoteKey::new(key)?;
    }
    let record = match Record::open(destination, destination.config.get("fallback_url").as_deref()) {
        // The URL of a given key is known without a record.
        Err(error) if error.kind() == ErrorKind::CacheLocked && !args.all => {
            text::print_note("another program has locked the cache: the URLs do not show what is published");
            Record::Nothing
        }
        other => other?,
    };
    if args.all {
        return print_all(&record, args.output.json).map(|()| exit::DONE);
    }
    let mut lines = Vec::new();
    for key in &args.keys {
        lines.push(match (record.resolve(key)?, &record) {
            (Some(there), _) => Line::from_record(key, &there),
            (None, Record::Nothing) => Line::without_record(key, destination.address.get_url(key), "unknown"),
            (None, _) => Line::without_record(key, destination.address.get_url(key), "unpublished"),
        });
    }
    if args.output.json {
        print_json(&lines.iter().map(Line::to_json).collect::<Vec<_>>())?;
    } else {
        let mut out = io::stdout().lock();
        for line in &lines {
            if line.state == "unpublished" {
                text::print_note(&format!("{} is not published", line.key));
            }
            check_output(writeln!(out, "{}", line.url))?;
        }
    }
    let missing = lines.iter().any(|line| line.state == "unpublished");
    Ok(if missing { exit::FAILED } else { exit::DONE })
}

/// Prints every key with its URL, size, digest and state: a line each, or one JSON array.
fn print_all(record: &Record, as_json: bool) -> Result<(), StorageError> {
    let (begin, between, end) = if as_json { ("[", ",", "]\n") } else { ("", "", "") };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut before = begin;
    for entry in record.entries() {
        let (key, there) = entry?;
        let line = Line::from_record(&key, &there);
        let mut write = || {
            out.write_all(before.as_bytes())?;
            if as_json {
                json::write_json(&mut out, &line.to_json())
            } else {
                out.write_all(line.to_row().as_bytes())
            }
        };
        let written = write();
        // The reader has what it wanted, as with `| head`.
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return Ok(());
        }
        check_output(written)?;
        before = between;
    }
    // An empty record still prints the brackets of an empty array.
    let rest = if before == begin { begin } else { "" };
    check_output(write!(out, "{rest}{end}").and_then(|()| out.flush()))
}

/// The output for one key.
struct Line<'a> {
    key: &'a str,
    url: String,
    size: Option<u64>,
    digest: Option<String>,
    state: &'static str,
}

impl<'a> Line<'a> {
    fn from_record(key: &'a str, there: &Resolved) -> Self {
        let digest = there.digest.map(|digest| digest.to_string());
        Self { key, url: there.url.clone(), size: there.size, digest, state: state_name(there.state) }
    }

    fn without_record(key: &'a str, url: String, state: &'static str) -> Self {
        Self { key, url, size: None, digest: None, state }
    }

    fn to_json(&self) -> Value {
        let Self { key, url, size, digest, state } = self;
        json!({ "key": key, "url": url, "size": size, "digest": digest, "state": state })
    }

    /// Returns a line with tabs between the fields; a hyphen stands for an unknown value.
    fn to_row(&self) -> String {
        let size = self.size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let digest = self.digest.as_deref().unwrap_or("-");
        [&Printable(self.key).to_string(), &self.url, size.as_str(), digest, self.state].join("\t") + "\n"
    }
}

fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Published => "published",
        KeyState::Pending => "pending",
        KeyState::Stale => "stale",
        _ => "unknown",
    }
}
