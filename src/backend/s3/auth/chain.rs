//! The chain of credentials: the places of the AWS SDKs, in their order.
//!
//! # Architecture
//! - [`CredentialChain`] holds the environment and the limits. It keeps nothing between two walks.
//! - [`Walk`] is one walk: the profile as it is now, and a client for requests.
//! - Each place is one function of a [`Walk`] in a file of its own. Its [`Answer`] is credentials, or why it has none;
//!   its error ends the walk.

mod container;
pub(crate) mod document;
mod instance;
pub(crate) mod process;
mod role;
pub(crate) mod sso;
pub(crate) mod sts;
mod walk;
mod web_identity;

use std::fmt;

use crate::backend::s3::auth::chain::walk::{Answer, Limits, Walk};
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::providers::AwsEnvironment;
use crate::backend::s3::http::network::NetworkConfig;
use crate::backend::s3::http::plain::PlainClient;
use crate::error::StorageError;

/// A place, asked on a walk.
type Place = fn(&Walk<'_>) -> Result<Answer, StorageError>;

/// The places of a walk in their order, behind the variables that hold keys.
const PLACES: [Place; 8] = [
    role::of_profile,
    web_identity::of_variables_or_profile,
    sso::of_profile,
    keys_of_credentials_file,
    process::of_profile,
    keys_of_config_file,
    container::of_variables,
    instance::of_machine,
];

/// Credentials from the places that the AWS SDKs know, in the order of botocore (the AWS CLI, boto3). The first place
/// that is configured gives the credentials.
///
/// | | Place | Configured by |
/// |---|---|---|
/// | 1 | variables | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` |
/// | 2 | role (`AssumeRole`) | the profile: `role_arn` with `source_profile` or `credential_source` (`Environment`, `EcsContainer`, `Ec2InstanceMetadata`); `external_id`, `role_session_name`, `duration_seconds` |
/// | 3 | web identity (EKS, GitHub OIDC) | `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`, `AWS_ROLE_SESSION_NAME`, or the profile's settings of these names without `AWS_` |
/// | 4 | single sign-on (SSO) | the profile: `sso_account_id`, `sso_role_name`, and `sso_session`, or `sso_start_url` and `sso_region`; after `aws sso login` |
/// | 5 | credentials file | keys of the profile in `~/.aws/credentials` (`AWS_SHARED_CREDENTIALS_FILE`) |
/// | 6 | process | the profile: `credential_process` |
/// | 7 | configuration file | keys of the profile in `~/.aws/config` (`AWS_CONFIG_FILE`) |
/// | 8 | container (ECS, EKS Pod Identity) | `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, or `AWS_CONTAINER_CREDENTIALS_FULL_URI` with `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` or `AWS_CONTAINER_AUTHORIZATION_TOKEN` |
/// | 9 | instance metadata (EC2, `IMDSv2` only) | being on such a machine; `AWS_EC2_METADATA_DISABLED=true` turns it off, `AWS_EC2_METADATA_SERVICE_ENDPOINT` moves it |
///
/// The profile is that of [`AwsEnvironment::profile`], of `AWS_PROFILE` or `AWS_DEFAULT_PROFILE`, or `default`. One that
/// was selected with [`AwsEnvironment::profile`] precedes the variables of places 1 and 3, which are then not read.
///
/// A place that is configured and fails is an error: the next one would be another identity. If no place is configured,
/// the error lists all of them with the reason.
///
/// # What it does
/// - Only [`credentials`](Self::credentials) works, on the calling thread; nothing is kept between two calls. Files and
///   variables are read anew each time, so a token file that was replaced counts.
/// - Requests are never redirected, and read answers of 64 KiB at most. A request to STS, SSO or a
///   container's endpoint takes 10 s at most and is tried three times if the server cannot be reached or fails (5xx,
///   429). Instance metadata has one try, 1 s in all.
/// - STS is asked at `https://sts.REGION.amazonaws.com` (in us-east-1, and without a region, at
///   `https://sts.amazonaws.com`), or at `AWS_ENDPOINT_URL_STS`, `AWS_ENDPOINT_URL`, or the `endpoint_url` of the
///   profile or of its `services`. The region is that of [`AwsEnvironment::region`].
/// - A container's endpoint must be https, or http on this machine or at 169.254.170.2, 169.254.170.23 or
///   `[fd00:ec2::23]`.
/// - A process is started without a shell: its line is split into words as a POSIX shell does. Its input is empty, its
///   errors are discarded, it may print 64 KiB and run for 60 s. Then it is killed, and its process group with it.
/// - A run that is cancelled waits for a request or a process that is under way, within these limits.
/// - Profiles that need a code of a device (`mfa_serial`) are errors, and SSO tokens are neither made nor refreshed.
/// - No error shows a secret, or what a process has printed.
///
/// With the feature `profiles`.
///
/// ```no_run
/// use bucket_brigade::{AwsEnvironment, CredentialChain, S3Config};
/// # fn main() -> Result<(), bucket_brigade::StorageError> {
/// let chain = CredentialChain::new(AwsEnvironment::from_env());
/// // Fetches credentials now, and new ones before these expire.
/// let config = S3Config::new("releases").region("eu-central-1").credential_chain(chain)?;
/// # let _ = config; Ok(()) }
/// ```
#[derive(Clone)]
pub struct CredentialChain {
    environment: AwsEnvironment,
    network: NetworkConfig,
    limits: Limits,
}

impl fmt::Debug for CredentialChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialChain")
            .field("environment", &self.environment)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl CredentialChain {
    /// Reads variables and profiles from `environment`.
    pub fn new(environment: AwsEnvironment) -> Self {
        Self { environment, network: NetworkConfig::new(), limits: Limits::default() }
    }

    /// The proxy, the certificates and the user agent of requests to STS and SSO; the same as for the store, usually.
    /// Requests to a container's endpoint and to the instance metadata never use a proxy. Its time limits and rate have no
    /// effect. Default: no proxy, and the certificates of [`AwsEnvironment::ca_bundle`] beside the system's.
    pub fn network(mut self, network: NetworkConfig) -> Self {
        self.network = network;
        self
    }

    /// Walks the chain now: reads files, sends requests and starts a process, as the configuration says. Temporary
    /// credentials have their [expiry](Credentials::expiry).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if no place has credentials, with all places, or if a setting is
    /// wrong. [`ErrorKind::Credentials`](crate::ErrorKind::Credentials) if the place that is configured gives none; it
    /// can be retried if the place could not be reached.
    pub fn credentials(&self) -> Result<Credentials, StorageError> {
        let mut looked = Vec::new();
        // A profile that was selected must not lose to variables that happen to be set.
        if !self.environment.has_selected_profile() {
            if let Some(credentials) = self.environment.variables()? {
                return Ok(credentials);
            }
            looked.push("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: not set".to_owned());
        }
        let walk = self.walk()?;
        for place in PLACES {
            match place(&walk)? {
                Answer::Credentials(credentials) => return Ok(credentials),
                Answer::Nothing(why) => looked.push(why),
            }
        }
        let looked = looked.join("\n  - ");
        let why = format!(
            "none were found. Looked at:\n  - {looked}\nSet the two variables, write a profile with `aws configure`, or give \
             this machine a role"
        );
        Err(StorageError::config("credentials", why))
    }

    fn walk(&self) -> Result<Walk<'_>, StorageError> {
        let profile = self.environment.whole_profile(&self.environment.profile_name()?)?;
        let mut network = self.network.clone();
        if let Some(path) = self.environment.ca_bundle()?.filter(|_| !network.has_ca_file()) {
            network = network.ca_file(path);
        }
        let client = PlainClient::new(network.check()?);
        Ok(Walk { environment: &self.environment, profile, client, limits: &self.limits })
    }
}

fn keys_of_credentials_file(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    walk.profile.keys_of_credentials_file().map(Answer::from)
}

fn keys_of_config_file(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    walk.profile.keys_of_config_file().map(Answer::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inside::support::http::{FakeHttp, reply};

    #[test]
    fn a_relative_uri_is_asked_at_the_endpoint_of_ecs() {
        let answer = r#"{"AccessKeyId":"ECS","SecretAccessKey":"s","Token":"t"}"#;
        let ecs = FakeHttp::start(move |_| reply(200, answer));
        let variables = |name: &str| match name {
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" => Some("/v2/credentials/id?a=b".into()),
            // The relative one precedes.
            "AWS_CONTAINER_CREDENTIALS_FULL_URI" => Some("http://example.com".into()),
            _ => None,
        };
        let mut chain = CredentialChain::new(AwsEnvironment::with_lookup(variables));
        assert_eq!(chain.limits.container, "http://169.254.170.2");
        chain.limits.container = ecs.url();
        let credentials = chain.credentials().unwrap();
        assert_eq!((credentials.access_key(), credentials.session_token()), ("ECS", Some("t")));
        assert_eq!(credentials.expiry(), None);
        assert_eq!(ecs.asked()[0].target, "/v2/credentials/id?a=b");
    }
}
