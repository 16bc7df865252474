//! The process group of the program that this one waits for, for a signal handler that must end both.

use std::sync::atomic::{AtomicI32, Ordering};

static GROUP: AtomicI32 = AtomicI32::new(0);

/// Notes the group; 0: none.
pub fn set(group: i32) {
    GROUP.store(group, Ordering::SeqCst);
}

/// Kills the group that is noted, if any. Safe in a signal handler: an atomic load and `kill(2)`.
pub fn kill() {
    let group = GROUP.load(Ordering::SeqCst);
    #[cfg(unix)]
    if group > 1 {
        // SAFETY: kill(2) has no memory effects, and is async-signal-safe.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    #[cfg(not(unix))]
    let _ = group;
}
