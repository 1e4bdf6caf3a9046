//! The steps of a case: edits of the tree, objects of others, and rescans with faults. `Debug` prints them as they are
//! written in a test.

use proptest::prelude::*;
use proptest::sample::select;

/// A name in the tree.
pub(super) type Key = &'static str;

/// All names that a tree may have. Some are files or folders, at different times.
pub(super) const KEYS: [Key; 8] = ["a", "a/n", "b", "d", "d/x", "d/y", "e/f/g", "h"];
/// Everything below one of these may be excluded.
pub(super) const TOPS: [Key; 4] = ["a", "b", "d", "e"];
/// Files above this size become multipart uploads, with parts of this size.
pub(super) const PART_SIZE: u64 = 16;
/// The number of contents. Some have the same size, one is empty, the last three are large.
pub(super) const CONTENTS: u8 = 7;

/// The number of a content.
pub(super) type Content = u8;

/// The bytes of a content.
pub(super) fn bytes_of(content: Content) -> Vec<u8> {
    let size = [5, 5, 9, 0, 40, 40, 20][usize::from(content)];
    vec![b'0' + content; size]
}

/// The reverse of [`bytes_of`].
pub(super) fn content_of(bytes: &[u8]) -> Option<Content> {
    (0..CONTENTS).find(|content| bytes_of(*content) == bytes)
}

pub(super) fn is_large(content: Content) -> bool {
    bytes_of(content).len() as u64 > PART_SIZE
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes a file in place. A file above it becomes a folder, a folder in its place is removed.
    Write(Key, Content),
    /// Renames a new file over it.
    Replace(Key, Content),
    Rename(Key, Key),
    Chmod(Key),
    /// Sets the mtime and writes nothing.
    Touch(Key),
    Delete(Key),
    /// Excludes everything below a top-level name, or includes it again.
    Exclude(Key, Excluded),
    /// Somebody else stores an object under a key that is not published.
    Stranger(Key, Content),
    Rescan(Run),
}

/// How a name is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excluded {
    No,
    ByPattern,
    ByIgnoreFile,
}

/// A rescan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is drawn on its own")]
pub(super) struct Run {
    /// All files are older than the racy window. Otherwise none is.
    pub(super) settled: bool,
    /// The cache was closed and opened again.
    pub(super) restarted: bool,
    pub(super) deletes: Deletes,
    pub(super) force: bool,
    pub(super) allow_empty: bool,
    /// Requests that fail, each on its own.
    pub(super) faults: [Option<Fault>; 2],
    /// From the request with this number on, all fail.
    pub(super) outage: Option<(usize, Mode)>,
    /// The run is cancelled just before the request with this number.
    pub(super) cancelled: Option<usize>,
    /// This file changes during the run.
    pub(super) edited: Option<(Key, Content, Moment)>,
}

/// A rescan of files that are not racy, without faults.
pub(super) const CLEAN: Run = Run {
    settled: true,
    restarted: false,
    deletes: Deletes::On,
    force: false,
    allow_empty: false,
    faults: [None, None],
    outage: None,
    cancelled: None,
    edited: None,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletes {
    On,
    Off,
    /// `max_delete`.
    Cap(u64),
}

/// When a file changes during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// After it was hashed, before the first of its bytes are sent.
    BeforeSending,
    /// After the answer to the request that sent the first of its bytes.
    AfterAnswer,
}

/// The requests that a fault is about, and how they fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) op: Op,
    /// The key of the request; empty for any.
    pub(super) key: Key,
    pub(super) mode: Mode,
    /// Only the first try fails.
    pub(super) once: bool,
}

/// A request. One that is retried is still one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    First,
    List,
    Head,
    Put,
    Begin,
    Part,
    Finish,
    Reconcile,
    Abort,
    Delete,
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// No connection.
    Unreachable,
    /// The connection breaks before the store has the request.
    Broken,
    /// The request takes effect and its answer is lost.
    Lost,
    /// 500, without effect.
    Server,
    /// 503.
    Throttled,
    /// 400.
    Refused,
    /// 403 for this key.
    Denied,
    /// 403: the token has expired.
    Credentials,
}

impl Mode {
    /// After this answer nobody can say whether the request took effect.
    pub(super) fn leaves_doubt(self) -> bool {
        matches!(self, Self::Broken | Self::Lost | Self::Server)
    }
}

impl Run {
    /// The fault that a request meets, before any outage.
    pub(super) fn fault_of(&self, op: Op, key: Key) -> Option<Fault> {
        let is_about_key =
            matches!(op, Op::Put | Op::Begin | Op::Part | Op::Finish | Op::Head | Op::Reconcile);
        let meets =
            |fault: &&Fault| fault.op == op && (!is_about_key || fault.key.is_empty() || fault.key == key);
        self.faults.iter().flatten().find(meets).copied()
    }
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..32)
}

/// A name. Some are more frequent, so that several steps meet at them.
fn key() -> impl Strategy<Value = Key> {
    select(vec!["a", "a", "a", "a/n", "a/n", "b", "b", "b", "b", "d", "d/x", "d/x", "d/y", "e/f/g", "h"])
}

/// A content. One small and one large are more frequent, so that objects of others are what a file holds.
fn content() -> impl Strategy<Value = Content> {
    select(vec![0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 5, 6])
}

fn step() -> impl Strategy<Value = Step> {
    let excluded = select(vec![Excluded::No, Excluded::No, Excluded::ByPattern, Excluded::ByIgnoreFile]);
    prop_oneof![
        6 => (key(), content()).prop_map(|(key, content)| Step::Write(key, content)),
        2 => (key(), content()).prop_map(|(key, content)| Step::Replace(key, content)),
        2 => (key(), key()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => key().prop_map(Step::Chmod),
        1 => key().prop_map(Step::Touch),
        4 => key().prop_map(Step::Delete),
        1 => (select(&TOPS[..]), excluded).prop_map(|(top, how)| Step::Exclude(top, how)),
        3 => (key(), content()).prop_map(|(key, content)| Step::Stranger(key, content)),
        12 => run().prop_map(Step::Rescan),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    let rarely = || prop::bool::weighted(0.08);
    let deletes = prop_oneof![
        10 => Just(Deletes::On),
        1 => Just(Deletes::Off),
        1 => (0_u64..3).prop_map(Deletes::Cap),
    ];
    let faults = (prop::option::weighted(0.75, fault()), prop::option::weighted(0.5, fault()));
    let outage = prop::option::weighted(0.12, (0_usize..10, mode().prop_map(for_all)));
    let cancelled = prop::option::weighted(0.06, 0_usize..10);
    let moment = select(vec![Moment::BeforeSending, Moment::AfterAnswer]);
    let edited = prop::option::weighted(0.15, (key(), content(), moment));
    let flags = (any::<bool>(), prop::bool::weighted(0.3), rarely(), rarely());
    (flags, deletes, faults, outage, cancelled, edited).prop_map(
        |((settled, restarted, force, allow_empty), deletes, (one, other), outage, cancelled, edited)| Run {
            settled,
            restarted,
            deletes,
            force,
            allow_empty,
            faults: [one, other],
            outage,
            cancelled,
            edited,
        },
    )
}

fn fault() -> impl Strategy<Value = Fault> {
    let op = prop_oneof![
        1 => Just(Op::First),
        1 => Just(Op::List),
        2 => Just(Op::Head),
        8 => Just(Op::Put),
        1 => Just(Op::Begin),
        2 => Just(Op::Part),
        4 => Just(Op::Finish),
        1 => Just(Op::Reconcile),
        1 => Just(Op::Abort),
        4 => Just(Op::Delete),
    ];
    let key = prop_oneof![2 => Just(""), 1 => key()];
    (op, key, mode(), prop::bool::weighted(0.15)).prop_map(|(op, key, mode, once)| {
        let is_general = matches!(op, Op::First | Op::List);
        Fault { op, key, mode: if is_general { for_all(mode) } else { mode }, once }
    })
}

/// The mode for requests that are about no key. A store that refuses them is no outage: runs go on without them.
fn for_all(mode: Mode) -> Mode {
    if matches!(mode, Mode::Refused | Mode::Denied) { Mode::Server } else { mode }
}

fn mode() -> impl Strategy<Value = Mode> {
    use Mode::{Broken, Credentials, Denied, Lost, Refused, Server, Throttled, Unreachable};
    select(vec![Lost, Lost, Lost, Broken, Server, Refused, Denied, Throttled, Unreachable, Credentials])
}
