//! Cases that once failed, as the model printed them, with what does not matter left out.

use super::play;
use super::steps::Mode::Lost;
use super::steps::Op::Part;
use super::steps::Step::{Delete, Rescan, Write};
use super::steps::{CLEAN, Fault, Key, Mode, Op, Run};

/// Any request of this kind fails.
fn fault(op: Op, key: Key, mode: Mode) -> Run {
    Run { faults: [Some(Fault { op, key, mode, once: false }), None], ..CLEAN }
}

/// A run with no other work than to abort an upload was cancelled before that request. Its report said `Unchanged`, without
/// a stop reason, and the upload was still there: the sweep took "not tried" for the end of its work. It now says why it
/// ended, and the run stops for that reason.
#[test]
fn i6_run_that_is_cancelled_before_it_aborts_an_upload_says_so() {
    let cancelled = Run { cancelled: Some(1), ..CLEAN };
    play(&[Write("a/n", 4), Rescan(fault(Part, "", Lost)), Delete("a/n"), Rescan(cancelled)]).unwrap();
}
