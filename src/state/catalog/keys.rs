//! The keys of a catalog, read with distrust in their bytes.
//!
//! The `fst` crate trusts its bytes: a wrong address makes it panic, and a cycle makes it walk for ever. Here every
//! access catches panics, and a walk only follows transitions to lower addresses, as a correct FST has them. A file
//! that breaks a rule is reported as damaged.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fst::raw::{Fst, Node, Output};
use memmap2::Mmap;

use crate::key::MAX_KEY_BYTES;

/// A range of the mapping.
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

/// The map from keys to record numbers.
pub(crate) struct Keys {
    map: Fst<Section>,
    damaged: AtomicBool,
}

/// The bytes are not a map that this library has written.
struct Damage;

impl Keys {
    /// Opens the map; `None` if the section is not an FST with `count` keys.
    pub(crate) fn new(section: Section, count: u64) -> Option<Self> {
        // The crate's own checks come first; some bytes make even those panic.
        let map = catch_unwind(AssertUnwindSafe(|| Fst::new(section))).ok()?.ok()?;
        (map.len() as u64 == count).then(|| Self { map, damaged: AtomicBool::new(false) })
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns true if an access has found damage.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Relaxed)
    }

    /// Marks the catalog as damaged, and returns `None` as the answer to the access that found it.
    pub(crate) fn note_damage<T>(&self) -> Option<T> {
        self.damaged.store(true, Relaxed);
        None
    }

    /// The record number of a key.
    pub(crate) fn record_number(&self, key: &str) -> Option<u64> {
        // The FST of an empty map would find the empty key: its root is a final node.
        if self.map.is_empty() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| self.map.get(key))) {
            Ok(number) => number.map(Output::value),
            Err(_) => self.note_damage(),
        }
    }

    /// Walks the keys that start with `prefix`, in byte order.
    pub(crate) fn walk(&self, prefix: &str) -> Walk<'_> {
        let mut walk =
            Walk { keys: self, key: prefix.as_bytes().to_vec(), stack: Vec::new(), left: self.len() };
        if self.map.is_empty() {
            return walk;
        }
        match catch_unwind(AssertUnwindSafe(|| Step::at_prefix(&self.map, prefix))) {
            Ok(first) => walk.stack.extend(first),
            Err(_) => self.damaged.store(true, Relaxed),
        }
        walk
    }
}

/// A walk through keys, in byte order.
pub(crate) struct Walk<'a> {
    keys: &'a Keys,
    /// The bytes that lead to the current node.
    key: Vec<u8>,
    /// The nodes from the start of the walk to the current one, one for each byte.
    stack: Vec<Step<'a>>,
    /// The most keys that can still follow. It bounds the walk in a damaged map.
    left: usize,
}

/// A node on the path of a walk.
struct Step<'a> {
    node: Node<'a>,
    entered: bool,
    /// The index of the next transition to follow.
    next: usize,
    /// The byte of the last transition that was followed.
    last: Option<u8>,
    /// The sum of the outputs up to this node.
    number: u64,
}

impl<'a> Step<'a> {
    fn at(node: Node<'a>, number: u64) -> Self {
        Self { node, entered: false, next: 0, last: None, number }
    }

    /// The node that a prefix leads to, if any.
    fn at_prefix(map: &'a Fst<Section>, prefix: &str) -> Option<Self> {
        let (mut node, mut number) = (map.root(), 0_u64);
        for byte in prefix.bytes() {
            let transition = node.transition(node.find_input(byte)?);
            // Wrapping, because forged outputs may overflow; a wrong number is refused where its record is read.
            number = number.wrapping_add(transition.out.value());
            node = map.node(transition.addr);
        }
        Some(Self::at(node, number))
    }
}

impl Walk<'_> {
    /// The next key and its record number.
    pub(crate) fn next_key(&mut self) -> Option<(&[u8], u64)> {
        let keys = self.keys;
        let found = if let Ok(Ok(found)) = catch_unwind(AssertUnwindSafe(|| self.advance())) {
            found
        } else {
            // The walk ends here: nothing below a damaged node can be trusted.
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
            // A node's own key comes before the longer keys below it.
            if !std::mem::replace(&mut step.entered, true) {
                if step.node.is_final() {
                    self.left = self.left.checked_sub(1).ok_or(Damage)?;
                    return Ok(Some(step.number.wrapping_add(step.node.final_output().value())));
                }
                // Every path of an FST ends in a final node.
                if step.node.is_empty() {
                    return Err(Damage);
                }
            }
            if step.next < step.node.len() {
                let below = step.follow_next(&self.keys.map, &mut self.key)?;
                self.stack.push(below);
            } else {
                // Back to the parent, and one byte less. At the start of the walk this cuts the prefix, harmlessly.
                self.stack.pop();
                self.key.pop();
            }
        }
    }
}

impl<'a> Step<'a> {
    /// Follows the next transition.
    fn follow_next(&mut self, map: &'a Fst<Section>, key: &mut Vec<u8>) -> Result<Self, Damage> {
        let transition = self.node.transition(self.next);
        // Addresses that only fall exclude cycles, and bytes that only rise keep the keys in order.
        let descends = transition.addr < self.node.addr();
        let in_order = self.last.is_none_or(|last| last < transition.inp);
        if !descends || !in_order || key.len() >= MAX_KEY_BYTES {
            return Err(Damage);
        }
        self.next += 1;
        self.last = Some(transition.inp);
        key.push(transition.inp);
        Ok(Self::at(map.node(transition.addr), self.number.wrapping_add(transition.out.value())))
    }
}
