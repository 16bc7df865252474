//! SIGINT and SIGTERM: the first ends the work after the present step, a second one at once.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Set by the first signal.
pub fn flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Listens for the signals from now on.
pub fn listen() {
    #[cfg(unix)]
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does only what is safe in a signal handler: an atomic swap, and `_exit`.
        unsafe { libc::signal(signal, handle as *const () as libc::sighandler_t) };
    }
}

#[cfg(unix)]
extern "C" fn handle(_: libc::c_int) {
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        crate::base::foreground::kill();
        // SAFETY: `_exit` may be called from a signal handler.
        unsafe { libc::_exit(crate::base::exit::Exit::Interrupted as i32) };
    }
}
