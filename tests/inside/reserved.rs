//! Keys with the reserved name `.brigade` that are published already.

use super::support::World;
use crate::state::store::Write;
use crate::{KeptReason, Run, Verify};

/// Versions before the name was reserved have published such files. Their objects are kept, and nobody compares them.
#[test]
fn reserved_keys_that_are_published_are_kept() {
    let world = World::new();
    world.write("a", "x");
    world.let_files_settle();
    let site = world.orchestrator();
    site.rescan().unwrap();
    let published = site.cache().published_record("a").unwrap().unwrap();
    let keys = [".brigade/notes", "b/.brigade"];
    for key in keys {
        world.stranger(key, "x");
        site.cache().apply(&[Write::Published(key.to_owned(), published.clone())]).unwrap();
    }
    // Another object took its place.
    world.stranger(".brigade/notes", "{}");
    world.write(".brigade/notes", "a file");
    for (n, verify) in [Verify::Ack, Verify::List, Verify::Content].into_iter().enumerate() {
        world.write(&format!("new{n}"), "x");
        let report = site.rescan_with(&Run::new().verify(verify)).unwrap();
        let kept: Vec<_> = report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect();
        assert_eq!(kept, keys.map(|key| (key, KeptReason::Excluded)));
        assert_eq!((report.uploaded_count, report.deleted_count, report.pending), (1, 0, 0));
        assert!(report.verified.is_none_or(|found| found.is_good() && found.unknown_count == 0));
    }
    assert_eq!(world.objects()[".brigade/notes"], b"{}");
}
