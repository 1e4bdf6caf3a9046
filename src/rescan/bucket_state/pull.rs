//! The pull: makes the cache a copy of the head that is there.

use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::bucket_state::access::{ReadHead, SeenHead, StateAccess};
use crate::rescan::bucket_state::segment_objects::{self, FetchedSegment};
use crate::state::cache::CacheManager;
use crate::state::cache::pulled::PulledInto;
use crate::state::remote::head::{Head, Outcome, Segment};
use crate::state::remote::name::SegmentKind;
use crate::state::remote::recognise::{Since, compare};
use crate::state::remote::segment::Merged;
use crate::state::store::{META_COMPLETE, Write};

/// How often a pull starts over because the head has changed meanwhile.
const TRIES: usize = 3;

/// The record in the bucket is not what it was, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loss {
    /// There was a head, and there is none any more.
    HeadGone,
    /// There are objects, and no head. Nobody here knows whether there ever was one.
    NoRecord,
    /// The head is damaged. It may be replaced under this `ETag`.
    HeadDamaged { etag: String, flaw: String },
    /// The head is an older one than the cache has seen, or one of another line.
    WentBack,
    /// A segment that the head references is missing or damaged.
    SegmentLost,
}

impl Loss {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::HeadGone => "the head was removed".to_owned(),
            Self::NoRecord => "there are objects, and no record of them".to_owned(),
            Self::HeadDamaged { flaw, .. } => flaw.clone(),
            Self::WentBack => "the head is older than the one that this cache has seen".to_owned(),
            Self::SegmentLost => "a part of it is missing or damaged".to_owned(),
        }
    }
}

/// The state in the bucket as it was pulled.
#[derive(Debug, Default)]
pub(crate) struct Pulled {
    /// The head that is there, if it is one.
    pub(crate) head: Option<Box<SeenHead>>,
    pub(crate) loss: Option<Loss>,
    /// Keys whose published version the cache did not know.
    pub(crate) changed: u64,
    /// The highest epoch that the cache has seen.
    pub(crate) known_epoch: u64,
    /// The generation and the order of that head.
    pub(crate) known: (u64, Option<u64>),
}

impl Pulled {
    /// What a cache knows that is a copy of this head.
    fn knowing(head: Option<&Head>) -> Self {
        let Some(head) = head else { return Self::default() };
        Self { known_epoch: head.epoch, known: (head.generation, head.order), ..Self::default() }
    }

    fn with(self, loss: Loss) -> Self {
        Self { loss: Some(loss), ..self }
    }
}

/// What to read of the state, and where to.
pub(crate) struct Pull<'a> {
    pub(crate) access: &'a StateAccess,
    pub(crate) cache: &'a CacheManager,
    pub(crate) into: PulledInto,
    /// The caller may claim the state, and so make it anew where it was lost. Anybody else gets an error.
    pub(crate) publishes: bool,
}

impl Pull<'_> {
    /// Reads the head, and the segments that the cache does not have, and applies them. The cache is changed only after
    /// every segment was verified.
    pub(crate) fn run(&self) -> Result<Pulled, StorageError> {
        for _ in 0..TRIES {
            if let Some(pulled) = self.try_once()? {
                return Ok(pulled);
            }
        }
        let what = "the state changes faster than it can be read";
        Err(StorageError::new(ErrorKind::Server, Operation::State, what))
    }

    /// `None`: the head has changed meanwhile.
    fn try_once(&self) -> Result<Option<Pulled>, StorageError> {
        let known = self.cache.head_copy()?.and_then(|copy| self.access.decode_copy(&copy, self.publishes));
        let before = Pulled::knowing(known.as_ref().map(|known| &known.head));
        // A date is needed where something is in doubt: a 304 does not tell it.
        let needs_date = |known: &SeenHead| {
            known.modified.is_none() && (known.head.claim.is_some() || !known.head.doubt.is_empty())
        };
        let unless = known.as_ref().filter(|known| !needs_date(known)).map(|known| known.etag.as_str());
        let read = match self.access.read_head(unless, self.publishes)? {
            ReadHead::NotModified => {
                return Ok(Some(Pulled { head: known.map(Box::new), ..before }));
            }
            ReadHead::Missing if known.is_none() => return Ok(Some(before)),
            ReadHead::Missing => return Ok(Some(before.with(Loss::HeadGone))),
            ReadHead::Damaged { etag, flaw } => {
                return Ok(Some(before.with(Loss::HeadDamaged { etag, flaw })));
            }
            ReadHead::Found(read) => read,
        };
        let cached = known.as_ref().map(SeenHead::cached);
        let since = compare(Some((&read.head, &read.etag)), cached.as_ref());
        if since == Since::Same {
            self.record(&read)?;
            return Ok(Some(Pulled { head: Some(read), ..before }));
        }
        // What the cache knows is newer: it stays, and is compared with the objects. A reader takes what there is.
        if since == Since::WentBack && self.publishes {
            return Ok(Some(Pulled { head: Some(read), ..before.with(Loss::WentBack) }));
        }
        let read = if self.publishes { read } else { self.for_reading(*read)? };
        // Changes of this machine that never got into the bucket leave no base for deltas.
        let unpushed = self.cache.unpushed().next().transpose()?.is_some();
        let base = known.filter(|_| !unpushed && since == Since::Later);
        let Some(fetched) = self.fetch(&read.head, base.as_ref().map(|base| &base.head))? else {
            return self.after_missing_segment(read, before);
        };
        let changed = self.apply(fetched, read.head.generation)?;
        self.record(&read)?;
        Ok(Some(Pulled { head: Some(read), changed, ..before }))
    }

    /// Returns the head as a reader uses it: without the rows of a run that has not ended.
    fn for_reading(&self, read: SeenHead) -> Result<Box<SeenHead>, StorageError> {
        let head = read.head.without_unfinished();
        if head == read.head {
            return Ok(Box::new(read));
        }
        let bytes = head.encode().map_err(|flaw| self.access.of_flaw(&flaw))?;
        Ok(Box::new(SeenHead { head, bytes, for_reading: true, ..read }))
    }

    /// A segment was missing: it is lost only if the head still references it.
    fn after_missing_segment(
        &self,
        read: Box<SeenHead>,
        before: Pulled,
    ) -> Result<Option<Pulled>, StorageError> {
        match self.access.read_head(Some(&read.etag), self.publishes)? {
            ReadHead::NotModified => Ok(Some(Pulled { head: Some(read), ..before.with(Loss::SegmentLost) })),
            _ => Ok(None),
        }
    }

    /// Fetches what the cache does not have. `None`: a segment is missing.
    fn fetch(&self, head: &Head, base: Option<&Head>) -> Result<Option<Wanted>, StorageError> {
        let base = base.filter(|base| base.snapshot == head.snapshot);
        let missing = head.deltas.iter().filter(|delta| base.is_none_or(|base| !base.deltas.contains(delta)));
        let snapshot = head.snapshot.iter().filter(|_| base.is_none());
        let wanted = snapshot
            .map(|segment| (SegmentKind::Snapshot, segment))
            .chain(missing.map(|segment| (SegmentKind::Delta, segment)));
        let (mut segments, scratch) = (Vec::new(), scratch_of(self.cache));
        for (kind, segment) in wanted {
            match segment_objects::fetch(self.access, &scratch, kind, segment)? {
                Some(fetched) => segments.push(fetched),
                None => return Ok(None),
            }
        }
        Ok(Some(Wanted { segments, base: base.map(|base| base.generation) }))
    }

    fn apply(&self, wanted: Wanted, generation: u64) -> Result<u64, StorageError> {
        let Wanted { segments, base } = wanted;
        let rows = segments.into_iter().map(FetchedSegment::into_rows).collect();
        // A crash in between must not leave a cache that looks like a copy of the head before.
        self.cache.forget_head()?;
        let changed = if let Some(base) = base {
            // The keys that were recent are part of the tree that was complete since, or they are gone.
            self.cache.apply(&Vec::from_iter((base != generation).then_some(Write::Complete)))?;
            self.cache.apply_deltas(Merged::delta(rows), self.into, generation)?
        } else {
            self.cache.apply_snapshot(Merged::snapshot(rows), self.into, generation)?
        };
        // The head covers it: what is still to be done, the plan finds again.
        self.cache.drop_pending()?;
        Ok(changed)
    }

    fn record(&self, read: &SeenHead) -> Result<(), StorageError> {
        let mut writes = vec![self.cache.copy_of(&read.copy())?];
        let last = read.head.history.last().map(|past| past.outcome);
        // What incomplete runs of this machine have added belongs to that tree, or is gone.
        writes.extend(
            (read.head.claim.is_none() && last == Some(Outcome::Complete)).then_some(Write::Complete),
        );
        // After a complete run, which this machine may have missed, a new key is more than its tree.
        writes.extend((read.head.generation > 0).then(|| Write::Meta(META_COMPLETE, vec![1])));
        self.cache.apply(&writes)
    }
}

/// Segments to apply, the oldest first.
struct Wanted {
    segments: Vec<FetchedSegment>,
    /// The generation of the head that the cache is a copy of; none if they are everything that is published.
    base: Option<u64>,
}

/// The folder for files that are too large for memory: the cache's.
pub(crate) fn scratch_of(cache: &CacheManager) -> PathBuf {
    cache.path().parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Reads all keys of an intent; `None` if its object is missing or damaged.
pub(crate) fn intent_keys(
    access: &StateAccess,
    cache: &CacheManager,
    intent: &Segment,
) -> Result<Option<FetchedSegment>, StorageError> {
    segment_objects::fetch(access, &scratch_of(cache), SegmentKind::Intent, intent)
}
