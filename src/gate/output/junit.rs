//! JUnit XML: a test case a metric, as Jenkins, GitLab and most CI systems read it.

use crate::gate::finding::Findings;
use crate::stats::gate::Change;

/// Regressed: a failure. Inconclusive: skipped, or a failure where the gate file says so.
pub fn junit(findings: &Findings) -> String {
    let undecided_fails = findings.fails && findings.verdict == Change::Inconclusive;
    let failed = |c: Change| c == Change::Regressed || (c == Change::Inconclusive && undecided_fails);
    let failures = findings.findings.iter().filter(|f| failed(f.verdict)).count();
    let skipped = findings.of(Change::Inconclusive).filter(|f| !failed(f.verdict)).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"",
        findings.findings.len()
    );
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out += &format!("<testsuites {counts}>\n");
    out += &format!("  <testsuite name=\"kto-eval gate {}\" {counts}>\n", escape(&findings.plan));
    for f in &findings.findings {
        let (id, words) = (escape(&f.id), escape(&f.words));
        out += &format!("    <testcase classname=\"{}\" name=\"{id}\">", f.kind.name());
        out += &match f.verdict {
            c if failed(c) => format!("<failure message=\"{words}\" type=\"{}\">{words}</failure>", c.name()),
            Change::Inconclusive => format!("<skipped message=\"{words}\"/>"),
            _ => format!("<system-out>{words}</system-out>"),
        };
        out += "</testcase>\n";
    }
    out + "  </testsuite>\n</testsuites>\n"
}

/// XML 1.0 allows no control characters but tab and line ends, escaped or not.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' => out += "&#10;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
