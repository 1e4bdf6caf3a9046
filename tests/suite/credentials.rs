//! The chain of credentials: each place against a server of the test, what an error says, and that no secret leaks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bucket_brigade::{
    AwsEnvironment, Clock, CredentialChain, ErrorKind, NetworkConfig, RescanOutcome, S3Config, StopReason,
    StorageError,
};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::network::{acquainted, heals, site_with};
use crate::support::http::{Asked, FakeHttp, chunked, reply, until_the_end};
use crate::support::logs::{leak_in, leaks, watch};
use crate::support::proxies::{basic_auth, tinyproxy};
use crate::support::proxy::FaultProxy;
use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::tls::TestCa;
use crate::support::{NEXT_TOKEN, SESSION_TOKEN, World};

/// A home directory and variables. Instance metadata is off, so that no test asks the network.
struct Home {
    folder: TempDir,
    variables: BTreeMap<String, OsString>,
    profile: Option<String>,
}

impl Home {
    fn new(config: &str) -> Self {
        watch();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".aws")).unwrap();
        fs::write(folder.path().join(".aws/config"), config).unwrap();
        let home = folder.path().as_os_str().to_owned();
        let variables = BTreeMap::from([("HOME".to_owned(), home)]);
        Self { folder, variables, profile: None }.set("AWS_EC2_METADATA_DISABLED", "true")
    }

    fn set(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    fn profile(mut self, name: &str) -> Self {
        self.profile = Some(name.to_owned());
        self
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn environment(&self) -> AwsEnvironment {
        let variables = self.variables.clone();
        let environment = AwsEnvironment::with_lookup(move |name| variables.get(name).cloned());
        self.profile.iter().fold(environment, AwsEnvironment::profile)
    }

    fn chain(&self) -> CredentialChain {
        CredentialChain::new(self.environment())
    }

    /// The access key, the secret key and the session token, as the headers of a request to a store show them.
    fn found(&self) -> Found {
        let credentials = self.chain().credentials().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(format!("{credentials:?}"), "Credentials { [secret] }");
        Found { expiry: credentials.expiry(), key: key_of(credentials) }
    }

    fn error(&self) -> StorageError {
        let error = self.chain().credentials().unwrap_err();
        let shown = format!("{error} {error:?} {}", error.message());
        assert_eq!(leak_in(&shown), None, "{shown}");
        assert!(!shown.contains("CANARY"), "{shown}");
        error
    }
}

struct Found {
    key: String,
    expiry: Option<SystemTime>,
}

/// The access key that a store sees.
fn key_of(credentials: bucket_brigade::Credentials) -> String {
    use bucket_brigade::{Engine, S3Backend, StorageBackend};
    let seen = Arc::new(Mutex::new(String::new()));
    let sink = seen.clone();
    let store = FakeHttp::start(move |asked| {
        let header = asked.header("authorization").unwrap();
        let key = header.split("Credential=").nth(1).unwrap().split('/').next().unwrap();
        let token = asked.header("x-amz-security-token").unwrap_or_default();
        format!("{key} {token}").trim().clone_into(&mut sink.lock().unwrap());
        reply(404, "<Error><Code>NoSuchBucket</Code></Error>")
    });
    let config = S3Config::new("b").endpoint(store.url()).credentials(credentials);
    let backend = S3Backend::new(&Engine::new().unwrap(), config).unwrap();
    backend.delete_file("k").unwrap_err();
    seen.lock().unwrap().clone()
}

fn rfc3339(when: SystemTime) -> String {
    let t = time::OffsetDateTime::from(when);
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.year(), t.hour(), t.minute(), t.second())
}

fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

fn is_in_an_hour(expiry: Option<SystemTime>) -> bool {
    let left = expiry.unwrap().duration_since(SystemTime::now()).unwrap();
    (Duration::from_secs(3500)..=Duration::from_secs(3600)).contains(&left)
}

/// Credentials as metadata services print them.
fn metadata(key: &str, token: &str, expiry: SystemTime) -> String {
    let expiry = rfc3339(expiry);
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{key}","SecretAccessKey":"{SECRET_KEY}","Token":"{token}","Expiration":"{expiry}"}}"#
    )
}

/// Credentials as STS sends them.
fn of_sts(action: &str, key: &str) -> String {
    let expiry = rfc3339(in_an_hour());
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><AssumedRoleUser>\
         <Arn>arn</Arn></AssumedRoleUser><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{SECRET_KEY}\
         </SecretAccessKey><SessionToken>{SESSION_TOKEN}</SessionToken><Expiration>{expiry}</Expiration></Credentials>\
         </{action}Result><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// An STS that gives each role its own access key, and keeps what it was asked.
fn sts() -> FakeHttp {
    FakeHttp::start(|asked| {
        let (action, arn) = (asked.field("Action").unwrap(), asked.field("RoleArn").unwrap());
        reply(200, &of_sts(&action, &format!("OF-{arn}")))
    })
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Checks a signature as STS does; returns the access key and the region.
fn signer(asked: &Asked, secret: &str) -> (String, String) {
    let header = asked.header("authorization").unwrap();
    let part = |name: &str| header.split(name).nth(1).unwrap().split(',').next().unwrap().to_owned();
    let (credential, signed, signature) = (part("Credential="), part("SignedHeaders="), part("Signature="));
    let scope: Vec<_> = credential.splitn(2, '/').collect();
    let words: Vec<_> = scope[1].split('/').collect();
    assert_eq!((words[2], words[3]), ("sts", "aws4_request"));
    for needed in ["host", "x-amz-date"] {
        assert!(signed.split(';').any(|name| name == needed), "{signed}");
    }
    let lines: Vec<_> =
        signed.split(';').map(|name| format!("{name}:{}\n", asked.header(name).unwrap())).collect();
    let lines = lines.concat();
    let payload = hex::encode(Sha256::digest(&asked.body));
    let canonical = format!("{}\n{}\n\n{lines}\n{signed}\n{payload}", asked.method, asked.target);
    let date = asked.header("x-amz-date").unwrap();
    let hash = hex::encode(Sha256::digest(canonical));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{hash}", scope[1]);
    let key = words.iter().fold(format!("AWS4{secret}").into_bytes(), |key, word| hmac(&key, word));
    assert_eq!(hex::encode(hmac(&key, &text)), signature);
    (scope[0].to_owned(), words[1].to_owned())
}

const KEYS: &str = "aws_access_key_id = BASE\naws_secret_access_key = support-secret-key-0123456789\n";

#[test]
fn a_role_is_assumed_with_a_request_that_sts_accepts() {
    let sts = sts();
    let config = format!(
        "[profile ci]\nrole_arn = arn:aws:iam::1:a+b=c\nsource_profile = base\nexternal_id = e/1\n\
         role_session_name = me\nduration_seconds = 900\nregion = eu-west-3\n[profile base]\n{KEYS}\
         aws_session_token = {NEXT_TOKEN}\n"
    );
    let home = Home::new(&config).set("AWS_PROFILE", "ci").set("AWS_ENDPOINT_URL_STS", sts.url());
    let found = home.found();
    assert_eq!(found.key, format!("OF-arn:aws:iam::1:a+b=c {SESSION_TOKEN}"));
    assert!(is_in_an_hour(found.expiry));
    let asked = sts.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(signer(&asked[0], SECRET_KEY), ("BASE".to_owned(), "eu-west-3".to_owned()));
    assert_eq!(asked[0].header("x-amz-security-token"), Some(NEXT_TOKEN));
    let expected = [
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", "arn:aws:iam::1:a+b=c"),
        ("RoleSessionName", "me"),
        ("ExternalId", "e/1"),
        ("DurationSeconds", "900"),
    ];
    assert_eq!(asked[0].form(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // Keys of variables come before it, but not if the profile was selected.
    let home = home.set("AWS_ACCESS_KEY_ID", "VARIABLE").set("AWS_SECRET_ACCESS_KEY", "s");
    assert_eq!(home.found().key, "VARIABLE");
    assert!(home.profile("ci").found().key.starts_with("OF-arn"));
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn source_profiles_may_be_roles_too_and_each_is_assumed_with_the_last() {
    let sts = sts();
    let config = format!(
        "[profile a]\nrole_arn = A\nsource_profile = b\nservices = local\n[profile b]\nrole_arn = B\n\
         source_profile = b\n{KEYS}[profile c]\nrole_arn = C\nsource_profile = d\n[profile d]\nrole_arn = D\n\
         source_profile = e\n[profile e]\n{KEYS}[services local]\nsts =\n  endpoint_url = {}\n",
        sts.url()
    );
    // A source profile that has keys is used with them, whatever role it has.
    assert!(Home::new(&config).profile("a").found().key.starts_with("OF-A"));
    assert_eq!(sts.asked().len(), 1);
    let home = Home::new(&config).set("AWS_ENDPOINT_URL", sts.url());
    assert!(home.profile("b").found().key.starts_with("OF-B"), "a profile may name itself");
    let home = Home::new(&config).set("AWS_ENDPOINT_URL", sts.url());
    assert!(home.profile("c").found().key.starts_with("OF-C"));
    let asked: Vec<_> = sts.asked().iter().map(|asked| signer(asked, SECRET_KEY)).collect();
    let keys: Vec<_> = asked.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["BASE", "BASE", "BASE", "OF-D"]);
    assert!(asked.iter().all(|(_, region)| region == "us-east-1"), "without a region");
}

#[test]
fn a_role_that_is_set_up_wrongly_is_an_error_that_says_so_and_sends_nothing() {
    let sts = sts();
    for (settings, says) in [
        ("source_profile = base\nmfa_serial = arn:mfa", "its mfa_serial needs a code"),
        ("source_profile = base\nduration_seconds = 60", "duration_seconds \"60\" is not from 900 to 43200"),
        (
            "source_profile = base\ncredential_source = Environment",
            "both source_profile and credential_source",
        ),
        ("", "neither source_profile nor credential_source"),
        ("source_profile = typo", "source_profile typo of profile x: profile: there is no [typo] in "),
        ("source_profile = x", "lead in a circle: x, then x"),
        ("source_profile = y", "lead in a circle: x, then y, then x"),
        ("source_profile = empty", "source_profile empty of profile x: it has no credentials. Looked at:"),
        ("credential_source = Moon", "unknown credential_source \"Moon\""),
        ("credential_source = Environment", "Environment has no credentials: AWS_ACCESS_KEY_ID"),
        ("credential_source = Ec2InstanceMetadata", "instance metadata: off (AWS_EC2_METADATA_DISABLED)"),
    ] {
        let config = format!(
            "[profile x]\nrole_arn = R\n{settings}\n[profile y]\nrole_arn = R2\nsource_profile = x\n\
             [profile base]\n{KEYS}[profile empty]\nregion = r\n[default]\n{KEYS}"
        );
        let home = Home::new(&config).set("AWS_ENDPOINT_URL_STS", sts.url()).profile("x");
        let error = home.error();
        assert!(error.message().contains(says), "{settings}: {error}");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    assert!(sts.asked().is_empty());
}

#[test]
fn i7_a_refusal_of_sts_is_shown_without_secrets_and_ends_the_walk() {
    let refuse = |status: u16, echo: &str| {
        let echo = echo.to_owned();
        FakeHttp::start(move |_| {
            let body = format!(
                "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not \
                 authorized: {echo}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
            );
            reply(status, &body)
        })
    };
    let sts = refuse(403, &format!("{SECRET_KEY} {NEXT_TOKEN}"));
    // Keys that would be used if the role were passed over.
    let config = format!(
        "[default]\nrole_arn = R\nsource_profile = base\n{KEYS}[profile base]\n{KEYS}aws_session_token = {NEXT_TOKEN}\n"
    );
    let home = Home::new(&config).set("AWS_ENDPOINT_URL_STS", sts.url());
    let error = home.error();
    assert_eq!(
        (error.kind(), error.code(), error.request_id()),
        (ErrorKind::Credentials, Some("AccessDenied"), Some("r-1"))
    );
    let says = "role R of profile default: STS answered with status 403: AccessDenied: not authorized: [secret] [secret]";
    assert!(error.message().contains(says), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(sts.asked().len(), 1, "a refusal is not asked again");
    // What is no answer of STS is not quoted.
    for body in [format!("<html>{SECRET_KEY}</html>"), of_sts("Other", "K"), String::new()] {
        let sts = FakeHttp::start(move |_| reply(200, &body));
        let error = home_with(&config, &sts).error();
        assert!(error.message().contains("an answer without credentials: is this its endpoint?"), "{error}");
    }
    assert_eq!(leaks(), Vec::<String>::new());
}

fn home_with(config: &str, sts: &FakeHttp) -> Home {
    Home::new(config).set("AWS_ENDPOINT_URL_STS", sts.url())
}

#[test]
fn n_sts_that_fails_is_asked_three_times() {
    let config = format!("[default]\nrole_arn = R\nsource_profile = base\n[profile base]\n{KEYS}");
    let count = AtomicUsize::new(0);
    let recovers = FakeHttp::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => reply(503, "busy"),
        // Closes the connection without an answer.
        1 => Vec::new(),
        _ => reply(200, &of_sts("AssumeRole", "K")),
    });
    assert!(home_with(&config, &recovers).found().key.starts_with("K "));
    assert_eq!(recovers.asked().len(), 3);
    let down = FakeHttp::start(|_| reply(500, "CANARY"));
    let error = home_with(&config, &down).error();
    assert!(error.message().contains("STS answered with status 500") && error.is_retryable(), "{error}");
    assert_eq!(down.asked().len(), 3);
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::new(&config).set("AWS_ENDPOINT_URL_STS", format!("http://{gone}"));
    let error = home.error();
    assert!(error.message().contains(&format!("role R of profile default: {gone}")), "{error}");
    assert!(error.is_retryable() && error.kind() == ErrorKind::Credentials, "{error}");
}

#[test]
fn a_web_identity_token_is_exchanged_by_variables_or_by_profile() {
    let sts = sts();
    let home = Home::new(&format!("[default]\n{KEYS}")).set("AWS_ENDPOINT_URL_STS", sts.url());
    let token = home.write("token", &format!("{SESSION_TOKEN}/1\n"));
    let home = home.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token).set("AWS_ROLE_ARN", "arn:of:variable");
    let found = home.found();
    assert!(found.key.starts_with("OF-arn:of:variable "), "before the keys of the profile");
    assert!(is_in_an_hour(found.expiry));
    let asked = &sts.asked()[0];
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(asked.field("Action").as_deref(), Some("AssumeRoleWithWebIdentity"));
    assert_eq!(asked.field("WebIdentityToken"), Some(format!("{SESSION_TOKEN}/1")));
    assert!(asked.field("RoleSessionName").unwrap().starts_with("bucket-brigade-"));
    // The file is read anew each time.
    fs::write(&token, format!("{SESSION_TOKEN}/2")).unwrap();
    let home = home.set("AWS_ROLE_SESSION_NAME", "job");
    home.found();
    let asked = &sts.asked()[1];
    assert_eq!(asked.field("WebIdentityToken"), Some(format!("{SESSION_TOKEN}/2")));
    assert_eq!(asked.field("RoleSessionName").as_deref(), Some("job"));
    // By profile; the variables are not read then.
    let config = format!("[profile oidc]\nweb_identity_token_file = {}\nrole_arn = P\n", token.display());
    fs::write(home.folder.path().join(".aws/config"), config).unwrap();
    assert!(home.profile("oidc").found().key.starts_with("OF-P "));
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn a_web_identity_without_its_token_is_an_error_and_not_another_identity() {
    let sts = FakeHttp::start(|asked| {
        let token = asked.field("WebIdentityToken").unwrap();
        let code = "<Code>ExpiredTokenException</Code>";
        reply(400, &format!("<ErrorResponse><Error>{code}<Message>{token}</Message></Error></ErrorResponse>"))
    });
    let home = || Home::new(&format!("[default]\n{KEYS}")).set("AWS_ENDPOINT_URL_STS", sts.url());
    let missing = home().set("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token").set("AWS_ROLE_ARN", "R");
    let error = missing.error();
    assert!(
        error
            .message()
            .contains("role R with a web identity token: the token file /nowhere/token: it cannot"),
        "{error}"
    );
    let empty = home();
    let token = empty.write("token", "\n");
    let empty = empty.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token).set("AWS_ROLE_ARN", "R");
    assert!(empty.error().message().contains("it is empty"));
    fs::write(&token, "x".repeat(65 * 1024)).unwrap();
    assert!(empty.error().message().contains("longer than 64 KiB"));
    fs::write(&token, NEXT_TOKEN).unwrap();
    let error = empty.error();
    assert!(error.message().contains("ExpiredTokenException: [secret]"), "{error}");
    let no_role = home().set("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    assert!(no_role.error().message().contains("it has no role: set AWS_ROLE_ARN"));
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn sts_is_reached_over_tls_with_a_certificate_authority_of_its_own() {
    let sts = sts();
    let home = Home::new(&format!("[default]\nrole_arn = R\nsource_profile = base\n[profile base]\n{KEYS}"));
    let ca = TestCa::new();
    let tls = FaultProxy::start_tls(sts.addr(), ca.server_config());
    let file = ca.write_into(home.folder.path());
    let home = home.set("AWS_ENDPOINT_URL_STS", tls.endpoint());
    let error = home.error();
    assert!(error.message().contains("invalid peer certificate"), "{error}");
    let chain = home.chain().network(NetworkConfig::new().ca_file(&file));
    chain.credentials().unwrap();
    home.set("AWS_CA_BUNDLE", &file).found();
    assert_eq!(leaks(), Vec::<String>::new());
}

/// What lies behind the proxy of a company is reached through it; what is on this machine or its host is not.
#[test]
fn sts_is_reached_through_the_proxy_and_a_container_s_endpoint_never_is() {
    let sts = sts();
    let config = format!("[default]\nrole_arn = R\nsource_profile = base\n[profile base]\n{KEYS}");
    let home = Home::new(&config).set("AWS_ENDPOINT_URL_STS", sts.url());
    let Some(proxy) = tinyproxy(&basic_auth()) else { return };
    let network = NetworkConfig::new().proxy(proxy.url("http", true));
    home.chain().network(network.clone()).credentials().unwrap();
    assert_eq!(proxy.logged(&format!("CONNECT {}", sts.addr())), 1);
    let dead =
        home.chain().network(NetworkConfig::new().proxy("http://127.0.0.1:1")).credentials().unwrap_err();
    assert!(dead.message().contains("proxy 127.0.0.1:1"), "{dead}");
    let container =
        FakeHttp::start(|_| reply(200, r#"{"AccessKeyId":"ECS","SecretAccessKey":"s","Token":"t"}"#));
    let home = Home::new("").set("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.url());
    home.chain().network(network).credentials().unwrap();
    let to_container = proxy.logged(&format!("CONNECT {}", container.addr()));
    assert_eq!((container.asked().len(), to_container), (1, 0));
    assert_eq!(leaks(), Vec::<String>::new());
}

/// The names of stored SSO tokens: SHA-1 of the session and of the start URL, as `sha1sum` prints them.
const CORP: &str = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
const CORP_URL: &str = ".aws/sso/cache/17da54e8ec4ee05390f1915bb3ef5fea7ebd238e.json";

fn sso_token(expiry: &str) -> String {
    format!(r#"{{"accessToken":"{NEXT_TOKEN}","expiresAt":"{expiry}","region":"eu-west-1"}}"#)
}

fn portal() -> FakeHttp {
    FakeHttp::start(|asked| {
        let token = asked.header("x-amz-sso_bearer_token").unwrap();
        if token != NEXT_TOKEN {
            return reply(401, &format!(r#"{{"message":"Session token not found or invalid: {token}"}}"#));
        }
        let millis = in_an_hour().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let body = format!(
            r#"{{"roleCredentials":{{"accessKeyId":"SSO","secretAccessKey":"{SECRET_KEY}","sessionToken":"{SESSION_TOKEN}","expiration":{millis}}}}}"#
        );
        chunked(200, &body)
    })
}

const SSO: &str = "sso_account_id = 012345678901\nsso_role_name = Read Only\n";

#[test]
fn sso_uses_the_token_that_aws_sso_login_has_stored() {
    let portal = portal();
    let session = format!(
        "[profile s]\nsso_session = corp\n{SSO}{KEYS}[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp\n"
    );
    let home = Home::new(&session).set("AWS_ENDPOINT_URL_SSO", portal.url()).profile("s");
    home.write(CORP, &sso_token(&rfc3339(in_an_hour())));
    let found = home.found();
    assert_eq!(found.key, format!("SSO {SESSION_TOKEN}"), "before keys of the profile");
    assert!(is_in_an_hour(found.expiry));
    assert_eq!(
        portal.asked()[0].target,
        "/federation/credentials?role_name=Read%20Only&account_id=012345678901"
    );
    // Without a session, the token is named after the URL; old tools wrote the time otherwise.
    let legacy = format!("[profile s]\nsso_start_url = https://corp\nsso_region = eu-west-1\n{SSO}");
    let home = Home::new(&legacy).set("AWS_ENDPOINT_URL_SSO", portal.url()).profile("s");
    let expiry = rfc3339(in_an_hour()).replace('Z', "UTC");
    home.write(CORP_URL, &sso_token(&expiry));
    assert!(home.found().key.starts_with("SSO "));
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn sso_without_a_valid_token_says_how_to_get_one() {
    let portal = portal();
    let config = |profile: &str, session: &str| {
        format!("[default]\n{KEYS}[profile s]\nsso_session = corp\n{profile}[sso-session corp]\n{session}")
    };
    let whole = "sso_region = eu-west-1\nsso_start_url = https://corp\n";
    let home = |config: &str| Home::new(config).set("AWS_ENDPOINT_URL_SSO", portal.url()).profile("s");
    let good = home(&config(SSO, whole));
    let login = "run `aws sso login --profile s`";
    for (token, says) in [
        (None, "does not exist"),
        (Some(sso_token("2020-01-01T00:00:00Z")), "has expired"),
        (Some(sso_token("soon")), "has no expiresAt"),
        (Some("CANARY".to_owned()), "is no JSON object"),
        (
            Some(format!(r#"{{"expiresAt":"{}","accessToken":3}}"#, rfc3339(in_an_hour()))),
            "has no accessToken",
        ),
        (
            Some(sso_token(&rfc3339(in_an_hour())).replace(NEXT_TOKEN, "CANARY-OLD")),
            "status 401: Session token not found or invalid: [secret]; run",
        ),
    ] {
        if let Some(token) = token {
            good.write(CORP, &token);
        }
        let error = good.error();
        assert!(error.message().starts_with("SSO in profile s: "), "{error}");
        assert!(error.message().contains(says) && error.message().contains(login), "{says}: {error}");
    }
    for (config, says) in [
        (config(SSO, "sso_region = r\n"), "sso_start_url is missing"),
        (config("sso_role_name = r\n", whole), "sso_account_id is missing"),
        (config(&format!("{SSO}sso_region = other\n"), whole), "sso_region differs between"),
        (config(SSO, whole).replace("[sso-session corp]", "[x]"), "there is no [sso-session corp]"),
    ] {
        let error = home(&config).error();
        assert!(error.message().contains(says) && error.kind() == ErrorKind::Config, "{says}: {error}");
    }
}

fn script(home: &Home, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = home.write(name, &format!("#!/bin/sh\n{text}"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.display().to_string()
}

fn set_config(home: &Home, config: &str) {
    fs::write(home.folder.path().join(".aws/config"), config).unwrap();
}

#[test]
fn a_process_prints_credentials_and_stands_between_the_keys_of_both_files() {
    let home = Home::new("");
    let expiry = rfc3339(in_an_hour());
    // The words of the line arrive as a shell would split them, and no shell expands anything.
    let text = format!(
        r#"[ "$1" = 'a  b' ] && [ "$2" = '$HOME' ] || exit 9
echo 'to the log' >&2
cat <<X
{{"Version":1,"AccessKeyId":"PROCESS","SecretAccessKey":"{SECRET_KEY}","SessionToken":"{SESSION_TOKEN}","Expiration":"{expiry}"}}
X"#
    );
    let path = script(&home, "my helper", &text);
    set_config(&home, &format!("[default]\ncredential_process = '{path}' \"a  b\" \\$HOME\n{KEYS}"));
    let found = home.found();
    assert_eq!(found.key, format!("PROCESS {SESSION_TOKEN}"), "before the keys of the configuration file");
    assert!(is_in_an_hour(found.expiry));
    home.write(".aws/credentials", "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n");
    assert_eq!(home.found().key, "FILE");
}

#[test]
fn i7_a_process_that_fails_is_named_and_what_it_printed_is_not_shown() {
    let home = Home::new("");
    for (text, says) in [
        ("echo CANARY; exit 3", "failed (exit status: 3)"),
        ("echo CANARY", "its output: it is no JSON object"),
        (r#"echo '"CANARY"'"#, "it is no JSON object"),
        (r#"echo '{"Version":2,"SecretAccessKey":"CANARY"}'"#, "Version is not 1"),
        (r#"echo '{"Version":1,"SecretAccessKey":"CANARY"}'"#, "AccessKeyId is missing"),
        (r#"echo '{"Version":1,"AccessKeyId":"CANARY"}'"#, "SecretAccessKey is missing"),
        (r#"echo '{"Version":1,"AccessKeyId":["CANARY"]}'"#, "AccessKeyId is no text"),
        (
            r#"echo '{"Version":1,"AccessKeyId":"C","SecretAccessKey":"CANARY","Expiration":"CANARY"}'"#,
            "Expiration is no time such as",
        ),
        ("kill -9 $$", "failed (signal: 9"),
        ("", "it is no JSON object"),
    ] {
        let path = script(&home, "helper", text);
        set_config(&home, &format!("[default]\ncredential_process = {path} --password CANARY\n{KEYS}"));
        let error = home.error();
        assert!(error.message().starts_with("credential_process in profile default: "), "{error}");
        assert!(error.message().contains(says) && error.kind() == ErrorKind::Credentials, "{text}: {error}");
    }
    for (line, says) in [
        ("/nowhere/helper CANARY", "/nowhere/helper could not be started: No such file"),
        ("'CANARY", "its quotes do not match"),
    ] {
        set_config(&home, &format!("[default]\ncredential_process = {line}\n{KEYS}"));
        let error = home.error();
        assert!(error.message().contains(says), "{error}");
    }
}

#[test]
fn a_container_gives_credentials_for_the_token_in_its_file_as_it_is_now() {
    let endpoint = FakeHttp::start(|asked| match asked.header("authorization") {
        Some(token) if token.starts_with(NEXT_TOKEN) => until_the_end(
            200,
            &metadata(&format!("POD{}", &token[NEXT_TOKEN.len()..]), SESSION_TOKEN, in_an_hour()),
        ),
        other => reply(401, &format!(r#"{{"code":"InvalidToken","message":"{}"}}"#, other.unwrap_or("none"))),
    });
    let home =
        Home::new("").set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", endpoint.url()));
    let error = home.error();
    assert!(
        error.message().contains(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI: the endpoint answered with status 401: InvalidToken: none"
        ),
        "{error}"
    );
    let file = home.write("token", &format!("{NEXT_TOKEN}1\n"));
    let home = home.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", format!("{NEXT_TOKEN}0"));
    assert_eq!(home.found().key, format!("POD0 {SESSION_TOKEN}"));
    let home = home.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file);
    let found = home.found();
    assert_eq!(found.key, format!("POD1 {SESSION_TOKEN}"), "the file precedes");
    assert!(is_in_an_hour(found.expiry));
    fs::write(&file, format!("{NEXT_TOKEN}2")).unwrap();
    assert_eq!(home.found().key, format!("POD2 {SESSION_TOKEN}"));
    fs::write(&file, "CANARY-that-is-refused").unwrap();
    assert!(home.error().message().contains("InvalidToken: [secret]"));
    fs::write(&file, "CANARY\nx").unwrap();
    assert!(home.error().message().contains("it holds a line end"));
    fs::remove_file(&file).unwrap();
    assert!(home.error().message().contains("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: the token file"));
    assert!(endpoint.asked().iter().all(|asked| asked.target == "/v1/credentials" && asked.method == "GET"));
    // Not to any host over http.
    let home = home.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/CANARY");
    let error = home.error();
    assert!(error.message().contains("example.com may be asked over https only"), "{error}");
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn an_endpoint_that_sends_too_much_a_redirect_or_no_credentials_is_an_error() {
    let elsewhere = FakeHttp::start(|_| reply(200, "{}"));
    let location = elsewhere.url();
    let endpoint = FakeHttp::start(move |asked| match asked.target.as_str() {
        "/long" => reply(200, &format!("{{\"x\":\"{}\"}}", "CANARY".repeat(11 * 1024))),
        "/long-chunks" => chunked(200, &"CANARY".repeat(11 * 1024)),
        "/redirect" => {
            format!("HTTP/1.1 302 Found\r\nLocation: {location}/\r\nContent-Length: 0\r\n\r\n").into_bytes()
        }
        "/cut-off" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"SecretAccessKey\":\"CANARY".to_vec(),
        _ => reply(200, r#"{"AccessKeyId":"K","SecretAccessKey":""}"#),
    });
    for (path, says) in [
        ("long", "invalid HTTP response"),
        ("long-chunks", "invalid HTTP response"),
        ("redirect", "status 302"),
        ("cut-off", &endpoint.addr().to_string()),
        ("empty", "the endpoint's answer: SecretAccessKey is missing"),
    ] {
        let url = format!("{}/{path}", endpoint.url());
        let error = Home::new("").set("AWS_CONTAINER_CREDENTIALS_FULL_URI", url).error();
        assert!(error.message().contains(says), "{path}: {error}");
    }
    assert!(elsewhere.asked().is_empty());
}

const METADATA: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

fn at_metadata(config: &str, url: &str) -> Home {
    Home::new(config).set("AWS_EC2_METADATA_DISABLED", "").set(METADATA, url)
}

/// Instance metadata that wants a token, and answers with `role` and `credentials`.
fn instance(role: &'static str, credentials: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> FakeHttp {
    FakeHttp::start(move |asked| {
        let has_token = asked.header("x-aws-ec2-metadata-token") == Some(NEXT_TOKEN);
        match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", "/latest/api/token") => {
                assert_eq!(asked.header("x-aws-ec2-metadata-token-ttl-seconds"), Some("60"));
                reply(200, NEXT_TOKEN)
            }
            ("GET", "/latest/meta-data/iam/security-credentials/") if has_token && role.is_empty() => {
                reply(404, "")
            }
            ("GET", "/latest/meta-data/iam/security-credentials/") if has_token => reply(200, role),
            ("GET", "/latest/meta-data/iam/security-credentials/web") if has_token => credentials(),
            _ => reply(401, ""),
        }
    })
}

#[test]
fn an_instance_gives_the_credentials_of_its_role_for_a_token_only() {
    let metadata_service = instance("web\n", || reply(200, &metadata("EC2", SESSION_TOKEN, in_an_hour())));
    let home = at_metadata("", &metadata_service.url());
    let found = home.found();
    assert_eq!(found.key, format!("EC2 {SESSION_TOKEN}"));
    assert!(is_in_an_hour(found.expiry));
    let asked = metadata_service.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!((asked[0].method.as_str(), asked[0].header("content-length")), ("PUT", Some("0")));
    assert!(asked[1..].iter().all(|asked| asked.header("x-aws-ec2-metadata-token") == Some(NEXT_TOKEN)));
    // A role that is assumed with them.
    let sts = sts();
    let config = "[default]\nrole_arn = R\ncredential_source = Ec2InstanceMetadata\n";
    let home = at_metadata(config, &metadata_service.url()).set("AWS_ENDPOINT_URL_STS", sts.url());
    assert!(home.found().key.starts_with("OF-R "));
    assert_eq!(signer(&sts.asked()[0], SECRET_KEY).0, "EC2");
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn s_instance_metadata_is_never_asked_without_a_token() {
    for status in [403, 404, 405, 500] {
        let old = FakeHttp::start(
            move |asked| {
                if asked.method == "PUT" { reply(status, "") } else { reply(200, "web") }
            },
        );
        let error = at_metadata("", &old.url()).error();
        let says = format!(
            "instance metadata at {}: it answered with status {status} instead of a token",
            old.addr()
        );
        assert!(error.message().contains(&says), "{error}");
        assert_eq!(old.asked().len(), 1, "one try, and no other request");
    }
    let without_role = instance("", || reply(200, ""));
    assert!(at_metadata("", &without_role.url()).error().message().contains("this instance has no role"));
    let failing =
        instance("web", || reply(200, r#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"CANARY"}"#));
    let error = at_metadata("", &failing.url()).error();
    assert_eq!(error.kind(), ErrorKind::Credentials);
    assert!(error.message().contains("its answer for role web: AssumeRoleUnauthorizedAccess"), "{error}");
    let lost = instance("web", || reply(500, "CANARY"));
    assert!(at_metadata("", &lost.url()).error().is_retryable());
}

/// Returns how long the walk took that found nothing there.
fn time_without_answer(url: &str) -> Duration {
    let began = Instant::now();
    let error = at_metadata("", url).error();
    assert!(error.message().contains(": no answer within 1 s"), "{error}");
    began.elapsed()
}

#[test]
fn n_metadata_that_never_answers_costs_one_second_in_all() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // The system takes connections for it, and nobody reads them.
    let took = time_without_answer(&format!("http://{addr}"));
    assert!((1.0..20.0).contains(&took.as_secs_f64()), "{took:?}");
    // Its queue is full: the system answers no more, as at an address without a machine.
    let mut waiting = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
        waiting.push(connection);
    }
    let took = time_without_answer(&format!("http://{addr}"));
    assert!((1.0..20.0).contains(&took.as_secs_f64()), "{took:?}");
    // It answers the first request only.
    let half = FakeHttp::start(|asked| {
        if asked.method == "PUT" {
            return reply(200, NEXT_TOKEN);
        }
        std::thread::park_timeout(Duration::from_secs(60));
        Vec::new()
    });
    let began = Instant::now();
    let error = at_metadata("", &half.url()).error();
    assert!(error.message().contains("timed out") && error.is_retryable(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn no_credentials_anywhere_is_one_error_that_lists_every_place_in_order() {
    let home = Home::new("[other]\n");
    let error = home.error();
    assert_eq!(error.kind(), ErrorKind::Config);
    let shown = |path: &str| home.folder.path().join(path).display().to_string();
    let lines: Vec<_> = error.message().lines().filter_map(|line| line.strip_prefix("  - ")).collect();
    assert_eq!(
        lines,
        [
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: not set".to_owned(),
            "role_arn in profile default: not set".to_owned(),
            "AWS_WEB_IDENTITY_TOKEN_FILE and web_identity_token_file in profile default: not set".to_owned(),
            "sso_account_id and sso_role_name in profile default: not set".to_owned(),
            format!("[default] in {}: no such file", shown(".aws/credentials")),
            "credential_process in profile default: not set".to_owned(),
            format!("[default] in {}: no such section", shown(".aws/config")),
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI: not set"
                .to_owned(),
            "instance metadata: off (AWS_EC2_METADATA_DISABLED)".to_owned(),
        ]
    );
    let selected = home.profile("typo").error();
    assert!(selected.message().starts_with("profile: there is no [typo] in "), "{selected}");
    // Half a pair is a mistake in each place.
    for (name, half) in
        [("credentials", "aws_secret_access_key = CANARY\n"), ("config", "aws_access_key_id = K\n")]
    {
        let home = Home::new("");
        home.write(&format!(".aws/{name}"), &format!("[default]\n{half}"));
        let error = home.error();
        assert!(error.message().contains(" and no aws_") && error.message().contains(name), "{error}");
    }
}

/// An endpoint of a container whose first credentials last for `first`. Later ones come with the next token, and last
/// for 10 hours, or are refused.
fn expiring(world: &World, first: Duration, later: bool) -> FakeHttp {
    let (clock, count) = (world.clock.clone(), AtomicUsize::new(0));
    FakeHttp::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => reply(200, &metadata(ACCESS_KEY, SESSION_TOKEN, clock.wall() + first)),
        _ if later => {
            reply(200, &metadata(ACCESS_KEY, NEXT_TOKEN, clock.wall() + Duration::from_secs(36_000)))
        }
        _ => reply(403, r#"{"code":"AccessDenied","message":"the role is gone"}"#),
    })
}

fn chain_at(endpoint: &FakeHttp) -> CredentialChain {
    Home::new("").set("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url() + "/").chain()
}

/// The credentials last for six minutes, and the clock moves on at the tenth PUT. It moves by less than the quarter of
/// an hour that the store accepts between its own clock and a signature's.
fn run_that_outlives_its_credentials(
    later: bool,
    seconds: i64,
) -> (World, FakeHttp, bucket_brigade::RescanOrchestrator, bucket_brigade::RescanReport) {
    let world = World::with_workers(3);
    let endpoint = expiring(&world, Duration::from_secs(360), later);
    let site = site_with(&world, world.s3_config().credential_chain(chain_at(&endpoint)).unwrap());
    acquainted(&world, &site);
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "x");
    }
    let (clock, puts) = (world.clock.clone(), AtomicUsize::new(0));
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" && puts.fetch_add(1, Ordering::SeqCst) == 9 {
            clock.step_wall(seconds);
        }
    });
    let report = site.rescan().unwrap();
    (world, endpoint, site, report)
}

#[test]
fn n6_credentials_that_expire_in_the_middle_are_renewed_before_and_no_request_is_refused() {
    // Four minutes are left, or they have expired.
    for seconds in [120, 480] {
        let (world, endpoint, site, report) = run_that_outlives_its_credentials(true, seconds);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 30), "{report:?}");
        assert_eq!((report.metrics.retries, endpoint.asked().len()), (0, 2));
        let puts: Vec<_> = world.proxy.requests().into_iter().filter(|seen| seen.method == "PUT").collect();
        let has = |token: &str| {
            puts.iter()
                .filter(|seen| {
                    seen.header("x-amz-security-token").is_some_and(|sent| sent.starts_with(token))
                })
                .count()
        };
        // Once they have expired, only the requests that are under way have the old token. Before, the other threads go
        // on with it while one renews it.
        let most = if seconds < 360 { 29 } else { 13 };
        assert!((10..=most).contains(&has(SESSION_TOKEN)), "{}", has(SESSION_TOKEN));
        assert_eq!(has(SESSION_TOKEN) + has(NEXT_TOKEN), 30);
        assert_eq!(world.logged(log::Level::Warn).iter().filter(|line| line.contains("renewed")).count(), 0);
        heals(&world, &site);
    }
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn n6_an_early_renewal_that_fails_is_one_warning_and_the_run_goes_on() {
    let (world, endpoint, site, report) = run_that_outlives_its_credentials(false, 120);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 30), "{report:?}");
    assert_eq!(endpoint.asked().len(), 2, "not again within a minute");
    let warnings: Vec<_> = world
        .logged(log::Level::Warn)
        .into_iter()
        .filter(|line| line.contains("could not be renewed"))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    heals(&world, &site);
}

#[test]
fn n6_credentials_that_have_expired_and_cannot_be_renewed_stop_the_run_and_name_the_place() {
    let (world, _, site, report) = run_that_outlives_its_credentials(false, 480);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Credentials)));
    let error =
        report.failed.iter().find(|error| error.kind() == ErrorKind::Credentials).unwrap().to_string();
    for part in
        ["have expired and could not be renewed", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "the role is gone"]
    {
        assert!(error.contains(part), "{error}");
    }
    assert!((10..=13).contains(&report.uploaded_count), "{report:?}");
    drop(site);
    heals(&world, &site_with(&world, world.s3_config()));
}

#[test]
fn the_config_tells_what_the_chain_could_not_find() {
    let error = S3Config::new("b").credential_chain(Home::new("").chain()).unwrap_err();
    assert!(error.message().starts_with("credentials: none were found"), "{error}");
    assert!(
        !format!("{:?}", Home::new("").set("AWS_SESSION_TOKEN", SESSION_TOKEN).chain())
            .contains(SESSION_TOKEN)
    );
}
