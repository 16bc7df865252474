//! Markdown, for `$GITHUB_STEP_SUMMARY`, merge requests and people.

use crate::gate::finding::{Finding, Findings, amount, short};
use crate::stats::gate::Change;

/// Headline, table of metrics, sentences for what did not pass, notes.
pub fn markdown(findings: &Findings) -> String {
    let count = |c: Change| findings.of(c).count();
    let mut out = format!(
        "## kto-eval gate: {}\n\nPlan `{}`: {} regressed, {} improved, {} inconclusive, {} passed. Chance of a false \
         alarm in this gate: at most {} %, shared by {} tests.\n\n",
        headline(findings.verdict),
        findings.plan,
        count(Change::Regressed),
        count(Change::Improved),
        count(Change::Inconclusive),
        count(Change::Pass),
        100.0 * findings.alarm,
        findings.tests,
    );
    out += "| metric | baseline | candidate | change | interval | tolerance | verdict |\n";
    out += "| --- | ---: | ---: | ---: | ---: | ---: | --- |\n";
    for f in &findings.findings {
        out += &row(f);
    }
    for change in [Change::Regressed, Change::Inconclusive, Change::Improved] {
        let sentences: Vec<String> = findings.of(change).map(|f| format!("- {}\n", line(&f.words))).collect();
        if !sentences.is_empty() {
            out += &format!("\n**{}**\n\n{}", capital(change.name()), sentences.concat());
        }
    }
    if !findings.notes.is_empty() {
        let notes: Vec<String> = findings.notes.iter().map(|n| format!("- {}\n", line(n))).collect();
        out += &format!("\n**Notes**\n\n{}", notes.concat());
    }
    out
}

fn row(f: &Finding) -> String {
    let value = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{} {}", short(v), f.unit));
    let moved = |v: Option<f64>| v.map(|v| amount(v, f.relative, &f.unit));
    let interval = moved(f.low).zip(moved(f.high)).map(|(l, h)| format!("{l} to {h}")).unwrap_or_default();
    let tolerance = if f.relative {
        format!("{:.1} %", 100.0 * f.tolerance)
    } else {
        format!("{} {}", short(f.tolerance), f.unit)
    };
    let cells = [
        f.id.clone(),
        value(f.baseline),
        value(f.candidate),
        moved(f.change).unwrap_or_default(),
        interval,
        tolerance,
        mark(f.verdict),
    ];
    format!("| {} |\n", cells.map(|c| line(&c).replace('|', "\\|")).join(" | "))
}

fn mark(change: Change) -> String {
    let sign = match change {
        Change::Pass => "✓",
        Change::Regressed => "✗",
        Change::Improved => "▲",
        Change::Inconclusive => "?",
    };
    format!("{sign} {}", change.name())
}

fn headline(change: Change) -> &'static str {
    match change {
        Change::Pass => "✓ no regression",
        Change::Regressed => "✗ regressed",
        Change::Improved => "▲ improved",
        Change::Inconclusive => "? nothing regressed, and something could not be decided",
    }
}

fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
