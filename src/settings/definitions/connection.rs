//! Endpoint, region, credentials, and how the store is reached.

use crate::backend::s3::checks::{check_endpoint, check_region};
use crate::settings::definitions::{ALL, Group, REQUESTS};
use crate::settings::kind::Kind;
use crate::settings::parts::CredentialSource;
use crate::settings::setting::{Section, Setting};

const HERE: Section = Section::Connection;

pub(super) const GROUP: Group = Group {
    title: "Connection",
    about: "A flag comes first, then the configuration file, then the variable, then the profile in `~/.aws`.",
    settings: &[
        Setting::new(
            "endpoint_url",
            Kind::Text(|parts, url| {
                check_endpoint(url)?;
                parts.s3(|s3| s3.endpoint(url));
                Ok(())
            }),
            "URL of the store [default: AWS, by region]",
        )
        .on(ALL)
        .value_name("URL")
        .example("https://minio.example.com:9000")
        .variables(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], "endpoint_url")
        .detail("The profile's `endpoint_url` for the service s3 (in its `services` section) comes before its own.")
        .field("endpoint")
        .section(HERE),
        Setting::new(
            "region",
            Kind::Text(|parts, name| {
                check_region(name)?;
                parts.s3(|s3| s3.region(name));
                Ok(())
            }),
            "Region of the bucket [default with an endpoint: us-east-1]",
        )
        .on(ALL)
        .example("eu-central-1")
        .variables(&["AWS_REGION", "AWS_DEFAULT_REGION"], "region")
        .detail("`auto` for stores that want that. Required for AWS.")
        .section(HERE),
        Setting::new(
            "virtual_host",
            Kind::Switch(|parts, yes| parts.s3(|s3| s3.path_style(!yes))),
            "Use BUCKET.host instead of host/BUCKET with an endpoint",
        )
        .on(&["sync", "plan", "verify", "url", "pull", "uploads", "rebuild"])
        .accepted_by(ALL)
        .rare()
        .example("true")
        .detail(
            "Default: on for AWS, off at other endpoints and for buckets with a dot in their name. `false` is path-style.",
        )
        .section(HERE),
        Setting::new(
            "credentials",
            Kind::Choice(&["keys", "environment", "chain"], |parts, from| {
                parts.source = match from {
                    "chain" => CredentialSource::Chain,
                    "environment" => CredentialSource::Environment,
                    _ => CredentialSource::Keys,
                };
            }),
            "Look for keys in: chain (default), environment, keys",
        )
        .on(REQUESTS)
        .value_name("WHERE")
        .default("keys")
        .rare()
        .example("chain")
        .detail(
            "`keys` takes those that are given with `access_key_id` and `secret_access_key`. `environment` reads the \
             variables, then the keys in `~/.aws`; it sends no request and starts no process. `chain` asks every place \
             that the SDKs of AWS ask ([`CredentialChain`](crate::CredentialChain)). The command's default is `chain`.",
        )
        .section(HERE),
        Setting::new(
            "profile",
            // Read by its name, since it says where everything else is looked for.
            Kind::Text(|_, _| Ok(())),
            "Profile in ~/.aws: credentials, region, endpoint",
        )
        .on(ALL)
        .example("ci")
        .detail(
            "Otherwise `AWS_PROFILE`, `AWS_DEFAULT_PROFILE`, then `default`. A profile that is named here precedes the variables that hold keys. Profiles are read from \
             `~/.aws/credentials` and `~/.aws/config`, or from the files that `AWS_SHARED_CREDENTIALS_FILE` and \
             `AWS_CONFIG_FILE` name.",
        )
        .section(HERE),
        Setting::new(
            "access_key_id",
            Kind::Secret,
            "Access key ID",
        )
        .example("AKIAIOSFODNN7EXAMPLE")
        .section(HERE),
        Setting::new(
            "secret_access_key",
            Kind::Secret,
            "Secret access key",
        )
        .example("wJalrXUtnFEMI")
        .field("secret_key")
        .section(HERE),
        Setting::new(
            "session_token",
            Kind::Secret,
            "Session token of temporary credentials",
        )
        .example("IQoJb3JpZ2luX2Vj")
        .section(HERE),
    ],
};
