//! What `compare` prints at the end: the table of arms and the verdicts, aligned for a terminal.

use super::content::{self, Cell};
use super::figures::Figures;
use super::input::Input;
use super::view::View;

/// The arms with their scores (mean ± standard error over seeds), the ledger, the verdict sentences, and in short
/// how each arm stands against the starting checkpoint.
pub fn terminal_summary(input: &Input) -> String {
    let view = View::new(input);
    let figures = Figures::of(&view, &[]);
    let mut out = String::new();
    for suite in view.suites() {
        let table = content::metric_table(&view, &figures, &suite);
        let note = content::base_note(&view, &suite).map(|n| format!("  {n}\n")).unwrap_or_default();
        out.push_str(&format!("{suite}\n{}{note}\n", aligned(&table)));
    }
    out.push_str(&format!("cost\n{}", aligned(&content::ledger_table(&figures))));
    out.push_str(&format!("  {}\n\n", content::ledger_words(&figures)));
    if let Some(banner) = content::banner(&figures) {
        out.push_str(&format!("{banner}\n\n"));
    }
    for warning in content::lost_arms(&figures) {
        out.push_str(&format!("{warning}\n\n"));
    }
    for claim in super::sweep::found(input) {
        out.push_str(&format!("▸ {}\n", claim.words));
    }
    out.push_str("verdicts\n");
    let rows = content::headlines(&view, &figures);
    let wide = rows.iter().map(|r| content::beside_words(r).len()).max().unwrap_or(0);
    for row in rows {
        out.push_str(&format!("  {:wide$}  {}\n", content::beside_words(row), row.words));
    }
    let base = content::base_lines(&view, &figures);
    if !base.is_empty() {
        out.push_str("\nagainst the starting checkpoint\n");
    }
    for line in base {
        out.push_str(&format!("  {line}\n"));
    }
    out
}

/// First column left-aligned, the others right-aligned, two spaces between.
fn aligned(rows: &[Vec<Cell>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.text.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cell = |(i, Cell { text, .. }): (usize, &Cell)| {
            let pad = " ".repeat(widths[i] - text.chars().count());
            if i == 0 { format!("{text}{pad}") } else { format!("{pad}{text}") }
        };
        let line = row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
        out.push_str(&format!("  {}\n", line.trim_end()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::aligned;
    use crate::report::content::Cell;

    #[test]
    fn columns_line_up() {
        let rows = [["arm", "win"], ["kto", "61.2 %"], ["base", "50 %"]];
        let rows: Vec<Vec<Cell>> = rows.iter().map(|r| r.iter().map(|c| Cell::text(*c)).collect()).collect();
        assert_eq!(aligned(&rows), "  arm      win\n  kto   61.2 %\n  base    50 %\n");
    }
}
