//! Annotations of GitHub Actions: workflow commands on stdout.

use crate::gate::finding::Findings;
use crate::stats::gate::Change;

/// `::error` for what regressed, `::notice` for what could not be decided: noise alone is no warning.
pub fn annotations(findings: &Findings) -> String {
    let mut out = String::new();
    for (change, level) in [(Change::Regressed, "error"), (Change::Inconclusive, "notice")] {
        for f in findings.of(change) {
            out += &format!("::{level} title={}::{}\n", property(&f.id), data(&f.words));
        }
    }
    out
}

/// Escapes after actions/toolkit's `command.ts`: a raw line end would end the command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
