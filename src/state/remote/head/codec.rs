//! The head as JSON. What comes from the bucket is believed only after every count, length and number was checked.

use std::collections::HashSet;

use serde::Deserialize;

use crate::key::Prefix;
use crate::state::remote::head::{
    Claim, FORMAT, Head, Keys, MAX_BYTES, MAX_DELTAS, MAX_DOUBT, MAX_HISTORY, MAX_INLINE, MAX_INTENTS,
    MAX_PROBES, MAX_RETIRED, OLDEST_FORMAT, Segment, Target,
};
use crate::state::remote::lease::LEASES;
use crate::state::remote::name::{MAX_NUMBER, StoreTime};

/// The longest name of a publisher, tree, bucket or endpoint, in bytes.
const MAX_NAME: usize = 255;
/// The largest segment, in bytes.
pub(crate) const MAX_SEGMENT: u64 = 4 << 30;
/// The most rows of a segment.
pub(crate) const MAX_ROWS: u64 = 100_000_000;
/// The longest row: a key, an upload ID or an ETag, and numbers.
pub(crate) const MAX_ROW: u64 = 4 * 1024;
/// What a segment may have besides its rows.
const FRAME: u64 = 1024;

/// The reason why bytes are not a head for this run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// More than [`MAX_BYTES`].
    #[error("the head has {0} bytes: at most {MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// Not JSON, a field missing or unknown, or a value out of its bounds.
    #[error("the head is damaged: {0}")]
    Damaged(String),
    /// Written by a version whose format this one cannot read.
    #[error("the head needs format {needed} to be read, and this version knows {FORMAT}: update it")]
    NewerReader { needed: u32 },
    /// Written by a version that allows this one to read, but not to publish.
    #[error("the head needs format {needed} to publish, and this version knows {FORMAT}: update it")]
    NewerWriter { needed: u32 },
    /// The head of another bucket or prefix: the prefix was copied with its state.
    #[error("the head is that of s3://{}/{}: publish there, or remove it here", .0.bucket, .0.prefix)]
    OtherTarget(Target),
    /// The head of another tree.
    #[error("the prefix holds the tree {:?}: give each tree a prefix of its own", .0.as_deref().unwrap_or(""))]
    OtherTree(Option<String>),
}

fn damaged(what: impl Into<String>) -> Flaw {
    Flaw::Damaged(what.into())
}

/// The place and the purpose for which a head is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) target: &'a Target,
    pub(crate) tree: Option<&'a str>,
    /// Set for a run that publishes. Otherwise any tree is read if `tree` names none.
    pub(crate) publishes: bool,
}

/// The fields that every format has.
#[derive(Deserialize)]
struct Formats {
    format: u32,
    min_reader: u32,
    min_writer: u32,
}

impl Head {
    /// Encodes the head. One that would not be read back is not encoded.
    ///
    /// # Errors
    /// [`Flaw::TooLarge`]; inline segments are to be stored as objects then ([`Head::has_room_for`]).
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Flaw> {
        check(self)?;
        let bytes = serde_json::to_vec(self).map_err(|error| damaged(error.to_string()))?;
        if bytes.len() > MAX_BYTES { Err(Flaw::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Decodes a head and checks it.
    pub(crate) fn decode(bytes: &[u8], expected: &Expected<'_>) -> Result<Self, Flaw> {
        if bytes.len() > MAX_BYTES {
            return Err(Flaw::TooLarge(bytes.len()));
        }
        let formats: Formats = parse(bytes)?;
        check_formats(&formats, expected.publishes)?;
        let head: Self = parse(bytes)?;
        // Fields that this version does not know are those of a newer format.
        if head.format <= FORMAT {
            refuse_unknown_fields(bytes, &head)?;
        }
        check(&head)?;
        if head.target != *expected.target {
            return Err(Flaw::OtherTarget(head.target));
        }
        let any_tree = expected.tree.is_none() && !expected.publishes;
        if !any_tree && head.tree.as_deref() != expected.tree {
            return Err(Flaw::OtherTree(head.tree));
        }
        Ok(head)
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Flaw> {
    serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))
}

fn check_formats(formats: &Formats, publishes: bool) -> Result<(), Flaw> {
    let Formats { format, min_reader, min_writer } = *formats;
    if min_reader > FORMAT {
        return Err(Flaw::NewerReader { needed: min_reader });
    }
    if publishes && min_writer > FORMAT {
        return Err(Flaw::NewerWriter { needed: min_writer });
    }
    let oldest = min_reader.min(min_writer);
    if format < OLDEST_FORMAT || oldest == 0 || min_reader.max(min_writer) > format {
        return Err(damaged(format!("format {format}, for readers {min_reader}, for writers {min_writer}")));
    }
    Ok(())
}

fn refuse_unknown_fields(bytes: &[u8], head: &Head) -> Result<(), Flaw> {
    let given: serde_json::Value = parse(bytes)?;
    let known = serde_json::to_value(head).map_err(|error| damaged(error.to_string()))?;
    if given == known {
        Ok(())
    } else {
        Err(damaged(format!("it has fields that format {} has not", head.format)))
    }
}

fn check(head: &Head) -> Result<(), Flaw> {
    let numbers = [
        ("epoch", head.epoch),
        ("beat", head.beat),
        ("generation", head.generation),
        ("order", head.order.unwrap_or(0)),
    ];
    numbers.into_iter().try_for_each(|(name, number)| check_number(name, number))?;
    if head.epoch == 0 || head.beat == 0 {
        return Err(damaged("nobody has ever claimed it"));
    }
    check_target(&head.target)?;
    head.tree.as_deref().map_or(Ok(()), |tree| check_name("tree", tree))?;
    check_count("deltas", head.deltas.len(), MAX_DELTAS)?;
    check_count("retired", head.retired.len(), MAX_RETIRED)?;
    check_count("doubt", head.doubt.len(), MAX_DOUBT)?;
    check_count("history", head.history.len(), MAX_HISTORY)?;
    check_count("probes", head.probes.len(), MAX_PROBES)?;
    check_probes(head)?;
    head.claim.as_ref().map_or(Ok(()), |claim| check_claim(head, claim))?;
    check_doubt(head)?;
    check_history(head)?;
    check_segments(head)
}

fn check_probes(head: &Head) -> Result<(), Flaw> {
    let mut endpoints = HashSet::new();
    for probe in &head.probes {
        check_name("endpoint", &probe.endpoint)?;
        check_time(probe.at)?;
        if !endpoints.insert(&probe.endpoint) {
            return Err(damaged("two probes of one endpoint"));
        }
    }
    Ok(())
}

fn check_claim(head: &Head, claim: &Claim) -> Result<(), Flaw> {
    check_name("who", &claim.who)?;
    check_time(claim.since)?;
    check_count("intents", claim.intents.len(), MAX_INTENTS)?;
    if !LEASES.contains(&claim.lease) {
        return Err(damaged(format!("a lease of {} s", claim.lease)));
    }
    if claim.base > head.deltas.len() as u64 {
        return Err(damaged(format!("a claim that found {} deltas of {}", claim.base, head.deltas.len())));
    }
    if claim.epoch != head.epoch {
        return Err(damaged(format!("a claim of epoch {} in epoch {}", claim.epoch, head.epoch)));
    }
    Ok(())
}

fn check_doubt(head: &Head) -> Result<(), Flaw> {
    let mut tokens = HashSet::new();
    for doubt in &head.doubt {
        doubt.since.map_or(Ok(()), check_time)?;
        check_count("intents", doubt.keys.intents().len(), MAX_INTENTS)?;
        if doubt.keys == Keys::Of(Vec::new()) {
            return Err(damaged("doubt without keys"));
        }
        check_epoch(head, doubt.epoch)?;
        if !tokens.insert(doubt.token) {
            return Err(damaged(format!("doubt about {} twice", doubt.token)));
        }
        // It is filled in when the head is claimed.
        if doubt.since.is_none() && head.claim.is_some() {
            return Err(damaged("doubt without a time under a claim"));
        }
    }
    Ok(())
}

fn check_history(head: &Head) -> Result<(), Flaw> {
    let mut last = 0;
    for past in &head.history {
        check_epoch(head, past.epoch)?;
        check_name("who", &past.who)?;
        check_time(past.since)?;
        check_number("beat", past.beat)?;
        check_number("generation", past.generation)?;
        if past.epoch <= last || past.beat > head.beat || past.generation > head.generation {
            return Err(damaged("its history is not in order"));
        }
        last = past.epoch;
    }
    Ok(())
}

fn check_segments(head: &Head) -> Result<(), Flaw> {
    let mut names = HashSet::new();
    for (kind, segment) in head.segments() {
        let (rows, unpacked, size) = match segment {
            Segment::Stored(stored) => {
                check_epoch(head, stored.name.epoch)?;
                if stored.name.kind != kind || !names.insert(stored.name) {
                    return Err(damaged(format!("{} where it does not belong, or twice", stored.name)));
                }
                (stored.rows, stored.unpacked, stored.size)
            }
            Segment::Inline(inline) => {
                check_count("bytes of an inline segment", inline.bytes.len(), MAX_INLINE)?;
                (inline.rows, inline.unpacked, inline.bytes.len() as u64)
            }
        };
        // A reader reserves memory by these numbers, so none may be absurd beside the others.
        let most = rows.checked_mul(MAX_ROW).and_then(|bytes| bytes.checked_add(FRAME));
        if rows > MAX_ROWS || size > MAX_SEGMENT || most.is_none_or(|most| unpacked > most) || rows > unpacked
        {
            return Err(damaged(format!("a segment of {rows} rows, {size} bytes, {unpacked} unpacked")));
        }
    }
    for retired in &head.retired {
        check_epoch(head, retired.epoch)?;
        if retired.name.epoch > retired.epoch || !names.insert(retired.name) {
            return Err(damaged(format!("{} is retired, and more", retired.name)));
        }
    }
    Ok(())
}

fn check_target(target: &Target) -> Result<(), Flaw> {
    check_name("bucket", &target.bucket)?;
    let prefix = Prefix::new(&target.prefix).map_err(|error| damaged(error.message()))?;
    if prefix.as_str() != target.prefix || target.bucket.contains('/') {
        return Err(damaged(format!("the target {:?} {:?}", target.bucket, target.prefix)));
    }
    Ok(())
}

fn check_epoch(head: &Head, epoch: u64) -> Result<(), Flaw> {
    if (1..=head.epoch).contains(&epoch) {
        Ok(())
    } else {
        Err(damaged(format!("epoch {epoch} in a head of epoch {}", head.epoch)))
    }
}

fn check_number(name: &str, number: u64) -> Result<(), Flaw> {
    if number <= MAX_NUMBER { Ok(()) } else { Err(damaged(format!("{name} {number}"))) }
}

fn check_time(time: StoreTime) -> Result<(), Flaw> {
    if time.is_valid() { Ok(()) } else { Err(damaged(format!("the time {}", time.seconds()))) }
}

fn check_count(name: &str, count: usize, most: usize) -> Result<(), Flaw> {
    if count <= most { Ok(()) } else { Err(damaged(format!("{count} {name}: at most {most} are allowed"))) }
}

/// Checks a name that people are shown: a publisher's, a tree's, an endpoint's.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Flaw> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        // The name is not repeated: it may be long, and it goes to a terminal.
        return Err(damaged(format!("{what}: 1 to {MAX_NAME} bytes without control characters are allowed")));
    }
    Ok(())
}

/// A SHA-256 as hexadecimal digits.
pub(super) mod sha256 {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(hash))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let (text, mut hash) = (String::deserialize(from)?, [0; 32]);
        hex::decode_to_slice(&text, &mut hash).map_err(D::Error::custom)?;
        Ok(hash)
    }
}

/// Bytes in base64.
pub(super) mod bytes {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::state::remote::doubt::Unanswered;
    use crate::state::remote::head::{Inline, Outcome, Past, Probe, Retired, SegmentRef};
    use crate::state::remote::lease::Judgement;
    use crate::state::remote::name::{SegmentKind, SegmentName, Token};
    use crate::state::remote::segments::Change;
    use crate::state::remote::transitions::{
        ClaimRequest, Ending, Order, Seen, Update, add_intent, checkpoint, claim, release,
    };

    fn target() -> Target {
        Target { bucket: "b".to_owned(), prefix: "site/".to_owned() }
    }

    fn token(number: u64) -> Token {
        let mut bytes = [7; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Token::new(bytes)
    }

    fn stored(kind: SegmentKind, epoch: u64, number: u64, rows: u64) -> Segment {
        let name = SegmentName { kind, epoch, token: token(number) };
        let sha256 = [number.to_le_bytes()[0]; 32];
        Segment::Stored(SegmentRef { name, size: rows * 20, sha256, rows, unpacked: rows * 100 })
    }

    /// One step of a publisher; what is refused changes nothing.
    fn step(head: Option<Head>, (what, number, flag): (u8, u64, bool)) -> Option<Head> {
        let segment = |kind, head: &Head| {
            let inline = Inline { rows: 3, unpacked: 300, bytes: vec![1; usize::from(what) % 40] };
            if flag { stored(kind, head.epoch, number, number % 1000) } else { Segment::Inline(inline) }
        };
        let next = match &head {
            Some(head) if head.claim.is_some() && what % 5 != 0 => {
                let own = head.claim.as_ref().map_or(token(0), |claim| claim.token);
                let delta = segment(SegmentKind::Delta, head);
                let keep = head.deltas.len().min(usize::from(what % 15));
                let change = Change::Delta { keep, delta };
                let update = Update { change, ..Update::default() };
                match what % 5 {
                    1 => add_intent(head, own, segment(SegmentKind::Intent, head)),
                    2 => checkpoint(head, own, update),
                    _ => {
                        let unanswered =
                            if what % 2 == 0 { Unanswered::Intents } else { Unanswered::Nothing };
                        release(head, own, Ending { update, complete: flag, unanswered })
                    }
                }
            }
            seen => {
                let request = ClaimRequest {
                    who: format!("runner \"{number}\" ü"),
                    token: token(number),
                    since: StoreTime::new(number % 1_000_000),
                    lease: 300,
                    target: target(),
                    tree: None,
                    order: if flag { Order::ResetTo(Some(number % 100)) } else { Order::Unordered },
                    intent: None,
                    judgement: Some(Judgement::Dead(StoreTime::new(5000))),
                    known_epoch: 0,
                    known: (0, None),
                    lost_at: (what > 250).then(|| StoreTime::new(9)),
                    merged_doubt: None,
                };
                let seen = seen.as_ref().map(|head| Seen { head, modified: StoreTime::new(77) });
                claim(seen, &request)
            }
        };
        next.ok().or(head)
    }

    fn heads() -> impl Strategy<Value = Head> {
        let first = (any::<u64>(), any::<bool>());
        let steps = prop::collection::vec((any::<u8>(), any::<u64>(), any::<bool>()), 0..60);
        (first, steps).prop_filter_map("a first claim", |((number, flag), steps)| {
            steps.into_iter().fold(step(None, (0, number, flag)), step)
        })
    }

    fn decode(bytes: &[u8]) -> Result<Head, Flaw> {
        let target = target();
        Head::decode(bytes, &Expected { target: &target, tree: None, publishes: true })
    }

    /// A head with something in each field.
    fn full() -> Head {
        let mut head = Head::empty(target(), None);
        (head.epoch, head.beat, head.generation, head.order) = (9, 40, 5, Some(3));
        head.snapshot = Some(stored(SegmentKind::Snapshot, 2, 1, 100));
        let inline = Inline { rows: 1, unpacked: 60, bytes: vec![1, 2, 3] };
        head.deltas = vec![stored(SegmentKind::Delta, 3, 2, 10), Segment::Inline(inline)];
        head.retired = vec![Retired {
            name: SegmentName { kind: SegmentKind::Delta, epoch: 1, token: token(9) },
            epoch: 2,
        }];
        head.claim = Some(Claim {
            who: "ci".to_owned(),
            token: token(3),
            epoch: 9,
            since: StoreTime::new(100),
            lease: 300,
            base: 0,
            intents: vec![stored(SegmentKind::Intent, 9, 3, 1)],
        });
        head.doubt = vec![crate::state::remote::head::Doubt {
            token: token(4),
            epoch: 8,
            since: Some(StoreTime::new(99)),
            keys: Keys::Of(vec![stored(SegmentKind::Intent, 8, 4, 1)]),
        }];
        head.history = vec![Past {
            epoch: 8,
            token: token(4),
            who: "ci".to_owned(),
            since: StoreTime::new(1),
            beat: 38,
            generation: 5,
            outcome: Outcome::Taken,
        }];
        head.probes = vec![Probe {
            endpoint: "https://s3".to_owned(),
            at: StoreTime::new(1),
            create: true,
            replace: true,
            delete: false,
        }];
        head
    }

    fn value() -> Value {
        serde_json::to_value(full()).unwrap()
    }

    fn decode_value(value: &Value) -> Result<Head, Flaw> {
        decode(&serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn a_full_head_is_read_back_and_its_layout_is_pinned() {
        assert_eq!(decode(&full().encode().unwrap()), Ok(full()));
        let text = String::from_utf8(full().encode().unwrap()).unwrap();
        assert!(
            text.starts_with(
                r#"{"format":2,"min_reader":2,"min_writer":2,"target":{"bucket":"b","prefix":"site/"},"tree":null,"epoch":9,"beat":40,"generation":5,"order":3,"snapshot":{"stored":{"name":"snapshot/0000000000000002-01000000"#
            ),
            "{text}"
        );
        assert!(text.contains(r#"{"inline":{"rows":1,"unpacked":60,"bytes":"AQID"}}"#), "{text}");
    }

    #[test]
    fn r1_what_is_out_of_bounds_is_damage() {
        let name = |text: &str| json!(text);
        let intent = value()["claim"]["intents"][0].clone();
        let long = "x".repeat(256);
        // The place, the value.
        let cases: Vec<(&str, Value)> = vec![
            ("/epoch", json!(0)),
            ("/epoch", json!(7)),
            ("/epoch", json!(u64::MAX)),
            ("/epoch", json!(-1)),
            ("/epoch", json!(9.0)),
            ("/epoch", json!("9")),
            ("/epoch", Value::Null),
            ("/beat", json!(0)),
            ("/beat", json!(37)),
            ("/beat", json!((1_u64 << 53) + 1)),
            ("/generation", json!(4)),
            ("/order", json!(u64::MAX)),
            ("/tree", json!("")),
            ("/target/bucket", json!("a/b")),
            ("/target/bucket", json!("")),
            ("/target/prefix", json!("../")),
            ("/target/prefix", json!("/etc/")),
            ("/target/prefix", json!("site")),
            ("/snapshot/stored/name", name("../snapshot/x")),
            ("/snapshot/stored/name", name("/etc/passwd")),
            ("/snapshot/stored/name", value()["deltas"][0]["stored"]["name"].clone()),
            ("/snapshot/stored/rows", json!(u64::MAX)),
            ("/snapshot/stored/rows", json!(1)),
            ("/snapshot/stored/size", json!(5_u64 << 30)),
            ("/snapshot/stored/unpacked", json!(0)),
            ("/snapshot/stored/unpacked", json!(u64::MAX)),
            ("/snapshot/stored/sha256", json!("ab")),
            ("/snapshot/stored/sha256", json!("zz".repeat(32))),
            ("/snapshot", json!({})),
            (
                "/snapshot",
                json!({"stored": value()["snapshot"]["stored"], "inline": value()["deltas"][1]["inline"]}),
            ),
            ("/deltas", json!({})),
            ("/deltas", json!([value()["deltas"][0], value()["deltas"][0]])),
            ("/deltas", json!(vec![value()["deltas"][1].clone(); 17])),
            ("/deltas/1/inline/bytes", json!("!")),
            ("/deltas/1/inline/bytes", json!("A".repeat(4 * 3000))),
            ("/retired/0/epoch", json!(10)),
            ("/retired/0/name", value()["snapshot"]["stored"]["name"].clone()),
            ("/claim/who", json!("a\u{1b}[2J")),
            ("/claim/who", json!(long)),
            ("/claim/token", json!("AB".repeat(16))),
            ("/claim/epoch", json!(8)),
            ("/claim/since", json!(u64::MAX)),
            ("/claim/lease", json!(0)),
            ("/claim/lease", json!(1_000_000)),
            ("/claim/intents", json!(vec![value()["deltas"][1].clone(); 9])),
            ("/claim/intents", json!([intent, intent])),
            ("/doubt/0/since", Value::Null),
            ("/doubt/0/keys", json!({"of": []})),
            ("/doubt/0/keys", json!("none")),
            ("/doubt/0/epoch", json!(10)),
            ("/doubt", json!([value()["doubt"][0], value()["doubt"][0]])),
            ("/history", json!([value()["history"][0], value()["history"][0]])),
            ("/history/0/outcome", json!("lucky")),
            ("/probes", json!([value()["probes"][0], value()["probes"][0]])),
            ("/probes/0/endpoint", json!("a\nb")),
            ("/probes/0/at", json!(u64::MAX)),
        ];
        for (place, bad) in cases {
            let mut value = value();
            *value.pointer_mut(place).unwrap() = bad.clone();
            let flaw = decode_value(&value);
            assert!(matches!(flaw, Err(Flaw::Damaged(_))), "{place} {bad}: {flaw:?}");
        }
    }

    #[test]
    fn what_would_not_be_read_back_is_not_encoded() {
        let misplaced = Head { deltas: vec![stored(SegmentKind::Snapshot, 1, 1, 1)], ..full() };
        assert!(matches!(misplaced.encode(), Err(Flaw::Damaged(_))));
        assert!(matches!(Head::empty(target(), None).encode(), Err(Flaw::Damaged(_))));
    }

    #[test]
    fn d5_what_is_no_whole_head_is_damage() {
        let whole = full().encode().unwrap();
        for length in 0..whole.len() {
            assert!(matches!(decode(&whole[..length]), Err(Flaw::Damaged(_))), "{length}");
        }
        let twice = String::from_utf8(whole.clone())
            .unwrap()
            .replace(r#""epoch":9,"beat""#, r#""epoch":9,"epoch":9,"beat""#);
        let deep = "[".repeat(MAX_BYTES);
        let many = format!("[{}0]", "0,".repeat(40_000));
        for text in ["", "{}", "null", "[]", "\u{0}", &twice, &deep, &many] {
            assert!(matches!(decode(text.as_bytes()), Err(Flaw::Damaged(_))), "{text:.40}");
        }
        let mut long = whole;
        long.resize(MAX_BYTES + 1, b' ');
        assert_eq!(decode(&long), Err(Flaw::TooLarge(MAX_BYTES + 1)));
        long.pop();
        assert_eq!(decode(&long), Ok(full()));
    }

    #[test]
    fn d14_newer_formats_are_told_apart_from_damage() {
        // Format, min_reader, min_writer, a field that is not known; for a publisher, for a reader.
        let damage = Err("damage");
        let cases = [
            (1, 1, 1, false, Ok(()), Ok(())),
            (1, 1, 1, true, damage, damage),
            (2, 2, 2, false, Ok(()), Ok(())),
            (2, 2, 2, true, damage, damage),
            (3, 2, 2, true, Ok(()), Ok(())),
            (3, 2, 3, true, Err("writer"), Ok(())),
            (3, 3, 3, true, Err("reader"), Err("reader")),
            (4, 3, 2, false, Err("reader"), Err("reader")),
            (2, 3, 2, false, Err("reader"), Err("reader")),
            (2, 2, 3, false, Err("writer"), damage),
            (0, 0, 0, false, damage, damage),
            (3, 0, 2, false, damage, damage),
        ];
        for (format, reader, writer, extra, publisher, other) in cases {
            let mut value = value();
            value["format"] = json!(format);
            value["min_reader"] = json!(reader);
            value["min_writer"] = json!(writer);
            if extra {
                value["claim"]["colour"] = json!([1]);
            }
            let bytes = serde_json::to_vec(&value).unwrap();
            for (publishes, expected) in [(true, publisher), (false, other)] {
                let target = target();
                let found = Head::decode(&bytes, &Expected { target: &target, tree: None, publishes });
                let found = found.map(drop).map_err(|flaw| match flaw {
                    Flaw::NewerReader { .. } => "reader",
                    Flaw::NewerWriter { .. } => "writer",
                    Flaw::Damaged(_) => "damage",
                    _ => "other",
                });
                assert_eq!(found, expected, "{format} {reader} {writer} {extra} {publishes}");
            }
        }
    }

    #[test]
    fn d13_another_target_or_tree_is_an_error_of_its_own() {
        let mut head = full();
        let copied = Target { bucket: "b".to_owned(), prefix: "copy/".to_owned() };
        let whole = full().encode().unwrap();
        let at =
            |target, tree, publishes| Head::decode(&whole, &Expected { target, tree, publishes }).map(drop);
        let own = target();
        assert_eq!(at(&copied, None, true), Err(Flaw::OtherTarget(target())));
        assert_eq!(at(&own, Some("docs"), true), Err(Flaw::OtherTree(None)));
        assert_eq!(at(&own, Some("docs"), false), Err(Flaw::OtherTree(None)));
        head.tree = Some("docs".to_owned());
        let bytes = head.encode().unwrap();
        let target = target();
        let read = |tree, publishes| Head::decode(&bytes, &Expected { target: &target, tree, publishes });
        assert_eq!(read(Some("docs"), true), Ok(head.clone()));
        assert_eq!(read(None, true), Err(Flaw::OtherTree(Some("docs".to_owned()))));
        assert_eq!(read(None, false), Ok(head.clone()));
    }

    #[test]
    fn i8_the_longest_head_fits_with_all_inline_parts_that_have_room() {
        let who = "\"".repeat(MAX_NAME);
        let mut number = 0;
        let mut next = |kind| {
            number += 1;
            stored(kind, MAX_NUMBER, number, MAX_ROWS / 1000)
        };
        let mut head = full();
        (head.epoch, head.beat, head.generation) = (MAX_NUMBER, MAX_NUMBER, MAX_NUMBER);
        head.order = Some(MAX_NUMBER);
        head.tree = Some(who.clone());
        head.target.prefix = format!("{}/", "\u{1}".repeat(1000));
        head.deltas = (0..MAX_DELTAS).map(|_| next(SegmentKind::Delta)).collect();
        let intents: Vec<_> = (0..MAX_INTENTS).map(|_| next(SegmentKind::Intent)).collect();
        let claim = head.claim.as_mut().unwrap();
        (claim.who, claim.intents, claim.epoch) = (who.clone(), intents, MAX_NUMBER);
        let doubt = head.doubt[0].clone();
        head.doubt = (0..MAX_DOUBT as u64)
            .map(|at| {
                let keys = Keys::Of((0..2).map(|_| next(SegmentKind::Intent)).collect());
                crate::state::remote::head::Doubt {
                    token: token(at),
                    keys,
                    epoch: MAX_NUMBER,
                    ..doubt.clone()
                }
            })
            .collect();
        let past =
            Past { who: who.clone(), beat: MAX_NUMBER, generation: MAX_NUMBER, ..head.history[0].clone() };
        head.history =
            (0..MAX_HISTORY as u64).map(|at| Past { epoch: MAX_NUMBER - 9 + at, ..past.clone() }).collect();
        let retired = |at| Retired {
            name: SegmentName { kind: SegmentKind::Snapshot, epoch: MAX_NUMBER - 1, token: token(1000 + at) },
            epoch: MAX_NUMBER,
        };
        head.retired = (0..MAX_RETIRED as u64).map(retired).collect();
        let probe = head.probes[0].clone();
        let endpoint = |at: usize| format!("{at}{}", "\\".repeat(MAX_NAME - 1));
        head.probes = (0..MAX_PROBES).map(|at| Probe { endpoint: endpoint(at), ..probe.clone() }).collect();
        let target = head.target.clone();
        let bytes = head.encode().unwrap();
        let expected = Expected { target: &target, tree: Some(&who), publishes: true };
        assert_eq!(Head::decode(&bytes, &expected), Ok(head.clone()));
        // Inline parts in place of deltas, as many as there is room for.
        for delta in 0..MAX_DELTAS {
            if head.has_room_for(MAX_INLINE) {
                head.deltas[delta] =
                    Segment::Inline(Inline { rows: 10, unpacked: 9000, bytes: vec![9; MAX_INLINE] });
            }
        }
        assert!(!head.has_room_for(MAX_INLINE) && head.has_room_for(1));
        assert!(head.encode().is_ok(), "{:?}", head.encode().map(|bytes| bytes.len()));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(head in heads()) {
            let bytes = head.encode().unwrap();
            prop_assert!(bytes.len() <= MAX_BYTES);
            prop_assert_eq!(decode(&bytes), Ok(head));
        }

        #[test]
        fn arbitrary_bytes_are_never_a_head(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn damaged_bytes_are_refused_or_within_bounds(
            head in heads(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = head.encode().unwrap();
            for (at, byte) in flips {
                *at.get_mut(&mut bytes[..]) = byte;
            }
            if let Ok(read) = decode(&bytes) {
                prop_assert!(check(&read).is_ok() && read.encode().is_ok());
            }
        }

        #[test]
        fn mutated_json_is_refused_or_within_bounds(
            head in heads(),
            picks in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..10), 1..4),
        ) {
            let mut value = serde_json::to_value(&head).unwrap();
            for (at, what) in picks {
                let mut places = Vec::new();
                collect_places(&value, String::new(), &mut places);
                let place = at.get(&places).clone();
                let slot = value.pointer_mut(&place).unwrap();
                let copies = json!(vec![slot.clone(); 200]);
                let bad = [
                    json!(u64::MAX), json!(-1), json!(0), json!(1.5), Value::Null, json!("../x"), json!([]),
                    json!({}), json!("x".repeat(2000)), copies,
                ];
                *slot = bad[what].clone();
            }
            if let Ok(read) = decode(&serde_json::to_vec(&value).unwrap()) {
                prop_assert!(check(&read).is_ok());
                prop_assert_eq!(serde_json::to_value(&read).unwrap(), value);
            }
        }
    }

    fn collect_places(value: &Value, at: String, into: &mut Vec<String>) {
        match value {
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(n, item)| collect_places(item, format!("{at}/{n}"), into));
            }
            Value::Object(fields) => {
                fields.iter().for_each(|(name, item)| collect_places(item, format!("{at}/{name}"), into));
            }
            _ => {}
        }
        into.push(at);
    }
}
