//! What the answers of its tasks mean for a large file, and where it goes from there.

use std::sync::Arc;

use crate::backend::SentPart;
use crate::error::Operation;
use crate::observe::event::Event;
use crate::rescan::context::{Context, given_up};
use crate::rescan::multipart::file::{MultipartFile, Restart, Stage, Whole, is_resumable};
use crate::rescan::multipart::task::{Held, Opened, Part, TaskResult};
use crate::state::records::Published;
use crate::tree::digest::PartPlan;
use crate::tree::source::Source;

impl MultipartFile {
    /// Takes the answer of a task.
    pub(crate) fn absorb(&mut self, outcome: TaskResult, context: &Context) {
        self.under_way -= 1;
        match outcome {
            TaskResult::Failed(error) => {
                self.unreadable |= self.stage == Stage::Hash;
                self.item.pending.attempted |= self.stage == Stage::Finish && error.may_have_taken_effect();
                self.fail(error);
            }
            TaskResult::Prepared { source, seen } => self.prepared(source, seen, context),
            TaskResult::Hashed(number, sha256) => {
                self.part_mut(number).sha256 = Some(sha256);
            }
            TaskResult::Whole(sha256) => self.whole = Whole::Known(sha256),
            TaskResult::Opened(opened) => self.opened(opened, context),
            TaskResult::Sent(number, SentPart { etag, sha256 }) => {
                let held = Some(Held { etag, sha256: Some(sha256) });
                *self.part_mut(number) = Part { sha256: Some(sha256), held };
            }
            TaskResult::Finished(finished) => {
                (self.there, self.closed) = (Some(finished.receipt), true);
                self.request_id = finished.request_id;
                self.enter(Stage::Ended);
            }
            TaskResult::Abandoned { gone } => {
                self.closed = gone;
                self.enter(Stage::Ended);
            }
        }
        self.advance(context);
    }

    fn part_mut(&mut self, number: u32) -> &mut Part {
        // Numbers come back as they were given out.
        &mut self.parts[number as usize - 1]
    }

    /// What is published already, if it is to be believed and may be what is on disk.
    fn believed(&self) -> Option<&Published> {
        let size = self.plan.size();
        self.item.published.as_ref().filter(|there| !self.item.pending.attempted && there.stat.size == size)
    }

    fn prepared(&mut self, source: Source, seen: i64, context: &Context) {
        let known = self.item.pending.known();
        self.item.pending.settled = source.stat().is_settled(seen);
        self.source = Some(Arc::new(source));
        let believed = self.believed().map(|there| there.digest);
        let known = known.filter(|known| believed.is_none_or(|there| there.part_size() == known.part_size()));
        match (believed, known) {
            (Some(there), Some(known)) if there == known => self.confirm(),
            (Some(there), None) => {
                let part_size = there.part_size().unwrap_or(self.plan.size());
                self.plain = there.part_size().is_none();
                if let Some(plan) = PartPlan::exactly(self.plan.size(), part_size) {
                    self.cut(plan);
                }
                self.enter(Stage::Hash);
            }
            (None, None) if context.is_offline() => self.enter(Stage::Hash),
            _ => self.enter(Stage::Open),
        }
    }

    fn confirm(&mut self) {
        self.confirmed = true;
        self.enter(Stage::Ended);
    }

    /// Forgets what is known of parts that another plan has.
    fn cut(&mut self, plan: PartPlan) {
        if plan != self.plan {
            self.parts = vec![Part::default(); plan.count() as usize];
            self.plan = plan;
        }
    }

    fn opened(&mut self, opened: Opened, context: &Context) {
        match opened {
            Opened::Upload { upload, plan, parts } => {
                self.adopt(plan, parts);
                self.tell_resumed(context);
                self.upload = Some(Arc::new(upload));
                self.began.get_or_insert(context.session.clock.now());
                self.enter(Stage::Send);
            }
            Opened::There { upload, receipt, plan, parts, settled } => {
                // Of what was sent when the file was too young, the stat does not tell.
                self.item.pending.settled &= settled;
                self.adopt(plan, parts);
                context.session.trace.progress.bytes_present(plan.size());
                self.upload = Some(Arc::new(upload));
                self.began.get_or_insert(context.session.clock.now());
                self.there = Some(receipt);
                self.enter(Stage::Hash);
            }
        }
    }

    /// Takes over the parts of an upload, and keeps the hashes that are known by now.
    fn adopt(&mut self, plan: PartPlan, parts: Vec<Part>) {
        self.plain = false;
        self.cut(plan);
        for (own, found) in self.parts.iter_mut().zip(parts) {
            let sha256 = found.sha256.or(own.sha256);
            *own = Part { sha256, ..found };
        }
    }

    /// Parts that need not be sent, nor looked at.
    fn tell_resumed(&self, context: &Context) {
        let trace = &context.session.trace;
        for number in self.done_parts() {
            let bytes = self.length_of(number);
            trace.progress.bytes_present(bytes);
            trace.emit(|| Event::PartFinished {
                key: self.item.key.as_str().to_owned(),
                number,
                bytes,
                of: self.plan.size(),
                resumed: true,
            });
        }
    }

    fn done_parts(&self) -> impl Iterator<Item = u32> + '_ {
        (1..).zip(&self.parts).filter(|(_, part)| part.is_done()).map(|(number, _)| number)
    }

    fn length_of(&self, number: u32) -> u64 {
        self.plan.part(number).map_or(0, |(_, length)| length)
    }

    /// Goes on to the next stage where this one is done.
    pub(crate) fn advance(&mut self, context: &Context) {
        if self.under_way > 0 || matches!(self.stage, Stage::Ended | Stage::Abandon) {
            return;
        }
        let all_hashed = self.parts.iter().all(|part| part.sha256.is_some());
        match self.stage {
            Stage::Hash if all_hashed => self.hashed(context),
            Stage::Hash if self.hashes_on() => {}
            _ if self.failure.is_some() => self.fall_back(context),
            Stage::Send if self.parts.iter().all(Part::is_done) && self.whole != Whole::Wanted => {
                self.enter(Stage::Finish);
            }
            _ => {}
        }
    }

    fn hashed(&mut self, context: &Context) {
        let digest = self.digest();
        self.item.pending.digest = Some(digest);
        if self.there.is_some() || self.failure.is_some() {
            self.closed |= self.failure.is_none();
            self.enter(Stage::Ended);
        } else if self.believed().is_some_and(|there| there.digest == digest) {
            self.confirm();
        } else if context.is_offline() {
            self.fail(given_up(Operation::Upload));
            self.fall_back(context);
        } else {
            self.plain = false;
            self.cut(self.wanted);
            self.enter(Stage::Open);
        }
    }

    /// Nothing is under way any more, and something failed.
    fn fall_back(&mut self, context: &Context) {
        let failure = self.failure.as_ref();
        if self.restart == Restart::Due && context.may_send() {
            return self.begin_again(context);
        }
        let keep = failure.is_some_and(is_resumable);
        let outage = failure.is_some_and(|error| error.kind().is_transient());
        // What is finished cannot be given up.
        self.closed |= self.there.is_some() && !keep;
        if self.upload.is_some() && !keep && !self.closed {
            self.enter(Stage::Abandon);
        } else if self.hashes_on() && outage && self.source.is_some() {
            self.enter(Stage::Hash);
            self.advance(context);
        } else {
            self.enter(Stage::Ended);
        }
    }

    /// The upload, or parts of it, are gone; what was hashed still counts.
    fn begin_again(&mut self, context: &Context) {
        let done = self.done_parts().map(|number| self.length_of(number)).sum();
        context.session.trace.progress.bytes_missing(done);
        self.restart = Restart::Done;
        let failure = self.failure.take();
        let gone = failure.is_some_and(|error| error.code() == Some("NoSuchUpload"));
        self.gone = self.upload.take().filter(|_| gone).map(|upload| upload.token.clone());
        for part in &mut self.parts {
            part.held = None;
        }
        self.cut(self.wanted);
        self.enter(Stage::Open);
    }
}
