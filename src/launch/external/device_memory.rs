//! Device memory by process, where there is an NVIDIA driver to ask.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Asks `nvidia-smi` (which asks NVML) once a second, on a thread of its own.
pub(super) struct DeviceMemory {
    latest: Arc<Mutex<BTreeMap<i32, f64>>>,
    stop: Arc<AtomicBool>,
}

impl DeviceMemory {
    /// `None`: there is no `nvidia-smi`, or no device for it.
    pub fn watch() -> Option<Self> {
        let latest = Arc::new(Mutex::new(ask()?));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, stopped) = (Arc::clone(&latest), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(now) = ask() {
                    *theirs.lock().unwrap_or_else(PoisonError::into_inner) = now;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Some(Self { latest, stop })
    }

    /// MiB of these processes together, at the last answer.
    pub fn of(&self, mut inside: impl FnMut(i32) -> bool) -> f64 {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().filter(|(pid, _)| inside(**pid)).map(|(_, mib)| mib).sum()
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask() -> Option<BTreeMap<i32, f64>> {
    let query = ["--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits"];
    let mut command = Command::new("nvidia-smi");
    let out = command.args(query).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| parse(&String::from_utf8_lossy(&out.stdout)))
}

/// `1234, 560` a line; a process on several devices has several lines. `[N/A]` counts as nothing.
fn parse(text: &str) -> BTreeMap<i32, f64> {
    let mut by_pid = BTreeMap::new();
    for (pid, mib) in text.lines().filter_map(|l| l.split_once(',')) {
        if let (Ok(pid), Ok(mib)) = (pid.trim().parse::<i32>(), mib.trim().parse::<f64>()) {
            *by_pid.entry(pid).or_insert(0.0) += mib;
        }
    }
    by_pid
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_add_up_by_process() {
        let answer = super::parse("71, 1024\n71, 512\n80, [N/A]\n\n9, 3\n");
        assert_eq!(answer, [(9, 3.0), (71, 1536.0)].into_iter().collect());
    }
}
