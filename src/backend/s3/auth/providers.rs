//! The environment variables and files that AWS's own tools read.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ini::{Ini, ParseOption, Properties};

use crate::backend::s3::auth::credentials::Credentials;
use crate::error::{ErrorKind, Operation, StorageError};

const KEYS: [&str; 3] = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
/// Other sources of credentials that a profile may name; none is supported.
const UNSUPPORTED_SOURCES: [&str; 6] = [
    "role_arn",
    "credential_process",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
    "credential_source",
];

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// Credentials, region and endpoint from the places that the AWS CLI reads: the `AWS_*` variables, then the profiles
/// in `~/.aws/credentials` and `~/.aws/config` (or the files that `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE`
/// name). Each call reads variables and files again, so it returns new credentials once they are there. Roles, single
/// sign-on (SSO) and instance metadata are not supported.
///
/// With the feature `profiles`.
///
/// ```no_run
/// use bucket_brigade::{AwsEnvironment, S3Config};
/// # fn main() -> Result<(), bucket_brigade::StorageError> {
/// let aws = AwsEnvironment::from_env().profile("ci");
/// let mut config = S3Config::new("releases").credentials(aws.credentials()?);
/// if let Some(region) = aws.region()? {
///     config = config.region(region);
/// }
/// if let Some(endpoint) = aws.endpoint_url()? {
///     config = config.endpoint(endpoint);
/// }
/// let config = config.renew_credentials(move || aws.credentials());
/// # let _ = config; Ok(()) }
/// ```
#[derive(Clone)]
pub struct AwsEnvironment {
    lookup: Arc<Lookup>,
    profile: Option<String>,
}

impl fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsEnvironment").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl AwsEnvironment {
    /// Reads the environment of this process.
    pub fn from_env() -> Self {
        Self::with_lookup(|name| std::env::var_os(name))
    }

    fn with_lookup(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self { lookup: Arc::new(lookup), profile: None }
    }

    /// Selects a profile, which then precedes the variables that hold keys. By default these variables come first,
    /// and the profile is the one of `AWS_PROFILE` or `AWS_DEFAULT_PROFILE`, or `default`.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Some(name.into());
        self
    }

    /// Returns a variable that is set and not empty.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.lookup)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn text(&self, name: &str) -> Result<Option<String>, StorageError> {
        match self.path(name) {
            None => Ok(None),
            Some(value) => value
                .into_os_string()
                .into_string()
                .map(Some)
                .map_err(|_| setting_error(name, "the value is not UTF-8")),
        }
    }

    /// Returns the first of these variables that is set.
    fn first_variable(&self, names: &[&str]) -> Result<Option<String>, StorageError> {
        for name in names {
            if let Some(value) = self.text(name)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Returns `AWS_REGION`, `AWS_DEFAULT_REGION`, or the profile's `region`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a file cannot be read, is not in the format of AWS's files, or lacks the selected
    /// profile.
    pub fn region(&self) -> Result<Option<String>, StorageError> {
        match self.first_variable(&["AWS_REGION", "AWS_DEFAULT_REGION"])? {
            Some(region) => Ok(Some(region)),
            None => Ok(self.load_profile()?.value("region")),
        }
    }

    /// Returns `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, or the profile's `endpoint_url`: that of its `services` for
    /// `s3`, or its own.
    ///
    /// # Errors
    /// As [`region`](Self::region).
    pub fn endpoint_url(&self) -> Result<Option<String>, StorageError> {
        match self.first_variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])? {
            Some(endpoint) => Ok(Some(endpoint)),
            None => Ok(self.load_profile()?.endpoint()),
        }
    }

    /// Returns `AWS_CA_BUNDLE`, or the profile's `ca_bundle`: a file for
    /// [`NetworkConfig::ca_file`](crate::NetworkConfig::ca_file).
    ///
    /// # Errors
    /// As [`region`](Self::region).
    pub fn ca_bundle(&self) -> Result<Option<PathBuf>, StorageError> {
        match self.path("AWS_CA_BUNDLE") {
            Some(path) => Ok(Some(path)),
            None => Ok(self.load_profile()?.value("ca_bundle").map(PathBuf::from)),
        }
    }

    fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    fn file(&self, variable: &str, name: &str) -> Option<PathBuf> {
        self.path(variable).or_else(|| self.home().map(|home| home.join(".aws").join(name)))
    }

    fn config_file(&self) -> Option<PathBuf> {
        self.file("AWS_CONFIG_FILE", "config")
    }

    fn profile_name(&self) -> Result<String, StorageError> {
        match &self.profile {
            Some(name) => Ok(name.clone()),
            None => Ok(self
                .first_variable(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])?
                .unwrap_or_else(|| "default".to_owned())),
        }
    }

    /// Returns the files that may hold a profile, with its section in each, keys first.
    fn profile_places(&self, name: &str) -> [(Option<PathBuf>, String); 2] {
        [
            (self.file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name.to_owned()),
            (self.config_file(), config_section(name)),
        ]
    }

    fn load_profile(&self) -> Result<Profile, StorageError> {
        let name = self.profile_name()?;
        let mut known = false;
        let mut found = Profile::default();
        for (path, section) in self.profile_places(&name) {
            let Some(ini) = path.map(|path| read_ini(&path)).transpose()?.flatten() else { continue };
            known |= section_of(&ini, &section).is_some();
            // The configuration file comes last and wins: the credentials file is for keys.
            found = Profile::from_section(&ini, &section);
        }
        // Without any file the default profile is empty; a profile that was named must exist.
        if known || name == "default" {
            return Ok(found);
        }
        let places = self.profile_places(&name).map(|(path, section)| {
            format!(
                "[{section}] in {}",
                path.map_or_else(|| "~/.aws".to_owned(), |path| path.display().to_string())
            )
        });
        Err(setting_error("profile", &format!("there is no {}", places.join(" and no "))))
    }

    /// Returns the credentials of the first place that has them: the variables `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, the profile in the credentials file, the profile in the
    /// configuration file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names each place and what it lacks; no error quotes a file.
    pub fn credentials(&self) -> Result<Credentials, StorageError> {
        let mut looked = Vec::new();
        // A profile that was selected must not lose to variables that happen to be set.
        if self.profile.is_none() {
            if let Some(credentials) = self.variables()? {
                return Ok(credentials);
            }
            looked.push("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: not set".to_owned());
        }
        let name = self.profile_name()?;
        for (path, section) in self.profile_places(&name) {
            let Some(path) = path else {
                looked.push(format!("[{section}] in ~/.aws: HOME is not set"));
                continue;
            };
            match read_credentials(&path, &section)? {
                Ok(credentials) => return Ok(credentials),
                Err(why) => looked.push(format!("[{section}] in {}: {why}", path.display())),
            }
        }
        let looked = looked.join("\n  - ");
        Err(setting_error(
            "credentials",
            &format!(
                "none were found. Looked at:\n  - {looked}\nSet the two variables, or write a profile with `aws configure`. \
                 Roles, SSO and instance metadata are not supported; `aws configure export-credentials --format env` \
                 prints keys for them"
            ),
        ))
    }

    fn variables(&self) -> Result<Option<Credentials>, StorageError> {
        let (id, secret) = (self.text("AWS_ACCESS_KEY_ID")?, self.text("AWS_SECRET_ACCESS_KEY")?);
        let half = |set: &str, missing: &str| {
            Err(setting_error(
                "credentials",
                &format!("{set} is set and {missing} is not: set both, or none to use a profile"),
            ))
        };
        // Half a pair is a mistake: the profile would silently be used instead.
        match (id, secret) {
            (None, None) => Ok(None),
            (Some(_), None) => half("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            (None, Some(_)) => half("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
            (Some(id), Some(secret)) => {
                Ok(Some(build_credentials(id, secret, self.text("AWS_SESSION_TOKEN")?)))
            }
        }
    }
}

fn build_credentials(id: String, secret: String, token: Option<String>) -> Credentials {
    let credentials = Credentials::new(id, secret);
    match token {
        Some(token) => credentials.with_session_token(token),
        None => credentials,
    }
}

fn setting_error(field: &str, why: &str) -> StorageError {
    StorageError::new(ErrorKind::Config, Operation::Configure, format!("{field}: {why}"))
}

/// Returns the section of a profile in the configuration file. The default profile has no prefix there.
fn config_section(name: &str) -> String {
    if name == "default" { name.to_owned() } else { format!("profile {name}") }
}

/// Returns the keys in a section of a file, or the reason why there are none.
fn read_credentials(path: &Path, section: &str) -> Result<Result<Credentials, String>, StorageError> {
    let Some(ini) = read_ini(path)? else {
        return Ok(Err("no such file".to_owned()));
    };
    let Some(properties) = section_of(&ini, section) else {
        return Ok(Err("no such section".to_owned()));
    };
    let [id, secret, token] = KEYS.map(|key| own_setting(properties, key));
    if let (Some(id), Some(secret)) = (id, secret) {
        return Ok(Ok(build_credentials(id, secret, token)));
    }
    // Names the other source that the profile has, which explains why it works with AWS's tools.
    let other = UNSUPPORTED_SOURCES.into_iter().find(|way| own_setting(properties, way).is_some());
    Ok(Err(other.map_or_else(
        || "no aws_access_key_id and aws_secret_access_key".to_owned(),
        |way| format!("it has {way}, which is not supported"),
    )))
}

/// Reads a file as AWS's tools write it; `None` if there is none.
fn read_ini(path: &Path) -> Result<Option<Ini>, StorageError> {
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
fn section_of<'a>(ini: &'a Ini, section: &str) -> Option<&'a Properties> {
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
fn own_setting(section: &Properties, name: &str) -> Option<String> {
    find_setting(section, None, name)
}

/// The settings of a profile other than its keys.
#[derive(Default)]
struct Profile {
    own: Properties,
    /// The section `services` that the profile names.
    services: Properties,
}

impl Profile {
    fn from_section(ini: &Ini, section: &str) -> Self {
        let mine = section_of(ini, section).cloned().unwrap_or_default();
        let services = own_setting(&mine, "services")
            .and_then(|name| ini.section(Some(format!("services {name}"))).cloned());
        Self { own: mine, services: services.unwrap_or_default() }
    }

    fn value(&self, key: &str) -> Option<String> {
        own_setting(&self.own, key)
    }

    /// Returns the endpoint for S3, or the one for all services.
    fn endpoint(&self) -> Option<String> {
        find_setting(&self.services, Some("s3"), "endpoint_url").or_else(|| self.value("endpoint_url"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Home {
        folder: tempfile::TempDir,
        variables: BTreeMap<&'static str, String>,
    }

    impl Home {
        fn new(credentials: &str, config: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join(".aws")).unwrap();
            std::fs::write(folder.path().join(".aws/credentials"), credentials).unwrap();
            std::fs::write(folder.path().join(".aws/config"), config).unwrap();
            let variables = BTreeMap::from([("HOME", folder.path().to_str().unwrap().to_owned())]);
            Self { folder, variables }
        }

        fn set(mut self, name: &'static str, value: &str) -> Self {
            self.variables.insert(name, value.to_owned());
            self
        }

        fn with<T>(&self, profile: Option<&str>, check: impl FnOnce(&AwsEnvironment) -> T) -> T {
            let variables = self.variables.clone();
            let environment =
                AwsEnvironment::with_lookup(move |name| variables.get(name).map(OsString::from));
            check(&profile.into_iter().fold(environment, AwsEnvironment::profile))
        }
    }

    const CREDENTIALS: &str = "[default]\naws_access_key_id = D\naws_secret_access_key = s/+\\=#1\n\n[ci]\naws_access_key_id=C\naws_secret_access_key=s\naws_session_token=t\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile ci]\nregion=us-west-2\nservices = local\nendpoint_url = http://all\n[profile sso]\nsso_session = x\n[profile keys]\naws_access_key_id=K\naws_secret_access_key=s\n[services local]\ns3 =\n  endpoint_url = http://s3.local:9000\ndynamodb =\n  endpoint_url = http://dynamo\n";

    #[test]
    fn variables_come_before_profiles_and_profiles_before_nothing() {
        let home = Home::new(CREDENTIALS, CONFIG);
        let read = |home: &Home, profile| {
            home.with(profile, |env| {
                (env.region().unwrap(), env.endpoint_url().unwrap(), env.credentials().is_ok())
            })
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(read(&home, None), (text("eu-west-1"), None, true));
        assert_eq!(read(&home, Some("ci")), (text("us-west-2"), text("http://s3.local:9000"), true));
        assert_eq!(read(&home, Some("keys")), (None, None, true));
        let home = home.set("AWS_PROFILE", "ci");
        assert_eq!(read(&home, None).0, text("us-west-2"));
        let home = home.set("AWS_DEFAULT_REGION", "r2").set("AWS_ENDPOINT_URL", "http://e");
        assert_eq!(read(&home, None), (text("r2"), text("http://e"), true));
        let home = home.set("AWS_REGION", "r1").set("AWS_ENDPOINT_URL_S3", "http://s3");
        assert_eq!(read(&home, None), (text("r1"), text("http://s3"), true));
    }

    #[test]
    fn a_secret_is_taken_as_it_is_written() {
        let ini = parse_ini(CREDENTIALS).unwrap();
        assert_eq!(own_setting(ini.section(Some("default")).unwrap(), KEYS[1]).as_deref(), Some("s/+\\=#1"));
    }

    #[test]
    fn indented_files_are_read_as_others_read_them() {
        let credentials = "[default]\n  aws_access_key_id = A\n  aws_secret_access_key = S\n";
        let config = "[profile default]\n  region = r-1\n  # of ours\n  s3 =\n    region = not-this\n  endpoint_url = http://e\n";
        let home = Home::new(credentials, config);
        home.with(None, |env| {
            assert_eq!(env.region().unwrap().as_deref(), Some("r-1"));
            assert_eq!(env.endpoint_url().unwrap().as_deref(), Some("http://e"));
            env.credentials().unwrap();
        });
    }

    #[test]
    fn without_a_home_the_files_that_variables_name_are_read_all_the_same() {
        let home = Home::new("", "[default]\naws_access_key_id=A\naws_secret_access_key=S\n");
        let config = home.folder.path().join(".aws/config");
        let variables =
            move |name: &str| (name == "AWS_CONFIG_FILE").then(|| config.clone().into_os_string());
        AwsEnvironment::with_lookup(variables).credentials().unwrap();
        let error = AwsEnvironment::with_lookup(|_| None).credentials().unwrap_err();
        assert_eq!(error.message().matches("HOME is not set").count(), 2, "{error}");
    }

    #[test]
    fn a_profile_that_is_nowhere_is_an_error_for_whoever_names_it() {
        let home = Home::new(CREDENTIALS, CONFIG);
        let error = home.with(Some("typo"), |env| env.region().unwrap_err()).message().to_owned();
        assert!(
            error.starts_with("profile: there is no [typo] in ") && error.contains("[profile typo]"),
            "{error}"
        );
        let error =
            home.set("AWS_PROFILE", "typo").with(None, |env| env.endpoint_url().unwrap_err()).to_string();
        assert!(error.contains("[typo]"), "{error}");
    }

    #[test]
    fn no_credentials_names_every_place_that_was_looked_at() {
        let home = Home::new("[other]\nregion=x\n", CONFIG);
        let error = home.with(None, |env| env.credentials().unwrap_err()).message().to_owned();
        for place in [
            "AWS_ACCESS_KEY_ID",
            "[default] in ",
            ".aws/credentials: no such section",
            ".aws/config: no aws_access",
        ] {
            assert!(error.contains(place), "{place}: {error}");
        }
        let error = home.with(Some("sso"), |env| env.credentials().unwrap_err()).message().to_owned();
        assert!(error.contains("[profile sso]") && error.contains("it has sso_session"), "{error}");
        assert!(!error.contains("AWS_ACCESS_KEY_ID and"), "a named profile comes first: {error}");
        let half = Home::new("", "").set("AWS_SECRET_ACCESS_KEY", "CANARY");
        let error = half.with(None, |env| env.credentials().unwrap_err()).to_string();
        assert!(error.contains("AWS_ACCESS_KEY_ID is not") && !error.contains("CANARY"), "{error}");
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let home = Home::new("[default]\naws_secret_access_key CANARY\n", "");
        let error = home.with(None, |env| env.credentials().unwrap_err()).to_string();
        assert!(error.contains(".aws/credentials: not a profile file"), "{error}");
        assert!(!error.contains("CANARY"), "{error}");
    }
}
