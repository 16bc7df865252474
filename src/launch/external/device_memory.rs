//! Device memory of a process tree, where there is an NVIDIA driver to ask.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::nvml::{InUse, Nvml};

const EVERY: Duration = Duration::from_millis(200);

/// Asks NVML on a thread of its own: an answer of a busy driver takes its time.
pub(super) struct DeviceMemory {
    latest: Arc<Mutex<InUse>>,
    stop: Arc<AtomicBool>,
    /// What all devices held before the tree began.
    before: f64,
    /// Whether process ids may be those of another namespace: a container, whose list does not name ours.
    contained: bool,
}

impl DeviceMemory {
    /// `None`: no driver, or no device.
    pub fn watch() -> Option<Self> {
        let nvml = Nvml::load()?;
        let first = nvml.look();
        let before = first.devices;
        let latest = Arc::new(Mutex::new(first));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, stopped) = (Arc::clone(&latest), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let now = nvml.look();
                *theirs.lock().unwrap_or_else(PoisonError::into_inner) = now;
                std::thread::sleep(EVERY);
            }
        });
        Some(Self { latest, stop, before, contained: contained() })
    }

    /// MiB of these processes together, at the last answer.
    pub fn of(&self, inside: impl FnMut(i32) -> bool) -> f64 {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        held(&latest, inside, self.before, self.contained)
    }
}

/// In a container the driver names processes by the host's ids, or none: there it is what the devices hold more
/// than before.
fn held(now: &InUse, mut inside: impl FnMut(i32) -> bool, before: f64, contained: bool) -> f64 {
    let ours: f64 = now.by_pid.iter().filter(|(pid, _)| inside(**pid)).map(|(_, mib)| mib).sum();
    if ours == 0.0 && contained { (now.devices - before).max(0.0) } else { ours }
}

/// `PROC_PID_INIT_INO` of Linux's proc_ns.h is the machine's own namespace of process ids.
fn contained() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|ns| ns.as_os_str() != "pid:[4026531836]")
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_holds_what_its_processes_hold_or_in_a_container_what_was_added() {
        let now = InUse { by_pid: [(71, 1536.0), (80, 20.0), (9, 3.0)].into(), devices: 4000.0 };
        let tree = |pid| pid == 71 || pid == 9;
        assert_eq!(held(&now, tree, 1000.0, false), 1539.0);
        assert_eq!(held(&now, tree, 1000.0, true), 1539.0);
        assert_eq!(held(&now, |_| false, 1000.0, true), 3000.0);
        assert_eq!(held(&now, |_| false, 1000.0, false), 0.0);
        assert_eq!(held(&now, |_| false, 5000.0, true), 0.0);
    }
}
