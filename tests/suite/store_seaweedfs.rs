//! `SeaweedFS`, beyond the conditions that it shares with the store in memory: what `tests/support/seaweedfs.rs` starts.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::store_conditions::{STALE, done, holds, last_modified};
use crate::support::seaweedfs;
use crate::support::server::SECRET_KEY;
use crate::support::signed::Client;

#[test]
fn clock_of_seaweedfs_is_one_for_date_and_last_modified() {
    let Some(weed) = seaweedfs::shared() else { return };
    let client = weed.client(&weed.new_bucket());
    let stored = client.put("k", "x", &[]);
    let date = httpdate::parse_http_date(stored.header("date").unwrap()).unwrap();
    let modified = last_modified(&client.head("k", &[]));
    let apart = date.duration_since(modified).or_else(|_| modified.duration_since(date)).unwrap();
    assert!(apart <= Duration::from_secs(2), "{apart:?}");
}

/// What else publishers rely on there.
#[test]
fn seaweedfs_checks_signatures_and_lists_uploads_and_holds_a_beside_a_b() {
    let Some(weed) = seaweedfs::shared() else { return };
    let bucket = weed.new_bucket();
    let client = weed.client(&bucket);
    let stranger = Client::new(&weed.endpoint(), "stranger", SECRET_KEY, &bucket);
    assert_eq!(stranger.put("k", "x", &[]).status, 403);
    done(&client.put("a", "file", &[]));
    done(&client.put("a/b", "below", &[]));
    holds(&client, "a", "file");
    holds(&client, "a/b", "below");
    assert_eq!(client.keys(""), ["a", "a/b"]);
    let (id, _) = client.upload_parts("a/c", &[b"x"], &[]);
    let uploads = client.send("GET", "", &[("uploads", "")], &[], b"");
    assert_eq!(uploads.elements("UploadId"), [id], "{uploads:?}");
}

#[test]
fn if_match_of_an_absent_key_is_412_on_seaweedfs() {
    let Some(weed) = seaweedfs::shared() else { return };
    let client = weed.client(&weed.new_bucket());
    let put = client.put("k", "x", &[("if-match", STALE)]).outcome();
    let delete = client.delete("k", &[("if-match", STALE)]).outcome();
    let upload = client.upload_parts("k", &[b"x"], &[]);
    let complete = client.complete("k", &upload, &[("if-match", STALE)]).outcome();
    let refused = (412, "PreconditionFailed".to_owned());
    assert_eq!([put, delete, complete], [refused.clone(), refused.clone(), refused]);
    assert_eq!(client.keys(""), Vec::<String>::new());
}

/// Set in the process that is killed.
const VICTIM: &str = "BRIGADE_TEST_WEED_VICTIM";

#[test]
fn seaweedfs_ends_with_a_killed_test_process() {
    let Some(weed) = seaweedfs::shared() else { return };
    if env::var_os(VICTIM).is_some() {
        println!("\naddress {}", weed.addr());
        thread::sleep(Duration::from_secs(600));
        return;
    }
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "store_seaweedfs::seaweedfs_ends_with_a_killed_test_process", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| line.strip_prefix("address ").map(str::to_owned)).unwrap();
    TcpStream::connect(&address).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "{address} still listens");
        thread::sleep(Duration::from_millis(50));
    }
}
