//! The destinations of a command: by URL, or by name from a configuration file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use bucket_brigade::{Config, ConfigFile, StorageError};

use crate::args::settings::SettingArgs;
use crate::args::{DestinationArgs, FileArgs, RebuildArgs, SyncArgs};

/// The configuration file that is read without `--config`.
const USUAL_FILE: &str = "brigade.toml";

/// Returns the configurations of a sync or its plan, a destination each.
pub(crate) fn of_sync(args: &SyncArgs) -> Result<Vec<Config>, StorageError> {
    let mut configs = match (args.targets.as_slice(), find_file(&args.file)) {
        ([dir, dest], file) if is_url(dest) || file.is_none() => {
            refuse_file(&args.file)?;
            let mut config = of_url(dest)?;
            config.set_from("root", dir, "DIR")?;
            vec![config]
        }
        (targets, file) if targets.iter().any(|target| is_url(target)) || file.is_none() => {
            let why = "give DIR and DEST, as in brigade sync ./public s3://BUCKET/PREFIX, or names of destinations in a \
                       configuration file (--config FILE, or brigade.toml in this folder)";
            return Err(StorageError::config("DIR DEST", why));
        }
        (names, file) => of_names(&file.unwrap_or_default(), names)?,
    };
    finish(&mut configs, &args.settings)?;
    Ok(configs)
}

/// Returns the configurations of a rebuild: of a directory and its destination, or as for any other command.
pub(crate) fn of_rebuild(args: &RebuildArgs) -> Result<Vec<Config>, StorageError> {
    let [dir, dest] = args.targets.as_slice() else {
        return of_targets(&args.targets, &args.file, &args.settings);
    };
    if is_url(dir) || !is_url(dest) {
        return of_targets(&args.targets, &args.file, &args.settings);
    }
    let mut configs = of_targets(std::slice::from_ref(dest), &args.file, &args.settings)?;
    configs.iter_mut().try_for_each(|config| config.set_from("root", dir, "DIR"))?;
    Ok(configs)
}

/// Returns the configurations of the destinations of any other command.
pub(crate) fn of_destinations<const COMMAND: usize>(
    args: &DestinationArgs,
    settings: &SettingArgs<COMMAND>,
) -> Result<Vec<Config>, StorageError> {
    of_targets(&args.targets, &args.file, settings)
}

/// Returns the configuration of one destination.
pub(crate) fn of_one<const COMMAND: usize>(
    target: &OsString,
    file: &FileArgs,
    settings: &SettingArgs<COMMAND>,
) -> Result<Config, StorageError> {
    let configs = of_targets(std::slice::from_ref(target), file, settings)?;
    // One target is one destination.
    Ok(configs.into_iter().next().unwrap_or_default())
}

fn of_targets<const COMMAND: usize>(
    targets: &[OsString],
    file: &FileArgs,
    settings: &SettingArgs<COMMAND>,
) -> Result<Vec<Config>, StorageError> {
    let found = find_file(file);
    let mut configs = match found {
        Some(path) if !targets.iter().any(|target| is_url(target)) => of_names(&path, targets)?,
        _ if targets.is_empty() => {
            let why = "give s3://BUCKET or s3://BUCKET/PREFIX, or a name in a configuration file (--config FILE, or \
                       brigade.toml in this folder)";
            return Err(StorageError::config("DEST", why));
        }
        _ => {
            refuse_file(file)?;
            targets.iter().map(|target| of_url(target)).collect::<Result<_, _>>()?
        }
    };
    finish(&mut configs, settings)?;
    Ok(configs)
}

/// Returns the configurations of a file's destinations: those that are named, or all.
pub(crate) fn of_names(path: &Path, names: &[OsString]) -> Result<Vec<Config>, StorageError> {
    let file = ConfigFile::load(path)?;
    if names.is_empty() {
        return Ok(file.destinations().to_vec());
    }
    names.iter().map(|name| file.destination(&name.to_string_lossy()).cloned()).collect()
}

/// Returns the configuration file that was given, or the usual one if it is there.
pub(crate) fn find_file(args: &FileArgs) -> Option<PathBuf> {
    // A link that leads nowhere is a mistake, and no missing file.
    let usual = || Some(PathBuf::from(USUAL_FILE)).filter(|path| path.symlink_metadata().is_ok());
    args.config.clone().or_else(usual)
}

/// Refuses a configuration file beside a URL: it has the destinations.
fn refuse_file(args: &FileArgs) -> Result<(), StorageError> {
    match &args.config {
        None => Ok(()),
        Some(_) => Err(StorageError::config("--config", "give names of its destinations, not a URL")),
    }
}

fn is_url(target: &OsStr) -> bool {
    target.as_encoded_bytes().starts_with(b"s3:")
}

/// Returns the configuration of `s3://BUCKET/PREFIX`.
fn of_url(url: &OsStr) -> Result<Config, StorageError> {
    let mut config = Config::new();
    config.set_url(&url.to_string_lossy(), "DEST")?;
    Ok(config)
}

/// Adds the flags, then what the environment says, then the command's own defaults.
fn finish<const COMMAND: usize>(
    configs: &mut [Config],
    settings: &SettingArgs<COMMAND>,
) -> Result<(), StorageError> {
    for config in configs {
        settings.apply_to(config)?;
        add_environment(config)?;
    }
    Ok(())
}

/// Sets what is not set from the environment, and the command's own defaults.
pub(crate) fn add_environment(config: &mut Config) -> Result<(), StorageError> {
    config.fill_from_env()?;
    config.proxy_from_env();
    let has_keys =
        ["access_key_id", "secret_access_key", "session_token"].iter().any(|name| config.is_set(name));
    if !has_keys && !config.is_set("credentials") {
        config.set_from("credentials", "chain", "default of the command")?;
    }
    Ok(())
}

/// Names the publisher after the job of the CI system, if it has no other name.
pub(crate) fn add_publisher(config: &mut Config) -> Result<(), StorageError> {
    let is_shared = config.get("state").is_some_and(|place| place != "local");
    match ci_job(&|name| std::env::var(name).ok()) {
        Some(job) if is_shared && !config.is_set("publisher") => {
            config.set_from("publisher", job, "the variables of the CI job")
        }
        _ => Ok(()),
    }
}

/// The longest name of a publisher, in bytes.
const MAX_NAME: usize = 255;

/// Returns the name of this job of GitHub Actions or GitLab CI, if it is one.
fn ci_job(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let github = || {
        let (repository, run) = (variable("GITHUB_REPOSITORY")?, variable("GITHUB_RUN_ID")?);
        let attempt = variable("GITHUB_RUN_ATTEMPT").map(|attempt| format!(", attempt {attempt}"));
        Some(format!("GitHub {repository}, run {run}{}", attempt.unwrap_or_default()))
    };
    let gitlab = || {
        let (project, job) = (variable("CI_PROJECT_PATH")?, variable("CI_JOB_ID")?);
        Some(format!("GitLab {project}, job {job}"))
    };
    // Variables that somebody set for another purpose must not fail the run.
    let is_allowed = |name: &String| name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    github().or_else(gitlab).filter(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ci_job_is_named_by_the_variables_of_its_system() {
        const GITHUB: [(&str, &str); 3] =
            [("GITHUB_REPOSITORY", "o/site"), ("GITHUB_RUN_ID", "17"), ("GITHUB_RUN_ATTEMPT", "2")];
        let job = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
            ci_job(&|name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(job(&GITHUB).as_deref(), Some("GitHub o/site, run 17, attempt 2"));
        assert_eq!(job(&GITHUB[..2]).as_deref(), Some("GitHub o/site, run 17"));
        assert_eq!(job(&GITHUB[..1]), None);
        assert_eq!(
            job(&[("CI_PROJECT_PATH", "g/site"), ("CI_JOB_ID", "9")]).as_deref(),
            Some("GitLab g/site, job 9")
        );
        assert_eq!(job(&[("GITHUB_REPOSITORY", ""), ("GITHUB_RUN_ID", "17")]), None);
        assert_eq!(job(&[("CI_PROJECT_PATH", "g\nsite"), ("CI_JOB_ID", "9")]), None);
    }
}
