//! Roles that a profile assumes with the credentials of another profile or place.

use crate::backend::s3::auth::chain::sts::{self, Role};
use crate::backend::s3::auth::chain::walk::{Answer, Walk, misconfigured};
use crate::backend::s3::auth::chain::{container, instance, process, sso, web_identity};
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::profiles::WholeProfile;
use crate::error::StorageError;

/// The seconds that STS takes for the duration of a session.
const DURATIONS: std::ops::RangeInclusive<u32> = 900..=43_200;

/// Returns the credentials of the role of the walk's profile.
pub(crate) fn of_profile(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    let profile = &walk.profile;
    if !has_role(profile) {
        return Ok(Answer::Nothing(format!("role_arn in profile {}: not set", profile.name)));
    }
    assume(walk, profile, &mut vec![profile.name.clone()]).map(Answer::Credentials)
}

/// Returns whether a profile has a role that is assumed with other credentials, and not with a token.
fn has_role(profile: &WholeProfile) -> bool {
    profile.value("role_arn").is_some() && profile.value("web_identity_token_file").is_none()
}

/// Assumes the role of a profile. `visited` holds the profiles that led here, and this one.
fn assume(
    walk: &Walk<'_>,
    profile: &WholeProfile,
    visited: &mut Vec<String>,
) -> Result<Credentials, StorageError> {
    let role = role_of(profile)?;
    let credentials = match (profile.value("source_profile"), profile.value("credential_source")) {
        (Some(name), None) => from_profile(walk, profile, &name, visited)?,
        (None, Some(source)) => from_named_source(walk, &role.place, &source)?,
        (Some(_), Some(_)) => {
            return Err(misconfigured(
                &role.place,
                "it has both source_profile and credential_source: keep one",
            ));
        }
        (None, None) => {
            let why =
                "it has neither source_profile nor credential_source: name the credentials to assume it with";
            return Err(misconfigured(&role.place, why));
        }
    };
    sts::assume_role(walk, &credentials, &role)
}

fn role_of(profile: &WholeProfile) -> Result<Role, StorageError> {
    let arn = profile.value("role_arn").unwrap_or_default();
    let place = format!("role {arn} of profile {}", profile.name);
    if profile.value("mfa_serial").is_some() {
        let why = "its mfa_serial needs a code that somebody types: run `aws configure export-credentials --format env`";
        return Err(misconfigured(place, why));
    }
    let duration_seconds = match profile.value("duration_seconds") {
        None => None,
        Some(text) => {
            Some(text.parse().ok().filter(|seconds| DURATIONS.contains(seconds)).ok_or_else(|| {
                misconfigured(&place, format!("duration_seconds {text:?} is not from 900 to 43200"))
            })?)
        }
    };
    Ok(Role {
        place,
        arn,
        session_name: profile.value("role_session_name"),
        external_id: profile.value("external_id"),
        duration_seconds,
    })
}

/// Returns the credentials of the source profile of `parent`.
fn from_profile(
    walk: &Walk<'_>,
    parent: &WholeProfile,
    name: &str,
    visited: &mut Vec<String>,
) -> Result<Credentials, StorageError> {
    let at = format!("source_profile {name} of profile {}", parent.name);
    let source = walk.environment.whole_profile(name).map_err(|error| misconfigured(&at, error.message()))?;
    let may_be_visited = visited.iter().all(|visited| visited != name)
        // A profile may name itself if it has keys, too.
        || parent.name == name && source.has_keys();
    if !may_be_visited {
        let way = visited.join(", then ");
        return Err(misconfigured(at, format!("the source profiles lead in a circle: {way}, then {name}")));
    }
    visited.push(name.to_owned());
    if has_role(&source) && !source.has_keys() {
        return assume(walk, &source, visited);
    }
    credentials_of(walk, &source)?.map_err(|looked| {
        misconfigured(at, format!("it has no credentials. Looked at:\n  - {}", looked.join("\n  - ")))
    })
}

/// Returns the credentials of a profile that assumes no role, or where it has none.
fn credentials_of(
    walk: &Walk<'_>,
    profile: &WholeProfile,
) -> Result<Result<Credentials, Vec<String>>, StorageError> {
    let places: [&dyn Fn() -> Result<Answer, StorageError>; 5] = [
        &|| web_identity::of_settings(walk, profile, false),
        &|| sso::of_settings(walk, profile),
        &|| profile.keys_of_credentials_file().map(Answer::from),
        &|| process::of_settings(walk, profile),
        &|| profile.keys_of_config_file().map(Answer::from),
    ];
    let mut looked = Vec::new();
    for place in places {
        match place()? {
            Answer::Credentials(credentials) => return Ok(Ok(credentials)),
            Answer::Nothing(why) => looked.push(why),
        }
    }
    Ok(Err(looked))
}

/// Returns the credentials of a place that `credential_source` names.
fn from_named_source(walk: &Walk<'_>, role: &str, source: &str) -> Result<Credentials, StorageError> {
    let answer = match source.to_ascii_lowercase().as_str() {
        "environment" => match walk.environment.variables()? {
            Some(credentials) => Answer::Credentials(credentials),
            None => Answer::Nothing("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: not set".to_owned()),
        },
        "ecscontainer" => container::of_variables(walk)?,
        "ec2instancemetadata" => instance::of_machine(walk)?,
        _ => {
            let why = format!(
                "unknown credential_source {source:?}: use Environment, EcsContainer or Ec2InstanceMetadata"
            );
            return Err(misconfigured(role, why));
        }
    };
    match answer {
        Answer::Credentials(credentials) => Ok(credentials),
        Answer::Nothing(why) => {
            Err(misconfigured(role, format!("credential_source {source} has no credentials: {why}")))
        }
    }
}
