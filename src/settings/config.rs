//! The values given for one destination, and where each came from.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::backend::s3::address::split_url;
use crate::backend::s3::auth::providers::AwsEnvironment;
use crate::backend::s3::http::bandwidth::Bandwidth;
use crate::backend::s3::http::network::NetworkConfig;
use crate::error::StorageError;
use crate::rescan::config::read_patterns;
use crate::settings::definitions::{all_settings, find_setting};
use crate::settings::given::{Given, Origin, shown_text, shown_with};
use crate::settings::kind::Kind;
use crate::settings::nearest::did_you_mean;
use crate::settings::parts::Parts;
use crate::settings::setting::Setting;
use crate::text::Printable;

/// The settings that hold keys.
pub(crate) const KEYS: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];

/// The settings of one destination, by name. Nothing is read, opened or sent until it is used, by [`open`](crate::open) or
/// one of the methods below. [`all_settings`](crate::all_settings) lists the names; the chapter
/// [`settings`](crate::guide::settings) describes them.
///
/// With the feature `config`.
///
/// ```no_run
/// use bucket_brigade::{Config, open};
/// # fn main() -> Result<(), bucket_brigade::StorageError> {
/// let mut config = Config::new();
/// config.set("bucket", "releases")?;
/// config.set("region", "eu-central-1")?;
/// config.set("credentials", "chain")?;
/// config.set("root", "/srv/site")?;
/// config.set("cache", "/var/lib/site/releases.cache")?;
/// let report = open(&config)?.rescan_with(&config.run()?)?;
/// println!("{} uploaded", report.uploaded_count);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Config {
    pub(crate) name: Option<String>,
    /// The proxy is that of the environment if none is given.
    proxy_from_env: bool,
    /// The rate, once it was needed: one for all that is made from this configuration.
    rate: Arc<OnceLock<Bandwidth>>,
    pub(crate) given: BTreeMap<&'static str, Vec<(Given, Origin)>>,
}

impl Config {
    /// A configuration with nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of its destination in a configuration file.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Sets a setting. A list gets one more item; anything else is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no such setting, with the nearest name, or if the value
    /// is wrong, with what is allowed.
    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) -> Result<(), StorageError> {
        self.set_plain(name, value.as_ref(), Origin::Program)
    }

    /// As [`set`](Self::set), with what errors and [`entries`](Self::entries) say that the value came from, such as
    /// `--part-size`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_from(
        &mut self,
        name: &str,
        value: impl AsRef<OsStr>,
        origin: impl Into<String>,
    ) -> Result<(), StorageError> {
        self.set_plain(name, value.as_ref(), Origin::Named(origin.into()))?;
        // A flag comes after everything else.
        self.override_credentials(&[name]);
        Ok(())
    }

    /// Sets `bucket` and `prefix` from `s3://BUCKET/PREFIX`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is not such a URL.
    pub fn set_url(&mut self, url: &str, origin: impl Into<String>) -> Result<(), StorageError> {
        let ((bucket, prefix), origin) = (split_url(url)?, origin.into());
        self.set_from("bucket", bucket, origin.as_str())?;
        if prefix.is_empty() { Ok(()) } else { self.set_from("prefix", prefix, origin) }
    }

    fn set_plain(&mut self, name: &str, value: &OsStr, origin: Origin) -> Result<(), StorageError> {
        let setting = setting_of(name)?;
        setting.check(value).map_err(|why| StorageError::config(name, shown_with(setting, value, &why)))?;
        let given = if setting.is_secret() {
            Given::Secret(Zeroizing::new(value.to_string_lossy().into_owned()))
        } else {
            Given::Plain(value.to_owned())
        };
        self.put(setting, given, origin);
        Ok(())
    }

    /// Puts a checked value.
    pub(crate) fn put(&mut self, setting: &'static Setting, value: Given, origin: Origin) {
        let values = self.given.entry(setting.name).or_default();
        if !setting.is_list() {
            values.clear();
        }
        if setting.name == "bandwidth" {
            self.rate = Arc::default();
        }
        values.push((value, origin));
    }

    /// Drops what another layer says about credentials, if the one that was just added says it in another way: keys
    /// take the place of a `credentials` from before; `credentials` and `profile` take the place of keys.
    /// `added` are the names of this layer.
    pub(crate) fn override_credentials(&mut self, added: &[&str]) {
        let has_keys = added.iter().any(|name| KEYS.contains(name));
        let has_source = added.contains(&"credentials") || added.contains(&"profile");
        match (has_keys, has_source) {
            (true, false) => drop(self.given.remove("credentials")),
            (false, true) => self.given.retain(|name, _| !KEYS.contains(name)),
            // Both in one layer contradict each other, which is found later.
            (true, true) | (false, false) => {}
        }
    }

    /// Drops settings of a shared state that this layer, which says that the state is local, does not have itself.
    pub(crate) fn drop_inherited_state(&mut self, added: &[&str]) {
        let of_state =
            |name: &str| all_settings().any(|(group, setting)| group == "State" && setting.name == name);
        self.given.retain(|name, _| added.contains(name) || !of_state(name));
    }

    /// Drops what no flag of a command is for, such as the order of a build for `status`. Settings that no command has a
    /// flag for stay.
    pub fn keep_for(&mut self, command: &str) {
        let is_used = |setting: &Setting| setting.commands.is_empty() || setting.is_accepted_by(command);
        self.given.retain(|name, _| find_setting(name).is_some_and(is_used));
    }

    /// Reads the values that stand in variables and files, except secrets, and the files of patterns. All that is made from
    /// this configuration afterwards has the same values.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names the setting and where it was set.
    pub fn resolve(&mut self) -> Result<(), StorageError> {
        self.resolve_by(Err)
    }

    /// Does the same, and asks what becomes of a value that cannot be read: an error, or nothing.
    fn resolve_by(
        &mut self,
        unreadable: impl Fn(StorageError) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        for (name, values) in std::mem::take(&mut self.given) {
            let Some(setting) = find_setting(name) else { continue };
            for (value, origin) in values {
                let value = match value {
                    Given::Elsewhere(place) if !setting.is_secret() => match place.resolve() {
                        Ok(text) => OsString::from(text.as_str()),
                        Err(why) => {
                            unreadable(wrong_value(name, &why, &origin))?;
                            continue;
                        }
                    },
                    Given::Plain(value) => value,
                    secret => {
                        self.given.entry(name).or_default().push((secret, origin));
                        continue;
                    }
                };
                setting.check(&value).map_err(|why| wrong_value(name, &why, &origin))?;
                self.put_resolved(setting, value, origin)?;
            }
        }
        Ok(())
    }

    /// Puts a value, or the patterns of the file that it names.
    fn put_resolved(
        &mut self,
        setting: &'static Setting,
        value: OsString,
        origin: Origin,
    ) -> Result<(), StorageError> {
        let Kind::PatternFiles(list) = setting.kind else {
            self.given.entry(setting.name).or_default().push((Given::Plain(value), origin));
            return Ok(());
        };
        let patterns = read_patterns(list, Path::new(&value));
        let patterns = patterns.map_err(|error| with_origin(setting.name, &error, &origin))?;
        let patterns = patterns.into_iter().map(|pattern| (Given::Plain(pattern.into()), origin.clone()));
        self.given.entry(list).or_default().extend(patterns);
        Ok(())
    }

    /// Returns true if a setting was given.
    pub fn is_set(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Returns the value of a setting, or its default; `None` if it has none, is a secret or stands elsewhere. User and
    /// password of a proxy are hidden.
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_bytes(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// Returns the value of a setting as [`get`](Self::get) does, also of a path that is not UTF-8.
    pub(crate) fn get_bytes(&self, name: &str) -> Option<OsString> {
        match self.given.get(name).and_then(|values| values.last()) {
            Some((Given::Plain(value), _)) => {
                Some(value.to_str().map_or_else(|| value.clone(), |text| shown_text(name, text).into()))
            }
            Some((Given::Secret(_) | Given::Elsewhere(_), _)) => None,
            None => find_setting(name)
                .map(|setting| setting.default.into())
                .filter(|value: &OsString| !value.is_empty()),
        }
    }

    /// Sets endpoint, region and certificates from the variables of AWS's tools and the profile in `~/.aws`, where they are
    /// not set yet. [`open`](crate::open) does so if `credentials` is `environment` or `chain`.
    ///
    /// # Errors
    /// As [`AwsEnvironment::region`].
    pub fn fill_from_env(&mut self) -> Result<(), StorageError> {
        let aws = self.aws_environment()?;
        for (name, value) in [
            ("endpoint_url", aws.endpoint_url()?.map(OsString::from)),
            ("region", aws.region()?.map(OsString::from)),
            ("ca_file", aws.ca_bundle()?.map(PathBuf::into_os_string)),
        ] {
            if let Some(value) = value.filter(|_| !self.is_set(name)) {
                self.set_plain(name, &value, Origin::Named(place_in_env(name)))?;
            }
        }
        Ok(())
    }

    /// Takes the proxy from the environment, as [`NetworkConfig::proxy_from_env`] reads it, where `proxy` is not set.
    pub fn proxy_from_env(&mut self) {
        self.proxy_from_env = true;
    }

    /// Returns the environment of AWS's tools with the profile of this configuration.
    pub(crate) fn aws_environment(&self) -> Result<AwsEnvironment, StorageError> {
        let profile = self.text("profile")?;
        Ok(profile.iter().fold(AwsEnvironment::from_env(), |aws, name| aws.profile(name.as_str())))
    }

    /// Returns the text of a setting, if it was given.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<Zeroizing<String>>, StorageError> {
        let Some((value, origin)) = self.given.get(name).and_then(|values| values.last()) else {
            return Ok(None);
        };
        let text = match value {
            Given::Plain(value) => Ok(Zeroizing::new(value.to_string_lossy().into_owned())),
            Given::Secret(value) => Ok(value.clone()),
            Given::Elsewhere(place) => place.resolve(),
        };
        text.map(Some).map_err(|why| wrong_value(name, &why, origin))
    }

    /// Returns true if the value of a setting stands elsewhere, so that it may change.
    pub(crate) fn is_elsewhere(&self, name: &str) -> bool {
        let values = self.given.get(name).into_iter().flatten();
        values.into_iter().any(|(value, _)| matches!(value, Given::Elsewhere(_)))
    }

    /// Puts all values into their parts, in the order of the definitions. Secrets are in none: they are read by name.
    pub(crate) fn parts(&self) -> Result<Parts, StorageError> {
        self.parts_by(Err)
    }

    /// Puts all values into their parts that can be read now. Those that stand elsewhere may be missing on this machine.
    pub(crate) fn parts_here(&self) -> Result<Parts, StorageError> {
        self.parts_by(|_| Ok(()))
    }

    fn parts_by(
        &self,
        unreadable: impl Fn(StorageError) -> Result<(), StorageError>,
    ) -> Result<Parts, StorageError> {
        let mut resolved = self.clone();
        resolved.resolve_by(unreadable)?;
        let mut parts = Parts { rate: self.rate.clone(), ..Parts::default() };
        // A proxy that is given comes later, and takes its place.
        if self.proxy_from_env {
            parts.network(NetworkConfig::proxy_from_env);
        }
        for (_, setting) in all_settings() {
            for (value, origin) in resolved.given.get(setting.name).into_iter().flatten() {
                if let Given::Plain(value) = value {
                    let applied = setting.apply(&mut parts, value);
                    applied.map_err(|error| with_origin(setting.name, &error, origin))?;
                }
            }
        }
        Ok(parts)
    }

    /// Adds to an error about a setting where its value came from.
    pub(crate) fn explain(&self, error: StorageError) -> StorageError {
        let field = error.message().split(':').next().unwrap_or_default();
        let named = all_settings().map(|(_, setting)| setting).find(|setting| setting.field == field);
        let origin = named.and_then(|setting| self.given.get(setting.name)?.last());
        match origin {
            Some((_, origin @ Origin::File { .. })) => error.advise(&format!("it is set in {origin}")),
            _ => error,
        }
    }
}

/// Returns the setting of a name, or the error with the nearest one.
pub(crate) fn setting_of(name: &str) -> Result<&'static Setting, StorageError> {
    find_setting(name).ok_or_else(|| {
        let known = all_settings().map(|(_, setting)| setting.name);
        let why = format!("there is no such setting{}", did_you_mean(name, known));
        StorageError::config(&Printable(name).to_string(), why)
    })
}

/// Returns the variable that has a setting, or else the profile.
fn place_in_env(name: &str) -> String {
    let variables = find_setting(name).map(|setting| setting.variables).unwrap_or_default();
    let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    variables
        .iter()
        .find(is_set)
        .map_or_else(|| "the profile in ~/.aws".to_owned(), |name| (*name).to_owned())
}

fn wrong_value(name: &str, why: &str, origin: &Origin) -> StorageError {
    StorageError::config(name, format!("{why} ({origin})"))
}

/// Gives an error about a value the name of its setting and where the value came from.
fn with_origin(name: &str, error: &StorageError, origin: &Origin) -> StorageError {
    let message = error.message();
    let why = message.split_once(": ").map_or(message, |(_, why)| why);
    match origin {
        Origin::File { .. } => wrong_value(name, why, origin),
        _ => StorageError::config(name, why),
    }
}
