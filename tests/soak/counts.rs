//! What is printed: a line each minute, and a table at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::checks::Audit;
use crate::machine::{Happened, Machine};
use crate::site::Site;
use crate::weather::Weather;

fn machines(sites: &[Site]) -> impl Iterator<Item = &Machine> {
    sites.iter().flat_map(|site| &site.machines)
}

fn sum_of(sites: &[Site], of: fn(&Happened) -> u64) -> u64 {
    machines(sites).map(|machine| of(&machine.happened)).sum()
}

fn merged<K: Ord + Clone>(maps: impl Iterator<Item = BTreeMap<K, u64>>) -> BTreeMap<K, u64> {
    let mut all = BTreeMap::new();
    for (key, count) in maps.flatten() {
        *all.entry(key).or_default() += count;
    }
    all
}

/// The main numbers so far.
pub fn line(sites: &[Site], weather: &Weather, audit: &Audit) -> String {
    let runs: u64 = machines(sites).flat_map(|machine| machine.outcomes.values()).sum();
    format!(
        "{runs} runs, {} kills, {} stalls, {} caches lost or copied, {} faults, {} requests, {} objects checked",
        sum_of(sites, |happened| happened.kills),
        sum_of(sites, |happened| happened.stalls),
        sum_of(sites, |happened| happened.lost_caches + happened.old_copies),
        weather.faults(),
        weather.requests(),
        audit.objects,
    )
}

/// All numbers.
pub fn table(sites: &[Site], weather: &Weather, audit: &Audit) -> String {
    let outcomes = merged(machines(sites).map(|machine| machine.outcomes.clone()));
    let failures = merged(machines(sites).map(|machine| machine.failures.clone()));
    let edits: u64 = machines(sites).map(|machine| machine.tree.edits).sum();
    let mut text = format!("{}\n", line(sites, weather, audit));
    let mut row = |name: &str, value: String| writeln!(text, "{name:<28}{value}").unwrap();
    row("edits of trees", edits.to_string());
    row("runs by outcome", format!("{outcomes:?}"));
    row("failures by kind", format!("{failures:?}"));
    row("processes started", sum_of(sites, |happened| happened.starts).to_string());
    row("caches lost", sum_of(sites, |happened| happened.lost_caches).to_string());
    row("old copies put back", sum_of(sites, |happened| happened.old_copies).to_string());
    row("runs after a dead claim", sum_of(sites, |happened| happened.in_doubt).to_string());
    row("files uploaded", sum_of(sites, |happened| happened.uploaded).to_string());
    row("objects deleted", sum_of(sites, |happened| happened.deleted).to_string());
    row("outages, server restarts", format!("{}, {}", weather.outages, weather.restarts));
    row("requests held until later", weather.held_requests.to_string());
    row("connections", weather.connections().to_string());
    row("files compared at the end", audit.files.to_string());
    row("objects that no cache knew", audit.left_objects.to_string());
    row("uploads that nobody knew", audit.left_uploads.to_string());
    row("objects beside the states", audit.left_of_state.to_string());
    row("requests of an idle run", format!("{:?}", audit.idle_requests));
    for (name, (first, last)) in &audit.growth {
        let pairs = [
            ("descriptors", first.descriptors, last.descriptors),
            ("threads", first.threads, last.threads),
            ("KiB resident", first.resident_kib, last.resident_kib),
        ];
        let pairs: Vec<_> = pairs.iter().map(|(what, from, to)| format!("{what} {from} to {to}")).collect();
        row(name, pairs.join(", "));
    }
    text
}
