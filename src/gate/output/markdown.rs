//! Markdown, for `$GITHUB_STEP_SUMMARY`, merge requests and people.

use crate::gate::finding::{Finding, Findings, amount, short};
use crate::stats::gate::Change;

/// Headline, table of metrics, sentences for what did not pass, notes.
pub fn markdown(findings: &Findings) -> String {
    let count = |c: Change| findings.of(c).count();
    let mut out = format!(
        "## kto-eval gate: {}\n\nPlan `{}`: {} regressed, {} improved, {} inconclusive, {} passed. Chance of a false \
         alarm in this gate: at most {} %, shared by {} tests.{}\n\n",
        headline(findings.verdict),
        findings.plan,
        count(Change::Regressed),
        count(Change::Improved),
        count(Change::Inconclusive),
        count(Change::Pass),
        short(100.0 * findings.alarm),
        findings.tests,
        machine(findings),
    );
    out += &table(findings);
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
    if findings.of(Change::Regressed).next().is_some() {
        out += "\n**What now?** Undo or mend the change; or, where it is meant, raise that metric's tolerance in \
                `gate.toml`, or save a new baseline (`kto-eval baseline save`).\n";
    }
    out
}

/// Cells are padded, so that the file reads as a table in a terminal too.
fn table(findings: &Findings) -> String {
    let head = ["metric", "baseline", "candidate", "change", "interval", "tolerance", "verdict"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(findings.findings.iter().map(cells));
    let wide = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(wide);
    let text = |column: usize| column == 0 || column == 6;
    let padded = |row: &[String; 7]| {
        let cell = |(i, c): (usize, &String)| {
            let space = " ".repeat(widths[i] - c.chars().count());
            if text(i) { format!("{c}{space}") } else { format!("{space}{c}") }
        };
        format!("| {} |\n", row.iter().enumerate().map(cell).collect::<Vec<_>>().join(" | "))
    };
    let rule = |i: usize| if text(i) { "-".repeat(widths[i]) } else { "-".repeat(widths[i] - 1) + ":" };
    let rules = (0..7).map(rule).collect::<Vec<_>>().join(" | ");
    let body: String = rows[1..].iter().map(padded).collect();
    format!("{}| {rules} |\n{body}", padded(&rows[0]))
}

fn cells(f: &Finding) -> [String; 7] {
    let value = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{} {}", short(v), f.unit));
    let moved = |v: Option<f64>| v.map(|v| amount(v, f.relative, &f.unit));
    let interval = moved(f.low).zip(moved(f.high)).map(|(l, h)| format!("{l} to {h}")).unwrap_or_default();
    let tolerance = if f.relative {
        format!("{:.1} %", 100.0 * f.tolerance)
    } else {
        format!("{} {}", short(f.tolerance), f.unit)
    };
    [
        f.id.clone(),
        value(f.baseline),
        value(f.candidate),
        moved(f.change).unwrap_or_default(),
        interval,
        tolerance,
        mark(f.verdict),
    ]
    .map(|c| line(&c).replace('|', "\\|"))
}

/// Where it was measured, where both sides were there.
fn machine(findings: &Findings) -> String {
    let (b, c) = (&findings.baseline, &findings.candidate);
    let alike = (&b.cpu, &b.device, b.threads) == (&c.cpu, &c.device, c.threads);
    match alike && !b.cpu.is_empty() {
        true => format!(" Both sides: {}, {}, {} threads.", b.device, b.cpu, b.threads),
        false => String::new(),
    }
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
