//! Noise learned from earlier gates.

use std::collections::BTreeMap;
use std::path::Path;

use super::finding::{FORMAT, Finding, Findings};
use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::stats::gate::Noise;

/// Newest files that are read; older ones describe machines of another time.
const NEWEST: usize = 100;

/// Spreads of earlier gates by finding id, pooled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Σ df · s² and Σ df.
    pooled: BTreeMap<String, (f64, f64)>,
    pub gates: usize,
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
            if let Some(spread) = finding.spread.filter(|s| s.is_finite() && df > 0.0) {
                let (sum, dfs) = self.pooled.entry(finding.id.clone()).or_default();
                *sum += df * spread * spread;
                *dfs += df;
            }
        }
    }

    /// What earlier measurements of this metric showed.
    ///
    /// A spread is taken about its gate's own mean, so that a change that a gate caught does not widen it.
    pub fn noise(&self, id: &str) -> Noise {
        let noise = |&(sum, dfs): &(f64, f64)| Noise { sd: (sum / dfs).sqrt(), degrees_of_freedom: dfs };
        self.pooled.get(id).map(noise).unwrap_or_default()
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
