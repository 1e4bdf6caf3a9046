//! Configuration files: TOML, with several destinations.

use std::fs;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::error::StorageError;
use crate::settings::config::Config;
use crate::settings::nearest::did_you_mean;
use crate::settings::setting::Section;
use crate::settings::tables::{Reader, Table};

/// A configuration file: destinations, each with all its settings.
///
/// ```toml
/// [connection]                       # for every destination
/// endpoint_url = "https://minio.example.com:9000"
/// credentials = "chain"
///
/// [rescan]
/// exclude = ["*.map"]
/// max_delete = "10%"
///
/// [[headers]]
/// set = { "Cache-Control" = "public, max-age=3600" }
///
/// [destination.live]
/// root = "public"
/// bucket = "site"
/// prefix = "app"
/// cache = "live.cache"
///
/// [destination.staging]              # may hold any setting, which precedes those above
/// root = "public"
/// bucket = "site-staging"
/// cache = "staging.cache"
/// exclude = ["/drafts"]              # lists add up
/// access_key_id = { env = "STAGING_KEY" }
/// secret_access_key = { file = "/run/secrets/staging" }
/// ```
///
/// A path is relative to the folder of the file. A value may be `{ env = "NAME" }` or `{ file = "PATH" }`, and a secret also
/// `{ command = ["program", "argument"] }`; they are read when the value is needed. An unknown name is an error.
///
/// With the feature `config`.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    destinations: Vec<Config>,
}

impl ConfigFile {
    /// Reads a file. Reads nothing that it refers to.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with the path, and a line for each mistake: its line and column, the
    /// setting, and what is wrong.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|error| {
            StorageError::config("config", format!("{}: {error}", path.display())).with_source(error)
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a file at `path`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader::new(text, path);
        let destinations = match DeTable::parse(text) {
            Ok(document) => read_document(&mut reader, Table::of_document(document.get_ref())),
            Err(error) => {
                reader.refuse(error.span().map_or(0, |span| span.start), error.message());
                Vec::new()
            }
        };
        reader.finish()?;
        Ok(Self { path: path.to_owned(), destinations })
    }

    /// The path that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The destinations, in the order of the file.
    pub fn destinations(&self) -> &[Config] {
        &self.destinations
    }

    /// Returns the destination of a name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with the names that there are.
    pub fn destination(&self, name: &str) -> Result<&Config, StorageError> {
        let found = self.destinations.iter().find(|config| config.name() == Some(name));
        found.ok_or_else(|| {
            let names: Vec<_> = self.destinations.iter().filter_map(Config::name).collect();
            let why =
                format!("{} has no [destination.{name}]; it has {}", self.path.display(), names.join(", "));
            StorageError::config("destination", why)
        })
    }
}

/// Reads the tables of a file. Every destination begins with what is set for all.
fn read_document(reader: &mut Reader<'_>, document: Table<'_>) -> Vec<Config> {
    const TABLES: [&str; 4] = ["connection", "rescan", "headers", "destination"];
    let mut for_all = Config::new();
    let mut destinations = None;
    for (name, at, value) in document.entries() {
        match name {
            "headers" => reader.read_headers(&mut for_all, value),
            "destination" => destinations = reader.as_table(name, value),
            "connection" => reader.read_section(&mut for_all, value, Section::Connection),
            "rescan" => reader.read_section(&mut for_all, value, Section::Rescan),
            _ => {
                let why = format!("no table of this name{}", did_you_mean(name, TABLES));
                reader.refuse(
                    at,
                    &format!(
                        "{name}: {why}; the tables are connection, rescan, headers and destination.NAME"
                    ),
                );
            }
        }
    }
    let Some(destinations) = destinations.filter(|table| !table.is_empty()) else {
        // Another mistake may be the reason.
        if !reader.has_mistakes() {
            reader.refuse(0, "destination: the file has none; begin one with [destination.NAME]");
        }
        return Vec::new();
    };
    let read = |(name, _, value): (&str, usize, _)| {
        let mut config = for_all.clone();
        config.name = Some(name.to_owned());
        reader.read_destination(&mut config, name, value);
        config
    };
    let places: Vec<_> = destinations.entries().map(|(_, at, _)| at).collect();
    let configs: Vec<Config> = destinations.entries().map(read).collect();
    refuse_twins(reader, &configs, &places);
    configs
}

/// Refuses destinations with the same bucket and prefix: each would delete what the other publishes.
fn refuse_twins(reader: &mut Reader<'_>, configs: &[Config], places: &[usize]) {
    let place = |config: &Config| {
        let part = |name| config.get(name).unwrap_or_default();
        (part("endpoint_url"), part("bucket"), part("prefix").trim_matches('/').to_owned())
    };
    for (number, (config, at)) in configs.iter().zip(places).enumerate() {
        let twin = configs[..number]
            .iter()
            .find(|other| config.get("bucket").is_some() && place(other) == place(config));
        if let Some(twin) = twin.and_then(Config::name) {
            let name = config.name().unwrap_or_default();
            let why = "each would delete what the other publishes; use another prefix";
            reader.refuse(
                *at,
                &format!("destination.{name}: the bucket and prefix of destination.{twin}: {why}"),
            );
        }
    }
}
