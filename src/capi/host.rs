//! The host: its process, its signals, and the threads on which calls do their work.

use std::panic::resume_unwind;
use std::{process, thread};

use memmap2::MmapMut;

use crate::engine::thread_named;
use crate::error::{ErrorKind, Operation, StorageError};

/// The process that opened a site.
pub(super) struct Opener {
    id: u32,
    /// One page that a fork empties. A child may have the same ID, in a PID namespace of its own.
    page: Option<MmapMut>,
}

impl Opener {
    pub(super) fn new() -> Self {
        Self { id: process::id(), page: page_of_this_process() }
    }

    /// Returns true in the process that opened the site. Looks at no lock: another thread may have held one when the process forked.
    pub(super) fn is_here(&self) -> bool {
        self.id == process::id() && self.page.as_ref().is_none_or(|page| page[0] == 1)
    }
}

#[cfg(target_os = "linux")]
fn page_of_this_process() -> Option<MmapMut> {
    let mut page = MmapMut::map_anon(1).ok()?;
    page[0] = 1;
    // SAFETY: the mapping is ours, private and anonymous. The advice concerns children only.
    let advised = unsafe { libc::madvise(page.as_mut_ptr().cast(), page.len(), libc::MADV_WIPEONFORK) };
    (advised == 0).then_some(page)
}

#[cfg(not(target_os = "linux"))]
fn page_of_this_process() -> Option<MmapMut> {
    None
}

/// Does the work of a call on a thread of its own, and waits for it. That thread, and those that it starts, get none of the host's
/// signals. The caller's thread, which waits, gets them as before.
pub(super) fn apart<T: Send>(
    work: impl FnOnce() -> Result<T, StorageError> + Send,
) -> Result<T, StorageError> {
    thread::scope(|scope| {
        let started = without_signals(|| thread_named("brigade-call").spawn_scoped(scope, work));
        let started = started.map_err(|error| {
            let what = "cannot start the thread of the call";
            StorageError::new(ErrorKind::Other, Operation::Configure, what).with_source(error)
        })?;
        started.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The signals that a thread raises itself, by what it does.
const OWN: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

/// Blocks signals while a thread is started, which inherits that.
fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are filled before they are read, and the numbers are signals. `pthread_sigmask` cannot fail with them.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for signal in OWN {
            libc::sigdelset(all.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
    }
    let started = start();
    // SAFETY: the call above has filled it.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    started
}
