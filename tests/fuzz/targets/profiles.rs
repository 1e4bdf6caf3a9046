//! The files in `~/.aws`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::{check_error, parts};
use crate::error::StorageError;
use crate::{AwsEnvironment, Credentials, ErrorKind};

/// A mark in the values of the seeds. No error quotes a file.
const CANARY: &str = "CANARY";

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

thread_local! {
    static PATHS: [PathBuf; 2] = ["credentials", "config"].map(|name| {
        FOLDER.path().join(format!("{:?}.{name}", std::thread::current().id()))
    });
}

/// The credentials file, and the configuration file.
pub(crate) fn target(data: &[u8]) {
    let mut files = parts(data);
    let (credentials, config) = (files.next().unwrap_or_default(), files.next().unwrap_or_default());
    PATHS.with(|paths| {
        std::fs::write(&paths[0], credentials).unwrap();
        std::fs::write(&paths[1], config).unwrap();
        check_environment(paths);
    });
}

fn check_environment(paths: &[PathBuf; 2]) {
    let files = paths.clone().map(OsString::from);
    let environment = AwsEnvironment::with_lookup(move |name| match name {
        "AWS_SHARED_CREDENTIALS_FILE" => Some(files[0].clone()),
        "AWS_CONFIG_FILE" => Some(files[1].clone()),
        _ => None,
    });
    for name in ["default", "ci"] {
        let environment = environment.clone().profile(name);
        check(environment.credentials().map(|credentials| check_hidden(&credentials)));
        check(environment.region());
        check(environment.endpoint_url());
        check(environment.ca_bundle());
        let Some(profile) = check(environment.whole_profile(name)) else { continue };
        let keys = [profile.keys_of_credentials_file(), profile.keys_of_config_file()];
        for keys in keys {
            if let Some(Err(why)) = check(keys) {
                assert!(!why.contains(CANARY), "{why}");
            }
        }
        let line = profile.value("credential_process");
        let _ = (line.map(|line| shlex::split(&line)), profile.has_keys());
        let _ = (profile.service_endpoint("sts"), profile.sso_session("dev").is_some());
    }
}

fn check_hidden(credentials: &Credentials) {
    assert_eq!(format!("{credentials:?}"), "Credentials { [secret] }");
}

fn check<T>(result: Result<T, StorageError>) -> Option<T> {
    if let Err(error) = &result {
        assert_eq!(error.kind(), ErrorKind::Config);
        check_error(error, 0);
        assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
    }
    result.ok()
}
