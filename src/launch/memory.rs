//! Peak memory of a stretch of work.

/// Peak resident memory of this process since [`PeakMemory::start`].
///
/// Linux keeps one high-water mark for the whole life of a process and resets it on request
/// (`/proc/self/clear_refs`, proc(5)); where that is refused, and on other systems, the figure is the peak
/// since the process began, so it can only be too high.
#[derive(Clone, Copy, Debug)]
pub struct PeakMemory {
    /// Resident when the stretch began, MiB.
    pub before_mib: f64,
}

impl PeakMemory {
    pub fn start() -> Self {
        // Best effort: see the type's documentation.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { before_mib: status_mib("VmRSS:").unwrap_or(0.0) }
    }

    /// MiB; 0 where the system does not tell.
    pub fn peak_mib(self) -> f64 {
        status_mib("VmHWM:").unwrap_or_else(process_peak_mib)
    }
}

fn status_mib(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|l| l.strip_prefix(key))?.split_whitespace().next()?;
    kib.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

#[cfg(unix)]
fn process_peak_mib() -> f64 {
    // SAFETY: getrusage fills the zeroed struct that it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &mut usage) != 0 {
            return 0.0;
        }
        usage
    };
    // KiB on Linux, bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1.0 / (1024.0 * 1024.0) } else { 1.0 / 1024.0 };
    usage.ru_maxrss as f64 * unit
}

#[cfg(not(unix))]
fn process_peak_mib() -> f64 {
    0.0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_counts_its_own_memory() {
        let peak = PeakMemory::start();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak.peak_mib() >= peak.before_mib + 60.0, "{} of {peak:?}", peak.peak_mib());
        drop(block);
        let next = PeakMemory::start();
        assert!(next.peak_mib() >= next.before_mib);
    }
}
