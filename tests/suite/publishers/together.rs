//! D1: three processes publish three trees at once, on real clocks.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::publishers::{Place, Process, Publisher, Tree, said, wait_for};
use crate::support::memory_store::MemoryStore;
use crate::support::proxy::{Fault, FaultProxy, HeldRequest, Rule};
use crate::support::server::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::signed::Client;
use crate::support::{BUCKET, PREFIX, seaweedfs};

/// A store behind a proxy: the one in memory, or `SeaweedFS`.
pub(super) struct Stage {
    pub(super) proxy: FaultProxy,
    pub(super) place: Place,
    /// Reaches the store, not the proxy.
    pub(super) client: Client,
    _server: Option<S3Server>,
}

impl Stage {
    fn in_memory() -> Self {
        let server = S3Server::start(MemoryStore::with_bucket(BUCKET).service());
        let proxy = FaultProxy::start(server.addr());
        let client = Client::new(&server.endpoint(), ACCESS_KEY, SECRET_KEY, BUCKET);
        let (bucket, access_key) = (BUCKET.to_owned(), ACCESS_KEY.to_owned());
        let place = Place { endpoint: proxy.endpoint(), bucket, access_key };
        Self { proxy, place, client, _server: Some(server) }
    }

    /// `None`, and a line that says so, where there is no `SeaweedFS`.
    fn on_seaweedfs() -> Option<Self> {
        let weed = seaweedfs::shared()?;
        let proxy = FaultProxy::start(weed.addr());
        let bucket = weed.new_bucket();
        let (client, access_key) = (weed.client(&bucket), weed.access_key().to_owned());
        let place = Place { endpoint: proxy.endpoint(), bucket, access_key };
        Some(Self { proxy, place, client, _server: None })
    }

    pub(super) fn objects(&self) -> Tree {
        let keys = self.client.keys(PREFIX).into_iter().filter(|key| !key.contains(".brigade/"));
        let object = |key: String| {
            let answer = self.client.get(&key, &[]);
            assert_eq!(answer.status, 200, "{key}");
            (key.strip_prefix(PREFIX).unwrap().to_owned(), answer.body)
        };
        keys.map(object).collect()
    }
}

/// Runs a check on the store in memory, and on `SeaweedFS` where there is one: side by side, because much of the time is
/// spent waiting.
pub(super) fn on_both(check: impl Fn(&Stage) + Sync) {
    std::thread::scope(|threads| {
        if let Some(stage) = Stage::on_seaweedfs() {
            threads.spawn({
                let check = &check;
                move || check(&stage)
            });
        }
        check(&Stage::in_memory());
    });
}

/// Three machines, with files of the same names and of other ones.
fn machines(stage: &Stage, round: u32) -> [Publisher; 3] {
    [1, 2, 3].map(|number| {
        let name = format!("{round}-{number}");
        Publisher::new(&stage.place, &[("a", &name), ("b", &name), ("c", "same"), (&name, &name)])
    })
}

/// The tree that was published last, by what the publishers say.
fn last<'a>(machines: &'a [Publisher; 3], ended: &[Value]) -> &'a Publisher {
    let by_generation: BTreeMap<_, _> = ended
        .iter()
        .zip(machines)
        .filter(|(ended, _)| said(ended) == ("published", "none"))
        .map(|(ended, machine)| (ended["generation"].as_u64().unwrap(), machine))
        .collect();
    by_generation.into_values().next_back().expect("one publishes")
}

fn all_publish(stage: &Stage) {
    let machines = machines(stage, 1);
    let mut processes = machines.each_ref().map(|machine| machine.spawn(300, 600));
    let ended = processes.each_mut().map(|process| process.end().unwrap());
    let mut generations: Vec<_> = ended.iter().map(|ended| ended["generation"].as_u64().unwrap()).collect();
    generations.sort_unstable();
    assert_eq!(generations, [1, 2, 3], "{ended:?}");
    assert!(ended.iter().all(|ended| said(ended) == ("published", "none")), "{ended:?}");
    assert_eq!(stage.objects(), last(&machines, &ended).tree(), "{ended:?}");
}

/// They may publish one after another, or while another does: then they end without a request for objects.
fn some_publish(stage: &Stage, round: u32) {
    let machines = machines(stage, round);
    let mut processes = machines.each_ref().map(|machine| machine.spawn(300, 0));
    let ended = processes.each_mut().map(|process| process.end().unwrap());
    let allowed = [("published", "none"), ("partial", "claimed")];
    assert!(ended.iter().all(|ended| allowed.contains(&said(ended))), "{ended:?}");
    assert_eq!(stage.objects(), last(&machines, &ended).tree(), "{ended:?}");
}

/// The first write of an object is held until the two others have ended.
fn exactly_one_publishes(stage: &Stage) {
    let machines = machines(stage, 1);
    let held = HeldRequest::default();
    stage.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/a"));
    let mut processes = machines.each_ref().map(|machine| machine.spawn(300, 0));
    let mut ended = Vec::new();
    wait_for("two of three to end", || running(&mut processes) == 1);
    held.go.release();
    for process in &mut processes {
        ended.push(process.end().unwrap());
    }
    assert_eq!(held.go.arrivals(), 1, "{ended:?}");
    let count = |how| ended.iter().filter(|ended| said(ended) == how).count();
    assert_eq!((count(("published", "none")), count(("partial", "claimed"))), (1, 2), "{ended:?}");
    assert_eq!(stage.objects(), last(&machines, &ended).tree(), "{ended:?}");
}

fn running(processes: &mut [Process; 3]) -> usize {
    processes.iter_mut().filter_map(|process| (!process.has_ended()).then_some(())).count()
}

#[test]
fn d01_three_that_wait_publish_one_after_another() {
    on_both(all_publish);
}

#[test]
fn d01_of_three_that_do_not_wait_one_at_a_time_publishes() {
    on_both(|stage| (0..3).for_each(|round| some_publish(stage, round)));
}

#[test]
fn d01_one_of_three_publishes_while_it_holds_the_claim() {
    on_both(exactly_one_publishes);
}
