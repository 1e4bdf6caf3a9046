//! The head of the state in the bucket, and what follows from one that is accepted.

use crate::state::remote::doubt::Unanswered;
use crate::state::remote::head::codec::Expected;
use crate::state::remote::head::{Head, Inline, MAX_BYTES, Segment, SegmentRef, Target};
use crate::state::remote::lease::Judgement;
use crate::state::remote::name::{SegmentKind, SegmentName, StoreTime, Token};
use crate::state::remote::recognise::{Own, recognise};
use crate::state::remote::segment::{Bounds, Reader};
use crate::state::remote::segments::{collectable, deltas_to_keep, is_snapshot_due, strays};
use crate::state::remote::transitions::{
    ClaimRequest, Ending, Order, Refused, Seen, Update, add_intent, checkpoint, claim, release,
};

/// A time of the store, long after the claims of the seeds.
const NOW: u64 = 1_900_000_000;

pub(crate) fn target(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check_names(text.trim());
    }
    let target = Target { bucket: "bucket".to_owned(), prefix: "site/".to_owned() };
    let to_read = Expected { target: &target, tree: None, publishes: false };
    let to_publish = Expected { publishes: true, ..to_read };
    let published = Head::decode(data, &to_publish);
    match Head::decode(data, &to_read) {
        Ok(head) => check_head(&head, &to_read),
        // Whoever may not read it may not publish.
        Err(flaw) => {
            assert!(published.is_err());
            assert!(flaw.to_string().len() <= 4 * MAX_BYTES);
        }
    }
    if let Ok(head) = published {
        check_run(&head, &to_publish);
    }
}

/// A name that is read leads nowhere else than below the state.
fn check_names(text: &str) {
    if let Some(name) = SegmentName::parse(text) {
        assert_eq!(name.to_string(), text);
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-".contains(&byte);
        assert!(text.bytes().all(is_plain) && text.matches('/').count() == 1);
    }
    assert!(Token::parse(text).is_none_or(|token| token.to_string() == text));
}

fn check_head(head: &Head, expected: &Expected<'_>) {
    assert_eq!(Head::decode(&head.encode().unwrap(), expected).as_ref(), Ok(head));
    let _ = head.has_room_for(1024);
    assert!(head.without_unfinished().deltas.len() <= head.deltas.len());
    let names: Vec<_> = head.names().collect();
    assert!(strays(head, names).is_empty());
    assert!(deltas_to_keep(head, 1 << 20) <= head.deltas.len());
    let _ = (is_snapshot_due(head, u64::MAX), collectable(head));
    for (kind, segment) in head.segments() {
        let Segment::Inline(Inline { bytes, .. }) = segment else { continue };
        let bounds = Bounds::from(segment);
        let count = match kind {
            SegmentKind::Snapshot => Reader::snapshot(bytes.as_slice(), bounds).map_while(Result::ok).count(),
            SegmentKind::Delta => Reader::delta(bytes.as_slice(), bounds).map_while(Result::ok).count(),
            SegmentKind::Intent => Reader::intent(bytes.as_slice(), bounds).map_while(Result::ok).count(),
        };
        assert!(count as u64 <= bounds.rows);
    }
}

/// A run goes on from the head: it claims, names its keys, saves and releases. Each step is refused, or makes a head that
/// others accept.
fn check_run(head: &Head, expected: &Expected<'_>) {
    let token = Token::new([0xfe; 16]);
    let seen = Seen { head, modified: StoreTime::new(NOW) };
    let claimed = claim(Some(seen), &request(head, token));
    let Some(claimed) = accepted(head, claimed, expected) else { return };
    assert_eq!(recognise(Some(&claimed), Some(head), token, claimed.beat), Own::Stored);
    assert_eq!(recognise(Some(head), Some(head), token, claimed.beat), Own::NotStored);
    let name = SegmentName { kind: SegmentKind::Intent, epoch: claimed.epoch, token };
    let intent = Segment::Stored(SegmentRef { name, size: 20, sha256: [1; 32], rows: 1, unpacked: 10 });
    let Some(named) = accepted(&claimed, add_intent(&claimed, token, intent), expected) else { return };
    let saved = checkpoint(&named, token, Update::default());
    let Some(saved) = accepted(&named, saved, expected) else { return };
    // Another run takes over.
    let other = claim(Some(Seen { head: &saved, ..seen }), &request(&saved, Token::new([0xfd; 16])));
    if let Some(other) = accepted(&saved, other, expected) {
        assert_eq!(recognise(Some(&other), Some(&saved), token, saved.beat + 1), Own::Superseded);
        // What the first one was about to write is in doubt.
        assert!(other.doubt.iter().any(|doubt| doubt.token == token));
    }
    let unanswered = Unanswered::Intents;
    let ending = Ending { update: Update::default(), complete: true, unanswered };
    let Some(released) = accepted(&saved, release(&saved, token, ending), expected) else { return };
    assert!(released.claim.is_none() && released.generation == claimed.generation + 1);
    assert!(released.doubt.iter().any(|doubt| doubt.token == token));
}

fn request(head: &Head, token: Token) -> ClaimRequest {
    ClaimRequest {
        who: "a run".to_owned(),
        token,
        since: StoreTime::new(NOW),
        lease: 300,
        target: head.target.clone(),
        tree: head.tree.clone(),
        order: Order::Unordered,
        intent: None,
        judgement: Some(Judgement::Dead(StoreTime::new(NOW))),
        known_epoch: 0,
        known: (0, None),
        lost_at: None,
        merged_doubt: None,
    }
}

/// Returns the head after a step, as it is read by others; none if the step was refused, or its head has no room for it.
fn accepted(before: &Head, step: Result<Head, Refused>, expected: &Expected<'_>) -> Option<Head> {
    let next = step.ok()?;
    assert!(next.beat > before.beat && next.epoch >= before.epoch && next.generation >= before.generation);
    let bytes = next.encode().ok()?;
    assert!(bytes.len() <= MAX_BYTES);
    assert_eq!(Head::decode(&bytes, expected).as_ref(), Ok(&next));
    Some(next)
}
