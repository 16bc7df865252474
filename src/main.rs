use std::process::ExitCode;

use libmimalloc_sys::mi_option_set;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Milliseconds.
const KEEP: std::ffi::c_long = 60_000;

/// mimalloc gives freed pages back to the system after a second, and the next step waits for the kernel to clear
/// them again: 3 % of the time of SFT at 27 M parameters, against 23 MiB more where they are kept for a minute (six
/// steps of two processes that took turns). What `MIMALLOC_PURGE_DELAY` says goes first.
fn keep_pages_for_the_next_step() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: writes an integer option; no other thread is running yet.
        unsafe { mi_option_set(PURGE_DELAY, KEEP) };
    }
}

fn main() -> ExitCode {
    keep_pages_for_the_next_step();
    kto_eval::cli::main()
}
