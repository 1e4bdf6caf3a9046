//! Roles that are assumed with a token in a file: EKS, and OIDC of GitHub and GitLab.

use std::path::Path;

use crate::backend::s3::auth::chain::sts::{self, Role};
use crate::backend::s3::auth::chain::walk::{Answer, Walk, misconfigured, read_token};
use crate::backend::s3::auth::profiles::WholeProfile;
use crate::error::StorageError;

/// Returns the credentials of the role that the variables, or the walk's profile, name with a token.
pub(crate) fn of_variables_or_profile(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    of_settings(walk, &walk.profile, !walk.environment.has_selected_profile())
}

/// Does the same for any profile. The variables precede it, if they are read.
pub(crate) fn of_settings(
    walk: &Walk<'_>,
    profile: &WholeProfile,
    with_variables: bool,
) -> Result<Answer, StorageError> {
    let setting = |variable: &str, key: &str| {
        let variable = if with_variables { walk.environment.text(variable)? } else { None };
        Ok(variable.or_else(|| profile.value(key)))
    };
    let Some(file) = setting("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file")? else {
        let variable = if with_variables { "AWS_WEB_IDENTITY_TOKEN_FILE and " } else { "" };
        let why = format!("{variable}web_identity_token_file in profile {}: not set", profile.name);
        return Ok(Answer::Nothing(why));
    };
    let Some(arn) = setting("AWS_ROLE_ARN", "role_arn")? else {
        let why = "it has no role: set AWS_ROLE_ARN, or role_arn in the profile";
        return Err(misconfigured(format!("web identity token {file}"), why));
    };
    let place = format!("role {arn} with a web identity token");
    let token = read_token(&place, Path::new(&file))?;
    let session_name = setting("AWS_ROLE_SESSION_NAME", "role_session_name")?;
    let role = Role { place, arn, session_name, external_id: None, duration_seconds: None };
    sts::assume_role_with_web_identity(walk, &token, &role).map(Answer::Credentials)
}
