//! What stores, and what stands in their place, answer beyond the rows of the faults: per key, per store, with our
//! own secrets, without end, or from a login page.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bucket_brigade::{ErrorKind, RescanOrchestrator, RescanOutcome, RescanReport, RetryPolicy, Run, Verify};

use crate::large::in_small_parts;
use crate::network::{acquainted, answer, heals, rescan, site_with};
use crate::support::oracle::check;
use crate::support::proxy::{Fault, Made, Maker, Rule, Seen};
use crate::support::server::SECRET_KEY;
use crate::support::{PREFIX, SESSION_TOKEN, World};

const MIB: usize = 1024 * 1024;

fn impatient(world: &World) -> RescanOrchestrator {
    site_with(world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)))
}

fn xml(text: String) -> Made {
    (200, vec![("Content-Type".to_owned(), "application/xml".to_owned())], text.into_bytes())
}

/// These files are published, and then gone.
fn with_files_gone(world: &World, site: &RescanOrchestrator, keys: &[&str]) {
    keys.iter().for_each(|key| world.write(key, "1"));
    acquainted(world, site);
    keys.iter().for_each(|key| world.remove(key));
}

fn bulk_deletes(world: &World) -> Vec<Seen> {
    let requests = world.proxy.requests().into_iter();
    requests.filter(|seen| seen.method == "POST" && seen.target.contains("delete")).collect()
}

/// A 403 of a real store for `x-amz-meta-build` beside `x-amz-meta-build-id`, and for an encryption beside its key:
/// the signed headers were sorted by `name:value`, where `-` comes before `:`, and the list of their names by name.
/// Both now come from one list.
#[test]
fn headers_whose_names_begin_alike_are_signed_right() {
    let world = World::with_workers(2);
    let config = [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
        ("x-amz-meta-build", "7"),
        ("x-amz-meta-build-id", "seven"),
    ]
    .into_iter()
    .fold(world.s3_config().part_threshold(8 << 20), |config, (name, value)| config.header(name, value));
    let site = site_with(&world, config);
    world.write("small", "x");
    world.write_random("large", 9 * MIB, 1);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2), "{:?}", report.failed);
    for key in ["small", "large"] {
        let metadata = world.store.get(&format!("{PREFIX}{key}")).unwrap().metadata;
        assert_eq!((metadata["build"].as_str(), metadata["build-id"].as_str()), ("7", "seven"));
    }
    heals(&world, &site);
}

