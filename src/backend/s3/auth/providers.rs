//! The environment variables and files that AWS's own tools read.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::profiles::{
    KEYS, Profile, ProfileFile, WholeProfile, build_credentials, config_section, own_setting, place_of,
    read_ini, section_of,
};
use crate::error::StorageError;

/// Other sources of credentials that a profile may name. Only the chain follows them.
const SOURCES_OF_THE_CHAIN: [&str; 6] = [
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
/// name). Each call reads variables and files again, so it returns new credentials once they are there. It sends no
/// request and starts no process: roles, processes, single sign-on (SSO), containers and instance metadata are the
/// business of [`CredentialChain`](crate::CredentialChain).
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

    /// Takes the variables from a function instead, which returns the value of the variable that it is given. For
    /// programs that keep their settings elsewhere, and for tests.
    ///
    /// ```
    /// use bucket_brigade::AwsEnvironment;
    /// let aws = AwsEnvironment::with_lookup(|name| (name == "AWS_REGION").then(|| "eu-central-1".into()));
    /// assert_eq!(aws.region().unwrap().as_deref(), Some("eu-central-1"));
    /// ```
    pub fn with_lookup(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self { lookup: Arc::new(lookup), profile: None }
    }

    /// Selects a profile, which then precedes the variables that hold keys. By default these variables come first,
    /// and the profile is the one of `AWS_PROFILE` or `AWS_DEFAULT_PROFILE`, or `default`.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Some(name.into());
        self
    }

    /// Returns whether a profile was selected, so that variables must not come before it.
    pub(crate) fn has_selected_profile(&self) -> bool {
        self.profile.is_some()
    }

    /// Returns a variable that is set and not empty.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        (self.lookup)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, StorageError> {
        match self.path(name) {
            None => Ok(None),
            Some(value) => value
                .into_os_string()
                .into_string()
                .map(Some)
                .map_err(|_| StorageError::config(name, "the value is not UTF-8")),
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
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a file cannot be read, is not in the format of AWS's files, or
    /// lacks the selected profile.
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

    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    fn file(&self, variable: &str, name: &str) -> Option<PathBuf> {
        self.path(variable).or_else(|| self.home().map(|home| home.join(".aws").join(name)))
    }

    fn config_file(&self) -> Option<PathBuf> {
        self.file("AWS_CONFIG_FILE", "config")
    }

    pub(crate) fn profile_name(&self) -> Result<String, StorageError> {
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
        if known || name == "default" { Ok(found) } else { Err(self.missing_profile(&name)) }
    }

    fn missing_profile(&self, name: &str) -> StorageError {
        let places = self.profile_places(name).map(|(path, section)| place_of(path.as_deref(), &section));
        StorageError::config("profile", format!("there is no {}", places.join(" and no ")))
    }

    /// Returns a profile from both files.
    ///
    /// # Errors
    /// As [`region`](Self::region).
    pub(crate) fn whole_profile(&self, name: &str) -> Result<WholeProfile, StorageError> {
        let [credentials, config] = self.profile_places(name);
        let profile = WholeProfile::new(name, ProfileFile::read(credentials)?, ProfileFile::read(config)?);
        if profile.exists() || name == "default" { Ok(profile) } else { Err(self.missing_profile(name)) }
    }

    /// Returns the endpoint of a service for a profile, such as `STS`: `AWS_ENDPOINT_URL_STS`, `AWS_ENDPOINT_URL`, that
    /// of the profile's `services`, or the profile's own.
    pub(crate) fn service_endpoint(
        &self,
        profile: &WholeProfile,
        service: &str,
    ) -> Result<Option<String>, StorageError> {
        let own = format!("AWS_ENDPOINT_URL_{service}");
        let variable = self.first_variable(&[&own, "AWS_ENDPOINT_URL"])?;
        Ok(variable.or_else(|| profile.service_endpoint(&service.to_ascii_lowercase())))
    }

    /// Returns the credentials of the first place that has them: the variables `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, the profile in the credentials file, the profile in the
    /// configuration file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names each place and what it lacks; no error quotes a file.
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
        Err(StorageError::config(
            "credentials",
            format!(
                "none were found. Looked at:\n  - {looked}\nSet the two variables, or write a profile with `aws configure`. \
                 Roles, processes, SSO, containers and instance metadata are not asked here (CredentialChain asks them); \
                 `aws configure export-credentials --format env` prints keys for them"
            ),
        ))
    }

    /// Returns the keys of the variables, if they are set.
    pub(crate) fn variables(&self) -> Result<Option<Credentials>, StorageError> {
        let (id, secret) = (self.text("AWS_ACCESS_KEY_ID")?, self.text("AWS_SECRET_ACCESS_KEY")?);
        let half = |set: &str, missing: &str| {
            Err(StorageError::config(
                "credentials",
                format!("{set} is set and {missing} is not: set both, or none to use a profile"),
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
    let other = SOURCES_OF_THE_CHAIN.into_iter().find(|way| own_setting(properties, way).is_some());
    Ok(Err(other.map_or_else(
        || "no aws_access_key_id and aws_secret_access_key".to_owned(),
        |way| format!("it has {way}, which only CredentialChain follows"),
    )))
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
