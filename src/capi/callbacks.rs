//! The caller's functions.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use log::Level;

use crate::capi::boundary::{access, c_text};
use crate::clock::CancelToken;
use crate::engine::thread_named;
use crate::json::{events::log_fields, write_json};
use crate::observe::event::{Event, Observer, Progress, ProgressSnapshot};

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The severity of a record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_log_level {
    /// Something failed as a whole.
    BB_LOG_ERROR = 1,
    /// Somebody should look at it.
    BB_LOG_WARN = 2,
    /// Each upload and delete, and the end of each run.
    BB_LOG_INFO = 3,
    /// Each request.
    BB_LOG_DEBUG = 4,
    /// Everything.
    BB_LOG_TRACE = 5,
}

/// Gets a record of the log.
///
/// @param message the record's message; lives until the callback returns, as does `fields`
/// @param fields its key-values as a JSON object on one line, such as {"key":"a.txt","attempts":"1"}
pub type bb_log_callback = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        level: bb_log_level,
        message: *const c_char,
        fields: *const c_char,
    ),
>;

/// Gets the progress of a call. Returns 0 to go on, and anything else to cancel the call.
///
/// @param progress lives until the callback returns
pub type bb_progress_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, progress: *const bb_progress) -> c_int>;

/// Returns the level of a number.
pub(super) fn level_of(number: u32) -> Option<Level> {
    match number {
        1 => Some(Level::Error),
        2 => Some(Level::Warn),
        3 => Some(Level::Info),
        4 => Some(Level::Debug),
        5 => Some(Level::Trace),
        _ => None,
    }
}

impl From<Level> for bb_log_level {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::BB_LOG_ERROR,
            Level::Warn => Self::BB_LOG_WARN,
            Level::Info => Self::BB_LOG_INFO,
            Level::Debug => Self::BB_LOG_DEBUG,
            Level::Trace => Self::BB_LOG_TRACE,
        }
    }
}

/// The caller's pointer, which is only handed back.
#[derive(Clone, Copy)]
struct UserData(*mut c_void);

// SAFETY: it is never dereferenced here. The header says that callbacks are called by the threads of the site.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// A function that gets the log.
#[derive(Clone, Copy)]
pub(super) struct LogCallback {
    level: Level,
    function: unsafe extern "C" fn(*mut c_void, bb_log_level, *const c_char, *const c_char),
    user_data: UserData,
}

impl LogCallback {
    pub(super) fn new(
        level: Level,
        function: unsafe extern "C" fn(*mut c_void, bb_log_level, *const c_char, *const c_char),
        user_data: *mut c_void,
    ) -> Self {
        Self { level, function, user_data: UserData(user_data) }
    }

    /// Returns the observer that passes records on.
    pub(super) fn observer(self) -> Arc<dyn Observer> {
        Arc::new(move |event: &Event| {
            if let Event::Log { level, message, fields } = event
                && *level <= self.level
            {
                self.pass(*level, message, fields);
            }
        })
    }

    fn pass(&self, level: Level, message: &str, fields: &[(&'static str, String)]) {
        let mut json = Vec::new();
        // Writing to memory cannot fail.
        let _ = write_json(&mut json, &log_fields(fields));
        let (message, fields) = (c_text(message), c_text(json));
        // SAFETY: the caller's function, with texts that outlive the call.
        unsafe { (self.function)(self.user_data.0, level.into(), message.as_ptr(), fields.as_ptr()) };
    }
}

/// The progress of a call at one moment.
pub struct bb_progress(ProgressSnapshot);

/// A count of `bb_progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_progress_value {
    /// Files to be uploaded, or whose objects get other headers.
    BB_PROGRESS_FILES_TOTAL = 1,
    /// Files that are finished.
    BB_PROGRESS_FILES_DONE = 2,
    /// Files that failed.
    BB_PROGRESS_FILES_FAILED = 3,
    /// Bytes of the files to be uploaded.
    BB_PROGRESS_BYTES_TOTAL = 4,
    /// Bytes that are sent, or were there already.
    BB_PROGRESS_BYTES_DONE = 5,
    /// Bytes read for hashing.
    BB_PROGRESS_BYTES_HASHED = 6,
    /// Bytes of files written to connections.
    BB_PROGRESS_BYTES_SENT = 7,
    /// Objects to be deleted.
    BB_PROGRESS_DELETES_TOTAL = 8,
    /// Objects deleted.
    BB_PROGRESS_DELETES_DONE = 9,
}

/// Returns a count of the progress; 0 for a number that is not known.
///
/// @param value a bb_progress_value
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_progress_count(progress: *const bb_progress, value: u32) -> u64 {
    // SAFETY: NULL or what the callback got.
    access(unsafe { progress.as_ref() }, 0, |progress| {
        let now = &progress.0;
        match value {
            1 => now.files_total,
            2 => now.files_done,
            3 => now.files_failed,
            4 => now.bytes_total,
            5 => now.bytes_done,
            6 => now.bytes_hashed,
            7 => now.bytes_sent,
            8 => now.deletes_total,
            9 => now.deletes_done,
            _ => 0,
        }
    })
}

/// A function that gets the progress.
#[derive(Clone, Copy)]
pub(super) struct ProgressCallback {
    function: unsafe extern "C" fn(*mut c_void, *const bb_progress) -> c_int,
    user_data: UserData,
}

impl ProgressCallback {
    pub(super) fn new(
        function: unsafe extern "C" fn(*mut c_void, *const bb_progress) -> c_int,
        user_data: *mut c_void,
    ) -> Self {
        Self { function, user_data: UserData(user_data) }
    }

    /// Does the work, and calls the function meanwhile and at the end.
    pub(super) fn watch<T>(self, progress: &Progress, cancel: &CancelToken, work: impl FnOnce() -> T) -> T {
        let (ended, end) = crossbeam_channel::bounded::<()>(0);
        let result = std::thread::scope(|scope| {
            let tick = move || self.tick_until(&end, progress, cancel);
            let ticker = thread_named("brigade-progress");
            // Without the thread the function is called at the end only.
            let _ = ticker.spawn_scoped(scope, tick);
            let result = work();
            drop(ended);
            result
        });
        self.call(progress.snapshot(), cancel);
        result
    }

    fn tick_until(self, end: &crossbeam_channel::Receiver<()>, progress: &Progress, cancel: &CancelToken) {
        let mut shown = ProgressSnapshot::default();
        while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let now = progress.snapshot();
            if now != shown {
                self.call(now, cancel);
                shown = now;
            }
        }
    }

    fn call(self, now: ProgressSnapshot, cancel: &CancelToken) {
        let progress = bb_progress(now);
        // SAFETY: the caller's function, with a handle that outlives the call.
        if unsafe { (self.function)(self.user_data.0, &raw const progress) } != 0 {
            cancel.cancel();
        }
    }
}
