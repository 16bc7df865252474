//! The processes that descend from one, as `/proc` shows them (proc(5)).

use std::collections::{BTreeMap, BTreeSet};

/// A process: its id, and when it began, since ids are used again.
type Who = (i32, u64);

/// Everything that has been seen of a tree.
pub(super) struct Tree {
    root: i32,
    /// Ticks of CPU time of each process when it was last seen.
    ticks: BTreeMap<Who, u64>,
    /// Set in the environment of the root and inherited by all that it starts.
    marker: String,
}

/// A moment of it.
pub(super) struct Moment {
    pub resident_mib: f64,
    pub pids: BTreeSet<i32>,
}

struct Stat {
    pid: i32,
    parent: i32,
    group: i32,
    ticks: u64,
    start: u64,
    pages: u64,
    zombie: bool,
}

impl Tree {
    pub fn new(root: i32, marker: &str) -> Self {
        Self { root, ticks: BTreeMap::new(), marker: marker.to_owned() }
    }

    /// Looks now: descendants, members of the root's group, and whatever was seen before and still lives.
    pub fn look(&mut self) -> Moment {
        let all = processes();
        let mut inside: BTreeSet<i32> = BTreeSet::new();
        for p in &all {
            if p.pid == self.root || p.group == self.root || self.ticks.contains_key(&(p.pid, p.start)) {
                inside.insert(p.pid);
            }
        }
        // A child may stand before its parent in the listing.
        loop {
            let before = inside.len();
            let children: Vec<i32> =
                all.iter().filter(|p| inside.contains(&p.parent)).map(|p| p.pid).collect();
            inside.extend(children);
            if inside.len() == before {
                break;
            }
        }
        let mut pages = 0;
        for p in all.iter().filter(|p| inside.contains(&p.pid)) {
            self.ticks.insert((p.pid, p.start), p.ticks);
            pages += p.pages;
        }
        Moment { resident_mib: pages as f64 * page_size() / f64::from(1 << 20), pids: inside }
    }

    /// CPU seconds of every process seen, as last seen.
    pub fn cpu_seconds(&self) -> f64 {
        // SAFETY: sysconf reads a constant of the system.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1);
        self.ticks.values().sum::<u64>() as f64 / per_second as f64
    }

    /// Kills whatever of the tree still lives: what was seen, and what carries the marker.
    pub fn kill_rest(&mut self) {
        self.look();
        for p in processes().iter().filter(|p| !p.zombie && p.pid != std::process::id().cast_signed()) {
            if self.ticks.contains_key(&(p.pid, p.start)) || carries(p.pid, &self.marker) {
                // SAFETY: kill(2) has no memory effects. The start time was read just now.
                unsafe { libc::kill(p.pid, libc::SIGKILL) };
            }
        }
    }
}

fn page_size() -> f64 {
    // SAFETY: sysconf reads a constant of the system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as f64 }
}

fn processes() -> Vec<Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

/// `/proc/<pid>/stat`: the name may hold spaces and brackets, so fields are counted from its last bracket.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        zombie: fields.first() == Some(&"Z"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        start: number(19)?,
        pages: number(21)?,
    })
}

fn carries(pid: i32, marker: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|b| *b == 0).any(|variable| variable == marker.as_bytes())
}
