//! `url`: where keys are to be read. No request is sent, no credentials are needed.

use std::io::{self, Write};

use bucket_brigade::{ErrorKind, KeyState, RemoteKey, Resolved, StorageError};
use serde_json::{Value, json};

use crate::args::UrlArgs;
use crate::commands::record::Record;
use crate::destination::Destination;
use crate::printable::Printable;
use crate::{exit, json, print_json, printed, text};

/// Prints where keys are to be read, a line each. Where there is a record, what it knows counts.
pub(crate) fn url(args: &UrlArgs) -> Result<u8, StorageError> {
    for key in &args.keys {
        RemoteKey::new(key)?;
    }
    let destination = Destination::find(&args.destination)?;
    let record = match Record::find(&destination, args.fallback_url.as_deref()) {
        Err(error) if error.kind() == ErrorKind::CacheLocked && !args.all => {
            text::note("another program holds the cache: these URLs do not say what is published yet");
            Record::Nothing
        }
        other => other?,
    };
    if args.all {
        return all(&record, args.destination.output.json).map(|()| exit::DONE);
    }
    let mut lines = Vec::new();
    for key in &args.keys {
        lines.push(match (record.resolve(key)?, &record) {
            (Some(there), _) => Line::of(key, &there),
            (None, Record::Nothing) => Line::unknown(key, destination.address.get_url(key), "unknown"),
            (None, _) => Line::unknown(key, destination.address.get_url(key), "unpublished"),
        });
    }
    if args.destination.output.json {
        print_json(&lines.iter().map(Line::json).collect::<Vec<_>>())?;
    } else {
        let mut out = io::stdout().lock();
        for line in &lines {
            if line.state == "unpublished" {
                text::note(&format!("{} is not published", line.key));
            }
            printed(writeln!(out, "{}", line.url))?;
        }
    }
    let missing = lines.iter().any(|line| line.state == "unpublished");
    Ok(if missing { exit::FAILED } else { exit::DONE })
}

/// Every key with all that is known of it, a line each; as JSON one array.
fn all(record: &Record, as_json: bool) -> Result<(), StorageError> {
    let (begin, between, end) = if as_json { ("[", ",", "]\n") } else { ("", "", "") };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut before = begin;
    for entry in record.entries() {
        let (key, there) = entry?;
        let line = Line::of(&key, &there);
        let mut write = || {
            out.write_all(before.as_bytes())?;
            if as_json { json::write(&mut out, &line.json()) } else { out.write_all(line.row().as_bytes()) }
        };
        let written = write();
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return Ok(());
        }
        printed(written)?;
        before = between;
    }
    let rest = if before == begin { begin } else { "" };
    printed(write!(out, "{rest}{end}").and_then(|()| out.flush()))
}

/// What is printed of a key.
struct Line<'a> {
    key: &'a str,
    url: String,
    size: Option<u64>,
    digest: Option<String>,
    state: &'static str,
}

impl<'a> Line<'a> {
    fn of(key: &'a str, there: &Resolved) -> Self {
        let digest = there.digest.map(|digest| digest.to_string());
        Self { key, url: there.url.clone(), size: there.size, digest, state: state_of(there.state) }
    }

    fn unknown(key: &'a str, url: String, state: &'static str) -> Self {
        Self { key, url, size: None, digest: None, state }
    }

    fn json(&self) -> Value {
        let Self { key, url, size, digest, state } = self;
        json!({ "key": key, "url": url, "size": size, "digest": digest, "state": state })
    }

    /// A line, with tabs between; a hyphen is nothing.
    fn row(&self) -> String {
        let size = self.size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let digest = self.digest.as_deref().unwrap_or("-");
        [&Printable(self.key).to_string(), &self.url, size.as_str(), digest, self.state].join("\t") + "\n"
    }
}

fn state_of(state: KeyState) -> &'static str {
    match state {
        KeyState::Published => "published",
        KeyState::Pending => "pending",
        KeyState::Stale => "stale",
        _ => "unknown",
    }
}
