//! The parts of a large file, the tasks that workers are given, and their answers.

use std::sync::Arc;

use crate::backend::{DueHeaders, Receipt, SentPart, UploadName};
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// A part, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// SHA-256 of the file on disk, once it was hashed.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The part as the store has it.
    pub(crate) held: Option<Held>,
}

/// A part that the store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) etag: String,
    /// Of the bytes that were sent; `None`: of this very file, whose stat could be trusted all the time.
    pub(crate) sha256: Option<[u8; 32]>,
}

impl Part {
    /// Returns whether the store holds what is on disk.
    pub(crate) fn is_done(&self) -> bool {
        let holds =
            |held: &Held| self.sha256.is_some() && held.sha256.is_none_or(|sent| Some(sent) == self.sha256);
        self.held.as_ref().is_some_and(holds)
    }
}

/// A part plan, and what is known of each part and of the whole file.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) plan: PartPlan,
    list: Vec<Part>,
    /// The plain digest of the whole file.
    pub(crate) whole: Option<[u8; 32]>,
}

impl Parts {
    pub(crate) fn new(plan: PartPlan) -> Self {
        Self { plan, list: vec![Part::default(); plan.count() as usize], whole: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Cuts the file by another plan, and forgets what is known of its parts if that is not the plan of now.
    pub(crate) fn recut(&mut self, plan: PartPlan) {
        if plan != self.plan {
            *self = Self { whole: self.whole, ..Self::new(plan) };
        }
    }

    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u32, &Part)> {
        (1..).zip(&self.list)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Part> {
        self.list.get(index_of(number))
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Part> {
        self.list.get_mut(index_of(number))
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Part] {
        &mut self.list
    }

    /// Returns whether the store has something of each part.
    pub(crate) fn has_all(&self) -> bool {
        self.list.iter().all(|part| part.held.is_some())
    }

    /// The parts that are not hashed.
    pub(crate) fn unhashed(&self) -> Vec<Piece> {
        let lacking = self.numbered().filter(|(_, part)| part.sha256.is_none());
        lacking.map(|(number, _)| Piece::Part(number)).collect()
    }

    /// The parts that the store lacks, or may lack.
    pub(crate) fn unsent(&self) -> Vec<Piece> {
        let lacking = self.numbered().filter(|(_, part)| !part.is_done());
        lacking.map(|(number, _)| Piece::Part(number)).collect()
    }

    /// The parts that the store holds, each with its length.
    pub(crate) fn done(&self) -> impl Iterator<Item = (u32, u64)> {
        let done = self.numbered().filter(|(_, part)| part.is_done());
        done.filter_map(|(number, _)| Some((number, self.plan.part(number)?.1)))
    }

    /// Forgets what the store has; what was hashed still counts.
    pub(crate) fn forget_held(&mut self) {
        self.list.iter_mut().for_each(|part| part.held = None);
    }

    /// Takes over what is known of an upload's parts, and keeps the hashes that are known by now.
    pub(crate) fn adopt(&mut self, found: Self) {
        self.recut(found.plan);
        for (own, found) in self.list.iter_mut().zip(found.list) {
            let sha256 = found.sha256.or(own.sha256);
            *own = Part { sha256, ..found };
        }
    }

    pub(crate) fn sent(&self) -> Vec<SentPart> {
        let sent =
            |part: &Part| Some(SentPart { etag: part.held.as_ref()?.etag.clone(), sha256: part.sha256? });
        self.list.iter().filter_map(sent).collect()
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.list.iter().filter_map(|part| part.sha256).collect()
    }

    /// The composite digest.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of_parts(&self.plan, &self.hashes())
    }

    /// The composite digest, if all parts are hashed.
    pub(crate) fn known_digest(&self) -> Option<Digest> {
        self.unhashed().is_empty().then(|| self.digest())
    }

    /// The digest to compare with a plain one: of a file that was hashed as a single part.
    pub(crate) fn plain_digest(&self) -> Digest {
        match self.hashes().as_slice() {
            [only] => Digest::whole(*only),
            all => Digest::of_parts(&self.plan, all),
        }
    }

    pub(crate) fn note(&mut self, answer: Answer) {
        match answer {
            Answer::FileHashed(sha256) => self.whole = Some(sha256),
            Answer::PartHashed(number, sha256) => {
                if let Some(part) = self.get_mut(number) {
                    part.sha256 = Some(sha256);
                }
            }
            Answer::PartSent(number, SentPart { etag, sha256 }) => {
                if let Some(part) = self.get_mut(number) {
                    let held = Some(Held { etag, sha256: Some(sha256) });
                    *part = Part { sha256: Some(sha256), held };
                }
            }
        }
    }
}

fn index_of(number: u32) -> usize {
    // There is no part 0.
    (number as usize).wrapping_sub(1)
}

/// A piece of a file that a task is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// All of it, for its plain digest.
    File,
    Part(u32),
}

/// A task that runs beside others for other pieces of the file.
#[derive(Debug)]
pub(crate) enum Task {
    HashFile,
    HashPart { number: u32, offset: u64, length: u64 },
    SendPart { upload: Arc<UploadName>, number: u32, offset: u64, length: u64, known: Part },
}

impl Task {
    /// For a piece: sent if there is an upload to send it to, else hashed. `None`: there is no such part.
    pub(crate) fn of(piece: Piece, parts: &Parts, upload: Option<&Arc<UploadName>>) -> Option<Self> {
        let Piece::Part(number) = piece else {
            return Some(Self::HashFile);
        };
        let (offset, length) = parts.plan.part(number)?;
        Some(match upload {
            None => Self::HashPart { number, offset, length },
            Some(upload) => {
                let (upload, known) = (upload.clone(), parts.get(number)?.clone());
                Self::SendPart { upload, number, offset, length, known }
            }
        })
    }
}

/// The answer to a task.
#[derive(Debug)]
pub(crate) enum Answer {
    FileHashed([u8; 32]),
    PartHashed(u32, [u8; 32]),
    PartSent(u32, SentPart),
}

/// A file that was opened.
pub(crate) struct Prepared {
    pub(crate) source: Source,
    /// The time of day before it was opened.
    pub(crate) seen: i64,
}

/// The wanted parts of an upload, and what else it takes to resume or create one.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) not_racy: bool,
    /// The parts to send, and what was hashed of them before.
    pub(crate) parts: Parts,
    /// The token of an upload that is recorded and known to be gone.
    pub(crate) gone: Option<String>,
}

/// An upload that was created or resumed.
pub(crate) struct Opened {
    pub(crate) upload: UploadName,
    pub(crate) parts: Parts,
    pub(crate) completed: Option<EarlierCompletion>,
    /// The headers that it was created with.
    pub(crate) headers: DueHeaders,
}

/// An upload that an earlier run had completed without learning of it.
pub(crate) struct EarlierCompletion {
    pub(crate) receipt: Receipt,
    /// The stat of then may stand for the content.
    pub(crate) not_racy: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(etag: &str, sha256: Option<[u8; 32]>) -> Held {
        Held { etag: etag.to_owned(), sha256 }
    }

    #[test]
    fn part_of_a_file_that_was_too_young_is_done_once_its_hash_is_what_was_sent() {
        let part = |now: Option<[u8; 32]>| Part { sha256: now, held: Some(held("e", Some([1; 32]))) };
        assert!(part(Some([1; 32])).is_done());
        assert!(!part(None).is_done() && !part(Some([2; 32])).is_done());
        assert!(Part { sha256: Some([1; 32]), held: Some(held("e", None)) }.is_done());
    }
}
