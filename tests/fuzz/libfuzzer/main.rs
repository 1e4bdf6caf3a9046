//! One binary for each target, all from this file: the target has the name of the binary.
#![no_main]

use std::cell::RefCell;
use std::panic::{catch_unwind, set_hook};
use std::process::abort;
use std::sync::Once;

use libfuzzer_sys::fuzz_target;

thread_local! {
    /// The last panic on this thread.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

// libfuzzer-sys ends the process in the panic hook. The catalog catches panics of the crate `fst`, so only a panic that
// leaves the target counts.
fuzz_target!(|data: &[u8]| {
    HOOK.call_once(|| set_hook(Box::new(|panic| LAST.set(panic.to_string()))));
    let name = env!("CARGO_BIN_NAME");
    let target = bucket_brigade::fuzz_target(name).unwrap_or_else(|| panic!("there is no target {name}"));
    if catch_unwind(|| target(data)).is_err() {
        eprintln!("{}", LAST.take());
        abort();
    }
});
