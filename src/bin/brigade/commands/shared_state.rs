//! The settings of the state in the bucket, from the flags and the variables of CI systems.

use bucket_brigade::{Engine, OnConflict, RemoteState, StorageError};

use crate::args::state::{OnConflictHow, StateArgs, StatePlace};
use crate::args::{DestinationArgs, SpeedArgs, SyncArgs};
use crate::destination::Destination;

/// The longest name of a publisher, in bytes.
const MAX_NAME: usize = 255;

/// Returns the settings of the state of a sync; `None` if it is local.
pub(crate) fn settings(
    args: &SyncArgs,
    destination: &Destination,
    engine: &Engine,
) -> Result<Option<RemoteState>, StorageError> {
    let StateArgs { state, order, wait, lease, publisher, tree, .. } = &args.state;
    let Some(mut remote) = place(state, destination, engine, &args.destination, &args.speed)? else {
        return Ok(None);
    };
    remote = remote
        .reset_order(args.state.reset_order)
        .single_writer(args.state.single_writer)
        .take_over(args.state.take_over)
        .on_conflict(match args.state.on_conflict {
            None | Some(OnConflictHow::Fail) => OnConflict::Fail,
            Some(OnConflictHow::Overwrite) => OnConflict::Overwrite,
        });
    let publisher = publisher.clone().or_else(|| ci_job(&|name| std::env::var(name).ok()));
    remote = publisher.into_iter().fold(remote, RemoteState::publisher);
    remote = order.iter().copied().fold(remote, RemoteState::order);
    remote = wait.iter().copied().fold(remote, RemoteState::wait);
    remote = lease.iter().copied().fold(remote, RemoteState::lease);
    Ok(Some(tree.iter().fold(remote, RemoteState::tree)))
}

/// Returns the settings of a state in its place; `None` if it is local.
pub(crate) fn place(
    state: &StatePlace,
    destination: &Destination,
    engine: &Engine,
    args: &DestinationArgs,
    speed: &SpeedArgs,
) -> Result<Option<RemoteState>, StorageError> {
    let url = match state {
        StatePlace::Local => return Ok(None),
        StatePlace::Bucket => return Ok(Some(RemoteState::new())),
        StatePlace::At(url) => url,
    };
    Ok(Some(match destination.connect_state(engine, url, args, speed)? {
        Some(backend) => RemoteState::new().at(backend),
        None => RemoteState::new(),
    }))
}

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
