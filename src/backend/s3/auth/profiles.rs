//! The files of profiles that AWS's own tools write, and their settings.

use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption, Properties};

use crate::backend::s3::auth::credentials::Credentials;
use crate::error::{ErrorKind, Operation, StorageError};

pub(crate) const KEYS: [&str; 3] = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];

/// Returns the section of a profile in the configuration file. The default profile has no prefix there.
pub(crate) fn config_section(name: &str) -> String {
    if name == "default" { name.to_owned() } else { format!("profile {name}") }
}

/// Reads a file as AWS's tools write it; `None` if there is none.
pub(crate) fn read_ini(path: &Path) -> Result<Option<Ini>, StorageError> {
    let cannot = |why: &str| StorageError::new(ErrorKind::Config, Operation::Configure, why).with_path(path);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("it cannot be read").with_source(error)),
    };
    // The parser's error is dropped: it may quote a secret.
    let why = "not a profile file: it has lines that are neither [section] nor key = value";
    parse_ini(&text).map(Some).ok_or_else(|| cannot(why))
}

fn parse_ini(text: &str) -> Option<Ini> {
    // As botocore reads them: a secret may hold quotes, backslashes and `#`, and nested settings are indented.
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        enabled_preserve_key_leading_whitespace: true,
        ..ParseOption::default()
    };
    Ini::load_from_str_opt(text, options).ok()
}

/// Returns a section. The default profile may be written `[profile default]`, too.
pub(crate) fn section_of<'a>(ini: &'a Ini, section: &str) -> Option<&'a Properties> {
    let other = if section == "default" { Some("profile default") } else { None };
    ini.section(Some(section)).or_else(|| other.and_then(|other| ini.section(Some(other))))
}

/// Lists the settings of a section: parent, name and value. The parent is a setting without a value; its settings are
/// indented deeper.
fn settings(section: &Properties) -> impl Iterator<Item = (Option<String>, &str, String)> {
    let mut above: Option<(usize, String)> = None;
    section.iter().map(move |(key, value)| {
        let (name, value) = (key.trim(), value.trim());
        let indent = key.len() - key.trim_start().len();
        // No deeper than the parent: its settings have ended.
        if above.as_ref().is_some_and(|(outer, _)| indent <= *outer) {
            above = None;
        }
        let parent = above.as_ref().map(|(_, name)| name.clone());
        if parent.is_none() && value.is_empty() {
            above = Some((indent, name.to_owned()));
        }
        (parent, name, value.to_owned())
    })
}

/// Returns a setting below `parent`, or of the section itself.
fn find_setting(section: &Properties, parent: Option<&str>, name: &str) -> Option<String> {
    let mut found = settings(section);
    found
        .find(|(above, key, value)| above.as_deref() == parent && *key == name && !value.is_empty())
        .map(|found| found.2)
}

/// Returns a setting of the section itself.
pub(crate) fn own_setting(section: &Properties, name: &str) -> Option<String> {
    find_setting(section, None, name)
}

/// The settings of a profile other than its keys.
#[derive(Default)]
pub(crate) struct Profile {
    own: Properties,
    /// The section `services` that the profile names.
    services: Properties,
}

impl Profile {
    pub(crate) fn from_section(ini: &Ini, section: &str) -> Self {
        let mine = section_of(ini, section).cloned().unwrap_or_default();
        let services = own_setting(&mine, "services")
            .and_then(|name| ini.section(Some(format!("services {name}"))).cloned());
        Self { own: mine, services: services.unwrap_or_default() }
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        own_setting(&self.own, key)
    }

    /// Returns the endpoint for S3, or the one for all services.
    pub(crate) fn endpoint(&self) -> Option<String> {
        find_setting(&self.services, Some("s3"), "endpoint_url").or_else(|| self.value("endpoint_url"))
    }
}

/// Returns credentials from their texts.
pub(crate) fn build_credentials(id: String, secret: String, token: Option<String>) -> Credentials {
    let credentials = Credentials::new(id, secret);
    match token {
        Some(token) => credentials.with_session_token(token),
        None => credentials,
    }
}

/// Returns the name of a section of a file, for errors.
pub(crate) fn place_of(path: Option<&Path>, section: &str) -> String {
    format!("[{section}] in {}", path.map_or_else(|| "~/.aws".to_owned(), |path| path.display().to_string()))
}

/// A profile's section in one file.
pub(crate) struct ProfileFile {
    path: Option<PathBuf>,
    section: String,
    ini: Option<Ini>,
}

impl ProfileFile {
    /// Reads a file, if it is there.
    pub(crate) fn read((path, section): (Option<PathBuf>, String)) -> Result<Self, StorageError> {
        let ini = path.as_deref().map(read_ini).transpose()?.flatten();
        Ok(Self { path, section, ini })
    }

    fn properties(&self) -> Option<&Properties> {
        section_of(self.ini.as_ref()?, &self.section)
    }

    fn value(&self, key: &str) -> Option<String> {
        own_setting(self.properties()?, key)
    }

    /// Returns another section of the same file.
    fn other(&self, section: &str) -> Option<&Properties> {
        self.ini.as_ref()?.section(Some(section))
    }

    fn place(&self) -> String {
        place_of(self.path.as_deref(), &self.section)
    }

    /// Returns the reason why it has no keys.
    fn lacks(&self) -> &'static str {
        match (&self.path, &self.ini, self.properties()) {
            (None, ..) => "HOME is not set",
            (_, None, _) => "no such file",
            (.., None) => "no such section",
            // Known to the newest tools of AWS only, and bound to a key on that machine.
            (.., Some(section)) if own_setting(section, "login_session").is_some() => {
                "it has login_session, which is not supported"
            }
            _ => "no aws_access_key_id and aws_secret_access_key",
        }
    }

    /// Returns its keys, or the reason why there are none.
    fn keys(&self) -> Result<Result<Credentials, String>, StorageError> {
        let [id, secret, token] = KEYS.map(|key| self.value(key));
        match (id, secret) {
            (Some(id), Some(secret)) => Ok(Ok(build_credentials(id, secret, token))),
            (None, None) => Ok(Err(format!("{}: {}", self.place(), self.lacks()))),
            (id, _) => {
                let (set, missing) = if id.is_some() { (KEYS[0], KEYS[1]) } else { (KEYS[1], KEYS[0]) };
                // Another place would silently be used instead.
                Err(StorageError::config(&self.place(), format!("it has {set} and no {missing}")))
            }
        }
    }
}

/// A profile in both files. For a setting that both have, the credentials file precedes, as in AWS's tools.
pub(crate) struct WholeProfile {
    pub(crate) name: String,
    credentials: ProfileFile,
    config: ProfileFile,
}

impl WholeProfile {
    pub(crate) fn new(name: &str, credentials: ProfileFile, config: ProfileFile) -> Self {
        Self { name: name.to_owned(), credentials, config }
    }

    pub(crate) fn exists(&self) -> bool {
        self.credentials.properties().or(self.config.properties()).is_some()
    }

    /// Returns a setting.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        self.credentials.value(key).or_else(|| self.config.value(key))
    }

    /// Returns the settings of a section `sso-session`.
    pub(crate) fn sso_session(&self, name: &str) -> Option<&Properties> {
        self.config.other(&format!("sso-session {name}"))
    }

    pub(crate) fn service_endpoint(&self, service: &str) -> Option<String> {
        let services = self.value("services").map(|name| format!("services {name}"));
        let section = services.and_then(|section| self.config.other(&section));
        let own = section.and_then(|section| find_setting(section, Some(service), "endpoint_url"));
        own.or_else(|| self.value("endpoint_url"))
    }

    /// Returns whether one of the files has a key for it.
    pub(crate) fn has_keys(&self) -> bool {
        KEYS[..2].iter().any(|key| self.value(key).is_some())
    }

    /// Returns the keys in the credentials file, or the reason why there are none.
    pub(crate) fn keys_of_credentials_file(&self) -> Result<Result<Credentials, String>, StorageError> {
        self.credentials.keys()
    }

    /// Returns the keys in the configuration file, or the reason why there are none.
    pub(crate) fn keys_of_config_file(&self) -> Result<Result<Credentials, String>, StorageError> {
        self.config.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_as_it_is_written() {
        let ini = parse_ini("[default]\naws_secret_access_key = s/+\\=#1\n").unwrap();
        assert_eq!(own_setting(ini.section(Some("default")).unwrap(), KEYS[1]).as_deref(), Some("s/+\\=#1"));
    }

    #[test]
    fn keys_of_both_files_stay_apart_and_the_credentials_file_precedes_for_other_settings() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, section: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            ProfileFile::read((Some(path), section.to_owned())).unwrap()
        };
        let credentials = file("credentials", "x", "[x]\nrole_arn = first\n");
        let config =
            "[profile x]\nrole_arn = second\nregion = r\naws_access_key_id = K\naws_secret_access_key = s\n";
        let profile = WholeProfile::new("x", credentials, file("config", "profile x", config));
        assert_eq!(profile.value("role_arn").as_deref(), Some("first"));
        assert_eq!(profile.value("region").as_deref(), Some("r"));
        assert!(profile.exists() && profile.has_keys());
        assert!(profile.keys_of_credentials_file().unwrap().unwrap_err().ends_with("secret_access_key"));
        assert_eq!(profile.keys_of_config_file().unwrap().unwrap().access_key(), "K");
        let login = file("login", "x", "[x]\nlogin_session = s\n");
        assert_eq!(login.lacks(), "it has login_session, which is not supported");
    }
}
