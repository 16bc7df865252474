//! Noise learned from earlier gates.

use std::collections::BTreeMap;
use std::path::Path;

use super::finding::{FORMAT, Finding, Findings};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::stats::gate::{Noise, robust_spread};

/// Newest files that are read; older ones describe machines of another time.
const NEWEST: usize = 100;

/// Gates that must have measured a metric before the spread of their changes is taken for noise.
const FEWEST: usize = 8;

/// What earlier gates saw of each finding, by its id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    seen: BTreeMap<String, Seen>,
    pub gates: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// Σ df · s² and Σ df of the spreads within gates.
    squares: f64,
    degrees_of_freedom: f64,
    /// Log-ratios of whole gates.
    changes: Vec<f64>,
}

impl History {
    /// Reads every `*.json` of a folder that earlier gates left there; a folder that is not there is empty.
    ///
    /// # Errors
    /// A file that is not a gate's.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut history = Self::default();
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(history),
            Err(e) => return Err(e).with_context(|| format!("listing the history {}", dir.display())),
        };
        let mut files: Vec<_> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect();
        // Names begin with the time of the measurement.
        files.sort_unstable();
        for path in files.iter().rev().take(NEWEST) {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let past: Findings = serde_json::from_str(&text)
                .with_context(|| format!("{} is not a gate's result", path.display()))
                .hint("a history folder holds the gate.json of earlier gates and nothing else")?;
            if past.format != FORMAT {
                return Err(anyhow!(
                    "{}: format {}; this program reads {FORMAT}",
                    path.display(),
                    past.format
                ))
                .hint("start a new history folder");
            }
            history.add(&past.findings);
        }
        Ok(history)
    }

    pub fn add(&mut self, findings: &[Finding]) {
        self.gates += 1;
        for finding in findings {
            let df = finding.degrees_of_freedom as f64;
            let Some(spread) = finding.spread.filter(|s| s.is_finite() && df > 0.0) else { continue };
            let seen = self.seen.entry(finding.id.clone()).or_default();
            seen.squares += df * spread * spread;
            seen.degrees_of_freedom += df;
            let change = finding.change.map(f64::ln_1p).filter(|c| c.is_finite());
            seen.changes.extend(change);
        }
    }

    /// What earlier measurements of this metric showed.
    ///
    /// Within: pooled spreads, each about its own gate's centre, so that a change that a gate caught does not
    /// widen it. Between: the robust spread of the gates' changes, most of which are of commits that change nothing.
    pub fn noise(&self, id: &str) -> Noise {
        let Some(seen) = self.seen.get(id) else { return Noise::default() };
        let between = if seen.changes.len() < FEWEST { 0.0 } else { robust_spread(&seen.changes) };
        Noise { within: (seen.squares / seen.degrees_of_freedom).sqrt(), between }
    }

    /// Writes a gate's result into the folder, under the candidate's start time.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn save(dir: &Path, findings: &Findings) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating the history {}", dir.display()))?;
        let text = serde_json::to_string_pretty(findings)? + "\n";
        let hash = crate::base::hash::Hasher::new("kto-eval/gate").part(text.as_bytes()).short();
        let started = findings.candidate.started.replace(':', "");
        let path = dir.join(format!("{started}-{hash}.json"));
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}
