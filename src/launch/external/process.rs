//! A command run to its end or its limit, its whole process tree measured, and none of it left behind.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use crate::base::error::Result;

/// What a command may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub seconds: f64,
    /// Bytes of its log that are kept.
    pub log_bytes: u64,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signalled(i32),
    TimeLimit,
    Interrupted,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Signalled(signal) => write!(f, "signal {signal}"),
            Self::TimeLimit => f.write_str("time limit"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub wall_seconds: f64,
    /// User and system time of the tree.
    pub cpu_seconds: f64,
    /// Peak of the summed resident memory of the tree, MiB.
    pub peak_mib: f64,
    /// Peak of the summed device memory; `None` where nothing tells it.
    pub peak_device_mib: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct Ran {
    pub ended: Ended,
    pub usage: Usage,
    /// End of its log.
    pub tail: String,
    pub log_bytes: u64,
}

/// Runs a command in a process group of its own, with stdout and stderr in `log` and nothing on stdin.
///
/// At the time limit, or when `abort` is set, the group gets SIGTERM, then SIGKILL; afterwards whatever the
/// command has started and left is killed too, also where it moved to another group or session. `heard` gets
/// the last line of the log now and then.
///
/// # Errors
/// A program that cannot be started, a log that cannot be written.
#[cfg(unix)]
pub fn run_tree(
    command: &mut Command,
    log: &Path,
    limits: Limits,
    abort: &AtomicBool,
    heard: &mut dyn FnMut(&str),
) -> Result<Ran> {
    unix::run_tree(command, log, limits, abort, heard)
}

/// As on Unix.
///
/// # Errors
/// Always: process groups are not wired up on this system.
#[cfg(not(unix))]
pub fn run_tree(
    _: &mut Command,
    _: &Path,
    _: Limits,
    _: &AtomicBool,
    _: &mut dyn FnMut(&str),
) -> Result<Ran> {
    crate::base::error::bail!("external trainers need a Unix system: they are run as process groups")
}

#[cfg(unix)]
mod unix {
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::super::device_memory::DeviceMemory;
    use super::super::log::Log;
    #[cfg(target_os = "linux")]
    use super::super::tree::Tree;
    use super::*;
    use crate::base::error::{Context, HintExt};
    use crate::base::foreground;

    /// From SIGTERM to SIGKILL.
    const GRACE: Duration = Duration::from_secs(2);
    const MARKER: &str = "KTO_EVAL_TRAINER";
    static NEXT: AtomicU64 = AtomicU64::new(0);

    pub fn run_tree(
        command: &mut Command,
        log: &Path,
        limits: Limits,
        abort: &AtomicBool,
        heard: &mut dyn FnMut(&str),
    ) -> Result<Ran> {
        let mark = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (read, write) = std::io::pipe().context("making a pipe for the log")?;
        let mut log = Log::start(read, log, limits.log_bytes)?;
        command.env(MARKER, &mark).stdin(Stdio::null()).process_group(0);
        command.stdout(write.try_clone().context("making a pipe for the log")?).stderr(write);
        let die_with_us = || {
            #[cfg(target_os = "linux")]
            // SAFETY: prctl(2) is async-signal-safe and changes this process alone.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            Ok(())
        };
        // SAFETY: the closure does nothing between fork and exec that allocates or locks.
        unsafe { command.pre_exec(die_with_us) };
        let started = Instant::now();
        let spawned = command.spawn();
        let program = command.get_program().display().to_string();
        let child = spawned.with_context(|| format!("starting `{program}`")).hint(
            "is it installed, and on the PATH of this shell? Relative paths start at the current folder",
        )?;
        // The command holds the pipe's writing end as well: the log would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let pid = child.id().cast_signed();
        foreground::set(pid);
        let mut watch = Watch::new(pid, &format!("{MARKER}={mark}"));
        let (ended, rusage_seconds) = watch.wait(started, limits.seconds, abort, &log, heard);
        let wall_seconds = started.elapsed().as_secs_f64();
        watch.kill_rest();
        foreground::set(0);
        log.finish();
        let usage = Usage {
            wall_seconds,
            cpu_seconds: rusage_seconds.max(watch.cpu_seconds()),
            peak_mib: watch.peak_mib,
            peak_device_mib: watch.device.is_some().then_some(watch.peak_device_mib),
        };
        Ok(Ran { ended, usage, tail: log.tail(), log_bytes: log.bytes() })
    }

    struct Watch {
        pid: i32,
        #[cfg(target_os = "linux")]
        tree: Tree,
        device: Option<DeviceMemory>,
        peak_mib: f64,
        peak_device_mib: f64,
    }

    impl Watch {
        #[cfg_attr(
            not(target_os = "linux"),
            expect(unused_variables, reason = "only /proc shows environments")
        )]
        fn new(pid: i32, marker: &str) -> Self {
            Self {
                pid,
                #[cfg(target_os = "linux")]
                tree: Tree::new(pid, marker),
                device: DeviceMemory::watch(),
                peak_mib: 0.0,
                peak_device_mib: 0.0,
            }
        }

        /// Waits for the root process; the second value is its CPU time and that of children it waited for.
        fn wait(
            &mut self,
            started: Instant,
            limit: f64,
            abort: &AtomicBool,
            log: &Log,
            heard: &mut dyn FnMut(&str),
        ) -> (Ended, f64) {
            let mut stopping: Option<(Ended, Instant)> = None;
            let mut told = Instant::now();
            let mut pause = Duration::from_millis(5);
            loop {
                self.look();
                if let Some((status, seconds, peak)) = reaped(self.pid) {
                    self.peak_mib = self.peak_mib.max(peak);
                    return (stopping.map_or_else(|| ended(status), |(why, _)| why), seconds);
                }
                match &stopping {
                    None if abort.load(Ordering::Relaxed) => stopping = Some(self.stop(Ended::Interrupted)),
                    None if started.elapsed().as_secs_f64() > limit => {
                        stopping = Some(self.stop(Ended::TimeLimit));
                    }
                    Some((_, since)) if since.elapsed() > GRACE => self.signal(libc::SIGKILL),
                    _ => {}
                }
                if told.elapsed() > Duration::from_secs(1) {
                    told = Instant::now();
                    if let Some(line) = log.tail().lines().last() {
                        heard(line);
                    }
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }

        fn stop(&self, why: Ended) -> (Ended, Instant) {
            self.signal(libc::SIGTERM);
            (why, Instant::now())
        }

        fn signal(&self, signal: libc::c_int) {
            // SAFETY: kill(2) has no memory effects. The root is not reaped yet, so the group is ours.
            unsafe { libc::kill(-self.pid, signal) };
        }

        #[cfg(target_os = "linux")]
        fn look(&mut self) {
            let moment = self.tree.look();
            self.peak_mib = self.peak_mib.max(moment.resident_mib);
            if let Some(device) = &self.device {
                let now = device.of(|pid| moment.pids.contains(&pid));
                self.peak_device_mib = self.peak_device_mib.max(now);
            }
        }

        #[cfg(not(target_os = "linux"))]
        fn look(&mut self) {}

        #[cfg(target_os = "linux")]
        fn cpu_seconds(&self) -> f64 {
            self.tree.cpu_seconds()
        }

        #[cfg(not(target_os = "linux"))]
        fn cpu_seconds(&self) -> f64 {
            0.0
        }

        fn kill_rest(&mut self) {
            // The group outlives its leader where a member does; without one this finds nobody.
            self.signal(libc::SIGKILL);
            #[cfg(target_os = "linux")]
            self.tree.kill_rest();
        }
    }

    fn ended(status: libc::c_int) -> Ended {
        match libc::WIFSIGNALED(status) {
            true => Ended::Signalled(libc::WTERMSIG(status)),
            false => Ended::Exited(libc::WEXITSTATUS(status)),
        }
    }

    /// Status, CPU seconds and peak memory (MiB, of the largest process) of a child that has ended.
    fn reaped(pid: i32) -> Option<(libc::c_int, f64, f64)> {
        let mut status = 0;
        // SAFETY: wait4 fills the two values that it is given; the child is ours and not waited for elsewhere.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            if libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) != pid {
                return None;
            }
            usage
        };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
        let unit = if cfg!(target_os = "macos") { 1.0 / (1024.0 * 1024.0) } else { 1.0 / 1024.0 };
        Some((status, seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as f64 * unit))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn shell(script: &str, limits: Limits) -> (Ran, String, std::time::Duration) {
        let dir = tempfile::tempdir().unwrap();
        let (log, began) = (dir.path().join("log"), std::time::Instant::now());
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let ran = run_tree(&mut command, &log, limits, &AtomicBool::new(false), &mut |_| {}).unwrap();
        (ran, std::fs::read_to_string(&log).unwrap(), began.elapsed())
    }

    const LIMITS: Limits = Limits { seconds: 60.0, log_bytes: 1 << 20 };

    /// Processes whose command line holds the words.
    fn alive(words: &str) -> usize {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let line = |e: std::fs::DirEntry| std::fs::read(e.path().join("cmdline")).unwrap_or_default();
        entries.map(line).filter(|l| String::from_utf8_lossy(l).replace('\0', " ").trim() == words).count()
    }

    #[test]
    fn both_streams_are_kept_and_the_code_is_told() {
        let (ran, log, _) = shell("echo out; echo err >&2; exit 7", LIMITS);
        assert_eq!((ran.ended, ran.log_bytes), (Ended::Exited(7), 8));
        assert!(log.contains("out\n") && log.contains("err\n") && ran.tail.ends_with("err"), "{log}");
        let (ran, ..) = shell("kill -9 $$", LIMITS);
        assert_eq!(ran.ended, Ended::Signalled(9));
    }

    #[test]
    fn the_whole_tree_is_measured() {
        // 48 MiB held by a grandchild, and a second of computing by another.
        let script = "sh -c 'x=$(head -c 50331648 /dev/zero | tr \"\\\\0\" x); sleep 1' & \
                      sh -c 'timeout 1 sh -c \"while :; do :; done\"'; wait; true";
        let (ran, ..) = shell(script, LIMITS);
        assert_eq!(ran.ended, Ended::Exited(0));
        let usage = ran.usage;
        assert!(usage.peak_mib > 45.0 && usage.peak_mib < 400.0, "{usage:?}");
        assert!(usage.cpu_seconds > 0.1 && usage.wall_seconds > 0.9, "{usage:?}");
    }

    #[test]
    fn a_hanging_tree_ends_at_its_limit_with_all_that_it_started() {
        let script = "trap '' TERM; setsid sleep 617.25 & sleep 617.25 & echo begun; wait; sleep 617.25";
        let (ran, log, took) = shell(script, Limits { seconds: 0.5, ..LIMITS });
        assert_eq!((ran.ended, log.as_str()), (Ended::TimeLimit, "begun\n"));
        assert!(took.as_secs_f64() < 20.0, "{took:?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(alive("sleep 617.25"), 0);
    }

    #[test]
    fn what_is_left_running_in_the_background_is_not_left_behind() {
        let (ran, _, took) = shell("setsid sleep 618.25 & sleep 618.25 & exit 0", LIMITS);
        assert_eq!(ran.ended, Ended::Exited(0));
        assert!(took.as_secs_f64() < 20.0, "{took:?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(alive("sleep 618.25"), 0);
    }

    #[test]
    fn a_flood_of_log_is_cut_and_its_end_kept() {
        let limits = Limits { log_bytes: 100_000, ..LIMITS };
        let (ran, log, _) = shell("yes flood | head -c 60000000; echo the end", limits);
        assert_eq!(ran.ended, Ended::Exited(0));
        assert!(log.len() < 101_000 && log.contains("the log is cut here at 100000 bytes"), "{}", log.len());
        assert_eq!(ran.log_bytes, 60_000_008);
        assert!(ran.tail.ends_with("the end") && ran.tail.len() <= 4096);
    }

    #[test]
    fn an_abort_ends_it_and_a_missing_program_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let run = |program: &str, arguments: &[&str]| {
            run_tree(Command::new(program).args(arguments), &log, LIMITS, &AtomicBool::new(true), &mut |_| {})
        };
        assert_eq!(run("sleep", &["619.25"]).unwrap().ended, Ended::Interrupted);
        assert_eq!(alive("sleep 619.25"), 0);
        let error = crate::base::error::render(&run("no-such-trainer", &[]).unwrap_err());
        assert!(
            error.contains("starting `no-such-trainer`") && error.contains("hint: is it installed"),
            "{error}"
        );
    }
}
