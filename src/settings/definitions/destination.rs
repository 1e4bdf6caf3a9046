//! The destination and its record.

use crate::backend::s3::checks::{check_base_url, check_bucket};
use crate::key::Prefix;
use crate::settings::definitions::{ALL, Group, REQUESTS, TREE};
use crate::settings::kind::Kind;
use crate::settings::setting::{Section, Setting};

const HERE: Section = Section::Destination;

pub(super) const GROUP: Group = Group {
    title: "Destination",
    about: "On the command line, `bucket` and `prefix` are `s3://BUCKET/PREFIX`, and `root` is DIR.",
    settings: &[
        Setting::new(
            "bucket",
            Kind::Text(|parts, name| {
                check_bucket(name)?;
                name.clone_into(&mut parts.bucket);
                Ok(())
            }),
            "Bucket; it must exist",
        )
        .example("site")
        .section(HERE),
        Setting::new(
            "prefix",
            Kind::Text(|parts, prefix| {
                Prefix::new(prefix)?;
                parts.s3(|s3| s3.bucket_prefix(prefix));
                Ok(())
            }),
            "Prefix of every key in the bucket",
        )
        .example("app/live")
        .detail("Slashes at its ends do not matter.")
        .field("bucket_prefix")
        .section(HERE),
        Setting::new("root", Kind::Path(|parts, path| parts.root = Some(path)), "Directory to publish")
            .example("public")
            .detail("Only this folder is read, whatever is mounted or linked around it.")
            .section(HERE),
        Setting::new(
            "cache",
            Kind::Path(|parts, path| parts.cache = Some(path)),
            "Record of what is published [default: see brigade status]",
        )
        .on(ALL)
        .example("/var/lib/site/site.cache")
        .detail(
            "The command's default is one file a destination in `$XDG_STATE_HOME/brigade/`, usually \
             `~/.local/state/brigade/`; the library has none. It must not lie inside `root` or be a symbolic link.",
        )
        .section(HERE),
        Setting::new(
            "lock_wait",
            Kind::Time(0, u64::MAX, |parts, wait| parts.lock_wait = wait),
            "Wait for another run on this cache",
        )
        .on(REQUESTS)
        .default("10s")
        .rare()
        .example("1m")
        .detail("With `0s` it does not wait. When the time is over, the exit code is 4. Commands that only read the cache do not need it.")
        .section(Section::Rescan),
        Setting::new(
            "public_url",
            Kind::Text(|parts, url| {
                check_base_url("public_url", url)?;
                parts.s3(|s3| s3.public_url(url));
                Ok(())
            }),
            "Public base URL of the bucket, for the URLs that are printed",
        )
        .on(SYNC_AND_URL)
        .accepted_by(ALL)
        .value_name("URL")
        .example("https://cdn.example.com")
        .detail("The URL of an object is `public_url/prefix/key`. Default: the bucket's URL at the endpoint.")
        .section(HERE),
        Setting::new(
            "fallback_url",
            Kind::Text(|parts, url| {
                parts.fallback_url = Some(check_base_url("fallback_url", url)?);
                Ok(())
            }),
            "Base URL to print for files that are not published yet",
        )
        .on(&["sync", "url"])
        .accepted_by(TREE)
        .value_name("URL")
        .rare()
        .example("https://origin.example.com")
        .detail("It is the base URL of `root`.")
        .section(HERE),
    ],
};

const SYNC_AND_URL: &[&str] = &["sync", "plan", "url"];
