//! The keys of a catalog, read as if anybody had written them.
//!
//! The `fst` crate trusts its bytes: an address that leads nowhere is a panic there, and one that leads back is an
//! endless walk. Here every access is fenced, a walk only goes to lower addresses, and what breaks a rule is damage.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fst::raw::{Fst, Node, Output};
use memmap2::Mmap;

use crate::key::MAX_KEY_BYTES;

/// A part of the mapping.
pub(crate) struct Section(Arc<Mmap>, Range<usize>);

impl AsRef<[u8]> for Section {
    fn as_ref(&self) -> &[u8] {
        &self.0[self.1.clone()]
    }
}

impl Section {
    pub(crate) fn new(mapping: Arc<Mmap>, range: Range<usize>) -> Self {
        Self(mapping, range)
    }
}

/// The map from keys to the numbers of their records.
pub(crate) struct Keys {
    map: Fst<Section>,
    damaged: AtomicBool,
}

/// The bytes are no map that was written here.
struct Damage;

impl Keys {
    /// `None` if it does not even claim to be such a map, of so many keys.
    pub(crate) fn new(section: Section, count: u64) -> Option<Self> {
        let map = catch_unwind(AssertUnwindSafe(|| Fst::new(section))).ok()?.ok()?;
        (map.len() as u64 == count).then(|| Self { map, damaged: AtomicBool::new(false) })
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether an access came upon damage.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Relaxed)
    }

    /// Notes damage that was found in what belongs to a key.
    pub(crate) fn note_damage<T>(&self) -> Option<T> {
        self.damaged.store(true, Relaxed);
        None
    }

    /// The number of a key.
    pub(crate) fn number_of(&self, key: &str) -> Option<u64> {
        // The root of an empty map is a final node.
        if self.map.is_empty() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| self.map.get(key))) {
            Ok(number) => number.map(Output::value),
            Err(_) => self.note_damage(),
        }
    }

    /// The keys that begin so, in the order of their bytes.
    pub(crate) fn walk(&self, prefix: &str) -> Walk<'_> {
        let mut walk =
            Walk { keys: self, key: prefix.as_bytes().to_vec(), stack: Vec::new(), left: self.len() };
        if self.map.is_empty() {
            return walk;
        }
        match catch_unwind(AssertUnwindSafe(|| Step::below(&self.map, prefix))) {
            Ok(first) => walk.stack.extend(first),
            Err(_) => self.damaged.store(true, Relaxed),
        }
        walk
    }
}

/// Goes through keys.
pub(crate) struct Walk<'a> {
    keys: &'a Keys,
    /// The key where it stands.
    key: Vec<u8>,
    /// From where it began to where it stands, a node for each byte.
    stack: Vec<Step<'a>>,
    /// No more keys than this can come.
    left: usize,
}

/// A node on the way.
struct Step<'a> {
    node: Node<'a>,
    entered: bool,
    /// The next transition to follow.
    next: usize,
    /// The last byte that led on.
    last: Option<u8>,
    /// The number so far.
    number: u64,
}

impl<'a> Step<'a> {
    fn at(node: Node<'a>, number: u64) -> Self {
        Self { node, entered: false, next: 0, last: None, number }
    }

    /// The node that a prefix leads to, if one does.
    fn below(map: &'a Fst<Section>, prefix: &str) -> Option<Self> {
        let (mut node, mut number) = (map.root(), 0_u64);
        for byte in prefix.bytes() {
            let transition = node.transition(node.find_input(byte)?);
            number = number.wrapping_add(transition.out.value());
            node = map.node(transition.addr);
        }
        Some(Self::at(node, number))
    }
}

impl Walk<'_> {
    /// The next key and its number.
    pub(crate) fn next_key(&mut self) -> Option<(&[u8], u64)> {
        let keys = self.keys;
        let found = if let Ok(Ok(found)) = catch_unwind(AssertUnwindSafe(|| self.advance())) {
            found
        } else {
            self.stack.clear();
            keys.note_damage()
        };
        found.map(|number| (self.key.as_slice(), number))
    }

    fn advance(&mut self) -> Result<Option<u64>, Damage> {
        loop {
            let Some(step) = self.stack.last_mut() else {
                return Ok(None);
            };
            if !std::mem::replace(&mut step.entered, true) {
                if step.node.is_final() {
                    self.left = self.left.checked_sub(1).ok_or(Damage)?;
                    return Ok(Some(step.number.wrapping_add(step.node.final_output().value())));
                }
                if step.node.is_empty() {
                    return Err(Damage);
                }
            }
            if step.next < step.node.len() {
                let below = step.enter(&self.keys.map, &mut self.key)?;
                self.stack.push(below);
            } else {
                self.stack.pop();
                self.key.pop();
            }
        }
    }
}

impl<'a> Step<'a> {
    /// Follows the next transition.
    fn enter(&mut self, map: &'a Fst<Section>, key: &mut Vec<u8>) -> Result<Self, Damage> {
        let transition = self.node.transition(self.next);
        let leads_on = transition.addr < self.node.addr();
        let in_order = self.last.is_none_or(|last| last < transition.inp);
        if !leads_on || !in_order || key.len() >= MAX_KEY_BYTES {
            return Err(Damage);
        }
        self.next += 1;
        self.last = Some(transition.inp);
        key.push(transition.inp);
        Ok(Self::at(map.node(transition.addr), self.number.wrapping_add(transition.out.value())))
    }
}
